import re

import keras
import numpy as np
import pytest

import snip_tf

layers = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def images():
    stack = [
        keras.Input((8, 8, 4)),
        layers.Conv2D(8, 3, activation="relu"),
        layers.Conv2D(12, 3),
        layers.Flatten(),
        layers.Dense(16, activation="relu"),
        layers.Dense(4),
    ]
    return keras.Sequential(stack)


def attention():
    inputs = keras.Input((5, 8))
    x = layers.MultiHeadAttention(2, 4)(inputs, inputs)
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))


def prune(model, **options):
    x = np.random.default_rng(0).normal(size=(16, *model.input_shape[1:]))
    y = np.arange(16) % 4
    return snip_tf.prune_model(model, x.astype(np.float32), y, loss=LOSS, **options)


@pytest.mark.parametrize("make", [images, attention])
@pytest.mark.parametrize("criterion", ["snip", "magnitude", "force"])
def test_two_of_each_four_inputs(make, criterion):
    keras.utils.set_random_seed(0)
    model = make()
    pruned = prune(model, sparsity=0.5, structure="2:4", criterion=criterion)
    for path, mask in snip_tf.get_masks(pruned).items():
        # The sums over all inputs of an output are rows of the matrix a GPU sees.
        axis = {"query": 0, "key": 0, "value": 0}.get(
            path.split("/")[-2], mask.ndim - 2
        )
        groups = np.moveaxis(mask, axis, -1).reshape(-1, 4)
        np.testing.assert_array_equal(groups.sum(axis=1), 2, err_msg=path)
        if criterion == "magnitude":
            weight = np.abs(snip_tf.prunable_weights(model)[path].numpy())
            rows = np.moveaxis(weight, axis, -1).reshape(-1, 4)
            np.testing.assert_array_equal(groups, rows >= np.sort(rows)[:, 2:3])


# (layer, its input, the axis of its kernel's inputs, that of its outputs)
OTHER_AXES = [
    (lambda: layers.Conv1DTranspose(6, 3), (5, 8), 2, 1),
    (lambda: layers.Conv2DTranspose(6, 3), (5, 5, 8), 3, 2),
    (lambda: layers.EinsumDense("ab,cb->ac", output_shape=(6,)), (8,), 1, 0),
    (lambda: layers.EinsumDense("ab,bc->ac", output_shape=(6,)), (8,), 0, 1),
]


@pytest.mark.parametrize(("layer", "shape", "inputs", "outputs"), OTHER_AXES)
def test_layers_whose_kernels_lie_otherwise(layer, shape, inputs, outputs):
    model = keras.Sequential([keras.Input(shape), layer()])
    options = {"sparsity": 0.5, "criterion": "magnitude"}
    pruned = snip_tf.prune_model(model, structure="2:4", **options)
    [mask] = snip_tf.get_masks(pruned).values()
    sides = np.moveaxis(mask, (inputs, outputs), (-1, -2))
    assert sides.shape[-2:] == (6, 8)
    np.testing.assert_array_equal(sides.reshape(-1, 4).sum(axis=1), 2)
    pruned = snip_tf.prune_model(model, structure="4x3", **options)
    [mask] = snip_tf.get_masks(pruned).values()
    sides = np.moveaxis(mask, (inputs, outputs), (-1, -2)).reshape(-1, 2, 3, 2, 4)
    assert set(sides.sum(axis=(2, 4)).ravel()) == {0, 12}
    assert snip_tf.sparsity(pruned) == 0.5


def test_one_of_four_is_the_best_of_each():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(3)])
    model.layers[0].kernel.assign(np.random.default_rng(0).normal(size=(8, 3)))
    pruned = snip_tf.prune_model(
        model, sparsity=0.75, structure="1:4", criterion="magnitude"
    )
    [mask] = snip_tf.get_masks(pruned).values()
    kernel = np.abs(model.layers[0].kernel.numpy())
    for half in (slice(0, 4), slice(4, 8)):
        expected = kernel[half] == kernel[half].max(axis=0)
        np.testing.assert_array_equal(mask[half], expected)


@pytest.mark.parametrize("pattern", ["4x2", "1x4", "2x1"])
@pytest.mark.parametrize("criterion", ["snip", "iterative_snip", "grasp"])
def test_blocks_are_whole_and_counted_exactly(pattern, criterion):
    keras.utils.set_random_seed(0)
    pruned = prune(images(), sparsity=0.9, structure=pattern, criterion=criterion)
    rows, columns = map(int, pattern.split("x"))
    kept = total = 0
    for path, mask in snip_tf.get_masks(pruned).items():
        *_, inputs, outputs = mask.shape
        shape = (-1, inputs // rows, rows, outputs // columns, columns)
        sums = mask.reshape(shape).sum(axis=(2, 4))
        assert set(np.unique(sums)) <= {0, rows * columns}, path
        kept += (sums > 0).sum()
        total += sums.size
    assert kept == round(0.1 * total)


def test_the_best_blocks_are_kept():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4)])
    kernel = np.zeros((4, 4), np.float32)
    kernel[:2, 2:] = [[3, 0], [0, 0]]  # 3 in one block
    kernel[2:, :2] = [[1, 1], [1, 1]]  # 4 in another
    kernel[2:, 2:] = 0.5
    model.layers[0].kernel.assign(kernel)
    pruned = snip_tf.prune_model(
        model, sparsity=0.5, structure="2x2", criterion="magnitude"
    )
    [mask] = snip_tf.get_masks(pruned).values()
    expected = np.kron([[0, 1], [1, 0]], np.ones((2, 2))).astype(bool)
    np.testing.assert_array_equal(mask, expected)


def test_a_pattern_on_what_is_pruned_already():
    first = snip_tf.prune_model(images(), sparsity=0.6, criterion="random")
    before = snip_tf.get_masks(first)
    for pattern, sparsity in (("2:4", 0.5), ("2x2", 0.7)):
        masks = snip_tf.get_masks(prune(first, sparsity=sparsity, structure=pattern))
        for path, mask in masks.items():
            assert not (mask & ~before[path]).any()
            assert mask.any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"structure": "3:5", "sparsity": 0.4}, r"conv2d.*exclude=\["),
        ({"structure": "4x4", "scope": "unit"}, "across several outputs"),
        (
            {"structure": "2:4", "sparsity": 0.5, "scope": "unit"},
            r"scope='global' with structure='2:4', which fixes what.*scope='unit'",
        ),
        ({"structure": "2:4", "sparsity": {"*": 0.6}}, r"sparsity=0\.5 with"),
        ({"structure": "3x3"}, "divides"),
        ({"structure": "4:2"}, "'N:M' with N below M"),
        ({"structure": "0:4"}, "'N:M' with N below M"),
        ({"structure": "diagonal"}, "'4x4'"),
        ({"structure": "2:4", "sparsity": 0.9}, "sparsity=0.5 with structure='2:4'"),
        ({"structure": "2:4", "sparsity": 0.5, "scope": "layer"}, "scope='global'"),
        ({"structure": "2:4", "sparsity": 0.5, "min_kept": 9}, "min_kept"),
    ],
)
def test_refuses_patterns_that_do_not_fit(options, words):
    with pytest.raises(ValueError, match=words):
        prune(images(), **{"sparsity": 0.9, **options})


def test_names_what_a_pattern_does_not_divide_and_prunes_the_rest_if_asked():
    convolution = layers.Conv2D(4, 3, name="conv2d[0]")
    stack = [keras.Input((8, 8, 3)), layers.DepthwiseConv2D(3), convolution]
    model = keras.Sequential([*stack, layers.Flatten(), layers.Dense(4, name="d")])
    with pytest.raises(
        ValueError, match=r"depthwise_conv2d.*conv2d\[0\].*To prune"
    ) as caught:
        prune(model, sparsity=0.5, structure="2:4")
    exclude = re.findall(r"'(\S+/\S+)'", str(caught.value))
    pruned = prune(model, sparsity=0.5, structure="2:4", exclude=exclude)
    assert list(snip_tf.get_masks(pruned)) == ["d/kernel"]


@pytest.mark.parametrize("sparsity", [2 / 3, 0.6667, 0.667])
def test_thirds_in_a_few_decimals(sparsity):
    model = keras.Sequential([keras.Input((9,)), layers.Dense(4)])
    options = {"sparsity": sparsity, "structure": "1:3", "criterion": "magnitude"}
    [mask] = snip_tf.get_masks(snip_tf.prune_model(model, **options)).values()
    assert (mask.reshape(3, 3, 4).sum(axis=1) == 1).all()


def test_n_of_m_of_some_weights():
    pruned = prune(images(), sparsity={"dense*": 0.5}, structure="2:4", min_kept=1)
    for path, mask in snip_tf.get_masks(pruned).items():
        kept = mask.reshape(-1, 4, mask.shape[-1]).sum(axis=1)
        assert (kept == (2 if path.startswith("dense") else 4)).all()


@pytest.mark.parametrize(
    ("text", "value"),
    [("2:4", snip_tf.NOfM(2, 4)), ("4x2", snip_tf.Blocks(4, 2))],
)
def test_values_are_what_is_written(text, value):
    scores = {"a": np.random.default_rng(0).random((8, 6))}
    one, other = (
        snip_tf.select_masks(scores, 0.5, structure=each) for each in (text, value)
    )
    np.testing.assert_array_equal(one["a"], other["a"])
    assert str(value) == text


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: snip_tf.NOfM(4, 2), ValueError, "`n` to be below `m`"),
        (lambda: snip_tf.NOfM(0, 2), ValueError, "`n` to be a whole number, 1 or more"),
        (lambda: snip_tf.NOfM(1, 2.0), TypeError, "m=2.0 of type float"),
        (lambda: snip_tf.Blocks(1, 1), ValueError, "more than one connection"),
        (lambda: snip_tf.Blocks(True, 4), TypeError, "inputs=True"),
        (lambda: snip_tf.Units(cost="flops"), ValueError, "'multiply_adds'"),
        (lambda: snip_tf.Units(block=0), ValueError, "`block` to be a whole number"),
    ],
)
def test_settings_are_checked(make, kind, words):
    with pytest.raises(kind, match=words):
        make()


def test_units_need_a_model():
    for structure in ("units", snip_tf.Units(cost="parameters")):
        with pytest.raises(
            ValueError, match=r"which\s+units a network has.*prune_model"
        ):
            snip_tf.select_masks({"a": np.eye(3)}, 0.5, structure=structure)

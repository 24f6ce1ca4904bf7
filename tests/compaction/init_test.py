import contextlib

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest

import snip_tf
from tests.random_networks import (
    IMAGE_PARTS,
    OwnModel,
    and_back,
    assert_same_outputs,
    compacted,
    flat,
    network,
    prune_at_random,
    recurrent,
)

layers = keras.layers


@contextlib.contextmanager
def in_float64():
    for change in (keras.config.set_floatx, keras.config.set_dtype_policy):
        change("float64")
    try:
        yield
    finally:
        for change in (keras.config.set_floatx, keras.config.set_dtype_policy):
            change("float32")


@hypothesis.given(
    st.lists(st.sampled_from(IMAGE_PARTS), min_size=1, max_size=5),
    st.sampled_from([flat, recurrent, and_back]),
    st.booleans(),
    st.booleans(),
    st.floats(0.5, 0.999),
    st.integers(0, 2**32),
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_outputs_are_the_same_and_no_more_parameters(
    parts, head, residual_head, two_outputs, sparsity, seed
):
    rng = np.random.default_rng(seed)
    # In float32, sums that are large but cancel may differ by more, in any order.
    with in_float64():
        model = network(parts, head, residual_head, two_outputs, rng)
        pruned = prune_at_random(model, sparsity, rng)
        smaller = compacted(pruned)
        x = rng.normal(size=(3, 6, 6, 3))
        assert_same_outputs(smaller, pruned, x, 1e-9)
    assert smaller.count_params() <= model.count_params()
    assert compacted(smaller).count_params() == smaller.count_params()


def one_unit_without_inputs(**convolution):
    """A model whose first convolution has a filter that only its bias moves."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(3, 1, name="first", bias_initializer="ones")(inputs)
    x = layers.Conv2D(4, 3, name="second", **convolution)(layers.ReLU()(x))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    mask = np.ones((1, 1, 2, 3), bool)
    mask[..., 1] = False
    return snip_tf.apply_masks(model, {"first/kernel": mask})


@pytest.mark.parametrize("use_bias", [True, False])
def test_a_constant_unit_is_folded_into_the_next_bias(use_bias):
    model = one_unit_without_inputs(use_bias=use_bias)
    smaller = snip_tf.compact(model)
    assert smaller.get_layer("first").filters == 2
    assert_same_outputs(smaller, model, np.random.rand(2, 6, 6, 2))


def test_a_constant_unit_stays_before_a_padded_convolution():
    model = one_unit_without_inputs(padding="same")
    smaller = compacted(model)
    assert smaller.get_layer("first").filters == 3
    assert_same_outputs(smaller, model, np.random.rand(2, 6, 6, 2))


def test_a_branch_that_only_adds_zeros_goes():
    inputs = keras.Input((4,))
    x = layers.Dense(5, name="stem")(inputs)
    branch = layers.Dense(5, name="out")(layers.Dense(7, name="in")(x))
    model = keras.Model(inputs, layers.Dense(2)(layers.Add()([x, branch])))
    pruned = snip_tf.apply_masks(model, {"out/kernel": np.zeros((7, 5), bool)})
    smaller = snip_tf.compact(pruned)
    assert [layer.name for layer in smaller.layers][1:2] == ["stem"]
    assert not {"in", "out"} & {layer.name for layer in smaller.layers}
    assert_same_outputs(smaller, pruned, np.random.rand(3, 4))


def test_a_layer_that_is_used_twice_stays_as_it_is():
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    model = keras.Model(inputs, layers.Dense(2)(shared(shared(inputs))))
    mask = np.eye(4, dtype=bool)
    mask[2] = False
    pruned = snip_tf.apply_masks(model, {"shared/kernel": mask})
    smaller = compacted(pruned)
    assert smaller.get_layer("shared").units == 4
    assert_same_outputs(smaller, pruned, np.random.rand(3, 4))


@keras.saving.register_keras_serializable("compaction_test")
class OwnDense(layers.Dense):
    """May compute anything."""


def test_a_layer_of_an_own_class_keeps_its_neighbours():
    stack = [layers.Dense(5, name="a"), OwnDense(5, name="own"), layers.Dense(5)]
    model = keras.Sequential([keras.Input((4,)), *stack, layers.Dense(2, name="b")])
    cut = np.zeros((5, 5), bool)
    pruned = snip_tf.apply_masks(model, {"own/kernel": cut})
    smaller = compacted(pruned)
    assert smaller.get_layer("a").units == smaller.get_layer("own").units == 5
    assert type(smaller.get_layer("own")) is OwnDense


def test_models_inside_are_laid_open_and_names_stay_apart():
    def inside(name):
        stack = [layers.Dense(6, "relu", name="dense"), layers.Dense(6, name="last")]
        return keras.Sequential([keras.Input((6,)), *stack], name=name)

    inputs = keras.Input((6,))
    x = inside("second")(inside("first")(inputs), training=False)
    model = keras.Model(inputs, layers.Dense(2)(x))
    rng = np.random.default_rng(0)
    pruned = prune_at_random(model, 0.8, rng)
    smaller = snip_tf.compact(pruned)
    names = [layer.name for layer in smaller.layers if layer.weights]
    assert names[:4] == ["dense", "last", "second_dense", "second_last"]
    assert_same_outputs(smaller, pruned, rng.random((3, 6)))


def test_a_model_inside_that_is_called_by_name():
    a, b = keras.Input((3,), name="b"), keras.Input((3,), name="a")
    inner = keras.Model([a, b], layers.Dense(2)(a) + 3 * layers.Dense(2)(b))
    x, y = keras.Input((3,)), keras.Input((3,))
    model = keras.Model([x, y], inner({"a": y, "b": x}))
    rng = np.random.default_rng(0)
    pruned = prune_at_random(model, 0.3, rng)
    given = [rng.random((4, 3)), rng.random((4, 3))]
    assert_same_outputs(compacted(pruned), pruned, given)


def test_a_model_inside_that_is_given_more_than_it_takes():
    inputs = {name: keras.Input((3,), name=name) for name in "ba"}
    inner = keras.Model(inputs, layers.Dense(2)(inputs["a"]) + inputs["b"][:, :2])
    given = [keras.Input((3,)) for _ in range(3)]
    model = keras.Model(given, inner(dict(zip("abc", given, strict=True))))
    rng = np.random.default_rng(0)
    pruned = prune_at_random(model, 0.3, rng)
    x = [rng.random((4, 3)) for _ in range(3)]
    assert_same_outputs(compacted(pruned), pruned, x)


def test_a_model_inside_casts_what_it_is_given():
    stack = [layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()]
    base = keras.Sequential([keras.Input((8, 8, 3)), *stack])
    images = keras.Input((8, 8, 3), dtype="uint8")
    model = keras.Model(images, layers.Dense(3)(base(images)))
    rng = np.random.default_rng(0)
    pruned = prune_at_random(model, 0.95, rng)
    smaller = snip_tf.compact(pruned)
    assert smaller.count_params() < model.count_params()
    x = rng.integers(256, size=(2, 8, 8, 3)).astype("uint8")
    assert_same_outputs(smaller, pruned, x)


def test_names_that_are_taken(tmp_path):
    inner = keras.Sequential([keras.Input((40,)), layers.Dense(30, name="image")])
    image = keras.Input((40,), name="image")
    x = layers.Dense(20, name="take")(inner(image))
    branches = [layers.Dense(20)(x), layers.Dense(20)(x)]
    model = keras.Model(image, layers.Dense(2)(layers.Concatenate()(branches)))
    rng = np.random.default_rng(0)
    pruned = prune_at_random(model, 0.95, rng)
    smaller = snip_tf.compact(pruned)
    assert smaller.get_layer("take").units < 20
    assert_same_outputs(smaller, pruned, rng.random((3, 40)))
    smaller.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    again = keras.Model(image, layers.Dense(2)(loaded(image)))
    again = prune_at_random(again, 0.9, rng)
    assert_same_outputs(compacted(again), again, rng.random((3, 40)))


@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("constants", [1, 2])
def test_a_new_bias_is_not_larger_than_what_it_saves(reset_after, constants):
    recurrent = layers.GRU(8, use_bias=False, reset_after=reset_after)
    stack = [layers.Dense(4, name="in", bias_initializer="ones"), recurrent]
    model = keras.Sequential([keras.Input((5, 1)), *stack])
    mask = np.ones((1, 4), bool)
    mask[:, :constants] = False
    pruned = snip_tf.apply_masks(model, {"in/kernel": mask})
    smaller = compacted(pruned)
    assert smaller.count_params() <= model.count_params()
    folded = constants if constants > 1 or not reset_after else 0
    assert smaller.get_layer("in").units == 4 - folded
    assert_same_outputs(smaller, pruned, np.random.rand(3, 5, 1))


def test_a_mask_of_timesteps_is_heeded():
    stack = [layers.Embedding(9, 6, mask_zero=True), layers.LSTM(8), layers.Dense(2)]
    model = keras.Sequential([keras.Input((5,), dtype="int32"), *stack])
    rng = np.random.default_rng(0)
    pruned = prune_at_random(model, 0.9, rng)
    smaller = snip_tf.compact(pruned)
    assert smaller.count_params() < model.count_params()
    assert_same_outputs(smaller, pruned, rng.integers(0, 9, (20, 5)))


def test_life_goes_on_afterwards(tmp_path):
    stack = [layers.Dense(20, "relu"), layers.Dropout(0.1), layers.Dense(3)]
    model = keras.Sequential([keras.Input((7, 2)), layers.Flatten(), *stack])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    pruned = prune_at_random(model, 0.9, rng)
    smaller = snip_tf.compact(pruned)
    x, y = rng.random((16, 7, 2)), rng.integers(3, size=16)
    expected = smaller.predict(x, verbose=0)
    smaller.save(tmp_path / "smaller.keras")
    loaded = keras.models.load_model(tmp_path / "smaller.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), expected)
    smaller.fit(x, y, verbose=0)  # compiled as the model was
    assert snip_tf.strip_pruning(pruned).count_params() == model.count_params()


def test_small_weights_count_as_zeros_if_asked():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Dense(1)])
    model.layers[1].kernel.assign([[1.0], [1e-3], [-1e-3], [2.0]])
    assert snip_tf.compact(model, tolerance=1e-3).layers[1].units == 2
    for tolerance in (-1, float("nan")):
        with pytest.raises(ValueError, match="0 or more"):
            snip_tf.compact(model, tolerance=tolerance)
    with pytest.raises(TypeError, match="tolerance='0'"):
        snip_tf.compact(model, tolerance="0")


def test_says_that_nothing_can_be_removed_from_a_dense_model():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4)])
    with pytest.warns(UserWarning, match="Nothing could be removed"):
        snip_tf.compact(model)
    norm = layers.LayerNormalization(name="norm")
    stack = [layers.Dense(4, kernel_initializer="zeros"), norm, layers.Dense(2)]
    model = keras.Sequential([keras.Input((1,)), *stack])
    with pytest.warns(UserWarning, match=r"with its neighbours: norm \(LayerN"):
        snip_tf.compact(model)


def test_refuses_a_model_that_runs_its_layers_itself():
    model = OwnModel()
    model(np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"keras\.Model\(inputs, model\.call"):
        snip_tf.compact(model)
    with pytest.raises(TypeError, match="Keras 3 model"):
        snip_tf.compact(3)

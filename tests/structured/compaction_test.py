import contextlib
import warnings

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest

import snip_tf
from tests.random_networks import (
    IMAGE_PARTS,
    OwnModel,
    Words,
    and_back,
    assert_same_outputs,
    attention_over_padding,
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
# The same networks each time: of very few others (one in some thousands) a second pass
# removes more, where a branch is found to be zero only after its features are gone.
@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
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


def test_an_input_that_nothing_reads_any_longer():
    inputs = [keras.Input((4,)), keras.Input((4,))]
    parts = [
        layers.Dense(5, use_bias=False, name=n)(x)
        for n, x in zip("ab", inputs, strict=True)
    ]
    model = keras.Model(inputs, layers.Dense(2)(layers.Add()(parts)))
    pruned = snip_tf.apply_masks(model, {"b/kernel": np.zeros((4, 5), bool)})
    smaller = snip_tf.compact(pruned)
    assert smaller.count_params() < model.count_params()
    assert_same_outputs(smaller, pruned, [np.random.rand(3, 4) for _ in inputs])


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


@pytest.mark.parametrize(
    "layer",
    [
        layers.SimpleRNN(8, "softmax"),
        layers.LSTM(8, "softmax"),
        layers.LSTM(8, recurrent_activation="softmax"),
        layers.GRU(8, recurrent_activation="softmax", reset_after=False),
        layers.Bidirectional(layers.GRU(8, "softmax")),
    ],
)
def test_units_stay_where_an_activation_takes_all_together(layer):
    stack = [layers.Dense(9, "relu", name="in"), layer, layers.Dense(2, name="out")]
    model = keras.Sequential([keras.Input((5, 4)), *stack])
    rng = np.random.default_rng(0)
    masks = {}
    for path, weight in snip_tf.prunable_weights(model).items():
        kept = np.ones(weight.shape, bool)
        if path.startswith("in/"):
            kept[:, 3:] = False
        elif not path.endswith("/kernel") or path.startswith("out/"):
            kept[5:8] = False  # what reads these units
        masks[path] = kept
    pruned = snip_tf.apply_masks(model, masks)
    smaller = snip_tf.compact(pruned)
    assert smaller.get_layer("in").units == 3
    x = rng.normal(size=(3, 5, 4)).astype(np.float32)
    assert_same_outputs(smaller, pruned, x)


def test_outputs_keep_the_names_by_which_losses_are_given():
    inputs = keras.Input((6,), name="x")
    head = keras.Sequential([keras.Input((6,)), layers.Dense(2)], name="head")
    parts = [layers.Dense(40, "relu")(inputs), layers.Dense(40, "relu")(inputs)]
    nothing = layers.Dense(3, name="nothing", kernel_initializer="zeros")(parts[1])
    total = layers.Add(name="sum")([layers.Dense(3)(parts[0]), nothing])
    model = keras.Model(inputs, [head(inputs), total])
    losses = {"head": "mse", "sum": "mae"}
    model.compile("adam", losses, metrics={"sum": ["mse"]})
    rng = np.random.default_rng(0)
    masks = {"nothing/kernel": np.zeros((40, 3), bool)}
    pruned = snip_tf.apply_masks(model, masks)
    smaller = snip_tf.compact(pruned)
    assert smaller.count_params() < model.count_params()
    x, y = rng.random((8, 6)), {"head": np.zeros((8, 2)), "sum": np.zeros((8, 3))}
    expected = pruned.evaluate(x, y, return_dict=True, verbose=0)
    found = smaller.evaluate(x, y, return_dict=True, verbose=0)
    assert found == pytest.approx(expected)
    assert smaller.output_names == ["head", "sum"]


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


class OwnTraining(keras.Model):
    def train_step(self, data):
        return super().train_step(data)

    def compute_loss(self, **kwargs):
        return 2 * super().compute_loss(**kwargs)


class OwnConstructor(keras.Model):
    def __init__(self, width):
        inputs = keras.Input((6,))
        super().__init__(inputs, hidden_and_out(width)(inputs), name="own")
        self.width = width


class OwnSequential(keras.Sequential):
    def test_step(self, data):
        return super().test_step(data)


class OwnCompile(keras.Model):
    def compile(self, optimizer, own_loss):
        super().compile(optimizer=optimizer)
        self.own_loss = own_loss

    def train_step(self, data):
        return {}


def hidden_and_out(width):
    return keras.Sequential([layers.Dense(width, "relu"), layers.Dense(2)])


def functional(cls):
    inputs = keras.Input((6,))
    return cls(inputs, hidden_and_out(40)(inputs))


def around(model):
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(2)(model(inputs)))


OWN_CLASSES = {
    "OwnTraining": (lambda: functional(OwnTraining), "train_step, compute_loss of"),
    "OwnConstructor": (lambda: OwnConstructor(40), ""),
    "OwnSequential": (lambda: OwnSequential(hidden_and_out(40).layers), "test_step of"),
    "inside": (lambda: around(functional(OwnTraining)), ""),
}


@pytest.mark.parametrize("kind", OWN_CLASSES)
def test_a_class_may_add_what_it_likes_to_the_call_of_keras(kind):
    make, lost = OWN_CLASSES[kind]
    model, rng = make(), np.random.default_rng(0)
    x = rng.normal(size=(4, 6)).astype(np.float32)
    model(x)
    model.compile("adam", "mse")
    pruned = prune_at_random(model, 0.9, rng)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy
        smaller = snip_tf.compact(pruned)
    said = [str(warning.message) for warning in caught]
    assert len(said) == bool(lost) and all(lost in words for words in said)
    assert smaller.count_params() < model.count_params() / 2
    assert_same_outputs(smaller, pruned, x)
    smaller.fit(x, np.zeros((4, 2)), verbose=0)
    if kind == "OwnTraining":  # as the warning says
        OwnTraining(smaller.inputs, smaller.outputs)


def test_a_compile_of_the_class():
    model = functional(OwnCompile)
    model.compile("sgd", own_loss=lambda a, b: 0.0)
    pruned = prune_at_random(model, 0.9, np.random.default_rng(0))
    with pytest.warns(UserWarning, match="train_step, compile of OwnCompile"):
        smaller = snip_tf.compact(pruned)
    assert type(smaller.optimizer) is keras.optimizers.SGD


class OwnCall(keras.Model):
    def call(self, x, training=None):
        return 2 * super().call(x)


def test_a_call_of_its_own_is_not_looked_into():
    pruned = prune_at_random(functional(OwnCall), 0.9, np.random.default_rng(0))
    with pytest.raises(ValueError, match="OwnCall, which runs its layers in code"):
        snip_tf.compact(pruned)
    inside = prune_at_random(around(functional(OwnCall)), 0.9, np.random.default_rng(0))
    smaller = compacted(inside)
    assert_same_outputs(smaller, inside, np.random.rand(3, 6))
    model = functional(keras.Model)
    model.call = lambda x, training=None: x[:, :2]
    with pytest.raises(ValueError, match="which runs its layers in code"):
        snip_tf.compact(model)


# What has no configuration, since it has none of Keras' or of its own.
class Ridge(keras.regularizers.Regularizer):
    def __init__(self, weight):
        self.weight = weight

    def __call__(self, x):
        return self.weight * keras.ops.sum(x**2)


class Scaled(keras.initializers.Initializer):
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, shape, dtype=None):
        return keras.random.normal(shape, stddev=self.scale, dtype=dtype, seed=0)


class Clip(keras.constraints.Constraint):
    def __init__(self, limit):
        self.limit = limit

    def __call__(self, w):
        return keras.ops.clip(w, -self.limit, self.limit)


def squared(x):
    return x**2


class Gate:
    """An activation that cannot be a key."""

    __hash__ = None

    def __call__(self, x):
        return keras.ops.sigmoid(x)


class Function(layers.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


def own(*weights):
    """Settings of a layer with these weights."""
    settings = {"activity_regularizer": Ridge(1e-3)}
    for weight in weights:
        settings[f"{weight}_regularizer"] = Ridge(1e-2)
        settings[f"{weight}_initializer"] = Scaled(0.5)
        settings[f"{weight}_constraint"] = Clip(3.0)
    return settings


KERNEL, LOOP = ("kernel", "bias"), ("kernel", "recurrent", "bias")
OWN_PARTS = {
    "dense": (
        (6,),
        lambda: [
            layers.Dense(40, squared, **own(*KERNEL)),
            layers.Dense(30, lambda x: keras.ops.tanh(x), **own(*KERNEL)),
            layers.Dense(30, Gate()),
        ],
    ),
    "convolutions": (
        (8, 8, 3),
        lambda: [
            layers.Conv2D(20, 3, **own(*KERNEL)),
            layers.BatchNormalization(
                **{k: v for k, v in own("beta", "gamma").items() if "activity" not in k}
            ),
            layers.ReLU(activity_regularizer=Ridge(1e-3)),
            layers.DepthwiseConv2D(3, **own("depthwise", "bias")),
            layers.SeparableConv2D(12, 3, **own("depthwise", "pointwise", "bias")),
            layers.Conv2DTranspose(9, 2, **own(*KERNEL)),
            layers.Flatten(),
        ],
    ),
    "recurrent": (
        (5, 6),
        lambda: [
            layers.Dense(30, "relu"),
            layers.LSTM(20, squared, return_sequences=True, **own(*LOOP)),
            layers.GRU(20, recurrent_activation=Gate(), **own(*LOOP)),
        ],
    ),
    "a layer beside": (
        (6,),
        lambda: [layers.Dense(40), Function(squared), layers.Dense(30)],
    ),
    "a reshape": (
        (6,),
        lambda: [
            layers.Dense(24),
            layers.Reshape((4, 6), activity_regularizer=Ridge(1e-3)),
            layers.Conv1D(5, 2),
            layers.Flatten(),
        ],
    ),
}


@pytest.mark.parametrize("kind", OWN_PARTS)
def test_what_has_no_configuration_is_handed_over(kind):
    shape, make = OWN_PARTS[kind]
    model = keras.Sequential([keras.Input(shape), *make(), layers.Dense(2)])
    rng = np.random.default_rng(0)
    pruned = prune_at_random(model, 0.9, rng)
    smaller = snip_tf.compact(pruned)
    assert smaller.count_params() < model.count_params()
    x = rng.normal(size=(3, *shape)).astype(np.float32)
    assert_same_outputs(smaller, pruned, x)
    assert len(smaller.losses) == len(pruned.losses)
    ends = ("activation", "regularizer", "initializer", "constraint")
    for layer in model.layers:
        old, new = layer, smaller.get_layer(layer.name)
        if hasattr(layer, "cell"):
            old, new = layer.cell, new.cell
        names = [name for name in vars(old) if name.endswith(ends)]
        assert all(getattr(new, name) is getattr(old, name) for name in names)


def test_an_embedding_of_own_parts():
    table = layers.Embedding(20, 30, **own("embeddings"))
    stack = [keras.Input((5,), dtype="int32"), table, layers.Flatten(), layers.Dense(2)]
    pruned = prune_at_random(keras.Sequential(stack), 0.9, np.random.default_rng(0))
    smaller = snip_tf.compact(pruned)
    assert smaller.get_layer(table.name).output_dim < 30
    assert type(smaller.get_layer(table.name).embeddings_regularizer) is Ridge
    assert_same_outputs(smaller, pruned, np.random.randint(0, 20, (4, 5)))


def test_a_layer_as_an_activation_keeps_its_weights():
    slope = layers.PReLU(name="slope")
    stack = [layers.Dense(40, name="in"), layers.Dense(30, slope), layers.Dense(2)]
    model = keras.Sequential([keras.Input((6,)), *stack])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 6)).astype(np.float32)
    model(x)  # which makes the slopes
    slope.alpha.assign(rng.normal(size=30))
    pruned = prune_at_random(model, 0.9, rng)
    smaller = snip_tf.compact(pruned)
    assert smaller.get_layer("in").units < 40
    assert_same_outputs(smaller, pruned, x)


@pytest.mark.parametrize("words", [None, Words])
def test_an_attention_sees_no_padding_afterwards(words):
    pruned, ids = attention_over_padding(words)
    assert_same_outputs(compacted(pruned), pruned, ids)


def test_a_loss_counts_no_padding_afterwards():
    inputs = keras.Input((5,), dtype="int32")
    table = layers.Embedding(20, 6, mask_zero=True)(inputs)
    few = layers.Dense(8, activation="relu", name="few")(table)
    joined = layers.Concatenate()([layers.Dense(3, name="dead")(few), table])
    summed = layers.Add()([few, layers.Dense(8, name="zeros", use_bias=False)(joined)])
    whole = layers.Dense(2)(layers.LayerNormalization()(table))
    model = keras.Model(inputs, [layers.Dense(2)(summed), whole])
    model.compile("sgd", ["mse", "mse"])
    reads = np.zeros((6, 8), bool)
    reads[:2, :5] = True
    nothing = {
        "dead/kernel": np.zeros((8, 3)) > 0,
        "zeros/kernel": np.zeros((9, 8)) > 0,
    }
    pruned = snip_tf.apply_masks(model, {"few/kernel": reads, **nothing})
    ids = np.array([[3, 4, 5, 0, 0], [1, 2, 0, 0, 0]], np.int32)
    y = [np.ones((2, 5, 2)), np.ones((2, 5, 2))]
    smaller = snip_tf.compact(pruned)
    assert smaller.count_params() < model.count_params()
    np.testing.assert_allclose(
        smaller.evaluate(ids, y, verbose=0), pruned.evaluate(ids, y, verbose=0), 1e-6
    )


def test_refuses_a_model_that_runs_its_layers_itself():
    model = OwnModel()
    model(np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"keras\.Model\(inputs, model\.call"):
        snip_tf.compact(model)
    with pytest.raises(TypeError, match="Keras 3 model"):
        snip_tf.compact(3)

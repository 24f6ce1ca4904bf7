import warnings

import keras
import numpy as np
import pytest

import snip_tf
from tests.random_networks import (
    OwnModel,
    assert_same_outputs,
    compacted,
    prune_at_random,
)

layers = keras.layers


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


def test_a_custom_call_is_not_analysed():
    pruned = prune_at_random(functional(OwnCall), 0.9, np.random.default_rng(0))
    with pytest.raises(ValueError, match="OwnCall, which runs its layers in its own"):
        snip_tf.compact(pruned)
    inside = prune_at_random(around(functional(OwnCall)), 0.9, np.random.default_rng(0))
    smaller = compacted(inside)
    assert_same_outputs(smaller, inside, np.random.rand(3, 6))
    model = functional(keras.Model)
    model.call = lambda x, training=None: x[:, :2]
    with pytest.raises(ValueError, match="which runs its layers in its own code"):
        snip_tf.compact(model)


def test_refuses_a_model_that_runs_its_layers_itself():
    model = OwnModel()
    model(np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"keras\.Model\(inputs, model\.call"):
        snip_tf.compact(model)
    with pytest.raises(TypeError, match="Keras 3 model"):
        snip_tf.compact(3)

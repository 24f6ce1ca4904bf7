import random

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf.weights import weights_by_path

layers = keras.layers
RNG = np.random.default_rng(0)


def sequential():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(3, 3, activation="relu", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.Flatten(name="flat"),
            layers.Dropout(0.5, name="drop"),
            layers.Dense(4, name="head"),
        ],
        name="net",
    )


def functional():
    shared = layers.Dense(6, activation="relu", name="shared")
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(6, name="fc")], name="in")
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    both = keras.ops.concatenate([inner(shared(a)), inner(shared(b))], axis=-1)
    outputs = {
        "y": layers.Dense(2, name="y")(both),
        "z": layers.Dense(3, name="z")(both),
    }
    return keras.Model({"a": a, "b": b}, outputs, name="twin")


def data_for(model):
    arrays = {
        tensor.name: RNG.normal(size=(5, *tensor.shape[1:])).astype(np.float32)
        for tensor in model.inputs
    }
    return arrays if len(arrays) > 1 else next(iter(arrays.values()))


def random_masks(model):
    weights = snip_tf.prunable_weights(model)
    return {path: RNG.random(w.shape) < 0.3 for path, w in weights.items()}


def zeroed_outputs(model, masks, x):
    """The outputs of the original with zeros in its weights, which it gets back."""
    weights = weights_by_path(model)
    before = {path: weights[path].numpy() for path in masks}
    for path, mask in masks.items():
        weights[path].assign(before[path] * mask)
    outputs = keras.tree.map_structure(np.asarray, model(x))
    for path, value in before.items():
        weights[path].assign(value)
    return outputs


def assert_equal(left, right):
    keras.tree.map_structure(np.testing.assert_array_equal, left, right)


@pytest.fixture(params=[sequential, functional])
def model(request):
    keras.utils.set_random_seed(0)
    return request.param()


def test_computes_what_the_original_does_with_zeros(model):
    masks, x = random_masks(model), data_for(model)
    expected = zeroed_outputs(model, masks, x)
    pruned = snip_tf.apply_masks(model, masks)
    assert_equal(keras.tree.map_structure(np.asarray, pruned(x)), expected)
    stripped = snip_tf.strip_pruning(pruned)
    assert_equal(keras.tree.map_structure(np.asarray, stripped(x)), expected)


def test_masks_come_back(model):
    masks = random_masks(model)
    found = snip_tf.get_masks(snip_tf.apply_masks(model, masks))
    assert list(found) == list(masks)
    assert_equal(found, masks)


def test_the_original_is_left_as_it_is(model):
    model.compile("adam", "mse")
    before = model.get_weights()
    config = model.get_config()
    pruned = snip_tf.apply_masks(model, random_masks(model))
    snip_tf.strip_pruning(pruned)
    assert model.compiled
    assert_equal(model.get_weights(), before)
    assert model.get_config() == config
    assert not {id(v) for v in model.variables} & {id(v) for v in pruned.variables}
    # No node was added to a layer of the original.
    assert all(len(layer._inbound_nodes) <= 2 for layer in model.layers)


def test_stripped_is_a_plain_model_of_the_same_names(model):
    stripped = snip_tf.strip_pruning(snip_tf.apply_masks(model, random_masks(model)))
    assert stripped.name == model.name
    assert [(type(a), a.name) for a in stripped.layers] == [
        (type(a), a.name) for a in model.layers
    ]
    assert list(weights_by_path(stripped)) == list(weights_by_path(model))


def test_zeros_are_exact_and_the_rest_is_untouched(model):
    masks = random_masks(model)
    pruned = snip_tf.apply_masks(model, masks)
    for each in (pruned, snip_tf.strip_pruning(pruned)):
        weights, original = weights_by_path(each), weights_by_path(model)
        for path, weight in weights.items():
            mask = masks.get(path, np.ones(weight.shape, bool))
            value = weight.numpy()
            assert not value[~mask].any()
            assert not np.signbit(value[~mask]).any(), "minus zero"
            np.testing.assert_array_equal(value[mask], original[path].numpy()[mask])


def test_strip_masks_weights_that_were_assigned_behind_our_back(model):
    masks, x = random_masks(model), data_for(model)
    pruned = snip_tf.apply_masks(model, masks)
    for weight in weights_by_path(pruned).values():
        weight.assign(weight + 1)
    assert_equal(
        keras.tree.map_structure(np.asarray, snip_tf.strip_pruning(pruned)(x)),
        keras.tree.map_structure(np.asarray, pruned(x)),
    )


def test_masks_on_a_pruned_model_add_up():
    model = sequential()
    first, second = random_masks(model), random_masks(model)
    del second["conv/kernel"]
    pruned = snip_tf.apply_masks(snip_tf.apply_masks(model, first), second)
    masks = snip_tf.get_masks(pruned)
    both = first["head/kernel"] & second["head/kernel"]
    np.testing.assert_array_equal(masks["head/kernel"], both)
    np.testing.assert_array_equal(masks["conv/kernel"], first["conv/kernel"])


def test_a_weight_without_a_mask_is_not_wrapped():
    model = sequential()
    pruned = snip_tf.apply_masks(model, {"head/kernel": np.ones((108, 4), bool)})
    assert type(pruned.get_layer("conv")) is layers.Conv2D
    assert isinstance(pruned.get_layer("head"), snip_tf.MaskedLayer)


def test_adapted_normalization_normalizes():
    norm = layers.Normalization()
    norm.adapt(RNG.normal(5, 3, size=(100, 4)))
    model = keras.Sequential([keras.Input((4,)), norm, layers.Dense(3)])
    masks, x = random_masks(model), data_for(model)
    expected = zeroed_outputs(model, masks, x)
    assert_equal(np.asarray(snip_tf.apply_masks(model, masks)(x)), expected)


def test_what_is_frozen_stays_frozen():
    base = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="fc")], name="base"
    )
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2, name="head")(base(x)))
    base.trainable = False
    model.get_layer("head").bias.trainable = False
    pruned = snip_tf.apply_masks(model, {"head/kernel": np.ones((4, 2), bool)})
    for copy in (pruned, snip_tf.strip_pruning(pruned)):
        assert not copy.get_layer("base").trainable
        assert [w.name for w in copy.trainable_weights] == ["kernel"]
    assert snip_tf.prunable_weights(pruned).keys() == {"head/kernel"}


def test_operations_are_not_shared_with_the_copy():
    x = keras.Input((4,))
    model = keras.Model(x, keras.ops.relu(layers.Dense(3, name="fc")(x)))
    pruned = snip_tf.apply_masks(model, {"fc/kernel": np.ones((4, 3), bool)})
    assert not {id(op) for op in model.operations} & {
        id(op) for op in pruned.operations
    }


def test_the_random_numbers_of_the_caller_are_left_alone(model):
    masks = random_masks(model)
    states = random.getstate(), np.random.get_state()[2]
    snip_tf.apply_masks(model, masks)
    assert (random.getstate(), np.random.get_state()[2]) == states


def test_compiled_like_the_original():
    """Also where nothing could be made again from a name."""
    model = sequential()

    def my_loss(y_true, y_pred):
        return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)

    def my_metric(y_true, y_pred):
        return keras.ops.mean(y_pred)

    metrics = ["mae", my_metric, keras.metrics.MeanSquaredError(name="mse")]
    model.compile(keras.optimizers.Adam(0.02), my_loss, metrics=metrics)
    pruned = snip_tf.apply_masks(model, random_masks(model))
    assert pruned.compiled
    assert float(pruned.optimizer.learning_rate) == pytest.approx(0.02)
    assert pruned.optimizer is not model.optimizer
    data = np.ones((2, 8, 8, 1)), np.ones((2, 4))
    logs = pruned.train_on_batch(*data, return_dict=True)
    assert set(logs) == {"loss", "mae", "my_metric", "mse"}
    assert float(metrics[2].total) == 0, "the metric of the original was updated"


def test_says_so_if_it_cannot_compile_the_copy():
    class Falling(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1 / (1 + keras.ops.cast(step, "float32"))

    model = sequential()
    model.compile(keras.optimizers.SGD(Falling()), "mse")
    with pytest.warns(UserWarning, match="Call `compile` on the copy"):
        pruned = snip_tf.apply_masks(model, random_masks(model))
    assert not pruned.compiled


def test_classes_and_functions_need_not_be_registered():
    class Scaled(layers.Dense):
        def call(self, x):
            return 2 * super().call(x)

    class Unconfigured(layers.Layer):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = units

        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")

        def call(self, x):
            return x @ self.kernel

    def squared(x):
        return x * x

    def sigmoid(x):  # has the name of one that Keras knows
        return 10 * keras.ops.tanh(x)

    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            layers.LSTM(4, activation=sigmoid, name="lstm"),
            Scaled(4, activation=squared, name="scaled"),
            Unconfigured(4, name="odd"),
            layers.Lambda(lambda x: keras.ops.sin(x) + 1),
        ]
    )
    masks, x = random_masks(model), data_for(model)
    expected = zeroed_outputs(model, masks, x)
    pruned = snip_tf.apply_masks(model, masks)
    assert_equal(np.asarray(pruned(x)), expected)
    assert list(snip_tf.get_masks(pruned)) == list(masks)
    assert "odd/kernel" in masks


def test_refuses_masks_that_do_not_fit():
    model = sequential()
    with pytest.raises(ValueError, match=r"'haed/kernel'.*Did you mean 'head/kernel'"):
        snip_tf.apply_masks(model, {"haed/kernel": np.ones((108, 4), bool)})
    with pytest.raises(ValueError, match=r"of shape \(4, 108\).*shape \(108, 4\)"):
        snip_tf.apply_masks(model, {"head/kernel": np.ones((4, 108), bool)})
    with pytest.raises(TypeError, match=r"masks\['head/kernel'\] of int64"):
        snip_tf.apply_masks(model, {"head/kernel": np.ones((108, 4), int)})
    with pytest.raises(ValueError, match="at least one mask"):
        snip_tf.apply_masks(model, {})


def test_refuses_models_without_masks_or_weights():
    with pytest.raises(ValueError, match="no masks"):
        snip_tf.get_masks(sequential())
    with pytest.raises(ValueError, match="no masks"):
        snip_tf.strip_pruning(sequential())
    with pytest.raises(TypeError, match="Keras 3 model"):
        snip_tf.get_masks("model.keras")

    unbuilt = keras.Sequential([layers.Dense(2)])
    with pytest.raises(ValueError, match="not built"):
        snip_tf.apply_masks(unbuilt, {"dense/kernel": np.ones((2, 2), bool)})

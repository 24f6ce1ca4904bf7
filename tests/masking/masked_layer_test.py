import inspect
import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from snip_tf import (
    MaskedLayer,
    apply_masks,
    connection_sensitivity,
    get_masks,
    prunable_weights,
    prune_model,
    set_masks,
)
from snip_tf.weights import weights_by_path

RNG = np.random.default_rng(0)


def keep_all(*shape):
    return np.ones(shape, bool)


def random_masks(layer, include=("kernel",)):
    return {
        path: RNG.random(weight.shape) < 0.3
        for path, weight in weights_by_path(layer).items()
        if path.rpartition("/")[2] in include
    }


def mask_layer(layer, masks):
    """A masked clone of a built layer, and a plain clone with zeros in its weights."""
    config = keras.saving.serialize_keras_object(layer)
    inner = keras.saving.deserialize_keras_object(config)
    plain = keras.saving.deserialize_keras_object(config)
    for clone in (inner, plain):
        clone.set_weights(layer.get_weights())
    masked = MaskedLayer(inner, masks)
    weights = weights_by_path(plain)
    for path, mask in masks.items():
        weights[path].assign(weights[path].numpy() * mask)
    return masked, plain


def built(layer, *shape):
    layer(np.zeros((1, *shape), np.float32))
    return layer


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: keras.layers.Dense(4, activation="relu"), (6,)),
        (lambda: keras.layers.Conv2D(3, 3), (8, 8, 2)),
        (lambda: keras.layers.DepthwiseConv2D(3), (8, 8, 2)),
        (lambda: keras.layers.EinsumDense("abc,cd->abd", (None, 4)), (3, 6)),
        (lambda: keras.layers.LSTM(4), (5, 3)),
        (lambda: keras.layers.Bidirectional(keras.layers.GRU(4)), (5, 3)),
    ],
    ids=["dense", "conv", "depthwise", "einsum", "lstm", "bidirectional"],
)
def test_computes_what_the_layer_does_with_zeros_in_its_weights(make, shape):
    layer = built(make(), *shape)
    masked, plain = mask_layer(layer, random_masks(layer, ("kernel",)))
    x = RNG.normal(size=(2, *shape)).astype(np.float32)
    np.testing.assert_array_equal(masked(x), plain(x))


def test_masks_hold_even_where_the_stored_weight_is_not_zero():
    layer = built(keras.layers.Dense(4), 6)
    masks = random_masks(layer)
    masked, plain = mask_layer(layer, masks)
    masked.kernel.assign(layer.kernel)
    x = RNG.normal(size=(2, 6)).astype(np.float32)
    np.testing.assert_array_equal(masked(x), plain(x))


def test_stored_weights_are_zero_from_the_start():
    mask = np.array([[True, False], [False, False], [True, True]])
    masked = MaskedLayer(keras.layers.Dense(2), {"kernel": mask})
    masked(np.ones((1, 3)))
    np.testing.assert_array_equal(masked.kernel.numpy() != 0, mask)


def test_refuses_masks_that_do_not_fit():
    masked = MaskedLayer(built(keras.layers.Dense(2), 3), {"kernel": keep_all(3, 2)})
    with pytest.raises(ValueError, match="Did you mean 'kernel'"):
        set_masks(masked, {"krnel": np.ones((3, 2), bool)})
    with pytest.raises(ValueError, match=r"of shape \(2, 3\)"):
        set_masks(masked, {"kernel": np.ones((2, 3), bool)})
    with pytest.raises(TypeError, match="float64"):
        set_masks(masked, {"kernel": np.full((3, 2), 0.3)})


def test_a_step_to_infinity_leaves_zeros():
    masked = MaskedLayer(built(keras.layers.Dense(1), 3), {"kernel": keep_all(3, 1)})
    set_masks(masked, {"kernel": np.array([[True], [False], [False]])})
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.apply([np.array([[-1.0], [np.inf], [np.nan]])], [masked.kernel])
    assert not masked.kernel.numpy()[1:].any()
    assert np.isfinite(masked(np.ones((1, 3)))).all()


def test_changes_of_state_are_kept():
    class Block(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = keras.layers.Dense(4, name="dense")
            self.norm = keras.layers.BatchNormalization(momentum=0.5, name="norm")
            self.drop = keras.layers.Dropout(0.5, name="drop")

        def build(self, shape):
            self.dense.build(shape)
            self.norm.build((None, 4))

        def call(self, x, training=False):
            y = self.norm(self.dense(x), training=training)
            return self.drop(y, training=training)

    block = Block()
    block.build((None, 3))
    masked = MaskedLayer(block, {"dense/kernel": keep_all(3, 4)})
    x = RNG.normal(size=(8, 3)).astype(np.float32)
    first = np.asarray(masked(x, training=True))
    mean = 0.5 * np.asarray(block.dense(x)).mean(axis=0)
    np.testing.assert_allclose(block.norm.moving_mean, mean, rtol=1e-5, atol=1e-6)
    second = np.asarray(masked(x, training=True))
    assert ((first == 0) != (second == 0)).any(), "dropout repeats itself"


def test_losses_of_the_layer_are_handed_on_once():
    dense = keras.layers.Dense(
        4, activity_regularizer=keras.regularizers.L2(0.1), kernel_regularizer="l2"
    )
    masked, plain = mask_layer(built(dense, 3), {"kernel": keep_all(3, 4)})
    x = RNG.normal(size=(8, 3)).astype(np.float32)
    for layer in (masked, plain):
        layer(x)
    assert len(plain.losses) == 2
    np.testing.assert_array_equal(masked.losses, plain.losses)


def test_runs_inside_a_stateless_scope():
    """As under another backend's trainer: values come from the scope, and go there."""
    norm = built(keras.layers.BatchNormalization(momentum=0.5), 3)
    masked = MaskedLayer(norm, {})
    x = RNG.normal(1, size=(8, 3)).astype(np.float32)
    with keras.StatelessScope([(norm.gamma, np.full(3, 2.0))]) as scope:
        outputs = masked(x, training=False)
        masked(x, training=True)
        moved = scope.get_current_value(norm.moving_mean)
    np.testing.assert_allclose(outputs, 2 * x / np.sqrt(1.001), rtol=1e-5)
    np.testing.assert_allclose(moved, 0.5 * x.mean(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(norm.moving_mean, 0)
    np.testing.assert_array_equal(norm.gamma, 1)


def test_has_the_signature_of_the_layer():
    attention = keras.layers.MultiHeadAttention(2, 4)
    x = keras.Input((5, 8))
    attention(x, x)
    masked = MaskedLayer(attention, {})
    assert inspect.signature(masked.call) == inspect.signature(attention.call)
    y = RNG.normal(size=(2, 5, 8)).astype(np.float32)
    plain = attention(query=y, value=y, use_causal_mask=True)
    np.testing.assert_array_equal(masked(query=y, value=y, use_causal_mask=True), plain)


def test_passes_keras_masks_through():
    x = np.array([[1, 2, 0]])
    embedded = keras.layers.Embedding(5, 4, mask_zero=True)(x)
    lstm = keras.layers.LSTM(3, return_sequences=True)
    plain = lstm(embedded)
    masked = MaskedLayer(lstm, {})
    outputs = masked(embedded)
    np.testing.assert_array_equal(outputs, plain)
    np.testing.assert_array_equal(outputs._keras_mask, [[True, True, False]])


def test_keeps_a_constraint_of_the_layer():
    dense = built(keras.layers.Dense(4, kernel_constraint="non_neg"), 3)
    masked = MaskedLayer(dense, {"kernel": keep_all(3, 4)})
    masked(np.zeros((1, 3)))
    set_masks(masked, {"kernel": np.eye(3, 4, dtype=bool)})
    value = np.array([[1.0, -1, 1, 1], [1, -1, 1, 1], [1, 1, 1, 1]], np.float32)
    expected = np.eye(3, 4) * np.maximum(value, 0)
    np.testing.assert_array_equal(dense.kernel.constraint(value), expected)


def test_is_the_layer_itself_with_all_its_attributes():
    layer = built(keras.layers.Dense(4, name="head"), 3)
    inside = keras.Sequential([layer])
    masked = MaskedLayer(layer, {"kernel": keep_all(3, 4)})
    assert masked is layer
    assert inside.layers == [masked]
    assert isinstance(masked, MaskedLayer)
    assert isinstance(masked, keras.layers.Dense)
    assert (masked.units, masked.kernel.shape) == (4, (3, 4))


def test_masks_are_no_weights():
    layer = built(keras.layers.Dense(4), 3)
    before = layer.get_weights()
    masked = MaskedLayer(layer, random_masks(layer))
    assert masked.count_params() == 16
    assert [w.name for w in masked.weights] == ["kernel", "bias"]
    assert [v.name for v in masked.variables] == ["kernel", "bias", "kernel_mask"]
    masked.set_weights(before)
    x = np.ones((1, 3), np.float32)
    expected = x @ np.where(get_masks(masked)["kernel"], before[0], 0)
    np.testing.assert_allclose(masked(x), expected, rtol=1e-6)


def test_refuses_what_it_cannot_wrap():
    with pytest.raises(TypeError, match="Received: 'dense' of type str"):
        MaskedLayer("dense", {})
    masked = MaskedLayer(built(keras.layers.Dense(4), 3), {"kernel": keep_all(3, 4)})
    with pytest.raises(ValueError, match="MaskedLayer already"):
        MaskedLayer(masked, {"kernel": keep_all(3, 4)})


def test_from_config():
    layer = built(keras.layers.Dense(4, name="head"), 3)
    masks = random_masks(layer)
    masked = MaskedLayer(layer, masks)
    copy = MaskedLayer.from_config(masked.get_config())
    assert copy.name == "head"
    assert not copy.built
    copy.build((None, 3))
    np.testing.assert_equal(get_masks(copy), masks)
    np.testing.assert_array_equal(copy.kernel.numpy() != 0, masks["kernel"])
    assert copy.get_config() == masked.get_config()


def test_a_frozen_layer_stays_frozen():
    layer = built(keras.layers.Dense(4), 3)
    layer.trainable = False
    masked = MaskedLayer(layer, {"kernel": keep_all(3, 4)})
    assert masked.trainable_variables == []
    copy = MaskedLayer.from_config(masked.get_config())
    assert copy.trainable_variables == []


def test_half_precision_computes_in_half_and_stores_in_full():
    layer = built(keras.layers.Dense(4, dtype="mixed_bfloat16"), 3)
    masked, plain = mask_layer(layer, random_masks(layer))
    x = RNG.normal(size=(2, 3)).astype(np.float32)
    assert keras.backend.standardize_dtype(masked(x).dtype) == "bfloat16"
    np.testing.assert_array_equal(masked(x), plain(x))
    assert masked.kernel.dtype == "float32"
    assert masked.compute_output_spec(keras.KerasTensor((2, 3))).dtype == "bfloat16"


def test_state_that_changes_in_a_loop_is_kept():
    class Cell(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.state_size = 4
            self.dense = keras.layers.Dense(4, name="dense")
            self.drop = keras.layers.Dropout(0.5)

        def build(self, shape):
            self.dense.build((None, shape[-1]))

        def call(self, x, states, training=False):
            y = self.drop(self.dense(x), training=training) + states[0]
            return y, [y]

    model = keras.Sequential([keras.Input((5, 3)), keras.layers.RNN(Cell(), name="r")])
    masks = {"r/cell/dense/kernel": RNG.random((3, 4)) < 0.5}
    pruned = apply_masks(model, masks)
    pruned.compile("sgd", "mse")
    seed = pruned.layers[0].cell.drop.seed_generator.state
    before = seed.numpy()
    pruned.fit(np.ones((2, 5, 3)), np.ones((2, 4)), verbose=0)
    assert (seed.numpy() != before).any()


def test_compiled_functions_read_their_variables():
    """Both in the original and in the pruned model."""

    class Compiled(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3, name="dense")

        def build(self, shape):
            self.dense.build(shape)

        @tf.function
        def call(self, x):
            return self.dense(x)

    model = Compiled()
    model.build((None, 4))
    x = np.ones((2, 4), np.float32)
    options = {"sparsity": 0.5, "loss": "mse", "batch_size": 1, "batches": 2}
    pruned = prune_model(model, x, np.ones((2, 3)), **options)
    for each in (model, pruned):
        before = np.asarray(each(x))
        for variable in each.trainable_variables:
            variable.assign(2 * variable + 1)
        assert (np.asarray(each(x)) != before).any()
    kernel = pruned.dense.kernel.numpy()
    pruned.compile("sgd", "mse")
    pruned.fit(x, np.ones((2, 3)), verbose=0)
    assert (pruned.dense.kernel.numpy() != kernel).any()
    pruned.evaluate(x, np.ones((2, 3)), verbose=0)


@keras.saving.register_keras_serializable("snip_tf_tests")
class MakesLayersInBuild(keras.layers.Layer):
    def build(self, shape):
        self.first, self.second = keras.layers.Dense(6), keras.layers.Dense(6)
        self.first.build(shape)
        self.second.build((None, 6))

    def call(self, x):
        return self.second(self.first(x))


def test_layers_made_in_build_are_found_again(tmp_path):
    model = keras.Sequential([keras.Input((3,)), MakesLayersInBuild(name="made")])
    weights = prunable_weights(model)
    masks = {path: RNG.random(w.shape) < 0.5 for path, w in weights.items()}
    pruned = apply_masks(model, masks)
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_equal(get_masks(loaded), masks)
    np.testing.assert_array_equal(loaded(np.ones((1, 3))), pruned(np.ones((1, 3))))


def test_a_low_rank_update_is_refused_with_advice():
    masked = MaskedLayer(built(keras.layers.Dense(2), 3), {"kernel": keep_all(3, 2)})
    with pytest.raises(ValueError, match=r"LoRA.*layer='dense.*strip_pruning"):
        masked.enable_lora(2)
    flatten = keras.layers.Flatten()
    assert not hasattr(MaskedLayer(flatten, {}), "enable_lora")


def renamed_in_file(path, change):
    """A `.keras` file whose configuration was changed by another hand."""
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    config = json.loads(parts["config.json"])
    for layer in config["config"]["layers"]:
        if layer["registered_name"] == "snip_tf>MaskedLayer":
            change(layer["config"])
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            is_config = name == "config.json"
            file.writestr(name, json.dumps(config) if is_config else content)


@pytest.mark.parametrize("made_in_a_call", [False, True])
def test_a_mask_of_a_weight_that_the_layer_has_not_is_refused(tmp_path, made_in_a_call):
    layer = MakesLayersInCall() if made_in_a_call else keras.layers.Dense(4)
    model = keras.Sequential([keras.Input((3,)), layer])
    weights = prunable_weights(model)
    masks = {path: RNG.random(w.shape) < 0.5 for path, w in weights.items()}
    apply_masks(model, masks).save(tmp_path / "model.keras")

    def rename(config):
        [path] = config["masks"]
        config["masks"] = {path.replace("kernel", "kernal"): config["masks"][path]}

    renamed_in_file(tmp_path / "model.keras", rename)
    with pytest.raises((TypeError, ValueError), match="Did you mean"):
        get_masks(keras.models.load_model(tmp_path / "model.keras"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("masks", 5), ("masks", [1]), ("sublayer_names", None), ("sublayer_names", [3])],
)
def test_configurations_of_another_form_are_refused(name, value):
    masked = MaskedLayer(built(keras.layers.Dense(2), 3), {"kernel": keep_all(3, 2)})
    with pytest.raises(ValueError, match=f"without a valid {name}"):
        MaskedLayer.from_config({**masked.get_config(), name: value})


@pytest.mark.parametrize("kind", [keras.optimizers.SGD, keras.losses.MeanAbsoluteError])
def test_configurations_of_no_layer_are_refused(kind):
    masked = MaskedLayer(built(keras.layers.Dense(2), 3), {"kernel": keep_all(3, 2)})
    other = keras.saving.serialize_keras_object(kind())
    for config, name in ((other, kind.__name__), ({}, "dict")):
        with pytest.raises(ValueError, match=f"to be of a layer.*{name}"):
            MaskedLayer.from_config({**masked.get_config(), "layer": config})


@keras.saving.register_keras_serializable("snip_tf_tests")
class MakesLayersInCall(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(4, name="dense")

    def call(self, x):
        return self.dense(x)


@pytest.mark.parametrize("of", [lambda self: self.__class__, type])
def test_code_of_a_layer_may_ask_for_its_class(of, tmp_path):
    class Base(keras.layers.Dense):
        def call(self, x):
            return 2 * super().call(x)

    @keras.saving.register_keras_serializable("snip_tf_tests")
    class Asks(Base):
        def build(self, shape):
            super(of(self), self).build(shape)

        def call(self, x):
            assert of is type or self.__class__ is Asks
            return 1 + super(of(self), self).call(x)

        def get_config(self):
            return super(of(self), self).get_config()

    model = keras.Sequential([keras.Input((3,)), Asks(4, name="asks")])
    masks = {"asks/kernel": RNG.random((3, 4)) < 0.5}
    pruned, x = apply_masks(model, masks), np.ones((2, 3), np.float32)
    kernel = model.get_weights()[0] * masks["asks/kernel"]
    np.testing.assert_allclose(pruned(x), 1 + 2 * x @ kernel, rtol=1e-5)
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), pruned(x))


def test_a_functional_class_with_a_constructor_of_its_own_is_cloned():
    class Own(keras.Model):
        def __init__(self, units=4, **kwargs):
            x = keras.Input((3,))
            super().__init__(x, keras.layers.Dense(units, name="out")(x), **kwargs)
            self.units = units

        def get_config(self):
            return {"units": self.units, "name": self.name}

    pruned = apply_masks(Own(), {"out/kernel": RNG.random((3, 4)) < 0.5})
    clone = keras.models.clone_model(pruned)
    np.testing.assert_equal(get_masks(clone), get_masks(pruned))


def test_a_class_that_is_not_registered_is_cloned():
    class Mine(keras.layers.Dense):
        pass

    class Net(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.out = keras.layers.Dense(2, name="out")

        def call(self, x):
            return self.out(x)

        def get_config(self):
            return {"name": self.name}

    x = keras.Input((3,))
    model = keras.Model(x, Net(name="net")(Mine(4, name="mine")(x)))
    pruned = apply_masks(model, random_masks(model))
    np.testing.assert_equal(
        get_masks(keras.models.clone_model(pruned)), get_masks(pruned)
    )
    layer = pruned.get_layer("mine")
    assert type(type(layer).from_config(layer.get_config())) is type(layer)


def test_what_is_no_dict_of_masks_is_refused_before_anything_changes():
    layer = built(keras.layers.Dense(2), 3)
    for masks in ([], None, [("kernel", keep_all(3, 2))]):
        with pytest.raises(TypeError, match="Expected `masks` to be a dict"):
            MaskedLayer(layer, masks)
        assert type(layer) is keras.layers.Dense


@tf.function
def helper(layer, x):
    return x @ layer.kernel


class UsesAFunction(keras.layers.Dense):
    def call(self, x):
        return helper(self, x)


def test_a_function_elsewhere_reads_what_weights_and_masks_are_now():
    """Whether it was traced in a scope, or before."""
    model = keras.Sequential([keras.Input((3,)), UsesAFunction(4, name="uses")])
    x, y = np.ones((5, 3), np.float32), np.ones((5, 4), np.float32)
    for _ in range(2):  # traced by then
        scores = prunable_scores(model, x, y)
        layer = model.layers[0]
        kernel = layer.kernel.numpy()
        error = (x @ kernel - y) * 2 / y.size
        expected = np.abs(kernel * (x.T @ error))
        np.testing.assert_allclose(scores, expected / expected.sum(), rtol=1e-4)
        np.testing.assert_allclose(model(x), x @ kernel, rtol=1e-5)
        layer.kernel.assign(layer.kernel + RNG.normal(size=(3, 4)))
        np.testing.assert_allclose(model(x), x @ layer.kernel.numpy(), rtol=1e-5)
    pruned = apply_masks(model, {"uses/kernel": RNG.random((3, 4)) < 0.5})
    for seed in (1, 2):
        np.testing.assert_allclose(
            pruned(x), x @ pruned.layers[0].kernel.numpy(), rtol=1e-5
        )
        kept = np.random.default_rng(seed).random((3, 4)) < 0.7
        set_masks(pruned, {"uses/kernel": kept})
        pruned.layers[0].kernel.assign(RNG.normal(size=(3, 4)) * kept)


def prunable_scores(model, x, y):
    return connection_sensitivity(model, x, y, loss="mse")["uses/kernel"]

import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from snip_tf import _keras

layers = keras.layers


X, Y = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)


# What the constructor of `keras.Layer` makes that a copy's makes as well.
MADE_FOR_EACH_LAYER = """
_call_context_args _call_has_context_arg _call_has_mask_arg _call_has_training_arg
_call_signature _inbound_nodes _layers _lock _loss_ids _losses _losses_override
_metrics _non_trainable_variables _outbound_nodes _path
_saved_model_arg_spec _saved_model_inputs_spec _seed_generators _self_setattr_tracking
_tracked _tracker _trainable_variables activity_regularizer autocast build
call_signature_parameters name quantize
"""


def small_model():
    return keras.Sequential([keras.Input((3,)), layers.Dense(2, name="dense")])


def test_held_layers():
    attention = layers.MultiHeadAttention(2, 4)
    attention.build((None, 3, 4), (None, 3, 4))
    names = [layer.name for layer in _keras.held_layers(attention)]
    assert names[:3] == ["query", "key", "value"]
    assert _keras.held_layers(model := small_model()) == model.layers


def test_functional_class():
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(2)(x))
    assert type(model) is _keras.functional_class()
    assert type(small_model()) is not _keras.functional_class()


@pytest.mark.parametrize("way", ["call", "build", "symbolic", "config"])
def test_after_build(way):
    class Told(_keras.AfterBuild, layers.Dense):
        times = 0

        def _snip_after_build(self):
            self.times += 1

    layer = Told(2)
    if way == "call":
        layer(X)
    elif way == "build":
        layer.build((None, 3))
    elif way == "symbolic":
        layer(keras.Input((3,)))
    else:
        layer.build_from_config({"input_shape": (None, 3)})
    assert layer.times >= 1


def test_unpickle():
    dense = small_model()
    _, arguments = dense.__reduce__()
    assert isinstance(_keras.unpickle()(*arguments), keras.Sequential)
    assert pickle.loads(pickle.dumps(_keras.unpickle()))


def test_settings_are_all_that_keras_changes_of_a_layer():
    layer = layers.Layer(name="layer")
    settings = set(_keras.settings_of(layer))
    assert settings <= vars(layer).keys()
    # A new attribute of Keras' is to be put into one of the two lists.
    assert vars(layer).keys() - settings <= set(MADE_FOR_EACH_LAYER.split())
    lacks = 0 if hasattr(layer, "_remat_mode") else 1  # before Keras 3.9
    assert len(settings) == 14 - lacks


def test_what_training_adds_to_a_model():
    model = small_model()
    before = set(vars(model))
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(X, Y, epochs=2, validation_data=(X, Y), verbose=0)
    model.evaluate(X, Y, verbose=0)
    model.predict(X, verbose=0)
    added = vars(model).keys() - before
    assert added <= _keras.ADDED_BY_TRAINING
    assert {"_compile_config", "optimizer", "history"} <= added


def test_what_tensorflow_adds_to_a_layer(tmp_path):
    model = small_model()
    before = set(vars(layers.Dense(2)))
    model.export(tmp_path / "model", verbose=False)
    tf.train.Checkpoint(model=model).save(tmp_path / "checkpoint")
    added = {n for n in vars(model.layers[0]) if n.startswith("_self_")} - before
    of_tensorflow = {n for n in _keras.ADDED_BY_BACKEND if n.startswith("_self_")}
    assert added == of_tensorflow


def test_tracked_and_track():
    dense = layers.Dense(2)
    dense.build((None, 3))
    dense.trainable = False  # which leaves what was trainable in its list
    found = _keras.tracked(dense)
    assert [v.name for v in found["trainable_variables"]] == ["kernel", "bias"]
    assert {"layers", "metrics"} <= found.keys()
    layer = layers.Layer()
    _keras.track(layer, "trainable_variables", dense.kernel)
    _keras.track(layer, "layers", dense)
    assert layer.weights == dense.weights
    assert found["layers"] == []


def test_penalties(monkeypatch):
    method = keras.Layer._get_regularization_losses
    monkeypatch.setattr(keras.Layer, "_get_regularization_losses", method)
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(2, kernel_regularizer="l2")]
    )
    assert len(model.losses) == 1
    _keras.adapt_penalties(lambda theirs: lambda layer: [7.0] * len(theirs(layer)))
    assert model.losses == [7.0]


def test_show_to_tensorflow(tmp_path):
    model = small_model()
    dense = model.layers[0]
    mask = keras.Variable(np.ones((3, 2), bool), dtype="bool", trainable=False)
    weights = list(dense.weights)
    _keras.show_to_tensorflow(dense, "shown", mask)
    assert dense.weights == weights
    path = tf.train.Checkpoint(model=model).save(tmp_path / "checkpoint")
    assert any("shown" in name for name, _ in tf.train.list_variables(path))

import inspect

import keras
import pytest

from snip_tf import _keras
from tests.versions import on

layers = keras.layers
# The others have attributes that are not known; layers are made by Keras there.
of_tensorflow = on("tensorflow")


class Scaled(layers.Layer):
    def __init__(self, factor, /):
        super().__init__(name="scaled", autocast=False)
        self.factor = factor

    def call(self, x, mask=None, training=False):
        return x * self.factor


LAYERS = [
    layers.Dense(2, name="dense"),
    layers.Embedding(3, 2, name="embedding"),
    layers.LSTM(2, name="lstm"),
    layers.MultiHeadAttention(2, 2, name="attention"),
    Scaled(2),
]


def tracked_kinds(layer):
    own = vars(layer)
    return {name: type(value) for name, value in own.items()}


@of_tensorflow
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_new_layers_are_as_keras_makes_them(layer):
    expected = layers.Layer.__new__(type(layer))
    layers.Layer.__init__(expected, autocast=layer.autocast, name=layer.name)
    new = _keras.new_layer(type(layer))
    assert _keras.initialize_like(new, layer)
    for part in (expected, new):
        vars(part).update(_keras.settings_of(layer))
        vars(part).pop("_auto_config_error_args", None)
    assert tracked_kinds(new) == tracked_kinds(expected)
    for name, value in vars(expected).items():
        if isinstance(value, (bool, str, list, set, dict, inspect.Signature)):
            assert vars(new)[name] == value, name
    tracker = new._tracker
    assert tracker.exclusions == expected._tracker.exclusions
    assert list(tracker.config) == list(expected._tracker.config)
    assert new._losses.tracker is new._loss_ids.tracker is tracker
    assert new._trainable_variables is tracker.config["trainable_variables"][1]
    assert new._trainable_variables is not layer._trainable_variables


class Subclassed(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return 0.0

    def call(self, x):
        return x


def functional():
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((3,), name="b")}
    hidden = layers.Dense(2, name="hidden")
    outputs = [hidden(inputs["a"]), layers.Add(name="sum")([hidden(inputs["b"])] * 2)]
    return keras.Model(inputs, outputs, name="graph")


def made_by_constructor(model, new, inputs, outputs):
    if isinstance(model, keras.Sequential):
        keras.Sequential.__init__(new, name=model.name)
    elif isinstance(model, Subclassed):
        keras.Model.__init__(new, name=model.name)
    else:
        type(model).__init__(new, inputs, outputs, name=model.name)


def made_alike(model, new, inputs, outputs):
    if isinstance(model, keras.Sequential):
        _keras.initialize_sequence_like(new, model)
    elif isinstance(model, Subclassed):
        assert _keras.initialize_like(new, model)
    else:
        _keras.initialize_graph_like(new, model, inputs, outputs)


@pytest.mark.parametrize(
    "model",
    [keras.Sequential(name="row"), Subclassed(name="own"), functional()],
    ids=lambda model: model.name,
)
@of_tensorflow
def test_new_models_are_as_keras_makes_them(model):
    ends = getattr(model, "input", None), getattr(model, "output", None)
    made = []
    for initialize in (made_by_constructor, made_alike):
        new = _keras.new_layer(type(model))
        initialize(model, new, *ends)
        vars(new).update(_keras.settings_of(model))
        made.append(new)
    expected, new = made
    # (What TensorFlow tracks is tested by its checkpoints.)
    of_tensorflow = _keras.ADDED_BY_BACKEND | {"_tracked"}
    assert vars(new).keys() - of_tensorflow == vars(expected).keys() - of_tensorflow
    compared = (bool, str, int, list, set, dict, inspect.Signature)
    for name in vars(new).keys() - of_tensorflow:
        if isinstance(vars(expected)[name], compared):
            assert vars(expected)[name] == vars(new)[name], name
    assert new.layers == expected.layers
    assert new._layers == expected._layers


@of_tensorflow
def test_a_new_layer_is_built_and_tracks_by_itself():
    layer = layers.Dense(2, name="dense")
    new = _keras.new_layer(layers.Dense)
    assert _keras.initialize_like(new, layer)
    for name, value in vars(layer).items():
        vars(new).setdefault(name, value)
    new.build((None, 3))
    assert new.built and len(new.weights) == 2 and new.path == "dense"
    assert not layer.built and not layer.weights
    assert new.build.__wrapped__.__self__ is new
    assert new.quantize.__wrapped__.__self__ is new


def test_layers_of_classes_that_set_attributes_themselves_are_not_initialized():
    class Counts(layers.Layer):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)

    class Named(layers.Layer):
        @property
        def name(self):
            return "named"

        @name.setter
        def name(self, value):
            pass

    for layer in (
        Counts(name="counts"),
        Named(),
        layers.Layer(name="penalized", activity_regularizer="l2"),
    ):
        assert not _keras.initialize_like(_keras.new_layer(type(layer)), layer)

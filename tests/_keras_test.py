"""A new version of Keras or TensorFlow that changes a private name fails here.

Also where nothing would raise: where a default, a list of names or the name of a class
would be wrong without a word.
"""

import collections
import functools
import inspect
import io
import pickle
import threading

import h5py
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
    assert len(settings) == 13


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


def test_calls_in_a_graph_and_their_copies():
    x = keras.Input((3,), name="x")
    twice = layers.Dense(3, name="twice")
    y = layers.Add(name="sum")([twice(twice(x)), x])
    model = keras.Model(x, [y, x], name="model")
    calls = _keras.calls_in(model)
    assert [call.operation.name for call in calls] == ["twice", "twice", "sum"]
    other = keras.Input((3,), name="other")
    tensors = {id(x): other}
    made = {"twice": layers.Dense(3, name="a"), "sum": layers.Add(name="b")}
    for call in calls:
        _keras.copy_call(call, made[call.operation.name], tensors)
    copy = keras.Model(other, tensors[id(y)], name="copy")
    assert [layer.name for layer in copy.layers] == ["other", "a", "b"]
    assert _keras.operation_of(y) is model.get_layer("sum")
    for layer in copy.layers[1:]:
        layer.build(layer.input.shape if layer.name == "a" else [(None, 3)] * 2)
    a = made["twice"]
    assert np.allclose(copy(X), np.asarray(a(a(X))) + X)


def test_graph_inside_a_sequential_model():
    assert _keras.graph_inside(keras.Sequential([layers.Dense(2)])) is None
    model = small_model()
    graph = _keras.graph_inside(model)
    assert type(graph) is _keras.functional_class()
    new = keras.Sequential(name="new")
    _keras.put_graph_inside(new, model.layers, graph)
    assert _keras.graph_inside(new) is graph
    assert new.layers == model.layers and new.path == "new"
    assert np.array_equal(new(X), model(X))


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
    assert added == _keras.ADDED_BY_TENSORFLOW


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


def test_autocast():
    for cast in (True, False):
        assert _keras.autocasts(keras.Variable(X, autocast=cast)) is cast


def test_path():
    variable = keras.Variable(X, name="one")
    _keras.set_path(variable, "other/two")
    assert variable.path == "other/two"


def test_tensors_of_a_graph():
    x = keras.Input((3,), name="x")
    dense = layers.Dense(2)
    assert _keras.operation_of(dense(x)) is dense
    assert _keras.operation_of(x).name == "x"


def test_masks_of_timesteps():
    tokens = np.array([[1, 2, 0]])
    embedded = layers.Embedding(3, 2, mask_zero=True)(tokens)
    np.testing.assert_array_equal(_keras.mask_on(embedded), tokens != 0)
    assert _keras.mask_on(keras.ops.ones((1, 3, 2))) is None
    other = keras.ops.ones((1, 3, 2))
    _keras.put_mask_on(other, _keras.mask_on(embedded))
    # A layer receives it from there.
    received = []

    class Looks(layers.Layer):
        def call(self, x, mask=None):
            received.append(mask)
            return x

    Looks()(other)
    np.testing.assert_array_equal(received[0], tokens != 0)


def test_logits():
    logits = keras.ops.convert_to_tensor(X)
    for activation in (keras.activations.softmax, keras.activations.sigmoid):
        assert _keras.logits_of(activation(logits)) is logits
    assert _keras.logits_of(logits) is logits


def test_dtype_of_inputs():
    model = small_model()
    [tensor] = model.inputs
    for part in (tensor, _keras.operation_of(tensor)):
        _keras.set_dtype(part, "float64")
        assert part.dtype == "float64"


def test_compile_config():
    def loss(y_true, y_pred):
        return y_pred

    model = small_model()
    model.compile("adam", loss, loss_weights=[2.0], metrics=["mae"], jit_compile=False)
    config = _keras.compile_config(model)
    assert config["loss"] is loss
    assert config["loss_weights"] == [2.0]
    assert config["metrics"] == ["mae"]
    assert config["optimizer"] is model.optimizer
    assert config["jit_compile"] is False


def test_the_converter_raises_its_error():
    inverse = tf.function(tf.math.erfinv, input_signature=[tf.TensorSpec([2])])
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [inverse.get_concrete_function()]
    )
    with pytest.raises(_keras.converter_error()):
        converter.convert()


def test_litert_schema_reads_a_file():
    double = tf.function(lambda x: 2 * x, input_signature=[tf.TensorSpec([2])])
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [double.get_concrete_function()]
    )
    file = _keras.litert_schema().Model.GetRootAs(converter.convert())
    assert file.SubgraphsLength() == 1
    assert file.Subgraphs(0).TensorsLength() >= 2


def test_input_signature():
    [spec] = _keras.input_signature(small_model())
    assert tuple(spec.shape) == (None, 3)


def test_settings_of_a_loss():
    loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1)
    settings = _keras.loss_settings(loss)
    assert settings["from_logits"] is True and settings["label_smoothing"] == 0.1


def test_slots_of_optimizers():
    weights = [keras.Variable(X), keras.Variable(Y)]
    adagrad = keras.optimizers.Adagrad(initial_accumulator_value=0.25)
    adam = keras.optimizers.Adam()
    for optimizer in (adagrad, adam):
        assert list(_keras.trained_by(optimizer)) == []
        optimizer.build(weights)
        assert list(_keras.trained_by(optimizer)) == weights
        assert _keras.position_in(optimizer, weights[1]) == 1
        assert vars(optimizer)["_trainable_variables"] is _keras.trained_by(optimizer)
    assert _keras.first_value(adagrad, "_accumulators") == 0.25
    np.testing.assert_array_equal(adagrad._accumulators[0], np.full_like(X, 0.25))
    assert _keras.first_value(adam, "_momentums") == 0
    assert not np.any(adam._momentums[0])


def test_averages_of_optimizers():
    weights = [keras.Variable(X), keras.Variable(Y)]
    optimizer = keras.optimizers.SGD(use_ema=True)
    optimizer.build(weights)
    pairs = list(_keras.averages_of(optimizer))
    assert [weight for weight, _ in pairs] == weights
    assert all(average.shape == weight.shape for weight, average in pairs)
    optimizer = keras.optimizers.SGD()
    optimizer.build(weights)
    assert list(_keras.averages_of(optimizer)) == []


class Part(_keras.SavedPart):
    """Saves a number, and knows which names were in its file."""

    def save_own_variables(self, store):
        store["number"] = np.array([7.0])

    def load_own_variables(self, store):
        self.loaded = store["number"][()]
        self.paths = list(_keras.paths_in(store))


@pytest.mark.parametrize("shards", [None, 3e-8])
def test_saved_part(tmp_path, shards):
    models = small_model(), small_model()
    for model in models:
        object.__setattr__(model.layers[0], "own_part", Part())
    name = "model.weights.h5" if shards is None else "model.weights.json"
    options = {} if shards is None else {"max_shard_size": shards}
    models[0].save_weights(tmp_path / name, **options)
    models[1].load_weights(tmp_path / name)
    part = models[1].layers[0].own_part
    assert part.loaded == [7.0]
    assert any("own_part" in path.split("/") for path in part.paths)


def test_paths_in_a_store_of_another_kind():
    assert list(_keras.paths_in({})) == []
    with h5py.File(io.BytesIO(), "w") as file:
        file["a/b"] = X
        store = type("Store", (), {"h5_file": file})()
        assert set(_keras.paths_in(store)) == {"a", "a/b"}


def test_names_not_counted():
    first = layers.Dense(1).name
    with _keras.names_not_counted():
        layers.Dense(1)
    number = int(first.rpartition("_")[2]) if first != "dense" else 0
    assert layers.Dense(1).name == f"dense_{number + 1}"


def test_functions_are_inlined_where_asked_in_this_thread(monkeypatch):
    cls = type(tf.function(lambda: None))
    theirs = cls._run_functions_eagerly
    monkeypatch.setattr(cls, "_run_functions_eagerly", theirs)
    here = threading.get_ident()
    runs = []
    function = tf.function(lambda: runs.append(1))
    function()
    _keras.inline_functions_where(lambda: threading.get_ident() == here)
    function()
    assert len(runs) == 2
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
    assert len(runs) == 2


def test_function_like():
    function = tf.function(lambda x: x, jit_compile=True, reduce_retracing=True)
    other = _keras.function_like(function, lambda x: x + 1)
    assert isinstance(other, tf.types.experimental.PolymorphicFunction)
    assert other(1) == 2
    assert other._jit_compile is True and other._reduce_retracing is True


def test_reference():
    variable = tf.Variable(1.0)
    assert _keras.is_reference(variable.ref())
    assert variable.ref().deref() is variable
    assert not _keras.is_reference(functools.partial(int))


def test_unwrapped_tuple():
    Pair = collections.namedtuple("Pair", "a b")
    module = tf.Module()
    model = small_model()
    module.pair = model.pair = Pair(1, 2)
    for value in (module.pair, model.pair):
        assert type(_keras.unwrapped(value)) is Pair
        assert _keras.unwrapped(value) == Pair(1, 2)


def test_grouped_convolutions_are_traced_under_their_name():
    seen = []

    class Looks(keras.StatelessScope):
        def get_current_value(self, _):
            seen.append(_keras.is_traced_for_one_call())

    convolution = layers.Conv2D(4, 2, groups=2)
    convolution.build((None, 3, 3, 4))
    images = np.ones((1, 3, 3, 4), np.float32)
    with Looks():
        convolution(images)
    assert not _keras.is_traced_for_one_call()
    assert True in seen

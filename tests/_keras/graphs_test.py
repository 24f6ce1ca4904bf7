import keras
import numpy as np

from snip_tf import _keras

layers = keras.layers


X, Y = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)


def small_model():
    return keras.Sequential([keras.Input((3,)), layers.Dense(2, name="dense")])


def test_calls_in_a_graph_and_their_copies():
    x = keras.Input((3,), name="x")
    twice = layers.Dense(3, name="twice")
    y = layers.Add(name="sum")([twice(twice(x)), x])
    model = keras.Model(x, [y, x], name="model")
    calls = _keras.calls_in(model)
    assert [call.operation.name for call in calls] == ["x", "twice", "twice", "sum"]
    other = keras.Input((3,), name="other")
    tensors = {id(x): other}
    made = {"twice": layers.Dense(3, name="a"), "sum": layers.Add(name="b")}
    for call in calls[1:]:
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
    assert new.layers == model.layers
    vars(new).update(_keras.settings_of(model))
    assert np.array_equal(new(X), model(X))


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


def test_casts():
    x = keras.Input((3,))
    half = keras.ops.cast(keras.layers.Dense(2)(x), "float16")
    model = keras.Model(x, half + 1)
    assert [cast.dtype for cast in _keras.casts_in(model)] == ["float16"]
    assert not _keras.casts_in(keras.layers.Dense(2))
    for cast in _keras.casts_in(model):
        cast.dtype = "bfloat16"
    assert keras.backend.standardize_dtype(model(np.ones((1, 3))).dtype) == "bfloat16"


def test_input_signature():
    [spec] = _keras.input_signature(small_model())
    assert tuple(spec.shape) == (None, 3)


def test_names_not_counted():
    first = layers.Dense(1).name
    with _keras.names_not_counted():
        layers.Dense(1)
    number = int(first.rpartition("_")[2]) if first != "dense" else 0
    assert layers.Dense(1).name == f"dense_{number + 1}"

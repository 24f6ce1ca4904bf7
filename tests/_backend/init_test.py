"""What each backend of Keras does in a way of its own; run with each of them."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf import _backend
from snip_tf.scoring.precision import in_float64

ops = keras.ops
RNG = np.random.default_rng(0)


def tensors(**arrays):
    return {name: ops.convert_to_tensor(array) for name, array in arrays.items()}


def of_two(values):
    total = ops.sum(values["a"] ** 3 * values["b"])
    return total, "more"


def test_derivatives():
    a, b = RNG.normal(size=(2, 5)).astype(np.float32)
    value, more, found = _backend.differentiate(of_two, tensors(a=a, b=b))
    assert more == "more"
    np.testing.assert_allclose(float(value), np.sum(a**3 * b), rtol=1e-5)
    np.testing.assert_allclose(_backend.as_array(found["a"]), 3 * a**2 * b, rtol=1e-5)
    np.testing.assert_allclose(_backend.as_array(found["b"]), a**3, rtol=1e-5)


def test_second_derivatives():
    a, b, direction = RNG.normal(size=(3, 5)).astype(np.float32)

    def along_direction(values):
        _, _, gradients = _backend.differentiate(of_two, values)
        return ops.sum(gradients["a"] * ops.convert_to_tensor(direction)), None

    with _backend.second_derivatives():
        _, _, found = _backend.differentiate(along_direction, tensors(a=a, b=b))
    expected = {"a": 6 * a * b * direction, "b": 3 * a**2 * direction}
    for name, product in expected.items():
        np.testing.assert_allclose(_backend.as_array(found[name]), product, rtol=1e-5)


def test_second_derivatives_of_attention():
    """Fused, it has none on PyTorch."""
    x = RNG.normal(size=(2, 4, 2, 8)).astype(np.float32)

    def attend(values):
        a = values["a"]
        return ops.sum(ops.dot_product_attention(a, a, a) ** 2), None

    def along_direction(values):
        _, _, gradients = _backend.differentiate(attend, values)
        return ops.sum(gradients["a"] * ops.convert_to_tensor(x)), None

    with _backend.second_derivatives():
        _, _, found = _backend.differentiate(along_direction, tensors(a=x))
    step = 1e-2
    near = [
        _backend.differentiate(attend, tensors(a=x + sign * step * x))[2]["a"]
        for sign in (1, -1)
    ]
    above, below = map(_backend.as_array, near)
    expected = (above - below) / (2 * step)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        _backend.as_array(found["a"]), expected, atol=0.01 * scale
    )


def unused(values):
    return ops.sum(values["a"])


def stopped(values):
    return ops.sum(values["a"] + ops.stop_gradient(values["b"]))


def an_index(values):
    chosen = ops.take(values["a"], ops.argmax(values["b"]))
    return ops.sum(values["a"]) + chosen


def dead(values):
    return ops.sum(values["a"]) + ops.sum(ops.relu(-1 - ops.square(values["b"])))


@pytest.mark.parametrize(
    ("function", "depends"),
    [(unused, False), (stopped, False), (an_index, False), (dead, True)],
)
def test_what_a_function_does_not_depend_on(function, depends):
    values = tensors(a=np.ones(3, np.float32), b=np.ones(3, np.float32))
    _, _, found = _backend.differentiate(lambda v: (function(v), None), values)
    assert _backend.as_array(found["a"]).any()
    assert (found["b"] is not None) == depends
    if depends:
        assert not _backend.as_array(found["b"]).any()


def test_a_function_that_depends_on_nothing():
    values = tensors(a=np.ones(3, np.float32))
    _, _, found = _backend.differentiate(lambda v: (ops.ones(()), None), values)
    assert found == {"a": None}


def test_a_value_stays_when_the_variable_changes():
    variable = keras.Variable(np.ones(3, np.float32))
    value = _backend.value_of(variable)
    variable.assign(np.zeros(3, np.float32))
    np.testing.assert_array_equal(_backend.as_array(value), np.ones(3))


def test_float64_is_that():
    with in_float64():
        third = ops.cast(ops.convert_to_tensor(np.ones((1, 1))), "float64") / 3
        for one in (third, ops.matmul(third, 3 * third), ops.add(third, 0)):
            assert keras.backend.standardize_dtype(one.dtype) == "float64"
            assert abs(float(one[0, 0]) - 1 / 3) < 1e-12


@pytest.mark.parametrize("name", ["LayerNormalization", "GroupNormalization"])
def test_layers_normalize_in_float64(name):
    options = {"groups": 1} if name.startswith("Group") else {}
    x = RNG.normal(size=(2, 8))
    with in_float64():
        layer = getattr(keras.layers, name)(epsilon=1e-3, dtype="float64", **options)
        found = _backend.as_array(layer(ops.convert_to_tensor(x)))
    centred = x - x.mean(-1, keepdims=True)
    expected = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_nothing_flows_through_queries():
    """That, but for rounding, is no reason to try smaller inputs."""
    inputs = keras.Input((4, 6))
    x = keras.layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    x = keras.layers.Dense(3, name="out")(keras.layers.Flatten()(x))
    scores = snip_tf.score(keras.Model(inputs, x), criterion="synflow")
    largest = {path: np.abs(score).max() for path, score in scores.items()}
    assert largest["attention/query/kernel"] < 1e-12
    assert largest["out/kernel"] > 1e-3


def test_inference_as_functions_of_arrays():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    x = RNG.normal(size=(5, 4)).astype(np.float32)
    calls = _backend.compiled_calls(model)
    assert tuple(calls) == _backend.ENGINES
    for name, call in calls.items():
        assert _backend.can_run(name, call, x)
        expected = x @ np.asarray(model.get_weights()[0])
        np.testing.assert_allclose(call(x), expected, rtol=1e-5, atol=1e-6)
        model.set_weights([2 * weight for weight in model.get_weights()])
        np.testing.assert_allclose(call(x), 2 * expected, rtol=1e-5, atol=1e-6)
        model.set_weights([weight / 2 for weight in model.get_weights()])


def test_imports_no_other_backend():
    """More than Keras itself does."""
    program = (
        "import sys, keras; before = set(sys.modules); import snip_tf; "
        "print(*set(sys.modules) - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    others = {"jax", "tensorflow", "torch"} - {keras.backend.backend()}
    assert not others & set(done.stdout.split())
    assert "snip_tf" in done.stdout.split()


def test_an_absent_backend_is_named_in_one_sentence():
    name = keras.backend.backend()
    program = f"import sys; sys.modules[{name!r}] = None; import snip_tf"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode
    [*_, last] = done.stderr.strip().splitlines()
    assert last.startswith("ModuleNotFoundError: Expected the backend that Keras is")
    assert f"pip install 'snip_tf[{name}]'" in last
    assert "During handling" not in done.stderr


def test_a_copy_that_is_trained_leaves_the_model_its_values():
    """JAX gives the memory of what `fit` updates away; states of seeds, too."""
    layers = keras.layers
    stack = [layers.LSTM(4, recurrent_dropout=0.2), layers.BatchNormalization()]
    stack += [layers.Dropout(0.2), layers.Dense(3)]
    model = keras.Sequential([keras.Input((5, 2)), *stack])
    model.compile("adam", "mse")
    x = RNG.normal(size=(8, 5, 2)).astype(np.float32)
    y = RNG.normal(size=(8, 3)).astype(np.float32)
    pruned = snip_tf.prune_model(model, x, y, sparsity=0.5)
    # Copied: JAX keeps the memory that an array of NumPy's still refers to.
    before = [np.array(_backend.as_array(variable)) for variable in model.variables]
    for copy in (pruned, snip_tf.apply_masks(model, snip_tf.get_masks(pruned))):
        snip_tf.strip_pruning(copy).fit(x, y, verbose=0)
        copy.fit(x, y, verbose=0)
    np.testing.assert_equal(list(map(_backend.as_array, model.variables)), before)

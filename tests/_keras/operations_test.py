import threading

import keras
import numpy as np
import pytest

from snip_tf._keras.operations import watching

ops = keras.ops
RNG = np.random.default_rng(0)


def variable(*shape):
    return keras.Variable(RNG.normal(size=shape).astype(np.float32))


def tensor(*shape):
    return ops.convert_to_tensor(RNG.normal(size=shape).astype(np.float32))


def seen_in(call):
    seen, parts = [], []

    def see(name, operation, args, kwargs):
        seen.append((name, args))

    with watching(see, lambda part, of, index: parts.append((part, of, index))):
        call()
    return seen, parts


W = variable(4, 3)
K = variable(3, 3, 2, 5)
CALLS = {
    "matmul": lambda: ops.matmul(tensor(2, 4), W),
    "dot": lambda: ops.dot(tensor(2, 4), W),
    "tensordot": lambda: ops.tensordot(tensor(2, 4), W, axes=1),
    "einsum": lambda: ops.einsum("ab,bc->ac", tensor(2, 4), W),
    "conv": lambda: ops.conv(tensor(2, 6, 6, 2), K),
    "depthwise_conv": lambda: ops.depthwise_conv(tensor(2, 6, 6, 2), K),
    "conv_transpose": lambda: ops.conv_transpose(tensor(2, 6, 6, 5), K, 2),
}


@pytest.mark.parametrize("name", CALLS)
def test_each_operation_is_seen_with_the_variable_itself(name):
    [(found, args)], _ = seen_in(CALLS[name])
    assert found == name
    assert any(arg is W or arg is K for arg in args)


def test_operators():
    for call in (lambda: tensor(2, 4) @ W, lambda: W @ tensor(3, 2)):
        [(name, args)], _ = seen_in(call)
        assert name == "matmul"
        assert any(arg is W or arg is W.value for arg in args)


def test_a_separable_convolution_is_two():
    depthwise, pointwise = variable(3, 3, 2, 2), variable(1, 1, 4, 5)
    x = tensor(2, 6, 6, 2)
    expected = ops.separable_conv(x, depthwise, pointwise)
    results = []
    seen, _ = seen_in(
        lambda: results.append(ops.separable_conv(x, depthwise, pointwise))
    )
    assert [name for name, _ in seen] == ["depthwise_conv", "conv"]
    np.testing.assert_allclose(
        *(ops.convert_to_numpy(r) for r in (results[0], expected)), atol=1e-5
    )


def test_parts():
    _, [(part, of, index)] = seen_in(lambda: W[:, :2])
    assert of is W and tuple(part.shape) == (4, 2) and index[1] == slice(None, 2)
    _, parts = seen_in(lambda: ops.split(W, 3, axis=1))
    assert [index[1] for _, _, index in parts] == [slice(i, i + 1) for i in range(3)]
    assert all(of is W for _, of, _ in parts)


def test_nothing_is_seen_by_another_thread_or_later():
    def call():
        thread = threading.Thread(target=CALLS["matmul"])
        thread.start()
        thread.join()

    assert seen_in(call) == ([], [])
    CALLS["matmul"]()

"""The ways of calling a layer on NumPy arrays: by all its numbers, or by its zeros."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import scipy.sparse

from snip_tf.graph.graph import Node

layers = keras.layers

# One call: of arrays, that returns an array or a nest of them.
Step = Callable[..., Any]


def ways_of(node: Node) -> dict[str, Step]:
    """The ways of making a call; of a layer that can be sparse, two."""
    layer = node.operation
    kind = type(layer)
    float32 = getattr(layer, "compute_dtype", "float32") == "float32"
    if float32 and len(node.inputs()) == 1:
        if kind is layers.Dense:
            return {name: _of_float32(way) for name, way in _dense(layer).items()}
        if kind in (layers.Conv1D, layers.Conv2D) and _is_plain(layer):
            return {"dense": _called(node), "sparse": _of_float32(_convolution(layer))}
        if kind in (layers.SimpleRNN, layers.GRU, layers.LSTM) and _is_a_loop(layer):
            return {"dense": _called(node), "sparse": _of_float32(_recurrence(layer))}
        if kind in (layers.Flatten, layers.Reshape):
            return {"dense": _reshaped(node)}
        if isinstance(layer, _IDLE):
            return {"dense": lambda x: x}
        if kind is layers.ReLU and not (layer.negative_slope or layer.threshold):
            top = layer.max_value
            return {"dense": lambda x: np.clip(x, 0, top)}
        if kind is layers.Activation and _in_numpy(layer.activation):
            return {"dense": _in_numpy(layer.activation)}
    return {"dense": _called(node)}


def _called(node: Node) -> Step:
    """As Keras calls it in a model: in inference, whatever the call itself says."""
    mode = {"training": False} if isinstance(node.operation, keras.Layer) else {}

    def step(*inputs: np.ndarray) -> Any:
        args, kwargs = node.arguments_with(inputs)
        outputs = node.operation(*args, **{**kwargs, **mode})
        return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)

    return step


def _of_float32(step: Step) -> Step:
    """Casts what a layer of another type has made, as Keras does."""
    return lambda x: step(np.asarray(x, np.float32))


def _dense(layer: keras.layers.Dense) -> dict[str, Step]:
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    finish = _finish(layer)
    sparse = scipy.sparse.csr_array(kernel.T)

    def by_zeros(x: np.ndarray) -> np.ndarray:
        if x.ndim == 2 and len(x) == 1:
            return finish(sparse @ x[0])[None]
        rows = np.ascontiguousarray(x.reshape(-1, x.shape[-1]).T)
        return finish((sparse @ rows).T.reshape(*x.shape[:-1], -1))

    return {"dense": lambda x: finish(x @ kernel), "sparse": by_zeros}


def _is_plain(layer: Any) -> bool:
    return (
        layer.groups == 1
        and {*layer.dilation_rate} == {1}
        and layer.padding in ("valid", "same")
        and layer.data_format == "channels_last"
    )


def _convolution(layer: Any) -> Step:
    """A product with the pieces of the image that the filters see."""
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    filters, rank = kernel.shape[-1], kernel.ndim - 2
    # The channels come before the places, as a window gives them.
    kernel = np.moveaxis(kernel, -2, 0).reshape(-1, filters)
    sparse, finish = scipy.sparse.csr_array(kernel.T), _finish(layer)
    sizes, strides = layer.kernel_size, layer.strides
    axes = tuple(range(1, rank + 1))

    def step(x: np.ndarray) -> np.ndarray:
        if layer.padding == "same":
            around = [(0, 0)]
            for length, size, stride in zip(x.shape[1:], sizes, strides, strict=False):
                more = max((-(-length // stride) - 1) * stride + size - length, 0)
                around.append((more // 2, more - more // 2))
            x = np.pad(x, [*around, (0, 0)])
        windows = np.lib.stride_tricks.sliding_window_view(x, sizes, axis=axes)
        windows = windows[
            (slice(None), *(slice(None, None, stride) for stride in strides))
        ]
        places = windows.shape[: rank + 1]
        pieces = windows.reshape(-1, kernel.shape[0])
        outputs = sparse @ np.ascontiguousarray(pieces.T)
        return finish(outputs.T.reshape(*places, filters))

    return step


def _is_a_loop(layer: Any) -> bool:
    functions = [layer.activation]
    if not isinstance(layer, layers.SimpleRNN):
        functions.append(layer.recurrent_activation)
    plain = not (layer.return_state or layer.stateful or layer.go_backwards)
    return plain and all(map(_in_numpy, functions))


def _recurrence(layer: Any) -> Step:
    """Steps through time, with both kernels as sparse matrices."""
    cell, units = layer.cell, layer.units
    inputs = scipy.sparse.csr_array(keras.ops.convert_to_numpy(cell.kernel).T)
    recurrent = keras.ops.convert_to_numpy(cell.recurrent_kernel).T
    parts = len(recurrent) // units
    recurrent = scipy.sparse.csr_array(recurrent)
    bias = np.zeros((2, parts * units), np.float32)
    if cell.use_bias:
        given = keras.ops.convert_to_numpy(cell.bias)
        bias[: given.ndim] = given  # a GRU may have one for the state, too
    bias = bias[:, :, None]
    activation = _in_numpy(cell.activation)
    gate = _in_numpy(getattr(cell, "recurrent_activation", None))

    def simple(x: np.ndarray, state: tuple) -> tuple:
        return (activation(x + recurrent @ state[0]),)

    def lstm(x: np.ndarray, state: tuple) -> tuple:
        h, c = state
        i, f, new, o = np.split(x + recurrent @ h, 4)
        c = gate(f) * c + gate(i) * activation(new)
        return gate(o) * activation(c), c

    def gru(x: np.ndarray, state: tuple) -> tuple:
        [h] = state
        x_z, x_r, x_h = np.split(x, 3)
        if cell.reset_after:
            r_z, r_r, r_h = np.split(recurrent @ h + bias[1], 3)
            new = activation(x_h + gate(x_r + r_r) * r_h)
        else:
            r_z, r_r = np.split(recurrent[: 2 * units] @ h, 2)
            new = activation(x_h + recurrent[2 * units :] @ (gate(x_r + r_r) * h))
        z = gate(x_z + r_z)
        return (z * h + (1 - z) * new,)

    one = {layers.SimpleRNN: simple, layers.LSTM: lstm, layers.GRU: gru}[type(layer)]
    states = 2 if one is lstm else 1

    def step(x: np.ndarray) -> np.ndarray:
        examples, steps, _ = x.shape
        # Time first, then features, then examples.
        flat = np.ascontiguousarray(x.transpose(2, 1, 0).reshape(x.shape[2], -1))
        given = (inputs @ flat + bias[0]).reshape(-1, steps, examples)
        state = (np.zeros((units, examples), np.float32),) * states
        every = []
        for t in range(steps):
            state = one(given[:, t], state)
            every.append(state[0])
        if layer.return_sequences:
            return np.stack(every).transpose(2, 0, 1)
        return state[0].T

    return step


def _reshaped(node: Node) -> Step:
    shape = [-1 if size is None else size for size in node.outputs.shape[1:]]
    return lambda x: x.reshape(len(x), *shape)


def _finish(layer: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Adds the bias and applies the activation."""
    bias = None if layer.bias is None else keras.ops.convert_to_numpy(layer.bias)
    function = _in_numpy(layer.activation) or _keras_function(layer.activation)

    def finish(x: np.ndarray) -> np.ndarray:
        return function(x if bias is None else np.add(x, bias, out=x))

    return finish


def _in_numpy(function: Any) -> Callable[[np.ndarray], np.ndarray] | None:
    """What computes the same in NumPy, if anything here does."""
    # (An activation may be an object that cannot be a key.)
    return _FUNCTIONS.get(function) if inspect.isfunction(function) else None


def _keras_function(function: Callable) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: keras.ops.convert_to_numpy(function(keras.ops.array(x)))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * np.tanh(0.5 * x) + 0.5


# What NumPy computes instead of Keras.
_FUNCTIONS: dict[Any, Callable[[np.ndarray], np.ndarray]] = {
    keras.activations.linear: lambda x: x,
    keras.activations.relu: lambda x: np.maximum(x, 0),
    keras.activations.tanh: np.tanh,
    keras.activations.sigmoid: _sigmoid,
}
# What does nothing in inference.
_IDLE = (
    *(layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D),
    *(layers.GaussianNoise, layers.GaussianDropout, layers.Identity),
    *(layers.ActivityRegularization, layers.AlphaDropout),
)

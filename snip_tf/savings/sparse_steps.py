"""The ways of calling a layer on NumPy arrays: with dense or with sparse kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
import scipy.sparse

from snip_tf.graph.graph import Node
from snip_tf.savings.activations import Function, linear, numpy_function, on_arrays
from snip_tf.savings.recurrent_steps import can_be_sparse, recurrence

layers = keras.layers

Way = Literal["dense", "sparse"]
# One call of a layer: a function of arrays that returns an array or a nest of them.
Step = Callable[..., Any]


def ways_of(node: Node) -> dict[Way, Step]:
    """Returns the ways of making a call: two for a layer that can be sparse."""
    layer = node.operation
    float32 = getattr(layer, "compute_dtype", "float32") == "float32"
    if not float32 or len(node.inputs()) != 1:
        return {"dense": _called(node)}
    if type(layer) is layers.Dense:
        by_all, by_zeros = _dense(layer)
        return {"dense": _of_float32(by_all), "sparse": _of_float32(by_zeros)}
    if type(layer) in (layers.Conv1D, layers.Conv2D) and _is_plain(layer):
        return {"dense": _called(node), "sparse": _of_float32(_convolution(layer))}
    if can_be_sparse(layer):
        return {"dense": _called(node), "sparse": _of_float32(recurrence(layer))}
    return {"dense": _without_weights(node) or _called(node)}


def _called(node: Node) -> Step:
    """Calls a layer as Keras does in a model: in inference mode, always."""
    mode = {"training": False} if isinstance(node.operation, keras.Layer) else {}

    def step(*inputs: np.ndarray) -> Any:
        args, kwargs = node.arguments_with(inputs)
        outputs = node.operation(*args, **{**kwargs, **mode})
        return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)

    return step


def _without_weights(node: Node) -> Step | None:
    """Returns a NumPy function for a layer without weights, or None."""
    layer, kind = node.operation, type(node.operation)
    if kind in (layers.Flatten, layers.Reshape):
        return _reshaped(node)
    if isinstance(layer, _ONLY_IN_TRAINING):
        return linear
    if kind is layers.ReLU and not (layer.negative_slope or layer.threshold):
        top = layer.max_value
        return lambda x: np.clip(x, 0, top)
    return numpy_function(layer.activation) if kind is layers.Activation else None


# Layers that do nothing in inference.
_ONLY_IN_TRAINING = (
    layers.ActivityRegularization,
    layers.AlphaDropout,
    layers.Dropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
)


def _of_float32(step: Step) -> Step:
    """Casts the output of a layer with another dtype, as Keras does."""
    return lambda x: step(np.asarray(x, np.float32))


def _dense(layer: keras.layers.Dense) -> tuple[Step, Step]:
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    finish = _finish(layer)
    sparse = scipy.sparse.csr_array(kernel.T)

    def by_zeros(x: np.ndarray) -> np.ndarray:
        if x.ndim == 2 and len(x) == 1:
            return finish(sparse @ x[0])[None]
        rows = np.ascontiguousarray(x.reshape(-1, x.shape[-1]).T)
        return finish((sparse @ rows).T.reshape(*x.shape[:-1], -1))

    return lambda x: finish(x @ kernel), by_zeros


def _is_plain(layer: Any) -> bool:
    return (
        layer.groups == 1
        and {*layer.dilation_rate} == {1}
        and layer.padding in ("valid", "same")
        and layer.data_format == "channels_last"
    )


def _convolution(layer: Any) -> Step:
    """Returns a product with the patches of the image that the filters see."""
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    filters, rank = kernel.shape[-1], kernel.ndim - 2
    # Channels come before positions, as in the windows.
    kernel = np.moveaxis(kernel, -2, 0).reshape(-1, filters)
    sparse, finish = scipy.sparse.csr_array(kernel.T), _finish(layer)
    axes = tuple(range(1, rank + 1))
    strided = (slice(None), *(slice(None, None, stride) for stride in layer.strides))

    def step(x: np.ndarray) -> np.ndarray:
        x = _padded(layer, x) if layer.padding == "same" else x
        view = np.lib.stride_tricks.sliding_window_view
        windows = view(x, layer.kernel_size, axis=axes)[strided]
        pieces = windows.reshape(-1, kernel.shape[0])
        outputs = sparse @ np.ascontiguousarray(pieces.T)
        return finish(outputs.T.reshape(*windows.shape[: rank + 1], filters))

    return step


def _padded(layer: Any, x: np.ndarray) -> np.ndarray:
    """Returns an image with the zeros that padding="same" adds."""
    around = [(0, 0)]
    sizes = zip(x.shape[1:-1], layer.kernel_size, layer.strides, strict=True)
    for length, size, stride in sizes:
        more = max((-(-length // stride) - 1) * stride + size - length, 0)
        around.append((more // 2, more - more // 2))
    return np.pad(x, [*around, (0, 0)])


def _reshaped(node: Node) -> Step:
    shape = [-1 if size is None else size for size in node.outputs.shape[1:]]
    return lambda x: x.reshape(len(x), *shape)


def _finish(layer: Any) -> Function:
    """Returns a function that adds the bias and applies the activation."""
    bias = None if layer.bias is None else keras.ops.convert_to_numpy(layer.bias)
    function = on_arrays(layer.activation)

    def finish(x: np.ndarray) -> np.ndarray:
        return function(x if bias is None else np.add(x, bias, out=x))

    return finish

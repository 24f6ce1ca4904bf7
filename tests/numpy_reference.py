"""Connection sensitivity of the LeNets in NumPy float64, written from the formulas.

Nothing of the library, Keras or TensorFlow is used: a forward pass, a backward pass by
hand, and a selection by a full stable sort.
"""

import numpy as np


def lenet300_gradients(weights, images, labels):
    """dL/dw of the mean softmax cross-entropy; `weights` are [w1, b1, ..., w3, b3]."""
    w1, b1, w2, b2, w3, b3 = (w.astype(np.float64) for w in weights)
    x = images.reshape(len(images), -1).astype(np.float64)
    h1 = np.maximum(x @ w1 + b1, 0)
    h2 = np.maximum(h1 @ w2 + b2, 0)
    d3 = _softmax_gradient(h2 @ w3 + b3, labels)
    d2 = d3 @ w3.T * (h2 > 0)
    d1 = d2 @ w2.T * (h1 > 0)
    return [x.T @ d1, h1.T @ d2, h2.T @ d3]


def lenet5_gradients(weights, images, labels):
    """The same for LeNet-5-Caffe; no activation follows the convolutions."""
    k1, c1, k2, c2, w3, b3, w4, b4 = (w.astype(np.float64) for w in weights)
    x = images.astype(np.float64)
    conv1 = _conv(x, k1) + c1
    pool1, chosen1 = _max_pool(conv1)
    conv2 = _conv(pool1, k2) + c2
    pool2, chosen2 = _max_pool(conv2)
    flat = pool2.reshape(len(x), -1)
    h3 = np.maximum(flat @ w3 + b3, 0)
    d4 = _softmax_gradient(h3 @ w4 + b4, labels)
    d3 = d4 @ w4.T * (h3 > 0)
    d_conv2 = _max_pool_gradient((d3 @ w3.T).reshape(pool2.shape), chosen2)
    d_conv1 = _max_pool_gradient(_conv_input_gradient(d_conv2, k2), chosen1)
    return [
        _conv_kernel_gradient(x, d_conv1, k1.shape),
        _conv_kernel_gradient(pool1, d_conv2, k2.shape),
        flat.T @ d3,
        h3.T @ d4,
    ]


def keep_largest(scores, kept):
    """Masks of the `kept` largest scores of all; on ties, the first stay."""
    flat = np.concatenate([score.ravel() for score in scores])
    mask = np.zeros(flat.size, bool)
    mask[np.argsort(-flat, kind="stable")[:kept]] = True
    ends = np.cumsum([score.size for score in scores])[:-1]
    parts = np.split(mask, ends)
    return [
        part.reshape(score.shape) for part, score in zip(parts, scores, strict=True)
    ]


def _softmax_gradient(logits, labels):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax = shifted / shifted.sum(axis=1, keepdims=True)
    softmax[np.arange(len(labels)), labels] -= 1
    return softmax / len(labels)


def _patches(images, height, width):
    # (batch, rows, columns, channels, height, width)
    return np.lib.stride_tricks.sliding_window_view(images, (height, width), (1, 2))


def _conv(images, kernel):
    patches = _patches(images, *kernel.shape[:2])
    return np.einsum("bijchw,hwcf->bijf", patches, kernel, optimize=True)


def _conv_kernel_gradient(images, upstream, shape):
    patches = _patches(images, *shape[:2])
    return np.einsum("bijchw,bijf->hwcf", patches, upstream, optimize=True)


def _conv_input_gradient(upstream, kernel):
    rows, columns = kernel.shape[0] - 1, kernel.shape[1] - 1
    padded = np.pad(upstream, ((0, 0), (rows, rows), (columns, columns), (0, 0)))
    turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    return _conv(padded, turned)


def _max_pool(images):
    batch, height, width, channels = images.shape
    windows = images.reshape(batch, height // 2, 2, width // 2, 2, channels)
    windows = windows.transpose(0, 1, 3, 5, 2, 4).reshape(-1, 4)
    chosen = np.eye(4)[windows.argmax(axis=1)]
    pooled = windows.max(axis=1).reshape(batch, height // 2, width // 2, channels)
    return pooled, chosen


def _max_pool_gradient(upstream, chosen):
    batch, height, width, channels = upstream.shape
    windows = (chosen * upstream.reshape(-1, 1)).reshape(
        batch, height, width, channels, 2, 2
    )
    return windows.transpose(0, 1, 4, 2, 5, 3).reshape(
        batch, 2 * height, 2 * width, channels
    )

"""Which type should a mask have? Step time and memory of bool, uint8 and float32.

Trains each network with the current `MaskedLayer` (bool, `where`) and with the two
alternatives (uint8 cast to the weight's type, and the weight's own type, both
multiplied), each in turn with the dense model, and prints the median ratio of the step
times.

    python benchmarks/mask_dtype.py
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from unittest import mock

import keras
import numpy as np

from snip_tf.masking import masked_layer, masked_weights
from snip_tf.masking.pruned_model import apply_masks
from snip_tf.network import prunable_weights

ROUNDS = 15
STEPS = 20
BATCH_SIZE = 100


def lenet300() -> tuple[keras.Model, tuple[int, ...]]:
    return _mlp(784, 300, 100, 10), (784,)


def wide_mlp() -> tuple[keras.Model, tuple[int, ...]]:
    return _mlp(1024, 2048, 2048, 10), (1024,)


def lenet5() -> tuple[keras.Model, tuple[int, ...]]:
    shape = (28, 28, 1)
    layers = keras.layers
    network = [
        keras.Input(shape),
        layers.Conv2D(20, 5),
        layers.MaxPooling2D(),
        layers.Conv2D(50, 5),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(500, activation="relu"),
        layers.Dense(10),
    ]
    return keras.Sequential(network), shape


def _mlp(inputs: int, *units: int) -> keras.Model:
    dense = [keras.layers.Dense(n, activation="relu") for n in units]
    return keras.Sequential([keras.Input((inputs,)), *dense])


def masked_as(dtype: str, model: keras.Model, masks: dict) -> keras.Model:
    """Returns the masked model, with masks of another type than the library's."""

    def mask_variable(path, mask):
        return keras.Variable(mask, dtype=dtype, trainable=False)

    with mock.patch.object(masked_layer, "mask_variable", mask_variable):
        return apply_masks(model, masks)


def multiplied(weight, mask):
    return weight * keras.ops.cast(mask, weight.dtype)


def step_seconds(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    start = time.perf_counter()
    model.fit(x, y, batch_size=BATCH_SIZE, verbose=0)
    return (time.perf_counter() - start) / STEPS


def ratio(build: Callable, dtype: str) -> tuple[float, int]:
    """Returns the median step time over the dense model's, and the masks' bytes."""
    model, shape = build()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(STEPS * BATCH_SIZE, *shape)).astype(np.float32)
    y = rng.integers(10, size=len(x))
    weights = prunable_weights(model)
    masks = {path: rng.random(w.shape) < 0.05 for path, w in weights.items()}
    masked = masked_as(dtype, model, masks)
    product = masked_weights.masked_value if dtype == "bool" else multiplied
    # The step is traced in the first call, with the product instead of `where`.
    with mock.patch.object(masked_weights, "masked_value", product):
        for each in (model, masked):
            optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            each.compile(optimizer, loss, jit_compile=False)
            step_seconds(each, x, y)
    pairs = [
        (step_seconds(masked, x, y), step_seconds(model, x, y)) for _ in range(ROUNDS)
    ]
    size = sum(mask.size for mask in masks.values()) * np.dtype(dtype).itemsize
    return statistics.median(masked / dense for masked, dense in pairs), size


def main() -> None:
    if sys.argv[1:]:
        network, dtype = sys.argv[1:]
        found, size = ratio(NETWORKS[network], dtype)
        print(f"{network:11} {dtype:9} {found:14.2f}   {size:15,}")
        return
    print("network     mask      step over dense   bytes of masks", flush=True)
    for network in NETWORKS:
        for dtype in ("bool", "uint8", "float32"):
            # A process for each: other models in memory would affect the measurement.
            command = [sys.executable, __file__, network, dtype]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


NETWORKS = {build.__name__: build for build in (lenet300, lenet5, wide_mlp)}

if __name__ == "__main__":
    main()

"""Which type should a mask have? Step time and memory of bool, uint8 and float32.

Trains each network with `MaskedLayer` as it is (bool, `where`) and with the two
alternatives (uint8 cast to the weight's type, and the weight's own type, both
multiplied), in turn, and prints the median step time over the dense model's.

    python benchmarks/mask_dtype.py
"""

import statistics
import time
from unittest import mock

import keras
import numpy as np

from snip_tf import masked_layer
from snip_tf.masked_layer import MaskedLayer
from snip_tf.weights import prunable_weights
from snip_tf.wrapping import apply_masks

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
    """The masked model, with masks of another type than the library's."""
    add_weight = MaskedLayer.add_weight

    def add_weight_of_dtype(self, *args, **kwargs):
        return add_weight(self, *args, **{**kwargs, "dtype": dtype})

    with mock.patch.object(MaskedLayer, "add_weight", add_weight_of_dtype):
        return apply_masks(model, masks)


def multiplied(weight, mask):
    return weight * keras.ops.cast(mask, weight.dtype)


def step_seconds(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    start = time.perf_counter()
    model.fit(x, y, batch_size=BATCH_SIZE, verbose=0)
    return (time.perf_counter() - start) / STEPS


def main() -> None:
    rng = np.random.default_rng(0)
    print("network     mask      step over dense   bytes of masks")
    for build in (lenet300, lenet5, wide_mlp):
        model, shape = build()
        x = rng.normal(size=(STEPS * BATCH_SIZE, *shape)).astype(np.float32)
        y = rng.integers(10, size=len(x))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        weights = prunable_weights(model)
        masks = {path: rng.random(w.shape) < 0.05 for path, w in weights.items()}
        variants = {"dense": model, "bool": apply_masks(model, masks)}
        for dtype in ("uint8", "float32"):
            variants[dtype] = masked_as(dtype, model, masks)
        for name, variant in variants.items():
            optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
            variant.compile(optimizer, loss, jit_compile=False)
            # The step is traced here, with the product in place of `where`.
            product = (
                multiplied if name in ("uint8", "float32") else masked_layer._masked
            )
            with mock.patch.object(masked_layer, "_masked", product):
                step_seconds(variant, x, y)
        times: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(ROUNDS):
            for name, variant in variants.items():
                times[name].append(step_seconds(variant, x, y))
        entries = sum(mask.size for mask in masks.values())
        for name in ("bool", "uint8", "float32"):
            pairs = zip(times[name], times["dense"], strict=True)
            ratio = statistics.median(masked / dense for masked, dense in pairs)
            size = entries * np.dtype(name).itemsize
            print(f"{build.__name__:11} {name:9} {ratio:14.2f}   {size:15,}")


if __name__ == "__main__":
    main()

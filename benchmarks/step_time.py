"""Measures what a masked model costs: its steps relative to the dense model's.

    python benchmarks/step_time.py

Trains and predicts with each network dense, masked and stripped, in turn, in separate
processes, and shows the medians of the ratios of paired rounds: within each process,
then over the processes, which differ by a few percent. The results are in
benchmarks/results/step_time.json.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

import snip_tf
from snip_tf import models

PROCESSES = 5
ROUNDS = 21
SECONDS = 0.15  # the least duration of a round of each
SPARSITY = 0.95
_RESULT = Path(__file__).resolve().parent / "results" / "step_time.json"


def lenet5() -> tuple[keras.Model, np.ndarray, int]:
    return models.build("lenet5"), _normal(100, 28, 28, 1), 10


def vgg_like() -> tuple[keras.Model, np.ndarray, int]:
    """Returns convolutions of VGG's shapes, with normalization, for 32 x 32 images."""
    layers = keras.layers
    model = keras.Sequential([keras.Input((32, 32, 3))])
    for filters, count in ((64, 2), (128, 2), (256, 3)):
        for _ in range(count):
            model.add(layers.Conv2D(filters, 3, padding="same", use_bias=False))
            model.add(layers.BatchNormalization())
            model.add(layers.Activation("relu"))
        model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dense(512, activation="relu"))
    model.add(layers.Dense(10))
    return model, _normal(128, 32, 32, 3), 10


def two_layer_lstm() -> tuple[keras.Model, np.ndarray, int]:
    layers = keras.layers
    inputs = keras.Input((28, 28))
    hidden = layers.LSTM(128, return_sequences=True)(inputs)
    outputs = layers.Dense(10)(layers.LSTM(128)(hidden))
    return keras.Model(inputs, outputs), _normal(100, 28, 28), 10


def small_transformer() -> tuple[keras.Model, np.ndarray, int]:
    layers = keras.layers
    inputs = x = keras.Input((64, 128))
    for _ in range(2):
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 32)(x, x))
        y = layers.Dense(128)(layers.Dense(512, activation="relu")(x))
        x = layers.LayerNormalization()(x + y)
    outputs = layers.Dense(10)(layers.GlobalAveragePooling1D()(x))
    return keras.Model(inputs, outputs), _normal(32, 64, 128), 10


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


NETWORKS = {
    make.__name__: make
    for make in (lenet5, vgg_like, two_layer_lstm, small_transformer)
}


def ratios(make: Callable) -> dict[str, float]:
    """Returns median times of a step, over the dense model's of the same round."""
    dense, x, classes = make()
    y = np.arange(len(x)) % classes
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    masked = snip_tf.prune_model(dense, x, y, sparsity=SPARSITY, loss=loss)
    versions = {
        "dense": dense,
        "masked": masked,
        "stripped": snip_tf.strip_pruning(masked),
    }
    for model in versions.values():
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss, jit_compile=False)
    ways = {
        "train": lambda model: model.train_on_batch(x, y),
        "predict": lambda model: model.predict_on_batch(x),
    }
    found = {}
    for way, run in ways.items():
        for model in versions.values():
            run(model)  # traces the step
        steps = 1 + int(SECONDS / _seconds(lambda run=run: run(dense)))
        rounds: dict[str, list[float]] = {name: [] for name in versions}
        for _ in range(ROUNDS):
            for name, model in versions.items():
                took = _seconds(lambda run=run, model=model: run(model), steps)
                rounds[name].append(took)
        found[f"{way}, dense, ms"] = 1000 * statistics.median(rounds["dense"])
        for name in ("masked", "stripped"):
            pairs = zip(rounds[name], rounds["dense"], strict=True)
            found[f"{way}, {name}"] = statistics.median(a / b for a, b in pairs)
    return found


def _seconds(call: Callable, times: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def _in_a_process(network: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, network], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    if sys.argv[1:]:
        print(json.dumps(ratios(NETWORKS[sys.argv[1]])))
        return
    results = {}
    for network in NETWORKS:
        found = [_in_a_process(network) for _ in range(PROCESSES)]
        results[network] = {
            key: statistics.median(one[key] for one in found) for key in found[0]
        }
        shown = ", ".join(
            f"{key} {value:.2f}" for key, value in results[network].items()
        )
        print(f"{network:18} {shown}", flush=True)
    _RESULT.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

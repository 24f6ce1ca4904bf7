"""Measures how the time and memory of pruning grow with parameters and replicas.

    python benchmarks/scaling.py

It selects 5 % of up to a billion random scores, and of 200 million also by NumPy and by
TensorFlow; and runs `prune_model` on plain networks of four equal hidden layers, of
many sizes, and of one size on up to eight replicas (logical processors that share the
core). Each point is a separate process on one core. The results are in
benchmarks/results/scaling.json and .png; the exponent is that of a straight line
through the logarithms.
"""

import gc
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from processes import PeakMemory, measured_alone

SELECTIONS = [10**6, 10**7, 3 * 10**7, 10**8, 3 * 10**8, 10**9]
SELECTORS = ["snip_tf", "numpy.partition", "tf.math.top_k"]
COMPARED_AT = 2 * 10**8
NETWORKS = [10**6, 3 * 10**6, 10**7, 3 * 10**7, 10**8, 2 * 10**8]
REPLICAS, REPLICATED = [1, 2, 4, 8], 3 * 10**7
# The law holds where fixed costs are negligible.
FITTED_FROM = 10**7
ROUNDS = 5

FLAGS = flags.FLAGS
flags.DEFINE_integer("scores", None, "Selects from this many; internal.")
flags.DEFINE_enum("by", "snip_tf", SELECTORS, "With what; internal.")
flags.DEFINE_integer("parameters", None, "Prunes a network of this many; internal.")
flags.DEFINE_integer("replicas", 1, "On this many; internal.")

_RESULTS = Path(__file__).resolve().parent / "results"
_INPUTS, _CLASSES, _HIDDEN_LAYERS = 784, 10, 4
_BATCH_SIZE = 32


def measured(**arguments: int | str) -> dict[str, Any]:
    """Measures one point, in a new process."""
    flags_given = [f"--{name}={value}" for name, value in arguments.items()]
    point = {**arguments, **measured_alone(__file__, *flags_given)}
    print(json.dumps(point), flush=True)
    return point


def select(scores: int, by: str) -> dict[str, float]:
    """Returns the seconds and extra bytes of a selection, without the masks."""
    rng = np.random.default_rng(0)
    # In pieces, as a network has them.
    arrays: dict[str, np.ndarray] = {}
    left = scores
    while left:
        size = min(left, 50_000_000)
        arrays[f"{len(arrays)}"] = rng.random(size, np.float32)
        left -= size
    kept = scores // 20
    if by == "snip_tf":
        import snip_tf

        peak = PeakMemory(own_bytes=scores)  # a mask is a byte
        return _measure(lambda: snip_tf.select_masks(arrays, 0.95), peak)
    # The others take one array, and return no masks.
    flat = np.concatenate(list(arrays.values()))
    arrays.clear()
    if by == "numpy.partition":
        peak = PeakMemory()
        return _measure(lambda: np.partition(flat, scores - kept), peak)
    import tensorflow as tf

    tensor = tf.constant(flat)
    tf.math.top_k(tensor[:1000], 10)
    peak = PeakMemory()
    return _measure(lambda: tf.math.top_k(tensor, kept, sorted=False), peak, rounds=1)


def prune(parameters: int, replicas: int) -> dict[str, float]:
    """Returns the seconds and extra bytes of `prune_model`, and the network's size."""
    import tensorflow as tf

    if replicas > 1:
        [cpu] = tf.config.list_physical_devices("CPU")
        logical = [tf.config.LogicalDeviceConfiguration()] * replicas
        tf.config.set_logical_device_configuration(cpu, logical)
        devices = [f"CPU:{replica}" for replica in range(replicas)]
        strategy = tf.distribute.MirroredStrategy(devices)
    else:
        strategy = tf.distribute.get_strategy()
    _pruning(10**5, strategy)()  # so that all code is loaded
    # Each replica has the weights.
    peak = PeakMemory(own_bytes=4 * parameters * replicas)
    return _measure(_pruning(parameters, strategy), peak)


def _pruning(parameters: int, strategy) -> Callable:
    """Returns a call of `prune_model` on a plain network of this many parameters."""
    import keras

    import snip_tf

    # width^2 * (layers - 1) + width * (inputs + classes) = parameters
    square, linear = _HIDDEN_LAYERS - 1, _INPUTS + _CLASSES
    root = math.sqrt(linear**2 + 4 * square * parameters)
    width = round((root - linear) / (2 * square))
    with strategy.scope():
        dense = [keras.layers.Dense(width, "relu") for _ in range(_HIDDEN_LAYERS)]
        layers = [keras.Input((_INPUTS,)), *dense, keras.layers.Dense(_CLASSES)]
        model = keras.Sequential(layers)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(_BATCH_SIZE, _INPUTS)).astype(np.float32)
    y = rng.integers(_CLASSES, size=_BATCH_SIZE)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return lambda: snip_tf.prune_model(model, x, y, sparsity=0.95, loss=loss)


def _measure(
    call: Callable, peak: PeakMemory, rounds: int = ROUNDS
) -> dict[str, float]:
    """Returns the median time, and the memory of the first call."""
    peak.restart()
    call()
    extra = peak.above_base()
    seconds = []
    for _ in range(rounds):
        gc.collect()  # models are cycles: else the call gets memory never touched yet
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds), "extra_bytes": extra}


def exponent(points: list[dict[str, float]], size: str) -> float:
    """Returns b of seconds = a * size^b, for sizes where fixed costs vanish."""
    large = [point for point in points if point[size] >= FITTED_FROM]
    sizes, seconds = (np.log([point[k] for point in large]) for k in (size, "seconds"))
    return float(np.polyfit(sizes, seconds, 1)[0])


def draw(result: dict) -> None:
    """Draws time against size, on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    by_size, by_replicas = figure.subplots(1, 2)
    for name, size in (("selection", "scores"), ("prune_model", "parameters")):
        points = result[name]
        label = f"{name}, exponent {result['exponents'][name]:.2f}"
        sizes = [point[size] for point in points]
        by_size.loglog(sizes, [point["seconds"] for point in points], "o-", label=label)
    by_size.set(xlabel="scores or parameters", ylabel="seconds, one core")
    by_size.grid(alpha=0.3)
    by_size.legend()
    points = result["replicas"]
    by_replicas.plot(
        [point["replicas"] for point in points],
        [point["seconds"] for point in points],
        "o-",
    )
    by_replicas.set(
        xlabel=f"replicas of {REPLICATED:,} parameters on that core",
        ylabel="seconds of prune_model",
        xticks=REPLICAS,
        ylim=0,
    )
    by_replicas.grid(alpha=0.3)
    figure.savefig(_RESULTS / "scaling.png", dpi=150)


def main(argv: list[str]) -> None:
    del argv
    if FLAGS.scores:
        print(json.dumps(select(FLAGS.scores, FLAGS.by)))
        return
    if FLAGS.parameters:
        print(json.dumps(prune(FLAGS.parameters, FLAGS.replicas)))
        return
    result: dict[str, Any] = {
        "selection": [measured(scores=size) for size in SELECTIONS],
        "selectors": [measured(scores=COMPARED_AT, by=name) for name in SELECTORS],
        "prune_model": [measured(parameters=size) for size in NETWORKS],
        "replicas": [
            measured(parameters=REPLICATED, replicas=count) for count in REPLICAS
        ],
    }
    result["exponents"] = {
        "selection": exponent(result["selection"], "scores"),
        "prune_model": exponent(result["prune_model"], "parameters"),
    }
    print(json.dumps(result["exponents"]))
    (_RESULTS / "scaling.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(result)


if __name__ == "__main__":
    app.run(main)

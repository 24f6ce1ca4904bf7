"""What pruning costs: `prune_model` over one plain forward and backward pass.

    python benchmarks/prune_time.py

Each network is measured in processes of its own: cold (the first call in a process),
with the peak of its memory; and warm, the plain pass and the whole call in turn, as the
median of the ratios. The result is kept in benchmarks/results/prune_time.json.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("networks", ["lenet300", "lenet5"], "Names in snip_tf.models.")
flags.DEFINE_integer("batch_size", 100, "Examples scored.", lower_bound=1)
flags.DEFINE_integer("rounds", 31, "Warm calls of each.", lower_bound=1)
flags.DEFINE_integer("cores", 1, "Processor cores to run on.", lower_bound=1)
flags.DEFINE_enum(
    "measure", None, ["plain", "prune", "warm"], "What one process measures; internal."
)

_RESULT = Path(__file__).resolve().parent / "results" / "prune_time.json"


def measured(network: str, what: str) -> dict[str, float]:
    """One measurement, in a new process."""
    command = [sys.executable, __file__, f"--networks={network}", f"--measure={what}"]
    command += [f"--{name}={FLAGS[name].value}" for name in ("batch_size", "rounds")]
    cores = ",".join(str(core) for core in range(FLAGS.cores))
    done = subprocess.run(
        ["taskset", "--cpu-list", cores, *command],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure_here(network: str, what: str) -> dict[str, float]:
    """Makes the model, then times and weighs the calls."""
    plain, prune, parameters = _make(network)
    calls = {"plain": plain, "prune": prune}
    if what != "warm":
        with _PeakMemory() as memory:
            seconds = _seconds(calls[what])
        return {"seconds": seconds, "memory_over_parameters": memory.grown / parameters}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(FLAGS.rounds + 1):
        for name, call in calls.items():
            times[name].append(_seconds(call))
    pairs = list(zip(times["prune"], times["plain"], strict=True))[1:]
    return {
        "plain": statistics.median(plain for _, plain in pairs),
        "prune": statistics.median(prune for prune, _ in pairs),
        "ratio": statistics.median(prune / plain for prune, plain in pairs),
    }


def _make(network: str) -> tuple[Callable, Callable, int]:
    import keras
    import numpy as np
    import tensorflow as tf

    import snip_tf
    from snip_tf import models

    keras.utils.set_random_seed(0)
    model = models.build(network)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(FLAGS.batch_size, *model.inputs[0].shape[1:]))
    x, y = x.astype(np.float32), rng.integers(10, size=FLAGS.batch_size)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def plain():
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=False))
        gradients = tape.gradient(value, model.trainable_variables)
        return gradients[-1].numpy()  # waits for all of them

    def prune():
        return snip_tf.prune_model(model, x, y, sparsity=0.95, loss=loss)

    return plain, prune, 4 * model.count_params()


def _seconds(call: Callable) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class _PeakMemory:
    """The growth of the process's resident memory at its highest, in bytes."""

    def __enter__(self) -> "_PeakMemory":
        self.grown = 0
        self._before = _resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.001):
            self.grown = max(self.grown, _resident() - self._before)


def _resident() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def main(argv: list[str]) -> None:
    del argv
    if FLAGS.measure:
        print(json.dumps(measure_here(FLAGS.networks[0], FLAGS.measure)))
        return
    rows = {}
    print("seconds      plain, cold   prune, cold   plain, warm   prune, warm   ratio")
    print("  and peak memory over the model's bytes, cold: plain, prune")
    for network in FLAGS.networks:
        row = {what: measured(network, what) for what in ("plain", "prune", "warm")}
        rows[network] = row
        cold = [row[what] for what in ("plain", "prune")]
        print(
            f"{network:10} {cold[0]['seconds']:13.3f} {cold[1]['seconds']:13.3f}"
            f" {row['warm']['plain']:13.4f} {row['warm']['prune']:13.4f}"
            f" {row['warm']['ratio']:7.2f}   memory"
            f" {cold[0]['memory_over_parameters']:.1f},"
            f" {cold[1]['memory_over_parameters']:.1f}"
        )
    setting = {"batch_size": FLAGS.batch_size, "cores": FLAGS.cores}
    result = {"processor": platform.processor(), **setting, "networks": rows}
    _RESULT.parent.mkdir(parents=True, exist_ok=True)
    _RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)

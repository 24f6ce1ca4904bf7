"""Measures how a training step of the recurrent networks runs fastest.

    python benchmarks/recurrent_time.py

Each network runs on one processor thread, like the parallel runs of
`scripts/reproduce.py`: the cell in a loop or unrolled over its 28 steps, with and
without XLA. The milliseconds per step are in benchmarks/results/recurrent_time.json.
"""

import json
import os
import statistics
import time
from pathlib import Path

# Before TensorFlow starts.
os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = "1"

import numpy as np
import tensorflow as tf

from snip_tf import models
from snip_tf.experiments.training import optimizers

BATCH = 100
STEPS = 20
ROUNDS = 5
_RESULT = Path(__file__).resolve().parent / "results" / "recurrent_time.json"


def training_function(arch: str, unroll: bool, jit_compile: bool):
    """Returns a compiled loop of steps of SGD with momentum."""
    model = models.build(arch)
    model.get_layer("recurrent").unroll = unroll
    optimizer = optimizers.make_optimizer("momentum", 0.1)
    variables = model.trainable_variables
    optimizer.build(variables)
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(BATCH, 28, 28)).astype(np.float32))
    y = tf.constant(np.arange(BATCH) % 10)

    @tf.function(jit_compile=jit_compile)
    def step():
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
            loss = tf.reduce_mean(losses)
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    @tf.function
    def run(count):
        for _ in tf.range(count):
            step()

    return run


def main() -> None:
    results = {}
    for arch in ("lstm_s", "lstm_b", "gru_s", "gru_b"):
        ways = {
            f"{'unrolled' if unroll else 'loop'}{', XLA' if jit else ''}": (
                training_function(arch, unroll, jit)
            )
            for unroll in (False, True)
            for jit in (False, True)
        }
        rounds: dict[str, list[float]] = {name: [] for name in ways}
        for run in ways.values():
            run(tf.constant(1))  # traces and compiles
        for _ in range(ROUNDS):
            for name, run in ways.items():
                start = time.perf_counter()
                run(tf.constant(STEPS))
                took = time.perf_counter() - start
                rounds[name].append(1000 * took / STEPS)
        results[arch] = {
            name: round(statistics.median(took), 1) for name, took in rounds.items()
        }
        print(arch, results[arch], flush=True)
    _RESULT.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

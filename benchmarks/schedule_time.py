"""Measures what a schedule costs: an update, and a `fit` with ten of them.

    python benchmarks/schedule_time.py

An update of `GradualPruning` is measured relative to a plain forward and backward pass
of the same network, in turn with it, for LeNet-5 and ResNet-50; a `fit` of 1,000 steps
of LeNet-5 with ten updates relative to one with masks and without a schedule. Each has
a process of its own, on one core; the ratios are medians. The results are in
benchmarks/results/schedule_time.json.
"""

import json
import time
from pathlib import Path

import numpy as np
from absl import app, flags
from processes import measured_alone

# The examples of a pass, and the rounds.
NETWORKS = {"lenet5": (100, 30), "resnet_50": (8, 5)}

FLAGS = flags.FLAGS
flags.DEFINE_list("networks", [*NETWORKS, "fit"], "What to measure.")
flags.DEFINE_integer("cores", 1, "Processor cores to run on.", lower_bound=1)
flags.DEFINE_bool("here", False, "Measures one of them in this process; internal.")

_RESULT = Path(__file__).resolve().parent / "results" / "schedule_time.json"


def update_here(name: str) -> dict[str, float]:
    """Returns the seconds of a plain pass and of an update, and their ratio."""
    import keras
    import passes

    import snip_tf

    examples, rounds = NETWORKS[name]
    made = passes.network(name, examples)
    pruned = snip_tf.prune_model(made.model, sparsity=0.0, criterion="magnitude")
    pruned.compile(keras.optimizers.SGD(0.1, momentum=0.9), made.loss)
    pruned.optimizer.build(pruned.trainable_variables)
    # Each update removes more, from 0 to 90 %.
    end = 10 * (rounds + 2)
    schedule = snip_tf.GradualPruning(0.9, end_step=end, frequency=10)
    schedule.set_model(pruned)
    step = iter(range(0, end, 10))

    def update() -> None:
        pruned.optimizer.iterations.assign(next(step))
        schedule.step()

    return passes.in_turn({"plain": passes.plain_pass(made), "update": update}, rounds)


def fit_here() -> dict[str, float]:
    """Returns the seconds of 1,000 steps of LeNet-5, and with ten updates."""
    import keras

    import snip_tf

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10_000, 28, 28, 1)).astype(np.float32)
    y = rng.integers(10, size=10_000)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = snip_tf.models.build("lenet5")
    seconds: dict[str, list[float]] = {"plain": [], "schedule": []}
    runs = {}
    for name in seconds:
        runs[name] = snip_tf.prune_model(model, sparsity=0.0, criterion="magnitude")
        runs[name].compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
        runs[name].fit(x[:1000], y[:1000], batch_size=100, verbose=0)  # traces
    for _ in range(5):
        for name, pruned in runs.items():
            pruned.optimizer.iterations.assign(0)
            snip_tf.set_masks(
                pruned,
                {p: np.ones_like(m) for p, m in snip_tf.get_masks(pruned).items()},
            )
            schedule = snip_tf.GradualPruning(
                0.9, begin_step=100, end_step=1000, frequency=100
            )
            callbacks = [schedule] if name == "schedule" else []
            start = time.perf_counter()
            pruned.fit(x, y, batch_size=100, epochs=10, verbose=0, callbacks=callbacks)
            seconds[name].append(time.perf_counter() - start)
    ratios = np.divide(seconds["schedule"], seconds["plain"])
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    return {**medians, "ratio": float(np.median(ratios))}


def main(argv: list[str]) -> None:
    del argv
    if FLAGS.here:
        name = FLAGS.networks[0]
        print(json.dumps(fit_here() if name == "fit" else update_here(name)))
        return
    result = json.loads(_RESULT.read_text()) if _RESULT.exists() else {}
    for name in FLAGS.networks:
        result[name] = measured_alone(
            __file__,
            "--here",
            f"--networks={name}",
            cores=FLAGS.cores,
            environment={"KERAS_BACKEND": "tensorflow"},
        )
        print(name, json.dumps(result[name]), flush=True)
        _RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)

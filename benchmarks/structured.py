"""Measures what removing whole units before training saves, and its cost in accuracy.

    python benchmarks/structured.py
    python benchmarks/structured.py --train --data_dir=FOLDER

Half of the multiply-adds of VGG-like and ResNet-20 are removed at initialization by
`structure="units"`, and the model is compacted. The first command times training steps
of the dense and the small one, in turn, on random images: medians of paired rounds and
the range of their middle half; for comparison, a ResNet-20 manually narrowed to the
same multiply-adds. The second trains the three ResNet-20 on CIFAR-10 for some epochs,
all by one recipe; finished runs are kept, and not repeated. The results are in
benchmarks/results/structured.json and structured.md.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import snip_tf
from snip_tf import models
from snip_tf.experiments.models import initializers
from snip_tf.experiments.models.resnet import resnet_20
from snip_tf.experiments.training import loop
from snip_tf.files import locked, whole_file, write_json

# Widths of the groups of a ResNet-20 with half of the multiply-adds of (16, 32, 64).
NARROW = (11, 23, 45)
CASES = [("vgg_like", 32), ("resnet_20", 32), ("resnet_20", 128)]
ROUNDS = 21
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# The recipe of the training runs.
BATCH_SIZE = 128
RATE = 0.2
WARM_UP = 0.2  # of the iterations

FLAGS = flags.FLAGS
flags.DEFINE_bool("train", False, "Trains, instead of timing steps.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tensorflow-datasets.")
flags.DEFINE_integer("epochs", 5, "Epochs of each training run.")
flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of the training runs.")

_RESULTS = Path(__file__).resolve().parent / "results"


def networks(name: str, x: np.ndarray, y: np.ndarray) -> dict[str, keras.Model]:
    """Returns the dense network, and those with half of its multiply-adds."""
    dense = models.build(name)
    pruned = snip_tf.prune_model(
        dense,
        x,
        y,
        sparsity=0.5,
        structure=snip_tf.Units(cost="multiply_adds"),
        loss=LOSS,
        batch_size=len(x),
    )
    made = {"dense": dense, "units": snip_tf.compact(pruned)}
    if name == "resnet_20":
        # Draws its weights as `models.build` does.
        made["narrow by hand"] = resnet_20(
            widths=NARROW,
            weights=lambda: {"kernel_initializer": initializers.INITIALIZERS["vs"]()},
        )
    return made


def sizes(model: keras.Model) -> dict[str, Any]:
    totals = snip_tf.report(model).totals()
    return {name: totals[name] for name in ("parameters", "multiply_adds")}


def steps(name: str, batch_size: int) -> dict[str, dict]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch_size, 32, 32, 3)).astype(np.float32)
    y = np.arange(batch_size) % 10
    made = networks(name, x, y)
    times: dict[str, list[float]] = {kind: [] for kind in made}
    for model in made.values():
        sgd = keras.optimizers.SGD(0.01, momentum=0.9)
        model.compile(sgd, LOSS, jit_compile=False)
        model.train_on_batch(x, y)  # traces the step
    for _ in range(ROUNDS):
        for kind, model in made.items():
            start = time.perf_counter()
            model.train_on_batch(x, y)
            times[kind].append(time.perf_counter() - start)
    found = {}
    for kind, model in made.items():
        pairs = zip(times["dense"], times[kind], strict=True)
        ratios = [dense / own for dense, own in pairs]
        found[kind] = {
            **sizes(model),
            "ms": 1000 * statistics.median(times[kind]),
            "faster": statistics.median(ratios),
            "quartiles": statistics.quantiles(ratios, n=4)[::2],
        }
    return found


def trained(
    kind: str, data: snip_tf.datasets.Dataset, seed: int, epochs: int
) -> dict[str, Any]:
    """Trains one network, and returns its error on the test set."""
    keras.utils.set_random_seed(seed)
    x, y = (array[:BATCH_SIZE] for array in data.train)
    model = networks("resnet_20", x, y)[kind]
    iterations = epochs * len(data.train[0]) // BATCH_SIZE
    warm_up = round(WARM_UP * iterations)
    schedule = keras.optimizers.schedules.CosineDecay(
        RATE / 100, iterations - warm_up, warmup_target=RATE, warmup_steps=warm_up
    )
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=5e-4)
    )
    settings = loop.Settings(
        iterations=iterations,
        batch_size=BATCH_SIZE,
        check_interval=iterations,
        save_interval=iterations,
        seed=seed,
        aug_kinds=("fliplr", "translate_px"),
    )
    strategy = tf.distribute.get_strategy()
    with tempfile.TemporaryDirectory() as folder:
        [check] = loop.train(
            model, data, settings, Path(folder), strategy, lambda *_: None, []
        )
    return {"error": check.test_error, "seconds": check.seconds, **sizes(model)}


def keep(path: Path, key: str, found: dict, name: str) -> None:
    """Adds a result to those in the file, which other processes may write, too."""
    with locked(path.parent):
        results = json.loads(path.read_text()) if path.exists() else {}
        results.setdefault(key, {})[name] = found
        write_json(path, results)
        with whole_file(path.with_suffix(".md")) as partial:
            partial.write_text(table(results))
    print(name, json.dumps(found), flush=True)


def table(results: dict) -> str:
    lines = [
        "| a training step | parameters | multiply-adds | ms | faster than dense |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, found in sorted(results.get("steps", {}).items()):
        for kind, row in found.items():
            low, high = row["quartiles"]
            lines.append(
                f"| {name}, {kind} | {row['parameters']:,} | {row['multiply_adds']:,} "
                f"| {row['ms']:.1f} | {row['faster']:.2f} ({low:.2f}-{high:.2f}) |"
            )
    by_kind: dict[str, list[dict]] = {}
    for name, run in sorted(results.get("runs", {}).items()):
        by_kind.setdefault(name.rpartition(", seed")[0], []).append(run)
    lines += [
        "",
        "| trained on CIFAR-10 | multiply-adds | error, % | seeds |",
        "|---|---:|---:|---:|",
    ]
    for kind, runs in by_kind.items():
        errors = [run["error"] for run in runs]
        spread = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
        lines.append(
            f"| {kind} | {statistics.mean(run['multiply_adds'] for run in runs):,.0f} "
            f"| {statistics.mean(errors):.2f}{spread} | {len(errors)} |"
        )
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> None:
    del argv
    path = _RESULTS / "structured.json"
    if not FLAGS.train:
        for name, batch_size in CASES:
            keras.utils.set_random_seed(0)
            found = steps(name, batch_size)
            keep(path, "steps", found, f"{name}, batch {batch_size}")
        return
    data = snip_tf.datasets.load("cifar10", FLAGS.data_dir)
    for seed in FLAGS.seeds:
        for kind in ("dense", "units", "narrow by hand"):
            name = f"resnet_20, {FLAGS.epochs} epochs, {kind}, seed {seed}"
            done = json.loads(path.read_text()).get("runs", {}) if path.exists() else {}
            if name not in done:
                keep(path, "runs", trained(kind, data, int(seed), FLAGS.epochs), name)


if __name__ == "__main__":
    app.run(main)

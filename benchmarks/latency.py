"""Measures how long predictions take, and the size of files, after pruning.

    python benchmarks/latency.py
    python benchmarks/latency.py --networks= --trained=LOGDIR,... --data_dir=FOLDER

Each network is pruned at its initialization on random images. Side by side, at batches
of 1, 8 and 64: the dense model compiled by TensorFlow, without XLA and with it; the
pruned one; the same compacted; one of half the multiply-adds by whole units;
`snip_tf.sparse_runtime`; LiteRT, dense, sparse and in eight bits. They run in turn, in
blocks of calls, on two threads; shown are the median of the blocks and the range of
their middle half in microseconds, and the bytes of the file. The sparse runtime is also
divided by the faster of the dense models, block by block. For networks that
`scripts/train.py` has trained into a --logdir, it also counts the test images that are
predicted differently after compaction. The results are in
benchmarks/results/latency.json and latency.md.
"""

import functools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from absl import app, flags

import snip_tf
from snip_tf import models
from snip_tf._backend import compiled_calls

# The sparsity of each network.
NETWORKS = {
    "mlp": 0.95,
    "lenet300": 0.98,
    "lenet5": 0.99,
    "resnet_20": 0.95,
    "vgg_like": 0.95,
    "gru_s": 0.95,
}
BATCHES = [1, 8, 64]
# The number of blocks of each; fewer, down to the least, if they take longer.
BLOCKS = range(9, 41)
BLOCK_SECONDS = 0.05
SECONDS = 30.0
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

FLAGS = flags.FLAGS
flags.DEFINE_list("networks", list(NETWORKS), "The networks to measure.")
flags.DEFINE_list("trained", [], "Folders of runs of scripts/train.py.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tensorflow-datasets.")

_DENSE = ("dense", "dense, XLA")
_RUNTIME = "sparse runtime"
_OVER_DENSE = "sparse runtime over the faster dense"
_RESULTS = Path(__file__).resolve().parent / "results"


def network(name: str) -> keras.Model:
    if name != "mlp":
        return models.build(name)
    dense = [keras.layers.Dense(2048, activation="relu") for _ in range(2)]
    layers = [keras.Input((784,)), *dense, keras.layers.Dense(10)]
    return keras.Sequential(layers, name="mlp")


def litert(path: Path, x: np.ndarray, int8: bool = False) -> Callable[[], Any]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    options = {"experimental_op_resolver_type": plain} if int8 else {}
    run = Interpreter(str(path), num_threads=2, **options)
    given = run.get_input_details()[0]["index"]
    returned = run.get_output_details()[0]["index"]
    run.resize_tensor_input(given, x.shape)
    run.allocate_tensors()

    def call() -> np.ndarray:
        run.set_tensor(given, x)
        run.invoke()
        return run.get_tensor(returned)

    return call


def measured(calls: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Returns the microseconds of each call, block by block, in turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    counts = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        counts[name] = max(1, int(BLOCK_SECONDS / (time.perf_counter() - start)))
    end = time.perf_counter() + SECONDS
    for block in range(BLOCKS.stop):
        if block >= BLOCKS.start and time.perf_counter() > end:
            break
        for name, call in calls.items():
            call()
            start = time.perf_counter()
            for _ in range(counts[name]):
                call()
            times[name].append((time.perf_counter() - start) / counts[name] * 1e6)
    return times


def spread(values: list[float]) -> dict[str, Any]:
    return {
        "median": statistics.median(values),
        "quartiles": statistics.quantiles(values, n=4)[::2],
    }


def over_dense(times: dict[str, list[float]]) -> dict[str, Any]:
    dense = min((times[kind] for kind in _DENSE), key=statistics.median)
    return spread([a / b for a, b in zip(times[_RUNTIME], dense, strict=True)])


def batch_of(model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(128, *model.input_shape[1:])).astype(np.float32)
    return x, rng.integers(10, size=128)


def rows(model: keras.Model, pruned: keras.Model, folder: Path) -> dict[str, Any]:
    x, y = batch_of(model)
    half = snip_tf.Units(cost="multiply_adds")
    structured = snip_tf.prune_model(
        model, x, y, sparsity=0.5, structure=half, loss=LOSS
    )
    made = {
        "dense": model,
        "pruned": pruned,
        "compacted": snip_tf.compact(pruned),
        "structured": snip_tf.compact(structured),
    }
    names = ("microseconds", "over_dense", "chosen")
    result: dict[str, Any] = {name: {} for name in names}
    files = {"LiteRT, dense": model, "LiteRT": pruned, "LiteRT, int8": pruned}
    result["bytes"] = bytes_of(made, files, folder)
    for batch_size in BATCHES:
        batch = x[:batch_size]
        calls: dict[str, Callable[[], Any]] = {}
        for kind, each in made.items():
            plain, xla = compiled_calls(each).values()
            calls[kind] = functools.partial(plain, batch)
            calls[f"{kind}, XLA"] = functools.partial(xla, batch)
        run = snip_tf.sparse_runtime(pruned)
        calls[_RUNTIME] = functools.partial(run, batch)
        # LiteRT runs recurrent layers on one example at a time.
        for kind in files if batch_size == 1 or model.name != "gru_s" else ():
            path = folder / f"{kind}.tflite"
            calls[kind] = litert(path, batch, kind.endswith("int8"))
        times = measured(calls)
        result["microseconds"][batch_size] = {k: spread(v) for k, v in times.items()}
        result["over_dense"][batch_size] = over_dense(times)
        result["chosen"][batch_size] = run.chosen[batch_size]
        print(model.name, batch_size, json.dumps(result["microseconds"][batch_size]))
        print(_OVER_DENSE, result["over_dense"][batch_size], run.chosen[batch_size])
    return result


def bytes_of(
    made: dict[str, keras.Model], files: dict[str, keras.Model], folder: Path
) -> dict[str, int]:
    """Writes all files that are measured, and returns their sizes."""
    sizes = {}
    for kind, model in made.items():
        path = folder / f"{kind}.keras"
        snip_tf.export(model, path, print_fn=lambda line: None)
        sizes[kind] = path.stat().st_size
    for kind, model in files.items():
        path = folder / f"{kind}.tflite"
        int8: Literal[False, "weights"]
        int8 = "weights" if kind.endswith("int8") else False
        snip_tf.export(model, path, "litert", int8=int8, print_fn=lambda line: None)
        sizes[kind] = path.stat().st_size
    return sizes


def cell(times: dict[str, Any], digits: int = 0) -> str:
    low, high = times["quartiles"]
    return f"{times['median']:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


_EFFECT = """\
{compacted_multiply_adds:,} of {multiply_adds:,} multiply-adds are left after `compact`
({effective:,} have a non-zero weight), and {predicted_otherwise} of
{test_images:,} test images are predicted differently.
"""


def table(results: dict[str, Any]) -> str:
    lines = []
    for name, result in results.items():
        lines += [f"\n{name}, {100 * result['sparsity']:g} %\n"]
        if "effect" in result:
            lines += [_EFFECT.format(**result["effect"])]
        header = [f"batch {size}, us" for size in result["microseconds"]]
        lines += [f"| | file, bytes | {' | '.join(header)} |"]
        lines += ["|---|---:|" + "---:|" * len(header)]
        kinds = next(iter(result["microseconds"].values()))
        for kind in kinds:
            size = result["bytes"].get(kind)
            cells = [f"{size:,}" if size else ""]
            for by_kind in result["microseconds"].values():
                cells.append(cell(by_kind[kind]) if kind in by_kind else "")
            lines += [f"| {kind} | {' | '.join(cells)} |"]
        cells = [cell(each, 2) for each in result["over_dense"].values()]
        lines += [f"| {_OVER_DENSE} | | {' | '.join(cells)} |"]
    return "\n".join(lines).lstrip() + "\n"


def effect(
    model: keras.Model, run: dict[str, Any], data_dir: str | None
) -> dict[str, Any]:
    """Measures what `compact` does to a trained network."""
    images, _ = snip_tf.datasets.load(run["datasource"], data_dir).test
    small = snip_tf.compact(model)
    classes = [m.predict(images, 1000, verbose=0).argmax(1) for m in (model, small)]
    totals = snip_tf.report(model).totals()
    names = ("multiply_adds", "effective", "compacted_multiply_adds")
    return {
        **{name: totals[name] for name in names},
        "test_images": len(images),
        "predicted_otherwise": int((classes[0] != classes[1]).sum()),
    }


def keep(title: str, found: dict[str, Any]) -> None:
    path = _RESULTS / "latency.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    # Batch sizes as strings, as in JSON.
    results[title] = json.loads(json.dumps(found))
    path.write_text(json.dumps(results, indent=1) + "\n")
    path.with_suffix(".md").write_text(table(results))


def main(argv: list[str]) -> None:
    del argv
    for name in FLAGS.networks:
        sparsity = NETWORKS[name]
        keras.utils.set_random_seed(0)
        model = network(name)
        x, y = batch_of(model)
        pruned = snip_tf.prune_model(model, x, y, sparsity=sparsity, loss=LOSS)
        with tempfile.TemporaryDirectory() as folder:
            found = rows(model, pruned, Path(folder))
        keep(name, {"sparsity": sparsity, **found})
    for logdir in map(Path, FLAGS.trained):
        keras.utils.set_random_seed(0)
        run = json.loads((logdir / "flags.json").read_text())
        model = keras.models.load_model(logdir / "model.keras")
        found = {"sparsity": run["target_sparsity"]}
        found["effect"] = effect(model, run, FLAGS.data_dir)
        with tempfile.TemporaryDirectory() as folder:
            found |= rows(network(run["arch"]), model, Path(folder))
        keep(f"{run['arch']} trained on {run['datasource']}, {run['criterion']}", found)


if __name__ == "__main__":
    app.run(main)

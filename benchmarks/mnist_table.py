"""Errors on MNIST beside the paper's: runs the main program and makes the table.

    python benchmarks/mnist_table.py --data_dir=DIR    # what is missing, then all
    python benchmarks/mnist_table.py --table_only      # from the results kept

Each run is one `scripts/train.py`; its result.json is kept under
benchmarks/results/mnist/, the table as benchmarks/results/mnist.md. What is there
already is not run again, and a run that was interrupted continues.
"""

import argparse
import concurrent.futures
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).resolve().parent.parent
_RESULTS = _ROOT / "benchmarks" / "results" / "mnist"
# The paper's recipe: SGD with momentum 0.9, batch 100, rate 0.1 and x0.1 after 25,000
# iterations, L2 term of weight decay 5e-4, scored on one mini-batch of 100.
_RECIPE = {
    "datasource": "mnist",
    "optimizer": "momentum",
    "train_iterations": 30000,
    "lr_decay_type": "piecewise",
    "decay_boundaries": "25000",
    "decay_values": "0.1,0.01",
    "check_interval": 1000,
    "save_interval": 1000,
}
_SLOW = {"decay_values": "0.03,0.003"}
_LENET300 = {"lenet300": (0.95, 0.98)}


class Variant(NamedTuple):
    """A recipe: the flags it changes, and the networks and sparsities it is run on."""

    flags: dict[str, object]
    cells: dict[str, tuple[float, ...]]
    seeds: tuple[int, ...] = (0, 1, 2)


# The paper's, then what was tried to come closer to its figures. LeNet-5-Caffe has no
# activation after its convolutions, and dense it diverges at the paper's rate in the
# first hundred iterations, with every seed.
_VARIANTS = {
    "paper": Variant({}, {"lenet300": (0, 0.95, 0.98), "lenet5": (0.98, 0.99)}),
    "rate 0.03": Variant(_SLOW, {"lenet5": (0,)}),
    "rate 0.03, one seed": Variant(_SLOW, {"lenet5": (0.98, 0.99)}, seeds=(0,)),
    "scored on 10,000": Variant({"scoring_batch_size": 10000}, _LENET300),
    "scored on 1,000": Variant({"scoring_batch_size": 1000}, _LENET300),
    "as the release": Variant(
        {"initializer_w_ap": "vs", "prune_biases": True}, _LENET300
    ),
    "x0.1 after 50,000 of 60,000": Variant(
        {"train_iterations": 60000, "decay_boundaries": "50000"}, _LENET300
    ),
    "Glorot initialization": Variant({"initializer_w_bp": "vs-x"}, _LENET300),
}
_PAPER = {
    ("lenet300", 0): 1.7,
    ("lenet300", 0.95): 1.6,
    ("lenet300", 0.98): 2.4,
    ("lenet5", 0): 0.9,
    ("lenet5", 0.98): 0.8,
    ("lenet5", 0.99): 1.1,
}


class Run(NamedTuple):
    """One run of the main program."""

    variant: str
    arch: str
    sparsity: float
    seed: int


def all_runs() -> list[Run]:
    """Every run, in the order in which they are worth having."""
    return [
        Run(name, arch, sparsity, seed)
        for name, variant in _VARIANTS.items()
        for seed in variant.seeds
        for arch, sparsity in _cells(variant)
    ]


def _cells(variant: Variant) -> list[tuple[str, float]]:
    return [
        (arch, sparsity)
        for arch, values in variant.cells.items()
        for sparsity in values
    ]


def result_path(run: Run) -> Path:
    folder = "".join(c if c.isalnum() else "-" for c in run.variant.replace(",", ""))
    return _RESULTS / folder / f"{run.arch}-{run.sparsity}-seed{run.seed}.json"


def execute(run: Run, options: argparse.Namespace) -> None:
    """Runs the main program and keeps its result."""
    logdir = Path(options.logdir) / result_path(run).relative_to(_RESULTS).with_suffix(
        ""
    )
    chosen = {
        **_RECIPE,
        **_VARIANTS[run.variant].flags,
        "arch": run.arch,
        "target_sparsity": run.sparsity,
        "seed": run.seed,
        "logdir": logdir,
    }
    if options.data_dir:
        chosen["data_dir"] = options.data_dir
    command = [sys.executable, str(_ROOT / "scripts" / "train.py")]
    command += [f"--{name}={value}" for name, value in chosen.items()]
    logdir.mkdir(parents=True, exist_ok=True)
    with open(logdir / "output.txt", "a") as output:
        # One thread each: two runs side by side finish sooner than one after the other.
        environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1"}
        subprocess.run(
            command, check=True, stdout=output, stderr=output, env=environment
        )
    result_path(run).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(logdir / "result.json", result_path(run))
    print("finished", *run, flush=True)


def row(variant: str, arch: str, sparsity: float) -> str | None:
    """One line of the table: mean and standard deviation over the seeds there are."""
    paths = [
        result_path(Run(variant, arch, sparsity, seed))
        for seed in _VARIANTS[variant].seeds
    ]
    results = [json.loads(path.read_text()) for path in paths if path.exists()]
    if not results:
        return None
    cells = [variant, arch, f"{sparsity:.0%}", f"{_PAPER[arch, sparsity]}"]
    for key in ("final_error", "best_checkpoint_error"):
        errors = [result[key] for result in results]
        spread = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
        cells.append(f"{statistics.mean(errors):.2f}{spread}")
    cells.append(str(len(results)))
    return f"| {' | '.join(cells)} |"


def table() -> str:
    """The results that there are, as Markdown."""
    lines = [
        "| recipe | network | sparsity | paper, % | final model, % "
        "| best of the last five checkpoints, % | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = [
        row(name, arch, sparsity)
        for name, variant in _VARIANTS.items()
        for arch, sparsity in _cells(variant)
    ]
    return "\n".join(lines + [line for line in rows if line])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data_dir", help="folder of prepared tensorflow-datasets")
    parser.add_argument("--logdir", default="logs/mnist_table", help="for the runs")
    parser.add_argument(
        "--jobs", type=int, default=2, help="runs at a time, a thread each"
    )
    parser.add_argument("--table_only", action="store_true", help="runs nothing")
    options = parser.parse_args()
    if not options.table_only:
        missing = [run for run in all_runs() if not result_path(run).exists()]
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(functools.partial(execute, options=options), missing))
    _RESULTS.with_suffix(".md").write_text(table() + "\n")
    print(table())


if __name__ == "__main__":
    main()

"""Compares criteria and schedules: each with each sparsity, seed and network.

    python scripts/sweep.py --criteria=snip,force,random --sparsities=0.9,0.99
    python scripts/sweep.py --archs=lenet300 --criteria=snip,snip:shuffle --budget=full
    python scripts/sweep.py --archs=lenet5 --criteria=snip,gradual,rigl

Each run is one `scripts/train.py`. Its result is written to OUTDIR/runs as soon as the
run ends, then to OUTDIR: results.csv (a line for each run), table.md, and a picture for
each network and data set. Runs that have a result are not repeated, and interrupted
runs continue. A run whose loss becomes infinite or NaN counts as done.
"""

import command_line  # isort: split

import dataclasses
import sys
from pathlib import Path

from absl import flags

BUDGETS = command_line.names("experiments/recipes.py", "BUDGETS")
CONTROLS = command_line.names("experiments/sweep.py", "CONTROLS")
CRITERIA = command_line.names("criteria/__init__.py", "CRITERIA")
METHODS = command_line.names("experiments/sweep.py", "METHODS")
DATASETS = command_line.names("experiments/datasets/__init__.py", "DATASETS")
MODELS = command_line.names("experiments/models/__init__.py", "MODELS")

# Flags of the main program that the sweep itself sets for each run.
_OWN = (
    "arch",
    "control",
    "criterion",
    "data_dir",
    "datasource",
    "logdir",
    "path_data",
    "seed",
    "target_sparsity",
)

_TRAIN = Path(__file__).with_name("train.py")
_TRAIN_FLAGS = _TRAIN.with_name("train_flags.py")

command_line.group("What is compared")
flags.DEFINE_list("archs", ["lenet300"], "Networks, comma-separated.")
flags.DEFINE_list(
    "datasources", [], "Data sets; default: the paper's for each network."
)
flags.DEFINE_list(
    "criteria",
    ["snip", "magnitude", "random"],
    f"Some of {', '.join(CRITERIA)}, each alone or with a control, like snip:shuffle "
    f"({', '.join(CONTROLS)}); and of {', '.join(METHODS)}: with random masks of "
    f"Erdos-Renyi kernels, or those of snip, and a schedule.",
)
flags.DEFINE_list("sparsities", ["0.9", "0.95", "0.98"], "Besides the dense network.")
flags.DEFINE_list("seeds", ["0", "1", "2"], "A run for each of these.")
command_line.group("How each is trained")
flags.DEFINE_enum(
    "budget",
    "short",
    BUDGETS,
    "full is the paper's recipe, short one for two processor cores, smoke a few "
    "iterations to test that everything works.",
)
flags.DEFINE_multi_string(
    "flag",
    [],
    "NAME=VALUE, a flag of scripts/train.py for every run",
)
command_line.group("Files")
flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of prepared tensorflow-datasets, as for scripts/train.py. Without one, "
    "smoke uses scikit-learn's digits instead of all data sets.",
)
flags.DEFINE_string(
    "outdir", "results/sweep", "Folder for results, table and pictures."
)
flags.DEFINE_string("logdir", "logs/sweep", "Folder for the runs themselves.")
command_line.group("Running")
flags.DEFINE_integer(
    "jobs", 2, "Runs at a time, with a processor thread each.", lower_bound=1
)
flags.DEFINE_bool("table_only", False, "Runs nothing; shows the existing results.")


def _is_criterion(name: str) -> bool:
    criterion, colon, control = name.partition(":")
    controlled = criterion in CRITERIA and (not colon or control in CONTROLS)
    return controlled or name in METHODS


def _numbers(values: list[str]) -> list[float]:
    try:
        return [float(value) for value in values]
    except ValueError:
        return [-1.0]  # refused by the validator


flags.register_validator(
    "archs",
    lambda names: names and set(names) <= set(MODELS),
    f"expected some of {', '.join(MODELS)}",
)
flags.register_validator(
    "datasources",
    lambda names: set(names) <= set(DATASETS),
    f"expected some of {', '.join(DATASETS)}",
)
flags.register_validator(
    "criteria",
    lambda names: names and all(map(_is_criterion, names)),
    f"expected some of {', '.join(CRITERIA)}, alone or with one of "
    f"{', '.join(':' + control for control in CONTROLS)}; or of {', '.join(METHODS)}",
)
flags.register_validator(
    "sparsities",
    lambda values: values and all(0 < number < 1 for number in _numbers(values)),
    "expected numbers between 0 and 1, comma-separated",
)
flags.register_validator(
    "seeds",
    command_line.are_seeds,
    "expected whole numbers below 2**32, comma-separated",
)
flags.register_validator(
    "flag",
    lambda given: all(
        "=" in each and each.partition("=")[0] not in _OWN for each in given
    ),
    f"expected NAME=VALUE, and not {', '.join(_OWN)}, which the sweep sets itself",
)
flags.register_validator(
    "flag",
    lambda given: (
        {each.partition("=")[0] for each in given}
        <= command_line.default_flags(_TRAIN_FLAGS).keys()
    ),
    "expected flags that `scripts/train.py --help` shows",
)

command_line.check_paths()

if __name__ == "__main__":  # before the imports that take seconds
    command_line.start("Its runs are ended, too. The same command continues.", grace=12)
with command_line.silent():
    from snip_tf.experiments import recipes, runner, sweep
    from snip_tf.experiments.results import ExperimentError, Results


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags."""

    archs: list[str]
    datasources: list[str]
    criteria: list[str]
    sparsities: list[str]
    seeds: list[str]
    budget: recipes.Budget
    flag: list[str]
    data_dir: str | None
    outdir: str
    logdir: str
    jobs: int
    table_only: bool


def main() -> None:
    """Executes the missing runs, then makes the table and the pictures."""
    options = command_line.read(Options)
    outdir = Path(options.outdir)
    defaults = command_line.default_flags(_TRAIN_FLAGS)
    kept = Results(outdir / "runs", defaults, sweep.check)
    with command_line.exit_on_failure(outdir, ExperimentError):
        failed = [] if options.table_only else _run_missing(options, kept)
        found = sweep.found_in(kept)
        if found:
            rows = sweep.write_csv(found, outdir / "results.csv")
            budgets = sorted({result["budget"] for result in found})
            sweep.write_table(rows, budgets, outdir / "table.md")
            sweep.draw(rows, outdir)
        elif not failed:
            sys.exit(
                f"Expected results in {outdir}. Received: none; run without "
                f"--table_only"
            )
    command_line.end_if_failed(failed)


def _run_missing(options: Options, kept: Results) -> list[str]:
    """Executes the runs that have no result yet; returns a line for each failure."""

    def update_csv() -> None:
        sweep.write_csv(sweep.found_in(kept), Path(options.outdir) / "results.csv")

    runs = sweep.Sweep(
        options.archs,
        options.datasources,
        options.criteria,
        [float(sparsity) for sparsity in options.sparsities],
        [int(seed) for seed in options.seeds],
        options.budget,
        flags=dict(each.split("=", 1) for each in options.flag),
        has_data=bool(options.data_dir),
    ).runs()
    return runner.run_missing(
        runs,
        kept,
        runner.Runner(_TRAIN, options.jobs),
        logdir=Path(options.logdir),
        data_dir=options.data_dir,
        say=command_line.say,
        on_result=update_csv,
    )


if __name__ == "__main__":
    main()

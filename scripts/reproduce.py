"""Runs an experiment of the paper, and shows its figures beside those obtained.

    python scripts/reproduce.py --experiment=table1 --budget=short
    python scripts/reproduce.py --experiment=table2 --rows=lstm_s,gru_s --seeds=0,1,2

Each run is one `scripts/train.py`. Its result is written to
OUTDIR/EXPERIMENT/BUDGET/ROW/CELL-seedN.json as soon as the run ends, then a table
(table.md) and pictures of all existing results. Runs that have a result are not
repeated, and interrupted runs continue. A run whose loss becomes infinite or NaN counts
as done.
"""

import command_line  # isort: split

import dataclasses
import sys
from pathlib import Path

from absl import flags

BUDGETS = command_line.names("experiments/recipes.py", "BUDGETS")
EXPERIMENTS = command_line.names("experiments/recipes.py", "EXPERIMENTS")

command_line.group("What is run")
flags.DEFINE_enum("experiment", None, [*EXPERIMENTS, "retained"], "Must be given.")
flags.DEFINE_enum(
    "budget",
    "short",
    BUDGETS,
    "full is the paper's recipe, short one for two processor cores (minutes per run), "
    "smoke a few iterations to test that everything works.",
)
flags.DEFINE_list("rows", [], "Networks, comma-separated; default: all.")
flags.DEFINE_list("seeds", ["0", "1", "2"], "A run for each of these.")
command_line.group("Files")
flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of prepared tensorflow-datasets, as for scripts/train.py. Without one, "
    "smoke uses scikit-learn's digits instead of all data sets.",
)
flags.DEFINE_string("outdir", "results", "Folder for results, tables and pictures.")
flags.DEFINE_string("logdir", "logs/reproduce", "Folder for the runs themselves.")
command_line.group("Running")
flags.DEFINE_integer(
    "jobs", 2, "Runs at a time, with a processor thread each.", lower_bound=1
)
flags.DEFINE_enum(
    "dtype_policy",
    "float32",
    ["float32", "mixed_float16", "mixed_bfloat16"],
    "As for scripts/train.py, for every run.",
)
flags.DEFINE_bool("table_only", False, "Runs nothing; shows the existing results.")

flags.register_validator(
    "seeds",
    command_line.are_seeds,
    "expected whole numbers below 2**32, comma-separated",
)

command_line.check_paths()
command_line.require("experiment", f"NAME, one of {', '.join(EXPERIMENTS)}, retained")

if __name__ == "__main__":  # before the imports that take seconds
    command_line.start("Its runs are ended, too. The same command continues.", grace=12)
with command_line.silent():
    from snip_tf.experiments import pictures, recipes, reproduction, runner
    from snip_tf.experiments.results import ExperimentError

_TRAIN = Path(__file__).with_name("train.py")
_TRAIN_FLAGS = _TRAIN.with_name("train_flags.py")


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags."""

    experiment: str
    budget: recipes.Budget
    rows: list[str]
    seeds: list[str]
    data_dir: str | None
    outdir: str
    logdir: str
    jobs: int
    dtype_policy: str
    table_only: bool

    @property
    def folder(self) -> Path:
        """The folder of the results."""
        return Path(self.outdir) / self.experiment / self.budget


def main() -> None:
    """Executes the missing runs, then makes the table and the pictures."""
    options = command_line.read(Options)
    with command_line.exit_on_failure(options.folder, ExperimentError):
        if options.experiment == "retained":
            _draw_retained(options)
        else:
            _reproduce(options)


def _draw_retained(options: Options) -> None:
    """Draws the picture of the experiment that trains nothing."""
    smoke = options.budget == "smoke" and not options.data_dir
    datasource = "digits" if smoke else "mnist"
    seed = int(options.seeds[0])
    with runner.sole_user(options.folder):
        runner.download([datasource], options.data_dir)
        pictures.retained(options.folder, datasource, options.data_dir, seed)


def _reproduce(options: Options) -> None:
    experiment, folder = options.experiment, options.folder
    defaults = command_line.default_flags(_TRAIN_FLAGS)
    kept = reproduction.results_in(folder, experiment, defaults)
    runs = reproduction.Reproduction(
        experiment,
        options.budget,
        options.rows,
        [int(seed) for seed in options.seeds],
        options.dtype_policy,
        has_data=bool(options.data_dir),
    ).runs()
    failed = []
    if not options.table_only:
        failed = runner.run_missing(
            runs,
            kept,
            runner.Runner(_TRAIN, options.jobs),
            logdir=Path(options.logdir) / experiment / options.budget,
            data_dir=options.data_dir,
            say=command_line.say,
        )
    found = reproduction.found_in(kept, experiment)
    if found:
        path = folder / "table.md"
        reproduction.write_table(found, experiment, options.budget, path)
        reproduction.draw(found, experiment, folder, options.data_dir)
    elif not failed:
        sys.exit(
            f"Expected results in {folder}. Received: none; run without --table_only"
        )
    command_line.end_if_failed(failed)


if __name__ == "__main__":
    main()

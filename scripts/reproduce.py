"""Runs an experiment of the paper, and shows its figures beside those obtained.

    python scripts/reproduce.py --experiment=table1 --budget=short
    python scripts/reproduce.py --experiment=table2 --rows=lstm_s,gru_s --seeds=0,1,2

Each run is one `scripts/train.py`. Its result is written to
OUTDIR/EXPERIMENT/BUDGET/ROW/CELL-seedN.json as soon as the run ends, then a table
(table.md) and pictures of all existing results. What has a result is not run again,
and a run that was interrupted continues.
"""

import command_line  # isort: split

import functools
import re
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

from absl import flags

EXPERIMENTS = command_line.names("experiments/recipes.py", "EXPERIMENTS")

FLAGS = flags.FLAGS

command_line.group("What is run")
flags.DEFINE_enum("experiment", None, [*EXPERIMENTS, "retained"], "Must be given.")
flags.DEFINE_enum(
    "budget",
    "short",
    ["smoke", "short", "full"],
    "full is the paper's recipe, short one for two processor cores (minutes a run), "
    "smoke a few iterations that show that all works.",
)
flags.DEFINE_list("rows", [], "Networks, comma-separated; default: all.")
flags.DEFINE_list("seeds", ["0", "1", "2"], "A run for each of these.")
command_line.group("Files")
flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of prepared tensorflow-datasets, as for scripts/train.py. Without one, "
    "smoke takes scikit-learn's digits instead of all data sets.",
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
flags.DEFINE_bool("table_only", False, "Runs nothing; shows the results there are.")

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
    import snip_tf
    from snip_tf.experiments import pictures, recipes
    from snip_tf.experiments.training import runs
    from snip_tf.experiments.training.progress import RunCount
    from snip_tf.files import locked, read_json, whole_file, write_json

_COLUMNS = (
    "network",
    "",
    "paper, %",
    "final model, %",
    "best of the last five checkpoints, %",
    "seeds",
    "pruning, s",
    "training, min",
    "least kept of a kernel, %",
    "dead units, %",
)
_NOTE = (
    "Errors on the test set, mean and standard deviation over seeds; the paper reports "
    "the best of its last checkpoints. A dead unit, of a dense or convolutional layer, "
    "is one that no kept connection enters."
)
_SECONDS = ("pruning_seconds", "training_seconds")
_TRAIN = Path(__file__).with_name("train.py")


class Run(NamedTuple):
    """One run of the main program."""

    row: str
    cell: recipes.Cell
    seed: int | str
    flags: recipes.Flags

    def path(self) -> Path:
        """Below a folder, without an ending."""
        cell = re.sub(r"[^\w.]+", "-", self.cell.name).strip("-")
        return Path(self.row) / f"{cell}-seed{self.seed}"


def main() -> None:
    """Runs what is missing, then makes the table and the pictures."""
    folder = Path(FLAGS.outdir) / FLAGS.experiment / FLAGS.budget
    retained = FLAGS.experiment == "retained"
    chosen = [] if retained else _chosen_runs()
    failed: list[str] = []
    try:
        if retained or not FLAGS.table_only:
            failed = _run_alone(chosen, folder)
        if not retained and (not failed or _found(folder)):
            _write_table(folder)
    except OSError as error:
        sys.exit(f"Expected to be able to write to {folder}. Received: {error}")
    except ImportError as error:  # of what draws
        sys.exit(command_line.one_line(error))
    if failed:
        several = f"{len(failed)} runs" if len(failed) > 1 else "A run"
        sys.exit(f"{several} failed, as said above. The same command tries again.")


def _run_alone(chosen: list[Run], folder: Path) -> list[str]:
    """Does the runs that have no result yet, unless another process does."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder):
            if FLAGS.experiment == "retained":
                return _draw_retained(folder)
            return _run(chosen, folder)
    except BlockingIOError:
        sys.exit(
            f"Expected an --outdir where nothing else reproduces {FLAGS.experiment} in "
            f"the budget {FLAGS.budget!r}. Received: {FLAGS.outdir}"
        )


def _chosen_runs() -> list[Run]:
    return [
        Run(name, cell, seed, _flags(row, cell))
        for seed in dict.fromkeys(map(int, FLAGS.seeds))
        for name, row in _chosen_rows().items()
        for cell in _cells(row)
    ]


def _run(chosen: list[Run], folder: Path) -> list[str]:
    """Does the runs that have no result yet; returns what went wrong."""
    missing = [run for run in chosen if not _is_done(run, folder)]
    count = RunCount(len(chosen), len(chosen) - len(missing), FLAGS.jobs)
    print(count.overview(), flush=True)
    _prepare_data({run.flags["datasource"] for run in missing})
    failed = []
    with runs.Runner(_TRAIN, FLAGS.jobs) as runner:
        tasks = [functools.partial(_execute, runner, run, folder) for run in missing]
        for (text, succeeded), seconds in runner.each(tasks):
            print(count.line(text, seconds), flush=True)
            failed += [] if succeeded else [text]
    return failed


def _draw_retained(folder: Path) -> list[str]:
    """The experiment that trains nothing."""
    smoke = FLAGS.budget == "smoke" and not FLAGS.data_dir
    datasource = "digits" if smoke else "mnist"
    _prepare_data({datasource})
    pictures.retained(folder, datasource, FLAGS.data_dir, int(FLAGS.seeds[0]))
    return []


def _is_done(run: Run, folder: Path) -> bool:
    """Whether a result is there already; ends the program if it is of other flags."""
    path = _result_path(folder, run)
    return path.exists() and bool(_read(path, run.flags))


def _prepare_data(names: set[str]) -> None:
    """Downloads what is not there, before several processes would at once."""
    for name in sorted(names):
        try:
            snip_tf.datasets.load(name, FLAGS.data_dir, max_examples=20)
        except (OSError, ImportError) as error:
            sys.exit(command_line.one_line(f"The data set {name!r}: {error}"))


def _chosen_rows() -> dict[str, recipes.Row]:
    rows = recipes.EXPERIMENTS[FLAGS.experiment]
    unknown = [name for name in FLAGS.rows if name not in rows]
    if unknown:
        sys.exit(
            f"Expected --rows to be some of {', '.join(rows)}, those of "
            f"--experiment={FLAGS.experiment}. Received: {', '.join(unknown)}"
        )
    chosen = FLAGS.rows or [n for n, row in rows.items() if FLAGS.budget in row.budgets]
    return {name: rows[name] for name in chosen}


def _cells(row: recipes.Row) -> tuple[recipes.Cell, ...]:
    if FLAGS.budget != "smoke":
        return row.cells
    # A smoke test need not see every point of a curve.
    return (row.cells[0], row.cells[-1])


def _result_path(folder: Path, run: Run) -> Path:
    return folder / f"{run.path()}.json"


def _execute(runner: runs.Runner, run: Run, folder: Path) -> tuple[str, bool]:
    """Runs the main program and keeps its result; how it went, and whether well."""
    logdir = Path(FLAGS.logdir) / FLAGS.experiment / FLAGS.budget / run.path()
    chosen = {**run.flags, "seed": run.seed, "data_dir": FLAGS.data_dir}
    path = _result_path(folder, run)
    try:
        result = runner.run(chosen, logdir)
        if isinstance(result, dict) and "diverged" in result:
            result = f"diverged: {result['diverged']}"
        if not isinstance(result, str):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, result)
    except OSError as error:
        result = f"failed: {error}"
    if isinstance(result, str):
        return command_line.one_line(f"{run.path()} {result}"), False
    error, seconds = result["final_error"], result["training_seconds"]
    text = f"{run.path()}: error {error:.2f} % after {seconds:.0f} s of training"
    return text, True


def _flags(row: recipes.Row, cell: recipes.Cell) -> recipes.Flags:
    """The flags of the main program, but for the seed and the places."""
    own = {"dtype_policy": FLAGS.dtype_policy, **row.flags, **cell.flags}
    arch = row.flags["arch"]
    return recipes.flags_of(arch, own, FLAGS.budget, bool(FLAGS.data_dir))


def _write_table(folder: Path) -> None:
    """Shows and keeps a table of all results that there are, and draws them."""
    found = _found(folder)
    if not found:
        sys.exit(
            f"Expected results in {folder}. Received: none; run without --table_only"
        )
    rows = recipes.EXPERIMENTS[FLAGS.experiment]
    table = [f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * len(_COLUMNS)}"]
    table += [
        _table_row(name, cell, found[name][cell.name])
        for name in found
        for cell in rows[name].cells
        if cell.name in found[name]
    ]
    print("\n".join(table))
    command = f"--experiment={FLAGS.experiment} --budget={FLAGS.budget}"
    command += f" --rows={','.join(found)}"
    page = [f"# {FLAGS.experiment}, {FLAGS.budget}", "", _NOTE, "", *table]
    page += ["", f"`python scripts/reproduce.py {command}`", ""]
    with whole_file(folder / "table.md") as partial:
        partial.write_text("\n".join(page), encoding="utf-8")
    try:
        pictures.draw(FLAGS.experiment, folder, found, FLAGS.data_dir)
    except OSError as error:
        if error.errno is not None:
            raise  # of the disk
        sys.exit(f"The picture needs the data: {error}")


def _found(folder: Path) -> pictures.Results:
    """The results that there are, in the order of the rows and cells."""
    found: pictures.Results = {}
    for name, row in recipes.EXPERIMENTS[FLAGS.experiment].items():
        for cell in row.cells:
            pattern = f"{Run(name, cell, '*', {}).path()}.json"
            paths = sorted(folder.glob(pattern))
            if paths:
                results = [_read(path) for path in paths]
                found.setdefault(name, {})[cell.name] = results
    return found


def _read(path: Path, expected: recipes.Flags | None = None) -> dict:
    """A result; ends the program where it is none, or is not of the flags expected."""
    try:
        result = read_json(path)
        different = runs.differences(expected or {}, dict(result["flags"]))
        if not different:
            _check(result)
            seed = result["flags"]["seed"]
            if not path.stem.endswith(f"-seed{seed}"):  # a copy would count as another
                raise ValueError(f"it is of seed {seed}")
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        OSError,
        TypeError,
        ValueError,
    ) as error:
        sys.exit(
            command_line.one_line(
                f"Expected {path} to be a result as a run left it. Received: one that "
                f"is damaged ({error!r}). Remove it, and it is run again."
            )
        )
    if different:
        sys.exit(
            command_line.one_line(
                f"Expected results of the same flags in --outdir. Received: {path}, "
                f"made with {'; '.join(different)}. Name another --outdir, or remove "
                f"the file."
            )
        )
    return result


def _check(result: dict) -> None:
    """Raises one of many errors where a table or a picture needs what it lacks."""
    runs.check_result(result, {"final_error", "best_checkpoint_error", *_SECONDS})
    _table_row("", recipes.Cell("", {}), [result])
    given = result["flags"]
    numbers = [(given["seed"], 0, 2**32 - 1)]
    numbers += [(given["target_sparsity"], 0, 1 - 2**-53)]  # below 1
    if FLAGS.experiment == "batch_size":
        numbers += [(given["scoring_batch_size"], 1, 2**31)]
    if FLAGS.experiment == "random_labels":
        for check in result["history"]:
            numbers += [(check["iteration"], 1, 2**63), (check["loss"], 0, 1e38)]
    wrong = [each for each, *ends in numbers if not runs.is_number(each, *ends)]
    if wrong or given["datasource"] not in snip_tf.datasets.DATASETS:
        raise ValueError(f"it tells of {wrong[0] if wrong else given['datasource']!r}")


def _table_row(name: str, cell: recipes.Cell, results: list[dict]) -> str:
    def mean(key: str, scale: float = 1) -> str:
        return f"{statistics.mean(result[key] for result in results) / scale:.3g}"

    def mean_and_deviation(key: str) -> str:
        values = [result[key] for result in results]
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.2f}{spread}"

    cells = [
        name,
        cell.name,
        "" if cell.paper is None else f"{cell.paper}",
        mean_and_deviation("final_error"),
        mean_and_deviation("best_checkpoint_error"),
        str(len(results)),
        mean("pruning_seconds"),
        mean("training_seconds", 60),
        *_of_the_layers(results),
    ]
    return f"| {' | '.join(cells)} |"


def _of_the_layers(results: list[dict]) -> tuple[str, str]:
    """The least part that is kept of a kernel, and the part of units that is dead."""
    kernels = [
        layer
        for result in results
        for layer in result["layers"]
        if "bias" not in layer["path"]
    ]
    if not kernels:
        return "", ""
    least = min(layer["kept"] / layer["total"] for layer in kernels)
    # The gates of a recurrent cell have two kernels, either of which may enter them.
    plain = [layer for layer in kernels if "recurrent" not in layer["path"]]
    dead = sum(layer["idle_units"] for layer in plain)
    units = sum(layer["units"] for layer in plain)
    return f"{100 * least:.2g}", f"{100 * dead / units:.2g}" if units else ""


if __name__ == "__main__":
    main()

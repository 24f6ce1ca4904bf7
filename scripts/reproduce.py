"""Runs an experiment of the paper, and shows its figures beside those obtained.

    python scripts/reproduce.py --experiment=table1 --budget=short
    python scripts/reproduce.py --experiment=table2 --rows=lstm_s,gru_s --seeds=0,1,2

Each run is one `scripts/train.py`. Its result is written to
OUTDIR/EXPERIMENT/BUDGET/ROW/CELL-seedN.json as soon as it is there, then a table
(table.md) and pictures of all results that there are. What is there already is not run
again, and a run that was interrupted continues.
"""

import concurrent.futures
import json
import re
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

from absl import app, flags

import snip_tf.datasets
from snip_tf.files import write_json
from snip_tf.paper import experiments, pictures
from snip_tf.training import runs

FLAGS = flags.FLAGS

flags.DEFINE_enum(
    "experiment",
    None,
    [*experiments.EXPERIMENTS, "retained"],
    "What to run.",
    required=True,
)
flags.DEFINE_enum(
    "budget",
    "short",
    ["smoke", "short", "full"],
    "full is the paper's recipe, short one for two processor cores (minutes a run), "
    "smoke a few iterations that show that all works.",
)
flags.DEFINE_list("rows", [], "Networks, comma-separated; default: all.")
flags.DEFINE_list("seeds", ["0", "1", "2"], "A run for each of these.")
flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of prepared tensorflow-datasets, as for scripts/train.py. Without one, "
    "smoke takes scikit-learn's digits in the place of all data sets.",
)
flags.DEFINE_string("outdir", "results", "Folder for results, tables and pictures.")
flags.DEFINE_string("logdir", "logs/reproduce", "Folder for the runs themselves.")
flags.DEFINE_integer(
    "jobs", 2, "Runs at a time, with a processor thread each.", lower_bound=1
)
flags.DEFINE_string(
    "dtype_policy", "float32", "As for scripts/train.py, for every run."
)
flags.DEFINE_bool("table_only", False, "Runs nothing; shows the results there are.")

flags.register_validator(
    "seeds",
    lambda seeds: seeds and all(seed.isdigit() for seed in seeds),
    "expected numbers, comma-separated",
)

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
_TRAIN = Path(__file__).with_name("train.py")


class Run(NamedTuple):
    """One run of the main program."""

    row: str
    cell: experiments.Cell
    seed: int | str
    flags: experiments.Flags

    def path(self) -> Path:
        """Below a folder, without an ending."""
        cell = re.sub(r"[^\w.]+", "-", self.cell.name).strip("-")
        return Path(self.row) / f"{cell}-seed{self.seed}"


def main(argv: list[str]) -> None:
    """Runs what is missing, then makes the table and the pictures."""
    if argv[1:]:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}")
    folder = Path(FLAGS.outdir) / FLAGS.experiment / FLAGS.budget
    if FLAGS.experiment == "retained":
        smoke = FLAGS.budget == "smoke" and not FLAGS.data_dir
        datasource = "digits" if smoke else "mnist"
        _prepare_data({datasource})
        pictures.retained(folder, datasource, FLAGS.data_dir, int(FLAGS.seeds[0]))
        return
    rows = _chosen_rows()
    chosen = [
        Run(name, cell, seed, _flags(row, cell))
        for seed in dict.fromkeys(map(int, FLAGS.seeds))
        for name, row in rows.items()
        for cell in _cells(row)
    ]
    failed = []
    if not FLAGS.table_only:
        missing = [run for run in chosen if not _is_done(run, folder)]
        _prepare_data({run.flags["datasource"] for run in missing})
        with concurrent.futures.ThreadPoolExecutor(FLAGS.jobs) as pool:
            done = pool.map(lambda run: _execute(run, folder), missing)
            failed = [message for message in done if message]
    if not failed or _found(folder):
        _write_table(folder)
    if failed:
        sys.exit("\n".join(failed))


def _is_done(run: Run, folder: Path) -> bool:
    """Whether a result is there already; ends the program if it is of other flags."""
    path = _result_path(folder, run)
    if not path.exists():
        return False
    found = json.loads(path.read_text())["flags"]
    different = runs.differences(run.flags, found)
    if different:
        sys.exit(
            f"Expected results of the same flags in --outdir. Received: {path}, made "
            f"with {'; '.join(different)}. Name another --outdir, or remove the file."
        )
    return True


def _prepare_data(names: set[str]) -> None:
    """Downloads what is not there, before several processes would at once."""
    for name in sorted(names):
        try:
            snip_tf.datasets.load(name, FLAGS.data_dir, max_examples=20)
        except OSError as error:
            sys.exit(f"The data set {name!r}: {error}")


def _chosen_rows() -> dict[str, experiments.Row]:
    rows = experiments.EXPERIMENTS[FLAGS.experiment]
    unknown = [name for name in FLAGS.rows if name not in rows]
    if unknown:
        sys.exit(
            f"Expected --rows to be some of {', '.join(rows)}, those of "
            f"--experiment={FLAGS.experiment}. Received: {', '.join(unknown)}"
        )
    chosen = FLAGS.rows or [n for n, row in rows.items() if FLAGS.budget in row.budgets]
    return {name: rows[name] for name in chosen}


def _cells(row: experiments.Row) -> tuple[experiments.Cell, ...]:
    if FLAGS.budget != "smoke":
        return row.cells
    # A smoke test need not see every point of a curve.
    return (row.cells[0], row.cells[-1])


def _result_path(folder: Path, run: Run) -> Path:
    return folder / f"{run.path()}.json"


def _execute(run: Run, folder: Path) -> str | None:
    """Runs the main program and keeps its result; returns what went wrong, if so."""
    logdir = Path(FLAGS.logdir) / FLAGS.experiment / FLAGS.budget / run.path()
    chosen = {**run.flags, "seed": run.seed, "data_dir": FLAGS.data_dir}
    result = runs.run(_TRAIN, chosen, logdir)
    if isinstance(result, dict) and "diverged" in result:
        result = f"diverged: {result['diverged']}"
    if isinstance(result, str):
        print(f"{run.path()} {result}", flush=True)
        return f"{run.path()} {result}"
    path = _result_path(folder, run)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result)
    print(
        f"{run.path()}: error {result['final_error']:.2f} % after "
        f"{result['training_seconds']:.0f} s of training",
        flush=True,
    )
    return None


def _flags(row: experiments.Row, cell: experiments.Cell) -> experiments.Flags:
    """The flags of the main program, but for the seed and the places."""
    own = {"dtype_policy": FLAGS.dtype_policy, **row.flags, **cell.flags}
    arch = row.flags["arch"]
    return experiments.flags_of(arch, own, FLAGS.budget, bool(FLAGS.data_dir))


def _write_table(folder: Path) -> None:
    """Shows and keeps a table of all results that there are, and draws them."""
    found = _found(folder)
    if not found:
        sys.exit(
            f"Expected results in {folder}. Received: none; run without --table_only"
        )
    rows = experiments.EXPERIMENTS[FLAGS.experiment]
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
    (folder / "table.md").write_text("\n".join(page))
    try:
        pictures.draw(FLAGS.experiment, folder, found, FLAGS.data_dir)
    except OSError as error:
        sys.exit(f"The picture needs the data: {error}")


def _found(folder: Path) -> pictures.Results:
    """The results that there are, in the order of the rows and cells."""
    found: pictures.Results = {}
    for name, row in experiments.EXPERIMENTS[FLAGS.experiment].items():
        for cell in row.cells:
            pattern = f"{Run(name, cell, '*', {}).path()}.json"
            paths = sorted(folder.glob(pattern))
            if paths:
                results = [json.loads(path.read_text()) for path in paths]
                found.setdefault(name, {})[cell.name] = results
    return found


def _table_row(name: str, cell: experiments.Cell, results: list[dict]) -> str:
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
    app.run(main)

"""Compares criteria: each with each sparsity, seed, network and data set.

    python scripts/sweep.py --criteria=snip,force,random --sparsities=0.9,0.99
    python scripts/sweep.py --archs=lenet300 --criteria=snip,snip:shuffle --budget=full

Each run is one `scripts/train.py`. Its result is written to OUTDIR/runs as soon as the
run ends, then to OUTDIR: results.csv, a line for each run, table.md, and a picture for
each network and data set. What has a result is not run again, and a run that was
interrupted continues. A run whose loss is no longer finite has a result, too: that it
diverged.
"""

import command_line  # isort: split

import csv
import functools
import itertools
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from absl import flags

CONTROLS = ("shuffle", "reinitialize", "invert")
CRITERIA = command_line.names("criteria/__init__.py", "CRITERIA")
DATASETS = command_line.names("experiments/datasets/__init__.py", "DATASETS")
MODELS = command_line.names("experiments/models/__init__.py", "MODELS")

# Flags of the main program that a run's place in the sweep, or of its files, decides.
_OWN = (
    *("arch", "datasource", "target_sparsity", "criterion", "control", "seed"),
    *("data_dir", "path_data", "logdir"),
)

BUDGETS = ("smoke", "short", "full")

FLAGS = flags.FLAGS
_TRAIN = Path(__file__).with_name("train.py")

command_line.group("What is compared")
flags.DEFINE_list("archs", ["lenet300"], "Networks, comma-separated.")
flags.DEFINE_list(
    "datasources", [], "Data sets; default: the paper's for each network."
)
flags.DEFINE_list(
    "criteria",
    ["snip", "magnitude", "random"],
    f"Some of {', '.join(CRITERIA)}, each alone or with a control, as snip:shuffle "
    f"({', '.join(CONTROLS)}).",
)
flags.DEFINE_list("sparsities", ["0.9", "0.95", "0.98"], "The dense network comes too.")
flags.DEFINE_list("seeds", ["0", "1", "2"], "A run for each of these.")
command_line.group("How each is trained")
flags.DEFINE_enum(
    "budget",
    "short",
    BUDGETS,
    "full is the paper's recipe, short one for two processor cores, smoke a few "
    "iterations that show that all works.",
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
    "smoke takes scikit-learn's digits instead of all data sets.",
)
flags.DEFINE_string(
    "outdir", "results/sweep", "Folder for results, table and pictures."
)
flags.DEFINE_string("logdir", "logs/sweep", "Folder for the runs themselves.")
command_line.group("Running")
flags.DEFINE_integer(
    "jobs", 2, "Runs at a time, with a processor thread each.", lower_bound=1
)
flags.DEFINE_bool("table_only", False, "Runs nothing; shows the results there are.")


def _is_criterion(name: str) -> bool:
    criterion, colon, control = name.partition(":")
    return criterion in CRITERIA and (not colon or control in CONTROLS)


def _numbers(values: list[str]) -> list[float]:
    try:
        return [float(value) for value in values]
    except ValueError:
        return [-1.0]  # which the validator refuses


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
    f"{', '.join(':' + control for control in CONTROLS)}",
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
        {each.partition("=")[0] for each in given} <= command_line.defined_flags(_TRAIN)
    ),
    "expected flags that `scripts/train.py --help` shows",
)

command_line.check_paths()

if __name__ == "__main__":  # before the imports that take seconds
    command_line.start("Its runs are ended, too. The same command continues.", grace=12)
with command_line.silent():
    import snip_tf
    from snip_tf import plots
    from snip_tf.experiments import recipes
    from snip_tf.experiments.training import runs
    from snip_tf.experiments.training.progress import RunCount
    from snip_tf.files import PARTIAL, locked, read_json, whole_file, write_json
    from snip_tf.reports.text import csv_cell

_DENSE = "dense"
# What is raised on a file that holds none.
_NO_RESULT = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    TypeError,
    ValueError,
)
_COLUMNS = (
    "arch",
    "datasource",
    "criterion",
    "sparsity",
    "seed",
    "final_error",
    "best_checkpoint_error",
    "validation_error",
    "diverged",
    "pruning_seconds",
    "training_seconds",
    "dead_units",
    "units",
    "least_kept",
    "multiply_adds",
    "effective_multiply_adds",
    "compacted_multiply_adds",
)


class Run(NamedTuple):
    """One run of the main program."""

    arch: str
    datasource: str
    criterion: str  # with a control behind a colon; or `dense`
    sparsity: float
    seed: int

    def path(self) -> Path:
        """Below a folder, without an ending."""
        name = f"{self.criterion.replace(':', '-')}-{100 * self.sparsity:.10g}"
        return Path(f"{self.arch}-{self.datasource}") / f"{name}-seed{self.seed}"


def main() -> None:
    """Runs what is missing, then makes the table and the pictures."""
    outdir = Path(FLAGS.outdir)
    try:
        failed = [] if FLAGS.table_only else _run_alone(outdir)
        _show(outdir, failed)
    except OSError as error:
        sys.exit(f"Expected to be able to write to {outdir}. Received: {error}")
    except ImportError as error:  # of what draws
        sys.exit(command_line.one_line(error))
    if failed:
        several = f"{len(failed)} runs" if len(failed) > 1 else "A run"
        sys.exit(f"{several} failed, as said above. The same command tries again.")


def _run_alone(outdir: Path) -> list[str]:
    """Does the runs that have no result yet, unless another sweep does."""
    outdir.mkdir(parents=True, exist_ok=True)
    try:
        with locked(outdir):
            return _run_missing(outdir)
    except BlockingIOError:
        sys.exit(f"Expected an --outdir that no other sweep uses. Received: {outdir}")


def _show(outdir: Path, failed: list[str]) -> None:
    """Makes the table and the pictures of all results that there are."""
    results = _results(outdir)
    if results:
        rows = _write_csv(results, outdir)
        _write_table(rows, sorted({each["budget"] for each in results}), outdir)
        _draw(rows, outdir)
    elif not failed:
        sys.exit(
            f"Expected results in {outdir}. Received: none; run without --table_only"
        )


def _run_missing(outdir: Path) -> list[str]:
    """Does the runs that have no result yet; returns what went wrong."""
    chosen = _chosen()
    missing = [run for run in chosen if not _is_done(run, outdir)]
    count = RunCount(len(chosen), len(chosen) - len(missing), FLAGS.jobs)
    print(count.overview(), flush=True)
    for name in sorted({_flags(run)["datasource"] for run in missing}):
        try:  # before several processes would download it at once
            snip_tf.datasets.load(name, FLAGS.data_dir, max_examples=20)
        except (OSError, ImportError) as error:
            sys.exit(command_line.one_line(f"The data set {name!r}: {error}"))
    failed = []
    with runs.Runner(_TRAIN, FLAGS.jobs) as runner:
        tasks = [functools.partial(_execute, runner, run, outdir) for run in missing]
        for (text, succeeded), seconds in runner.each(tasks):
            print(count.line(text, seconds), flush=True)
            failed += [] if succeeded else [text]
            _write_csv(_results(outdir), outdir)
    return failed


def _chosen() -> list[Run]:
    found = []
    sparsities, seeds = _numbers(FLAGS.sparsities), map(int, FLAGS.seeds)
    for seed, arch in itertools.product(dict.fromkeys(seeds), FLAGS.archs):
        own = [recipes.recipe_of(arch).full["datasource"]]
        for datasource in FLAGS.datasources or own:
            found.append(Run(arch, datasource, _DENSE, 0.0, seed))
            for sparsity, criterion in itertools.product(sparsities, FLAGS.criteria):
                found.append(Run(arch, datasource, criterion, sparsity, seed))
    # Without data, smoke takes another set.
    found = [run._replace(datasource=_flags(run)["datasource"]) for run in found]
    return list(dict.fromkeys(found))


def _flags(run: Run) -> recipes.Flags:
    criterion, _, control = run.criterion.partition(":")
    own = {
        "arch": run.arch,
        "datasource": run.datasource,
        "target_sparsity": run.sparsity,
        "criterion": "snip" if criterion == _DENSE else criterion,
        "control": control or "none",
    }
    given = dict(each.split("=", 1) for each in FLAGS.flag)
    chosen = recipes.flags_of(run.arch, own, FLAGS.budget, bool(FLAGS.data_dir))
    return {**chosen, **given, "seed": run.seed}


def _is_done(run: Run, outdir: Path) -> bool:
    """Whether a result is there already; ends the program if it is of other flags."""
    path = _result_path(run, outdir)
    if not path.exists():
        return False
    result = _read(path)
    there = {"budget": result["budget"], **result["given"]}
    now = json.loads(json.dumps({"budget": FLAGS.budget, **_flags(run)}))
    different = [
        f"--{name}={there.get(name)}, now --{name}={now.get(name)}"
        for name in sorted(there.keys() | now.keys())
        if there.get(name) != now.get(name)
    ]
    if different:
        sys.exit(
            command_line.one_line(
                f"Expected results of the same flags in --outdir. Received: {path}, "
                f"made with {'; '.join(different)}. Name another --outdir, or remove "
                f"the file."
            )
        )
    return True


def _result_path(run: Run, outdir: Path) -> Path:
    return outdir / "runs" / f"{run.path()}.json"


def _execute(runner: runs.Runner, run: Run, outdir: Path) -> tuple[str, bool]:
    """Runs the main program and keeps its result; how it went, and whether well."""
    given = _flags(run)
    path = _result_path(run, outdir)
    try:
        result = runner.run(
            {**given, "data_dir": FLAGS.data_dir}, Path(FLAGS.logdir) / run.path()
        )
        if not isinstance(result, str):
            path.parent.mkdir(parents=True, exist_ok=True)
            about = {"run": run._asdict(), "budget": FLAGS.budget, "given": given}
            write_json(path, {**about, **result})
    except OSError as error:
        result = f"failed: {error}"
    if isinstance(result, str):
        return command_line.one_line(f"{run.path()} {result}"), False
    if "diverged" in result:
        words = command_line.one_line(f"{run.path()} diverged: {result['diverged']}")
        return words, True
    error, seconds = result["final_error"], result["training_seconds"]
    return f"{run.path()}: error {error:.2f} % after {seconds:.0f} s", True


def _results(outdir: Path) -> list[dict]:
    """The results that there are, in the order of their names."""
    paths = sorted((outdir / "runs").glob("*/*-seed*.json"))
    # What was killed while it wrote leaves a partial file.
    return [_read(path) for path in paths if not path.name.startswith(PARTIAL)]


def _read(path: Path) -> dict:
    """A result; ends the program with the name of the file where it is none."""
    try:
        result = read_json(path)
        _check(result)
        run = Run(*(result["run"][name] for name in Run._fields))
        if not path.match(f"{run.path()}.json"):  # a copy would count as another seed
            raise ValueError(f"it is of {run.path()}")
    except _NO_RESULT as error:
        sys.exit(
            command_line.one_line(
                f"Expected {path} to be a result as a sweep wrote it. Received: one "
                f"that is damaged ({error!r}). Remove it, and it is run again."
            )
        )
    return result


def _check(result: dict) -> None:
    """Raises one of many errors where a result is not as a sweep writes it."""
    row = _row(result)
    wrong = [*_wrong_names(row), *_wrong_numbers(row)]
    wrong += ["budget"] * (result["budget"] not in BUDGETS)
    wrong += ["given"] * (not isinstance(result["given"], dict))
    if wrong:
        raise ValueError(f"no proper {', '.join(wrong)}")
    # Of a run that diverged most are not known.
    trained = ["final_error", "training_seconds"] if row["diverged"] is None else []
    runs.check_result(result, ["pruning_seconds", *trained])


def _wrong_names(row: dict) -> list[str]:
    known = {"arch": MODELS, "datasource": DATASETS}
    wrong = [name for name, values in known.items() if row[name] not in values]
    if row["criterion"] != _DENSE and not _is_criterion(row["criterion"]):
        wrong.append("criterion")
    return wrong + ["diverged"] * (not isinstance(row["diverged"], str | None))


def _wrong_numbers(row: dict) -> list[str]:
    """Of those that `runs.check_result` does not know."""
    ranges = {"sparsity": (0, 1), "seed": (0, 2**32 - 1)}
    costs = {"multiply_adds": (1, 2**63)}
    costs |= dict.fromkeys(_COLUMNS[-2:], (0, 2**63))
    # Not known of every network.
    ranges |= {name: costs[name] for name in costs if row[name] is not None}
    wrong = [name for name in ranges if not runs.is_number(row[name], *ranges[name])]
    is_dense = row["criterion"] == _DENSE
    if row["sparsity"] == 1 or (row["sparsity"] == 0) != is_dense:
        wrong.append("sparsity")
    return wrong + ["seed"] * isinstance(row["seed"], float)


def _write_csv(results: list[dict], outdir: Path) -> list[dict]:
    """A line for each result."""
    rows = [_row(result) for result in results]
    with (
        whole_file(outdir / "results.csv") as partial,
        open(partial, "w", newline="", encoding="utf-8") as file,
    ):
        table = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(
            {name: csv_cell(cell) for name, cell in row.items()} for row in rows
        )
    return rows


def _row(result: dict) -> dict:
    # The sparsity that was asked for, from which the obtained one differs by rounding.
    row = {name: result.get(name) for name in _COLUMNS}
    row |= {name: result["run"][name] for name in Run._fields}
    kernels = [layer for layer in result["layers"] if "bias" not in layer["path"]]
    # The gates of a recurrent cell have two kernels, either of which may enter them.
    plain = [layer for layer in kernels if "recurrent" not in layer["path"]]
    row["dead_units"] = sum(layer["idle_units"] for layer in plain)
    row["units"] = sum(layer["units"] for layer in plain)
    kept = [layer["kept"] / layer["total"] for layer in kernels]
    row["least_kept"] = min(kept, default=1.0)
    totals = result.get("totals", {})  # none of a run that diverged
    row["multiply_adds"] = totals.get("multiply_adds")
    row["effective_multiply_adds"] = totals.get("effective")
    row["compacted_multiply_adds"] = totals.get("compacted_multiply_adds")
    return row


def _groups(rows: list[dict]) -> dict[tuple[str, str], dict[str, dict[float, list]]]:
    """`{(network, data set): {criterion: {sparsity: rows}}}`, the dense one first."""
    found: dict = {}
    order = [_DENSE, *CRITERIA]

    def rank(row: dict) -> tuple:
        criterion, _, control = row["criterion"].partition(":")
        return bool(control), order.index(criterion), control, row["sparsity"]

    for row in sorted(rows, key=rank):
        by_criterion = found.setdefault((row["arch"], row["datasource"]), {})
        by_criterion.setdefault(row["criterion"], {}).setdefault(
            row["sparsity"], []
        ).append(row)
    return found


def _write_table(rows: list[dict], budgets: list[str], outdir: Path) -> None:
    page = []
    for (arch, datasource), by_criterion in _groups(rows).items():
        sparsities = sorted({s for each in by_criterion.values() for s in each if s})
        header = [f"{100 * sparsity:g} %" for sparsity in sparsities]
        middle = sparsities[len(sparsities) // 2] if sparsities else 0.0
        page += [f"## {arch}, {datasource}", ""]
        dense = by_criterion.pop(_DENSE, {}).get(0.0, [])
        if dense:
            page += [f"Dense: {_mean(dense, 'final_error', 2)} % error.", ""]
        every = [rows for found in by_criterion.values() for rows in found.values()]
        seeds = max(map(len, every), default=0)
        names = [*header, "pruning, s", f"dead units, {100 * middle:g} %"]
        page += [f"| error, % | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
        for criterion, found in by_criterion.items():
            cells = [_errors(found.get(s, []), seeds) for s in sparsities]
            times = [row["pruning_seconds"] for each in found.values() for row in each]
            cells += [f"{statistics.median(times):.2f}"]
            cells += [_mean(found.get(middle, []), "dead_units", 0)]
            page += [f"| {criterion} | {' | '.join(cells)} |"]
        page += [""]
        for title, cell in _CELLS.items():
            page += [f"| {title} | {' | '.join(header)} |"]
            page += ["|---|" + "---:|" * len(header)]
            for criterion, found in by_criterion.items():
                cells = [cell(found[s]) if s in found else "" for s in sparsities]
                page += [f"| {criterion} | {' | '.join(cells)} |"]
            page += [""]
    text = "\n".join([f"# Criteria, {', '.join(budgets)}", "", _NOTE, "", *page])
    print(text)
    with whole_file(outdir / "table.md") as partial:
        partial.write_text(text, encoding="utf-8")


def _errors(rows: list[dict], seeds: int) -> str:
    diverged = sum(row["diverged"] is not None for row in rows)
    cells = [_mean(rows, "final_error", 2), f"{diverged} diverged" if diverged else ""]
    few = f" ({len(rows)})" if 0 < len(rows) < seeds else ""
    return ", ".join(filter(None, cells)) + few


def _there(rows: list[dict], name: str) -> list[float]:
    """The values that there are: of an error, none where a run diverged."""
    return [row[name] for row in rows if row[name] is not None]


def _mean(rows: list[dict], name: str, digits: int) -> str:
    values = _there(rows, name)
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def _of_dense(rows: list[dict]) -> str:
    left = _there(rows, "compacted_multiply_adds")
    whole = _there(rows, "multiply_adds")
    return f"{100 * sum(left) / sum(whole):.1f}" if left and whole else ""


_NOTE = (
    "Means and standard deviations over the seeds. The error is that of the model at "
    "the end of training on the test set; the time of pruning a median over all runs. "
    "In brackets the number of seeds, where the runs of others are missing or failed; "
    "a mean error leaves out what diverged. "
    "A dead unit, of a dense or convolutional layer, is one that no kept connection "
    "enters."
)
_CELLS: dict[str, Callable[[list[dict]], str]] = {
    "dead units": lambda rows: _mean(rows, "dead_units", 0),
    "multiply-adds that `compact` leaves, %": _of_dense,
    "least kept of a kernel, %": lambda rows: (
        f"{100 * min(row['least_kept'] for row in rows):.2g}"
    ),
}


def _draw(rows: list[dict], outdir: Path) -> None:
    for (arch, datasource), by_criterion in _groups(rows).items():
        dense = by_criterion.pop(_DENSE, {}).get(0.0, [])
        curves = {
            criterion: {
                s: errors
                for s, own in found.items()
                if (errors := _there(own, "final_error"))
            }
            for criterion, found in by_criterion.items()
        }
        curves = {criterion: points for criterion, points in curves.items() if points}
        if curves:
            figure = plots.error_by_criterion(curves, _there(dense, "final_error"))
            path = outdir / f"{arch}-{datasource}.png"
            with whole_file(path) as partial:
                figure.savefig(partial, dpi=150, format="png")
            print(f"Wrote {path}")


if __name__ == "__main__":
    main()

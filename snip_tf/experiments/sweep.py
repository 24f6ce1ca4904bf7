"""Sweeps: compares criteria and schedules, for each sparsity, seed and network."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from snip_tf.criteria import CRITERIA
from snip_tf.experiments import datasets, models, recipes, results
from snip_tf.experiments.tables import known, mean_and_deviation, table
from snip_tf.files import PARTIAL, whole_file
from snip_tf.reports import plots
from snip_tf.reports.text import csv_cell

CONTROLS = ("shuffle", "reinitialize", "invert")
# What is compared besides the criteria: flags of the main program, by name.
METHODS: dict[str, recipes.Flags] = {
    "random_erk": {"criterion": "random", "scope": "erk"},
    "gradual": {"criterion": "magnitude", "schedule": "gradual"},
    "set": {"criterion": "random", "scope": "erk", "schedule": "set"},
    "set_from_snip": {"criterion": "snip", "schedule": "set"},
    "rigl": {"criterion": "random", "scope": "erk", "schedule": "rigl"},
    "rigl_from_snip": {"criterion": "snip", "schedule": "rigl"},
}
_DENSE = "dense"

# A line of the CSV, by column.
Row = dict[str, Any]
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
_NOTE = (
    "Means and standard deviations over the seeds. The error is that of the final "
    "model on the test set; the time of pruning is the median over all runs. Brackets "
    "show the number of seeds, where runs are missing or failed; a mean error leaves "
    "out runs that diverged. A dead unit is a unit without inputs, in a dense or "
    "convolutional layer."
)


class Place(NamedTuple):
    """What distinguishes a run in the sweep."""

    arch: str
    datasource: str
    criterion: str  # with a control after a colon; or of METHODS; or `dense`
    sparsity: float
    seed: int

    def name(self) -> Path:
        """Returns the name of its files, without a suffix."""
        name = f"{self.criterion.replace(':', '-')}-{100 * self.sparsity:.10g}"
        return Path(f"{self.arch}-{self.datasource}") / f"{name}-seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What is compared, and how each network is trained.

    Attributes:
        archs, datasources, criteria, sparsities, seeds: each combination is a run.
            Without data sources, each network uses that of its recipe.
        budget: one of `recipes.BUDGETS`.
        flags: flags of the main program, for every run.
        has_data: whether there are data sets; if not, `"smoke"` uses a stand-in.
    """

    archs: Sequence[str]
    datasources: Sequence[str]
    criteria: Sequence[str]
    sparsities: Sequence[float]
    seeds: Sequence[int]
    budget: recipes.Budget
    flags: recipes.Flags
    has_data: bool

    def runs(self) -> list[results.Run]:
        """Returns all runs, the dense network first, each once."""
        runs = {run.name: run for run in map(self._run, self._places())}
        return list(runs.values())

    def _places(self) -> list[Place]:
        found = []
        for seed, arch in itertools.product(self.seeds, self.archs):
            own = [recipes.recipe_of(arch).full["datasource"]]
            for datasource in self.datasources or own:
                found.append(Place(arch, datasource, _DENSE, 0.0, seed))
                for pair in itertools.product(self.sparsities, self.criteria):
                    sparsity, criterion = pair
                    found.append(Place(arch, datasource, criterion, sparsity, seed))
        return found

    def _run(self, place: Place) -> results.Run:
        criterion, _, control = place.criterion.partition(":")
        own = {
            "arch": place.arch,
            "datasource": place.datasource,
            "target_sparsity": place.sparsity,
            "criterion": "snip" if criterion == _DENSE else criterion,
            "control": control or "none",
            **METHODS.get(criterion, {}),
        }
        chosen = recipes.flags_of(place.arch, own, self.budget, self.has_data)
        flags = {**chosen, **self.flags, "seed": place.seed}
        # Without data, smoke uses another set.
        place = place._replace(datasource=flags["datasource"])
        about = {"run": place._asdict(), "budget": self.budget, "given": flags}
        return results.Run(place.name(), flags, about)


def is_criterion(name: str) -> bool:
    """Returns whether this is a method, or a criterion, perhaps with a control."""
    criterion, colon, control = name.partition(":")
    controlled = criterion in CRITERIA and (not colon or control in CONTROLS)
    return controlled or name in METHODS


def check(path: Path, result: results.Result) -> None:
    """Raises one of several errors if a result is not one of a sweep."""
    row = _row(result)
    wrong = [*_wrong_names(row), *_wrong_numbers(row)]
    wrong += ["budget"] * (result["budget"] not in recipes.BUDGETS)
    wrong += ["given"] * (not isinstance(result["given"], dict))
    if wrong:
        raise ValueError(f"no proper {', '.join(wrong)}")
    # Most numbers of a run that diverged are unknown.
    trained = ["final_error", "training_seconds"] if row["diverged"] is None else []
    results.check_result(result, ["pruning_seconds", *trained])
    place = Place(*(result["run"][name] for name in Place._fields))
    if not path.match(f"{place.name()}.json"):  # a copy would count as another seed
        raise ValueError(f"it is of {place.name()}")


def _wrong_names(row: Row) -> list[str]:
    allowed = {"arch": models.MODELS, "datasource": datasets.DATASETS}
    wrong = [name for name, values in allowed.items() if row[name] not in values]
    if row["criterion"] != _DENSE and not is_criterion(row["criterion"]):
        wrong.append("criterion")
    return wrong + ["diverged"] * (not isinstance(row["diverged"], str | None))


def _wrong_numbers(row: Row) -> list[str]:
    """Returns the wrong numbers among those that `results.check_result` ignores."""
    ranges: dict[str, tuple[float, float]]
    ranges = {"sparsity": (0, 1), "seed": (0, 2**32 - 1)}
    costs: dict[str, tuple[float, float]] = {"multiply_adds": (1, 2**63)}
    costs |= dict.fromkeys(_COLUMNS[-2:], (0, 2**63))
    # They are not known for every network.
    ranges |= {name: costs[name] for name in costs if row[name] is not None}
    wrong = [name for name in ranges if not results.is_number(row[name], *ranges[name])]
    is_dense = row["criterion"] == _DENSE
    if row["sparsity"] == 1 or (row["sparsity"] == 0) != is_dense:
        wrong.append("sparsity")
    return wrong + ["seed"] * isinstance(row["seed"], float)


def found_in(kept: results.Results) -> list[results.Result]:
    """Returns all existing results, in the order of their names."""
    paths = sorted(kept.folder.glob("*/*-seed*.json"))
    # A process that was killed while writing leaves a partial file.
    return [kept.read(path) for path in paths if not path.name.startswith(PARTIAL)]


def write_csv(found: Sequence[results.Result], path: Path) -> list[Row]:
    """Writes a line for each result, and returns the lines."""
    rows = list(map(_row, found))
    with (
        whole_file(path) as partial,
        open(partial, "w", newline="", encoding="utf-8") as file,
    ):
        lines = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        lines.writeheader()
        for row in rows:
            lines.writerow({name: csv_cell(cell) for name, cell in row.items()})
    return rows


def _row(result: results.Result) -> Row:
    row = {name: result.get(name) for name in _COLUMNS}
    # With the requested sparsity; the one obtained differs by rounding.
    row |= {name: result["run"][name] for name in Place._fields}
    row["dead_units"], row["units"] = results.units([result])
    kept = [layer["kept"] / layer["total"] for layer in results.kernels(result)]
    row["least_kept"] = min(kept, default=1.0)
    totals = result.get("totals", {})  # a run that diverged has none
    row["multiply_adds"] = totals.get("multiply_adds")
    row["effective_multiply_adds"] = totals.get("effective")
    row["compacted_multiply_adds"] = totals.get("compacted_multiply_adds")
    return row


# The rows of one criterion, by sparsity.
Line = dict[float, list[Row]]


class _Comparison:
    """The rows of one network on one data set.

    Args:
        rows: the rows of all its runs, in the order in which they are shown.
    """

    def __init__(self, rows: Sequence[Row]):
        self.lines: dict[str, Line] = {}  # by criterion
        for row in rows:
            line = self.lines.setdefault(row["criterion"], {})
            line.setdefault(row["sparsity"], []).append(row)
        self.dense = self.lines.pop(_DENSE, {}).get(0.0, [])
        lines = self.lines.values()
        self.sparsities = sorted({sparsity for line in lines for sparsity in line})
        every = [rows for line in lines for rows in line.values()]
        self._seeds = max(map(len, every), default=0)

    def tables(self) -> list[str]:
        """Returns the lines of its section of the page."""
        percent = [f"{100 * sparsity:g} %" for sparsity in self.sparsities]
        middle = self.sparsities[len(percent) // 2] if percent else 0.0
        names = [*percent, "pruning, s", f"dead units, {100 * middle:g} %"]
        page = []
        if self.dense:
            error = mean_and_deviation(known(self.dense, "final_error"))
            page += [f"Dense: {error} % error.", ""]
        cells = {
            criterion: [*self._cells(line, self._error), *_at_the_end(line, middle)]
            for criterion, line in self.lines.items()
        }
        page += [*table(["error, %", *names], cells), ""]
        for title, cell in _CELLS.items():
            cells = {name: self._cells(line, cell) for name, line in self.lines.items()}
            page += [*table([title, *percent], cells), ""]
        return page

    def _cells(self, line: Line, cell: Callable[[list[Row]], str]) -> list[str]:
        return [cell(line[s]) if s in line else "" for s in self.sparsities]

    def _error(self, rows: list[Row]) -> str:
        diverged = sum(row["diverged"] is not None for row in rows)
        few = f" ({len(rows)})" if len(rows) < self._seeds else ""
        return mean_and_deviation(known(rows, "final_error"), diverged=diverged) + few

    def curves(self) -> dict[str, dict[float, list[float]]]:
        """Returns the errors by criterion and sparsity."""
        curves = {
            criterion: {s: known(rows, "final_error") for s, rows in line.items()}
            for criterion, line in self.lines.items()
        }
        known_ones = {
            criterion: {s: errors for s, errors in curve.items() if errors}
            for criterion, curve in curves.items()
        }
        return {criterion: curve for criterion, curve in known_ones.items() if curve}


def _comparisons(rows: Sequence[Row]) -> dict[tuple[str, str], _Comparison]:
    """Returns a comparison for each network and data set."""
    order = [_DENSE, *CRITERIA, *METHODS]

    def rank(row: Row) -> tuple[Any, ...]:
        criterion, _, control = row["criterion"].partition(":")
        return bool(control), order.index(criterion), control, row["sparsity"]

    found: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=rank):
        found.setdefault((row["arch"], row["datasource"]), []).append(row)
    return {pair: _Comparison(own) for pair, own in found.items()}


def _at_the_end(line: Line, middle: float) -> list[str]:
    """Returns the last cells of a line: the time of pruning, dead units."""
    times = [row["pruning_seconds"] for rows in line.values() for row in rows]
    return [f"{statistics.median(times):.2f}", _dead_units(line.get(middle, []))]


def _dead_units(rows: list[Row]) -> str:
    return mean_and_deviation(known(rows, "dead_units"), digits=0)


def _part_left(rows: list[Row]) -> str:
    left = known(rows, "compacted_multiply_adds")
    whole = known(rows, "multiply_adds")
    return f"{100 * sum(left) / sum(whole):.1f}" if left and whole else ""


def _least_kept(rows: list[Row]) -> str:
    return f"{100 * min(row['least_kept'] for row in rows):.2g}"


_CELLS: dict[str, Callable[[list[Row]], str]] = {
    "dead units": _dead_units,
    "multiply-adds that `compact` leaves, %": _part_left,
    "least kept of a kernel, %": _least_kept,
}


def write_table(rows: Sequence[Row], budgets: Sequence[str], path: Path) -> None:
    """Prints and writes tables for each network and data set."""
    page = [f"# Criteria, {', '.join(budgets)}", "", _NOTE, ""]
    for (arch, datasource), comparison in _comparisons(rows).items():
        page += [f"## {arch}, {datasource}", "", *comparison.tables()]
    text = "\n".join(page)
    print(text)
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def draw(rows: Sequence[Row], folder: Path) -> None:
    """Draws the errors for each network and data set."""
    for (arch, datasource), comparison in _comparisons(rows).items():
        if curves := comparison.curves():
            dense = known(comparison.dense, "final_error")
            figure = plots.error_by_criterion(curves, dense)
            path = folder / f"{arch}-{datasource}.png"
            with whole_file(path) as partial:
                figure.savefig(partial, dpi=150, format="png")
            print(f"Wrote {path}")

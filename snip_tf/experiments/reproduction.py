"""Reproductions of the paper's experiments: their runs, results and tables."""

from __future__ import annotations

import dataclasses
import functools
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from snip_tf.experiments import datasets, pictures, recipes, results
from snip_tf.experiments.tables import known, mean_and_deviation
from snip_tf.files import whole_file

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
    "Errors on the test set, mean and standard deviation over seeds; the paper "
    "reports the best of its last checkpoints. A dead unit is a unit without inputs, "
    "in a dense or convolutional layer."
)


_NO_FIGURES = (
    "The column of the paper is empty, since no figure of it was at hand that had been "
    "verified."
)


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """The part of an experiment that is run, and how each network is trained.

    Attributes:
        experiment: a name in `recipes.EXPERIMENTS`.
        budget: one of `recipes.BUDGETS`.
        rows: names of networks; if empty, all networks of the budget.
        seeds: the seeds, each of which is a run.
        dtype_policy: the policy of every run.
        has_data: whether there are data sets; if not, `"smoke"` uses a stand-in.

    Raises:
        ExperimentError: if the experiment lacks a row.
    """

    experiment: str
    budget: recipes.Budget
    rows: Sequence[str]
    seeds: Sequence[int]
    dtype_policy: str
    has_data: bool

    def __post_init__(self) -> None:
        rows = recipes.EXPERIMENTS[self.experiment]
        unknown = [name for name in self.rows if name not in rows]
        if unknown:
            raise results.ExperimentError(
                f"Expected --rows to be some of {', '.join(rows)}, those of "
                f"--experiment={self.experiment}. Received: {', '.join(unknown)}"
            )

    def runs(self) -> list[results.Run]:
        """Returns all runs, seed by seed."""
        rows = recipes.EXPERIMENTS[self.experiment]
        chosen = self.rows or [n for n, r in rows.items() if self.budget in r.budgets]
        return [
            results.Run(_name(name, cell, seed), self._flags(rows[name], cell, seed))
            for seed in dict.fromkeys(self.seeds)
            for name in chosen
            for cell in self._cells(rows[name])
        ]

    def _cells(self, row: recipes.Row) -> tuple[recipes.Cell, ...]:
        # A smoke test does not need every point of a curve.
        return (row.cells[0], row.cells[-1]) if self.budget == "smoke" else row.cells

    def _flags(self, row: recipes.Row, cell: recipes.Cell, seed: int) -> recipes.Flags:
        own = {"dtype_policy": self.dtype_policy, **row.flags, **cell.flags}
        arch = row.flags["arch"]
        chosen = recipes.flags_of(arch, own, self.budget, self.has_data)
        return {**chosen, "seed": seed}


def _name(row: str, cell: recipes.Cell, seed: int | str) -> Path:
    """Returns the name of a run's files, without a suffix."""
    plain = re.sub(r"[^\w.]+", "-", cell.name).strip("-")
    return Path(row) / f"{plain}-seed{seed}"


def results_in(
    folder: Path, experiment: str, defaults: recipes.Flags
) -> results.Results:
    """Returns the results of an experiment in a folder."""
    check = functools.partial(_check, experiment)
    return results.Results(folder, defaults, check)


def _check(experiment: str, path: Path, result: results.Result) -> None:
    """Raises one of several errors if a result lacks what tables or pictures need."""
    trained = [] if "diverged" in result else ["final_error", "best_checkpoint_error"]
    if trained:
        trained.append("training_seconds")
        _check_history(experiment, result)
    elif not isinstance(result["diverged"], str):
        raise ValueError("no proper diverged")
    results.check_result(result, ["pruning_seconds", *trained])
    given = result["flags"]
    ranges = {"seed": (0, 2**32 - 1), "target_sparsity": (0, 1 - 2**-53)}  # below 1
    if experiment == "batch_size":
        ranges["scoring_batch_size"] = (1, 2**31)
    for name, ends in ranges.items():
        if not results.is_number(given[name], *ends):
            raise ValueError(f"{name} is {given[name]!r}")
    if given["datasource"] not in datasets.DATASETS:
        raise ValueError(f"datasource is {given['datasource']!r}")
    if not path.stem.endswith(f"-seed{given['seed']}"):  # a copy would count as another
        raise ValueError(f"it is of seed {given['seed']}")


def _check_history(experiment: str, result: results.Result) -> None:
    if experiment != "random_labels":  # only this shows the loss
        return
    for check in result["history"]:
        for name, most in (("iteration", 2**63), ("loss", 1e38)):
            if not results.is_number(check[name], 0, most):
                raise ValueError(f"{name} is {check[name]!r}")


def found_in(kept: results.Results, experiment: str) -> pictures.Results:
    """Returns all existing results, in the order of the rows and cells."""
    found: pictures.Results = {}
    for name, row in recipes.EXPERIMENTS[experiment].items():
        for cell in row.cells:
            paths = sorted(kept.folder.glob(f"{_name(name, cell, '*')}.json"))
            if paths:
                found.setdefault(name, {})[cell.name] = list(map(kept.read, paths))
    return found


def write_table(
    found: pictures.Results, experiment: str, budget: str, path: Path
) -> None:
    """Prints a table of results, and writes it with its data."""
    rows = recipes.EXPERIMENTS[experiment]
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * len(_COLUMNS)}"]
    lines += [
        _line(name, cell, found[name][cell.name])
        for name in found
        for cell in rows[name].cells
        if cell.name in found[name]
    ]
    print("\n".join(lines))
    command = f"--experiment={experiment} --budget={budget} --rows={','.join(found)}"
    cells = [cell for row in rows.values() for cell in row.cells]
    note = _NOTE if any(cell.paper for cell in cells) else f"{_NOTE} {_NO_FIGURES}"
    page = [f"# {experiment}, {budget}", "", note, "", *lines, ""]
    page += [f"`python scripts/reproduce.py {command}`", ""]
    with whole_file(path) as partial:
        partial.write_text("\n".join(page), encoding="utf-8")


def _line(name: str, cell: recipes.Cell, found: list[results.Result]) -> str:
    diverged = sum("diverged" in result for result in found)
    best = known(found, "best_checkpoint_error")
    cells = [
        name,
        cell.name,
        "" if cell.paper is None else f"{cell.paper}",
        mean_and_deviation(known(found, "final_error"), diverged=diverged),
        mean_and_deviation(best),
        str(len(found)),
        _mean(known(found, "pruning_seconds")),
        _mean([seconds / 60 for seconds in known(found, "training_seconds")]),
        *_of_the_layers(found),
    ]
    return f"| {' | '.join(cells)} |"


def _mean(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3g}" if values else ""


def _of_the_layers(found: list[results.Result]) -> tuple[str, str]:
    """Returns the least fraction kept of a kernel, and the fraction of dead units."""
    kernels = [layer for result in found for layer in results.kernels(result)]
    if not kernels:
        return "", ""
    least = min(layer["kept"] / layer["total"] for layer in kernels)
    dead, units = results.units(found)
    return f"{100 * least:.2g}", f"{100 * dead / units:.2g}" if units else ""


def draw(
    found: pictures.Results, experiment: str, folder: Path, data_dir: str | None
) -> None:
    """Draws the pictures of an experiment, from the runs that did not diverge.

    Raises:
        ExperimentError: if the picture needs data that does not exist.
    """
    ended = {
        name: {
            cell: whole
            for cell, some in cells.items()
            if (whole := [result for result in some if "diverged" not in result])
        }
        for name, cells in found.items()
    }
    try:
        pictures.draw(
            experiment, folder, {n: c for n, c in ended.items() if c}, data_dir
        )
    except OSError as error:
        if error.errno is not None:
            raise  # an error of the disk
        raise results.ExperimentError(f"The picture needs the data: {error}") from error

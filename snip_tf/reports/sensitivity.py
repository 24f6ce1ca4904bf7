"""sensitivity_curves: what pruning one layer, and nothing else, does to a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np

from snip_tf import _keras
from snip_tf.checks import check_number, check_one_of
from snip_tf.criteria import ScoringContext
from snip_tf.criteria.reading import (
    Scoring,
    Verbose,
    check_arguments,
    check_verbose,
)
from snip_tf.masking.pruned_model import assign_masks, masked_copy
from snip_tf.network import Network
from snip_tf.reports.html import html_fragment, html_list, html_table
from snip_tf.scoring.examples import Batch
from snip_tf.scoring.gradients import mean_loss
from snip_tf.selecting.allocation import kept_count
from snip_tf.selecting.scores import as_floats
from snip_tf.selecting.threshold import keep_largest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.99)
_MOST_LINES = 10  # of a picture
By = Literal["layer", "weight"]


@dataclasses.dataclass(frozen=True)
class SensitivityCurves:
    """What pruning one layer at a time does; `snip_tf.sensitivity_curves` makes it.

    Attributes:
        model: str, the name of the model.
        by: `"layer"` or `"weight"`, what is pruned alone.
        criterion: str, what chose the connections that were removed.
        sparsities: tuple of floats, the fractions of its connections removed.
        before: `{"loss": float}` of the whole model, with the compiled metrics.
        curves: `{name: {"loss": list}}`: the same values with that layer (or weight)
            pruned, one for each sparsity.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="out")])
    >>> x, y = np.random.rand(32, 8), np.random.rand(32, 4)
    >>> curves = snip_tf.sensitivity_curves(model, x, y, loss="mse")
    >>> len(curves.curves["out"]["loss"])
    5
    """

    model: str
    by: By
    criterion: str
    sparsities: tuple[float, ...]
    before: dict[str, float]
    curves: dict[str, dict[str, list[float]]]

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it, for JSON."""
        return {**dataclasses.asdict(self), "sparsities": list(self.sparsities)}

    def plot(self, value: str = "loss") -> Figure:
        """Draws a curve for each layer, of more than ten the most sensitive.

        Args:
            value: `"loss"`, or the name of a compiled metric.

        Returns:
            A `matplotlib.figure.Figure`; its `savefig(path)` writes a picture.

        Raises:
            ValueError: if there is no such value.
            ImportError: if matplotlib is not installed.
        """
        from snip_tf.reports.plots.curves import sensitivity_lines

        check_one_of("value", value, self.before)
        most = self._by_change(value)[:_MOST_LINES]
        return sensitivity_lines(
            self.sparsities,
            {name: self.curves[name][value] for name in most},
            self.before[value],
            value,
        )

    def _repr_html_(self) -> str:
        """Returns what a notebook shows: a table of the losses."""
        names = [self.by.capitalize(), "0%"]
        names += [f"{100 * sparsity:g}%" for sparsity in self.sparsities]
        before = f"{self.before['loss']:.4g}"
        rows = [
            [name, before, *(f"{loss:.4g}" for loss in curve["loss"])]
            for name, curve in self.curves.items()
        ]
        title = (
            f'Loss of "{self.model}" with one {self.by} pruned, and the others whole'
        )
        most = ", ".join(self._by_change("loss")[:3])
        notes = [f"Pruned by {self.criterion}", f"Most sensitive: {most}"]
        others = [name for name in self.before if name != "loss"]
        if others:
            notes.append(f"to_dict() and plot(value) also have {', '.join(others)}")
        return html_fragment(title, html_table(names, rows), html_list(notes))

    def _by_change(self, value: str) -> list[str]:
        """Returns the names, those whose pruning changes a value most first."""

        def change(name: str) -> float:
            differences = np.subtract(self.curves[name][value], self.before[value])
            # A loss that is not finite has changed most.
            return float(np.nan_to_num(np.abs(differences), nan=np.inf).mean())

        return sorted(self.curves, key=change, reverse=True)


def sensitivity_curves(
    model: keras.Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    sparsities: Sequence[float] = SPARSITIES,
    by: By = "layer",
    criterion: str | Callable[[ScoringContext], Mapping[str, Any]] = "magnitude",
    loss: Any = None,
    objective: Callable[[keras.Model, Any, bool], Any] | None = None,
    batch_size: int | None = None,
    batches: int = 1,
    seed: int | None = None,
    verbose: Verbose = "auto",
) -> SensitivityCurves:
    """Measures how sensitive a model is to pruning each of its layers alone.

    For each layer and each sparsity, the connections of that layer with the lowest
    scores are removed, all other layers stay whole, and nothing is trained. What such a
    layer loses shows where to prune less: pass `{path pattern: sparsity}` to
    `prune_model`, or `min_kept`.

    Args:
        model: a `keras.Model`, usually a trained one. It is left unchanged.
        x, y, sample_weight: the examples to measure on, and to score on where the
            criterion needs some, as in `prune_model`: the same for all curves.
        sparsities: floats, 0 <= sparsity < 1, the fractions removed.
        by: `"layer"`, each layer with all its prunable weights, or `"weight"`, each of
            these alone.
        criterion: as in `prune_model`; of an iterative one, the first step.
        loss, objective, batch_size, batches, seed: as in `prune_model`.
        verbose: "auto", 0 or 1: shows the progress, or not.

    Returns:
        A `SensitivityCurves`. A notebook shows it as a table; `.plot()` draws it, and
        `.to_dict()` has the numbers: the loss without penalties on weights, and the
        compiled metrics.

    Raises:
        TypeError, ValueError: as `prune_model`.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="out")])
    >>> x, y = np.random.rand(32, 8), np.random.rand(32, 4)
    >>> curves = snip_tf.sensitivity_curves(model, x, y, loss="mse", sparsities=[0.5])
    >>> curves.sparsities, list(curves.curves)
    ((0.5,), ['out'])
    """
    check_arguments(model, x, y, sample_weight)
    check_one_of("by", by, ["layer", "weight"])
    check_verbose(verbose)
    wanted = _checked_sparsities(sparsities)
    scoring = Scoring(
        model,
        (x, y, sample_weight),
        criterion,
        choice=(None, None),
        goal=(loss, objective, False),
        sampling=(batch_size, batches, seed),
    )
    if x is None:
        raise ValueError(
            "Expected data to measure the loss on, as `x`. Received: x=None"
        )
    measured = _Measured(scoring, loss, objective)
    groups = _groups(scoring.weights, by)
    bar = keras.utils.Progbar(len(groups), unit_name=by) if verbose else None
    before, curves = measured.now(), {}
    for number, (name, paths) in enumerate(groups.items(), 1):
        curves[name] = _turned(measured.pruned(paths, wanted), before)
        if bar is not None:
            bar.update(number)
    return SensitivityCurves(
        model.name, by, str(scoring.criterion), wanted, before, curves
    )


def _checked_sparsities(sparsities: Any) -> tuple[float, ...]:
    """Returns them in order; raises unless they are fractions to remove."""
    if isinstance(sparsities, (str, float, int)):
        raise TypeError(
            f"Expected `sparsities` to be a sequence of numbers. "
            f"Received: sparsities={sparsities!r}"
        )
    found = tuple(sparsities)
    for sparsity in found:
        check_number("sparsities", sparsity, least=0, below=1)
    if not found:
        raise ValueError("Expected at least one sparsity. Received: sparsities=()")
    return tuple(sorted(set(map(float, found))))


def _groups(weights: Mapping[str, keras.Variable], by: By) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for path in weights:
        name = path.rpartition("/")[0] if by == "layer" else path
        groups.setdefault(name or path, []).append(path)
    return groups


def _turned(
    points: Iterator[dict[str, float]], before: Mapping[str, float]
) -> dict[str, list[float]]:
    found = list(points)
    return {name: [point[name] for point in found] for name in before}


class _Measured:
    """A copy of a model, of which one part at a time is pruned and measured."""

    def __init__(self, scoring: Scoring, loss: Any, objective: Any):
        # An iterator of batches can be read once: by the criterion, and here.
        self._batches = scoring.kept_batches()
        self._scores = as_floats(scoring.scores(scoring.masks_before()))
        self._objective = scoring.objective
        whole = {p: np.ones(w.shape, bool) for p, w in scoring.weights.items()}
        masks = {**whole, **scoring.network.masks}
        self._copy: Network = masked_copy(scoring.network, masks.items())
        config = scoring.network.model.compiled and _keras.compile_config(
            scoring.network.model
        )
        self._has_metrics = bool(
            config
            and objective is None
            and (config.get("metrics") or config.get("weighted_metrics"))
        )

    def now(self) -> dict[str, float]:
        """Returns the loss and the metrics of the copy as it is."""
        model = self._copy.model
        loss = mean_loss(model, self._batches, self._objective)
        return {"loss": loss, **(self._metrics() if self._has_metrics else {})}

    def _metrics(self) -> dict[str, float]:
        found = self._copy.model.evaluate(
            _Sequence(self._batches), verbose=0, return_dict=True
        )
        return {name: float(v) for name, v in found.items() if name != "loss"}

    def pruned(
        self, paths: Sequence[str], sparsities: Sequence[float]
    ) -> Iterator[dict[str, float]]:
        """Yields loss and metrics with some weights pruned together, and restores them.

        Args:
            paths: the weights.
            sparsities: in increasing order.
        """
        scores = {path: self._scores[path] for path in paths}
        total = sum(score.size for score in scores.values())
        values = {p: keras.ops.copy(self._copy.weights[p]) for p in paths}
        before = {path: self._copy.masks[path] for path in paths}
        for sparsity in sparsities:
            chosen = keep_largest(scores, kept_count(total, sparsity))
            masks = {
                path: mask.unpack() & before[path] for path, mask in chosen.items()
            }
            assign_masks(self._copy, masks, [])
            yield self.now()
        assign_masks(self._copy, before, [])
        for path, value in values.items():
            self._copy.weights[path].assign(value)


class _Sequence(keras.utils.PyDataset):
    """Batches, for `evaluate`."""

    def __init__(self, batches: Sequence[Batch]):
        super().__init__()
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Any:
        return keras.utils.pack_x_y_sample_weight(*self._batches[index])

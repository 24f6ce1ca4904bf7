"""Curves of experiments: errors against sparsity, losses against iterations."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from snip_tf.reports.figures import new_axes, not_empty, shown_name
from snip_tf.reports.plots.arguments import check_mapping, check_nested, wrong_form

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ERRORS = "{label: {sparsity: errors in percent, one for each seed}}"
_LOSSES = (
    "{label: (iterations, losses)}, such as {'fit': (history.epoch, "
    "history.history['loss'])} of what `fit` returns"
)
_MARKERS = "osD^vP*X<>"


def error_against_sparsity(
    curves: Mapping[str, Mapping[float, Sequence[float]]],
) -> Figure:
    """Draws test error against sparsity: means over seeds, with standard deviations.

    Args:
        curves: `{label: {sparsity: errors in percent, one for each seed}}`.

    Example:

    >>> import snip_tf
    >>> figure = snip_tf.plots.error_against_sparsity(
    ...     {"LeNet-300-100": {0.0: [1.4, 1.5], 0.5: [1.5, 1.5], 0.9: [1.6, 1.7]}}
    ... )
    >>> figure.axes[0].get_xlabel()
    'sparsity, %'

    Source: figure 1 of https://arxiv.org/abs/1810.02340.
    """
    check_nested("curves", curves, _ERRORS)
    figure, axes = new_axes("sparsity, %", "test error, %")
    for label, points in not_empty(curves).items():
        sparsities = sorted(points)
        errors = [points[sparsity] for sparsity in sparsities]
        axes.errorbar(
            [100 * sparsity for sparsity in sparsities],
            [np.mean(values) for values in errors],
            [_spread(values) for values in errors],
            label=label,
            marker="o",
            markersize=4,
            capsize=3,
        )
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def sensitivity_lines(
    sparsities: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    before: float,
    value: str,
) -> Figure:
    """Draws a line for each layer; see `SensitivityCurves.plot`."""
    figure, axes = new_axes("sparsity of this one alone, %", value)
    percent = [0.0, *(100 * sparsity for sparsity in sparsities)]
    for (name, points), marker in zip(
        curves.items(), itertools.cycle(_MARKERS), strict=False
    ):
        label = shown_name(name)
        axes.plot(percent, [before, *points], label=label, marker=marker, markersize=4)
    axes.legend(fontsize="small")
    return figure


def _spread(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def error_by_criterion(
    curves: Mapping[str, Mapping[float, Sequence[float]]],
    dense: Sequence[float] = (),
) -> Figure:
    """Draws test errors of criteria: means over seeds, with their ranges.

    Args:
        curves: `{label: {sparsity: errors in percent, one for each seed}}`; sparsities
            are drawn at even distances.
        dense: errors of the dense network, drawn as a band.

    Example:

    >>> import snip_tf
    >>> figure = snip_tf.plots.error_by_criterion(
    ...     {"snip": {0.9: [1.6, 1.7], 0.99: [3.1, 3.3]}, "random": {0.9: [2.0, 2.1]}},
    ...     dense=[1.4, 1.5],
    ... )
    >>> [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    ['90', '99']
    """
    check_nested("curves", curves, _ERRORS)
    figure, axes = new_axes("sparsity, %", "test error, %")
    sparsities = sorted({s for points in not_empty(curves).values() for s in points})
    axes.set_xticks(range(len(sparsities)), [f"{100 * s:g}" for s in sparsities])
    if dense:
        axes.axhspan(min(dense), max(dense), color="0.8", label="dense")
        axes.axhline(np.mean(dense), color="0.5", linewidth=1)
    shift = 0.3 / max(1, len(curves) - 1)
    for number, (label, points) in enumerate(curves.items()):
        own = sorted(points)
        places = [sparsities.index(s) - 0.15 + shift * number for s in own]
        errors = [points[sparsity] for sparsity in own]
        _draw_ranges(axes, places, errors, label, number)
    _scale_by_logarithm(axes)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _draw_ranges(
    axes: Any,
    places: Sequence[float],
    errors: Sequence[Sequence[float]],
    label: str,
    number: int,
) -> None:
    # As many markers as colours: after these, the lines are dashed.
    repeated, position = divmod(number, len(_MARKERS))
    means = np.array([np.mean(values) for values in errors])
    lowest = [min(values) for values in errors]
    highest = [max(values) for values in errors]
    axes.errorbar(
        places,
        means,
        np.abs([means - lowest, highest - means]),  # rounding may make them negative
        label=label,
        marker=_MARKERS[position],
        linestyle=["-", "--", ":"][repeated % 3],
        markersize=4,
        linewidth=1,
        capsize=2,
    )


def _scale_by_logarithm(axes: Any) -> None:
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="y", which="minor", labelsize="x-small")


def loss_curves(curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> Figure:
    """Draws training loss against iterations.

    Args:
        curves: `{label: (iterations, losses)}`.

    Source: figure 5 of https://arxiv.org/abs/1810.02340.
    """
    check_mapping("curves", curves, _LOSSES)
    for pair in curves.values():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise wrong_form("curves", curves, _LOSSES)
    figure, axes = new_axes("iterations", "training loss")
    for label, (iterations, losses) in not_empty(curves).items():
        axes.plot(iterations, losses, label=label)
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure

"""Draws the costs of layers as bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from snip_tf.reports.costs import LayerRow
from snip_tf.reports.figures import new_figure, not_empty, shown_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Bars of more layers are thinner.
_CLOSER = 30
_PANELS = {
    "parameters": ("parameters", "non_zero", "compacted_parameters"),
    "multiply-adds": ("multiply_adds", "effective", "compacted_multiply_adds"),
}
_LENGTHS = ("all", "not zero", "compacted")


def cost_chart(rows: Sequence[LayerRow]) -> Figure:
    """Draws parameters and multiply-adds of layers: all, non-zero, and compacted.

    Shows the layers that multiply or, where multiply-adds are not known, the parameters
    of all layers.

    Args:
        rows: of the layers.

    Raises:
        ValueError: if there are no layers with weights.
    """
    panels = dict(_PANELS)
    drawn = [row for row in rows if row.multiply_adds]
    if not drawn:
        drawn = [row for row in rows if row.parameters]
        del panels["multiply-adds"]
    not_empty(drawn)
    pitch = 0.3 if len(drawn) <= _CLOSER else 0.2
    figure = new_figure(figsize=(11, 1.2 + pitch * len(drawn)), layout="constrained")
    sides = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, names) in zip(sides, panels.items(), strict=True):
        _draw_bars(axes, drawn, names)
        axes.set_title(title)
    sides[0].set_yticks(range(len(drawn)), [shown_name(row.layer) for row in drawn])
    sides[0].set_ylim(len(drawn) - 0.5, -0.5)  # from the top, without margins
    handles = sides[-1].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper right", ncols=len(_LENGTHS))
    return figure


def _draw_bars(axes: Any, rows: Sequence[LayerRow], names: Sequence[str]) -> None:
    from matplotlib.ticker import EngFormatter

    for shift, (name, label) in enumerate(zip(names, _LENGTHS, strict=True)):
        lengths = [getattr(row, name) for row in rows]
        if None in lengths:
            continue  # the model cannot be compacted
        places = np.arange(len(rows)) + 0.27 * (shift - 1)
        axes.barh(places, lengths, height=0.25, label=label)
    axes.xaxis.tick_top()
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(axis="x", alpha=0.3)

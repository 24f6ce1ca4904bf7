"""What all pictures share: a new figure, its axes, names as matplotlib shows them."""

from __future__ import annotations

import importlib
from collections.abc import Sized
from typing import TYPE_CHECKING, Any, TypeVar

from snip_tf.checks import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Letters of a layer's name that there is room for beside a panel.
_LETTERS = 40

_Things = TypeVar("_Things", bound=Sized)


def new_figure(**settings: Any) -> Figure:
    """Returns an empty figure, which a notebook shows."""
    try:
        # Each by itself, as `notebook` may have been imported when they were there.
        importlib.import_module("matplotlib")
        importlib.import_module("matplotlib.figure")
        from snip_tf.reports.notebook import Figure
    except ImportError as error:
        raise ImportError(
            "Expected matplotlib, to draw with. Received: no such package. "
            "`pip install matplotlib` brings it."
        ) from error
    return Figure(**settings)


def new_axes(x_label: str, y_label: str) -> tuple[Figure, Any]:
    """Returns a figure of one panel, and the panel."""
    figure = new_figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    return figure, axes


def shown_name(name: str) -> str:
    """Returns a name as matplotlib shows it, without its middle if it is long."""
    name = visible(name)
    if len(name) > _LETTERS:
        name = f"{name[: _LETTERS // 2]}\N{HORIZONTAL ELLIPSIS}{name[-_LETTERS // 2 :]}"
    return name.replace("$", r"\$")  # which would begin a formula


def not_empty(things: _Things) -> _Things:
    """Returns what is to be drawn; raises if there is nothing."""
    if not things:
        raise ValueError(f"Expected something to draw. Received: {things!r}")
    return things

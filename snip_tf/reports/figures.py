"""Makes figures and axes, and prepares names for matplotlib."""

from __future__ import annotations

import importlib
from collections.abc import Sized
from typing import TYPE_CHECKING, Any, TypeVar

from snip_tf.checks import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The length of a layer's name that fits beside a panel.
_LETTERS = 40

_Things = TypeVar("_Things", bound=Sized)


def new_figure(**settings: Any) -> Figure:
    """Returns an empty figure, which a notebook shows."""
    try:
        # Each separately, as `notebook` may have been imported while they existed.
        importlib.import_module("matplotlib")
        importlib.import_module("matplotlib.figure")
        from snip_tf.reports.notebook import Figure
    except ImportError as error:
        raise ImportError(
            "Expected matplotlib, which draws the pictures. Received: no such "
            "package. Run `pip install matplotlib`."
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
    """Escapes a name for matplotlib, and cuts out its middle if it is long."""
    name = visible(name)
    if len(name) > _LETTERS:
        name = f"{name[: _LETTERS // 2]}\N{HORIZONTAL ELLIPSIS}{name[-_LETTERS // 2 :]}"
    return name.replace("$", r"\$")  # it would begin a formula


def not_empty(things: _Things) -> _Things:
    """Returns what is to be drawn; raises if it is empty."""
    if not things:
        raise ValueError(f"Expected something to draw. Received: {things!r}")
    return things

"""What was pruned, what was not and why, and what no longer matters: in numbers."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable

import keras
import numpy as np
import rich.box
import rich.console
import rich.markup
import rich.table

from snip_tf.weights import (
    check_model,
    layer_tree,
    prunable_weights,
    weights_by_path,
    why_not_prunable,
)
from snip_tf.wrapping import current_masks, get_masks

# How many weights are named for each reason not to prune them.
_LISTED = 4


@dataclasses.dataclass(frozen=True)
class WeightRow:
    """One pruned weight: how many of its connections are kept, and what is left idle.

    An idle input of a kernel is one that no kept connection reads; an idle unit (or
    filter, or gate of a recurrent cell) is one that no kept connection enters. Both are
    counted for dense, convolutional and recurrent kernels; elsewhere they stay 0.
    """

    path: str
    shape: tuple[int, ...]
    kept: int
    total: int
    inputs: int = 0
    idle_inputs: int = 0
    units: int = 0
    idle_units: int = 0

    @property
    def sparsity(self) -> float:
        """The fraction of the weight's connections that is removed."""
        return 1 - self.kept / self.total


# Layers whose kernel has the inputs on its last axis but one and the units on its last.
# Other kinds lay theirs out in other ways.
_UNITS_LAST = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.SimpleRNNCell,
    keras.layers.GRUCell,
    keras.layers.LSTMCell,
)


def weight_rows(pruned: keras.Model) -> list[WeightRow]:
    """A row for each pruned weight, in the model's order."""
    units_last = {
        id(weight)
        for layer in layer_tree(pruned)
        if isinstance(layer, _UNITS_LAST)
        for weight in layer.weights
    }
    weights = weights_by_path(pruned)
    return [
        _weight_row(path, mask, id(weights[path]) in units_last)
        for path, mask in get_masks(pruned).items()
    ]


def _weight_row(path: str, mask: np.ndarray, units_last: bool) -> WeightRow:
    idle = {}
    if units_last and mask.ndim >= 2:
        # Of a convolution, one position of the filter connects an input and a unit.
        connected = mask.any(axis=tuple(range(mask.ndim - 2)))
        idle = {
            "inputs": connected.shape[0],
            "idle_inputs": int((~connected.any(axis=1)).sum()),
            "units": connected.shape[1],
            "idle_units": int((~connected.any(axis=0)).sum()),
        }
    return WeightRow(path, mask.shape, int(mask.sum()), mask.size, **idle)


def sparsity(model: keras.Model) -> float:
    """The fraction of the prunable weights that is removed.

    Args:
        model: a built `keras.Model`. Of a pruned one the masks are counted; of any
            other (a stripped one, say) the exact zeros in its prunable weights.

    Returns:
        A float from 0 to 1.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if it is not built or has no prunable weights.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="out")])
    >>> snip_tf.sparsity(model)
    0.0
    """
    check_model(model)
    kept = current_masks(model) or {
        path: keras.ops.convert_to_numpy(weight) != 0
        for path, weight in prunable_weights(model).items()
    }
    total = sum(mask.size for mask in kept.values())
    return 1 - sum(int(mask.sum()) for mask in kept.values()) / total


def summary(
    pruned: keras.Model,
    line_length: int | None = None,
    print_fn: Callable[[str], None] | None = None,
) -> None:
    """Prints what was pruned, as `keras.Model.summary` prints layers.

    A table of the pruned weights (layer, weight, shape, kept / total, sparsity), then
    the totals over the prunable and over all parameters, then what was not pruned and
    why, then dead units. A warning names any weight of which nothing is kept.

    Args:
        pruned: a pruned `keras.Model`.
        line_length: int, columns; default, the width of the terminal.
        print_fn: called with each line; default, the terminal, in colour where it can.

    Raises:
        TypeError: if `pruned` is not a Keras model.
        ValueError: if it is not pruned.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="out")])
    >>> mask = np.array([[True, False], [True, True]])
    >>> pruned = snip_tf.apply_masks(model, {"out/kernel": mask})
    >>> lines = []
    >>> snip_tf.summary(pruned, line_length=80, print_fn=lines.append)
    >>> print(lines[4])
    │ out   │ kernel │ (2, 2) │        3 / 4 │   25.00% │
    """
    rows = weight_rows(pruned)
    if print_fn is None:
        _print(rows, pruned, rich.console.Console(width=line_length, highlight=False))
        return
    text = io.StringIO()
    _print(
        rows,
        pruned,
        rich.console.Console(file=text, width=line_length, highlight=False),
    )
    for line in text.getvalue().splitlines():
        print_fn(line)


def _print(
    rows: list[WeightRow], pruned: keras.Model, console: rich.console.Console
) -> None:
    console.print(f'[bold]Pruned model: "{rich.markup.escape(pruned.name)}"[/bold]')
    console.print(_table(rows))
    for line in [*_totals(pruned, rows), *_not_pruned(pruned, rows), *_idle(rows)]:
        console.print(" " + line, markup=False, soft_wrap=True)
    for row in rows:
        if row.kept == 0:
            warning = (
                f" Warning: nothing is kept of {row.path}; nothing passes through it."
            )
            console.print(warning, style="bold red", markup=False, soft_wrap=True)


def _table(rows: list[WeightRow]) -> rich.table.Table:
    table = rich.table.Table(box=rich.box.SQUARE, header_style="bold")
    for column in ("Layer", "Weight", "Shape"):
        table.add_column(column, overflow="fold")
    for column in ("Kept / total", "Sparsity"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        layer, _, weight = row.path.rpartition("/")
        table.add_row(
            rich.markup.escape(layer),
            rich.markup.escape(weight),
            str(row.shape),
            f"{row.kept:,} / {row.total:,}",
            f"{row.sparsity:.2%}",
        )
    return table


def _totals(pruned: keras.Model, rows: list[WeightRow]) -> list[str]:
    kept, prunable = sum(r.kept for r in rows), sum(r.total for r in rows)
    everything = sum(_size(weight) for weight in weights_by_path(pruned).values())
    left = everything - prunable + kept
    return [
        f"Prunable parameters: {kept:,} of {prunable:,} kept "
        f"(sparsity {1 - kept / prunable:.2%})",
        f"All parameters:      {left:,} of {everything:,} kept "
        f"(sparsity {1 - left / everything:.2%})",
    ]


def _not_pruned(pruned: keras.Model, rows: list[WeightRow]) -> list[str]:
    """A line for each reason, with the weights that it holds for."""
    pruned_paths = {row.path for row in rows}
    by_reason: dict[str, list[tuple[str, int]]] = {}
    for path, weight in weights_by_path(pruned).items():
        if path not in pruned_paths:
            reason = why_not_prunable(path, weight) or "excluded by the caller"
            by_reason.setdefault(reason, []).append((path, _size(weight)))
    lines = []
    for reason, weights in by_reason.items():
        paths = ", ".join(path for path, _ in weights[:_LISTED])
        more = f" and {len(weights) - _LISTED} more" if len(weights) > _LISTED else ""
        size = sum(size for _, size in weights)
        lines.append(f"Not pruned, {reason}: {size:,} parameters ({paths}{more})")
    return lines


def _idle(rows: list[WeightRow]) -> list[str]:
    lines = []
    for row in rows:
        if row.idle_inputs or row.idle_units:
            lines.append(
                f"Dead in {row.path}: {row.idle_inputs:,} of {row.inputs:,} inputs "
                f"that nothing reads, {row.idle_units:,} of {row.units:,} units that "
                f"nothing enters"
            )
    return lines or ["Dead units: none"]


def _size(weight: keras.Variable) -> int:
    return math.prod(weight.shape)

"""What was pruned, what was not and why, and what no longer matters: in lines."""

from __future__ import annotations

import io
from collections.abc import Callable

import keras
import rich.box
import rich.console
import rich.markup
import rich.table

from snip_tf.rows import WeightRow, dead_units, layer_rows, weight_rows, weight_size
from snip_tf.weights import (
    check_model,
    prunable_weights,
    weights_by_path,
    why_not_prunable,
)
from snip_tf.wrapping import current_masks

# How many weights are named for each reason not to prune them.
_LISTED = 4


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
    the totals over the prunable and over all parameters and the multiply-adds, then
    what was not pruned and why, then dead units. A warning names any weight of which
    nothing is kept.

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
    for line in [*_totals(pruned, rows), *_not_pruned(pruned, rows), *dead_units(rows)]:
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
    everything = sum(weight_size(weight) for weight in weights_by_path(pruned).values())
    left = everything - prunable + kept
    return [
        f"Prunable parameters: {kept:,} of {prunable:,} kept "
        f"(sparsity {1 - kept / prunable:.2%})",
        f"All parameters:      {left:,} of {everything:,} kept "
        f"(sparsity {1 - left / everything:.2%})",
        *_multiply_adds(pruned),
    ]


def _multiply_adds(pruned: keras.Model) -> list[str]:
    layers = layer_rows(pruned, compacted=False)
    if not layers or any(row.multiply_adds is None for row in layers):
        return []  # of a model whose layers its own code calls
    total = sum(row.multiply_adds for row in layers)
    kept = sum(row.effective for row in layers)
    return [
        f"Multiply-adds:       {kept:,} of {total:,} for an example are not by a zero "
        f"(snip_tf.report tells how many snip_tf.compact removes)"
    ]


def _not_pruned(pruned: keras.Model, rows: list[WeightRow]) -> list[str]:
    """A line for each reason, with the weights that it holds for."""
    pruned_paths = {row.path for row in rows}
    by_reason: dict[str, list[tuple[str, int]]] = {}
    for path, weight in weights_by_path(pruned).items():
        if path not in pruned_paths:
            reason = why_not_prunable(path, weight) or "excluded by the caller"
            by_reason.setdefault(reason, []).append((path, weight_size(weight)))
    lines = []
    for reason, weights in by_reason.items():
        paths = ", ".join(path for path, _ in weights[:_LISTED])
        more = f" and {len(weights) - _LISTED} more" if len(weights) > _LISTED else ""
        size = sum(size for _, size in weights)
        lines.append(f"Not pruned, {reason}: {size:,} parameters ({paths}{more})")
    return lines

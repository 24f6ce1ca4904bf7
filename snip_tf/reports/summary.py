"""What was pruned, what was not and why, and what no longer matters: in lines."""

from __future__ import annotations

import io
from collections.abc import Callable

import keras
import rich.box
import rich.console
import rich.table
import rich.text
from rich.cells import cell_len

from snip_tf.checks import check_model, list_of, visible
from snip_tf.masking.pruned_model import current_masks, get_masks
from snip_tf.reports.costs import (
    LayerRow,
    WeightRow,
    analysed,
    dead_lines,
    dead_units,
    weight_rows,
    weight_size,
)
from snip_tf.reports.terminal import table_lines
from snip_tf.reports.text import sparsity_percent
from snip_tf.weights import prunable_weights, weights_by_path, why_not_prunable

# So many lines are printed of dead units.
_MOST_DEAD = 8
# So many weights of which nothing is kept are named.
_MOST_CUT = 8
# Names of layers get at least this much of a line, or the table has no frame.
_NAME = 12


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
    nothing is kept. In a narrow terminal the table has fewer columns.

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
    if print_fn is None:
        _print(pruned, rich.console.Console(width=line_length, highlight=False))
        return
    text = io.StringIO()
    _print(pruned, rich.console.Console(file=text, width=line_length, highlight=False))
    for line in text.getvalue().splitlines():
        print_fn(line)


def _print(pruned: keras.Model, console: rich.console.Console) -> None:
    masks = get_masks(pruned)
    rows = weight_rows(pruned, masks)
    layers, constant = analysed(pruned, compacted=False)
    dead = dead_units([row for row in rows if row.kept], masks, constant)
    cut = [row.path for row in rows if not row.kept]
    table = _table(rows, console)
    console.print(_text(f'Pruned model: "{pruned.name}"', "bold"), soft_wrap=True)
    console.print(table, soft_wrap=isinstance(table, rich.text.Text))
    lines = [*_totals(pruned, rows), *_multiply_adds(layers)]
    lines += _not_pruned(pruned, rows)
    if dead or not cut:
        lines += dead_lines(dead, _MOST_DEAD)
    for line in lines:
        console.print(_text(f" {line}"), soft_wrap=True)
    if cut:
        warning = (
            f" Warning: nothing is kept of {list_of(cut, _MOST_CUT)}; nothing passes "
            f"through {'it' if len(cut) == 1 else 'them'}."
        )
        console.print(_text(warning, "bold red"), soft_wrap=True)


def _text(line: str, style: str = "") -> rich.text.Text:
    """A line as it is: no markup, no emoji, no escape sequences."""
    return rich.text.Text(visible(line), style)


def _table(
    rows: list[WeightRow], console: rich.console.Console
) -> rich.table.Table | rich.text.Text:
    names = ("Layer", "Weight", "Shape", "Kept / total", "Sparsity")
    cells = []
    for row in rows:
        layer, _, weight = row.path.rpartition("/")
        shape, kept = str(row.shape), f"{row.kept:,} / {row.total:,}"
        sparsity = sparsity_percent(row.kept, row.total)
        cells.append((visible(layer), visible(weight), shape, kept, sparsity))
    layer, *others = (max(map(cell_len, c)) for c in zip(names, *cells, strict=True))
    frame = 3 * len(names) + 1
    if frame + min(layer, _NAME) + sum(others) > console.width:
        rule = "-" if console.options.ascii_only else "─"
        return _narrow(rows, console.width, rule)
    table = rich.table.Table(box=rich.box.SQUARE, header_style="bold")
    for name in names[:1]:
        table.add_column(name, overflow="fold")
    for name in names[1:3]:
        table.add_column(name, no_wrap=True)
    for name in names[3:]:
        table.add_column(name, justify="right", no_wrap=True)
    for line in cells:
        table.add_row(*map(rich.text.Text, line))
    return table


def _narrow(rows: list[WeightRow], width: int, rule: str) -> rich.text.Text:
    """The same in few columns, for names and numbers of any length."""
    kept, total = sum(row.kept for row in rows), sum(row.total for row in rows)
    counts = [(row.path, row.kept, row.total) for row in rows]
    lines = [
        (visible(path), [f"{kept:,} / {total:,}", sparsity_percent(kept, total)])
        for path, kept, total in (*counts, ("Total", kept, total))
    ]
    header = ["Weight", "Kept / total", "Sparsity"]
    return rich.text.Text("\n".join(table_lines(header, lines, width, rule)))


def _totals(pruned: keras.Model, rows: list[WeightRow]) -> list[str]:
    kept, prunable = sum(r.kept for r in rows), sum(r.total for r in rows)
    everything = sum(weight_size(weight) for weight in weights_by_path(pruned).values())
    left = everything - prunable + kept
    return [
        f"Prunable parameters: {kept:,} of {prunable:,} kept "
        f"(sparsity {sparsity_percent(kept, prunable)})",
        f"All parameters:      {left:,} of {everything:,} kept "
        f"(sparsity {sparsity_percent(left, everything)})",
    ]


def _multiply_adds(layers: list[LayerRow]) -> list[str]:
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
        paths = list_of([path for path, _ in weights])
        size = sum(size for _, size in weights)
        lines.append(f"Not pruned, {reason}: {size:,} parameters ({paths})")
    return lines

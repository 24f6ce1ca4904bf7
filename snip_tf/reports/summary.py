"""summary: prints what was pruned, what was not and why, and what is dead."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import keras
import rich.box
import rich.console
import rich.table
import rich.text
from rich.cells import cell_len

from snip_tf.checks import check_callable, check_count, list_of, visible
from snip_tf.masking.pruned_model import get_masks
from snip_tf.network import Network
from snip_tf.reports.costs import Costs, LayerRow, analysed, weight_size
from snip_tf.reports.dead_units import MOST_LINES, dead_lines, dead_units
from snip_tf.reports.sparsity import WeightRow, weight_rows
from snip_tf.reports.tables import table_lines
from snip_tf.reports.text import sparsity_percent
from snip_tf.weights import why_not_prunable

# A warning names at most this many weights that lost all connections.
_MOST_CUT = 8
# Names of layers get at least this many columns, or the table has no frame.
_NAME = 12
_TITLES = ("Layer", "Weight", "Shape", "Kept / total", "Sparsity")


def summary(
    pruned: keras.Model,
    line_length: int | None = None,
    print_fn: Callable[[str], None] | None = None,
) -> None:
    """Prints what was pruned, as `keras.Model.summary` prints layers.

    A table of the pruned weights (layer, weight, shape, kept / total, sparsity), then
    the totals over the prunable and over all parameters and the multiply-adds, then
    what was not pruned and why, then dead units. A warning names any weight that keeps
    no connection. In a narrow terminal the table has fewer columns.

    Args:
        pruned: a pruned `keras.Model`.
        line_length: int, the number of columns; default: the width of the terminal.
        print_fn: called with each line; default: prints to the terminal, in colour if
            that is supported.

    Raises:
        TypeError: if `pruned` is not a Keras model, or another argument is of the wrong
            kind.
        ValueError: if it is not pruned, or `line_length` is below 1.

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
    network = Network(pruned)
    if line_length is not None:
        check_count("line_length", line_length)
    if print_fn is not None:
        check_callable("print_fn", print_fn)
    if not network.masks:
        get_masks(pruned)  # raises, and says what is missing
    if print_fn is None:
        _print(network, rich.console.Console(width=line_length, highlight=False))
        return
    text = io.StringIO()
    _print(network, rich.console.Console(file=text, width=line_length, highlight=False))
    for line in text.getvalue().splitlines():
        print_fn(line)


def _print(network: Network, console: rich.console.Console) -> None:
    rows = weight_rows(network)
    table = _table(rows, console)
    console.print(
        _text(f'Pruned model: "{network.model.name}"', "bold"), soft_wrap=True
    )
    console.print(table, soft_wrap=isinstance(table, rich.text.Text))
    for line in _lines_below(network, rows):
        console.print(_text(f" {line}"), soft_wrap=True)
    if cut := [row.path for row in rows if not row.kept]:
        warning = (
            f" Warning: nothing is kept of {list_of(cut, _MOST_CUT)}; nothing passes "
            f"through {'it' if len(cut) == 1 else 'them'}."
        )
        console.print(_text(warning, "bold red"), soft_wrap=True)


def _text(line: str, style: str = "") -> rich.text.Text:
    """Returns a line to be shown literally, without markup or escape sequences."""
    return rich.text.Text(visible(line), style)


def _table(
    rows: Sequence[WeightRow], console: rich.console.Console
) -> rich.table.Table | rich.text.Text:
    cells = [_cells(row) for row in rows]
    layer, *others = (max(map(cell_len, c)) for c in zip(_TITLES, *cells, strict=True))
    frame = 3 * len(_TITLES) + 1
    if frame + min(layer, _NAME) + sum(others) > console.width:
        rule = "-" if console.options.ascii_only else "─"
        return _narrow(rows, console.width, rule)
    table = rich.table.Table(box=rich.box.SQUARE, header_style="bold")
    table.add_column("Layer", overflow="fold")
    for title in ("Weight", "Shape"):
        table.add_column(title, no_wrap=True)
    for title in ("Kept / total", "Sparsity"):
        table.add_column(title, justify="right", no_wrap=True)
    for line in cells:
        table.add_row(*map(rich.text.Text, line))
    return table


def _cells(row: WeightRow) -> tuple[str, ...]:
    layer, _, weight = row.path.rpartition("/")
    kept = f"{row.kept:,} / {row.total:,}"
    removed = sparsity_percent(row.kept, row.total)
    return visible(layer), visible(weight), str(row.shape), kept, removed


def _narrow(rows: Sequence[WeightRow], width: int, rule: str) -> rich.text.Text:
    """Returns the table in few columns, for names and numbers of any length."""
    kept, total = sum(row.kept for row in rows), sum(row.total for row in rows)
    counts = [(row.path, row.kept, row.total) for row in rows]
    lines = [
        (visible(path), [f"{kept:,} / {total:,}", sparsity_percent(kept, total)])
        for path, kept, total in (*counts, ("Total", kept, total))
    ]
    header = ["Weight", "Kept / total", "Sparsity"]
    return rich.text.Text("\n".join(table_lines(header, lines, width, rule)))


def _lines_below(network: Network, rows: Sequence[WeightRow]) -> list[str]:
    layers, constant = analysed(network, compacted=False)
    lines = [*_totals(network, rows), *_multiply_adds(layers)]
    lines += _not_pruned(network)
    # Weights that keep nothing are named in a warning.
    dead = dead_units([row for row in rows if row.kept], network.masks, constant)
    if dead or all(row.kept for row in rows):
        lines += dead_lines(dead, MOST_LINES)
    return lines


def _totals(network: Network, rows: Sequence[WeightRow]) -> list[str]:
    kept, prunable = sum(r.kept for r in rows), sum(r.total for r in rows)
    everything = sum(map(weight_size, network.weights.values()))
    left = everything - prunable + kept
    return [
        f"Prunable parameters: {kept:,} of {prunable:,} kept "
        f"(sparsity {sparsity_percent(kept, prunable)})",
        f"All parameters:      {left:,} of {everything:,} kept "
        f"(sparsity {sparsity_percent(left, everything)})",
    ]


def _multiply_adds(layers: Sequence[LayerRow]) -> list[str]:
    costs = Costs.of(layers)
    if not layers or costs.multiply_adds is None:
        return []  # the model runs its layers in its own code
    return [
        f"Multiply-adds:       {costs.effective:,} of {costs.multiply_adds:,} "
        f"non-zero for one example (snip_tf.report shows what snip_tf.compact saves)"
    ]


def _not_pruned(network: Network) -> list[str]:
    """Returns a line for each reason, with the weights that it applies to."""
    by_reason: dict[str, list[tuple[str, int]]] = {}
    for path, weight in network.weights.items():
        if path not in network.masks:
            reason = why_not_prunable(path, weight) or "excluded by the caller"
            by_reason.setdefault(reason, []).append((path, weight_size(weight)))
    lines = []
    for reason, weights in by_reason.items():
        paths = list_of([path for path, _ in weights])
        size = sum(size for _, size in weights)
        lines.append(f"Not pruned, {reason}: {size:,} parameters ({paths})")
    return lines

"""Lays out tables of names and numbers for terminals of any width."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from rich.cells import cell_len

from snip_tf.checks import visible
from snip_tf.reports.costs import LayerRow
from snip_tf.reports.groups import GroupRow
from snip_tf.reports.text import percent, short_number

# Names get at least this many columns, or numbers are shortened.
_NAME = 12
_GAP = 2


def table_lines(
    header: Sequence[str],
    rows: Sequence[tuple[str, Sequence[str]]],
    width: int,
    rule: str = "─",
) -> list[str]:
    r"""Returns the lines of a table that truncates neither numbers nor names.

    A name that does not fit beside its numbers gets a line of its own above them. If
    the numbers alone are wider than the terminal, so is the table.

    Args:
        header: the titles of the columns, names first; they may have line breaks.
        rows: name and cells; the last one is a total, below a line.
        width: the number of columns of the terminal.
        rule: a character to draw lines with.

    Example:

    >>> from snip_tf.reports.tables import table_lines
    >>> rows = [("a_long_name", ["1", "50%"]), ("b", ["20", "5%"]), ("All", ["21", ""])]
    >>> lines = table_lines(["Name", "Size", "kept"], rows, width=16, rule="-")
    >>> print("\n".join(lines))
    Name  Size  kept
    ----------------
    a_long_name
             1   50%
    b       20    5%
    ----------------
    All     21
    """
    heads = _heads(header)
    sizes = _sizes([cells for _, cells in (*heads, *rows)])
    numbers = sum(sizes) + _GAP * len(sizes)
    longest = max(cell_len(name) for name, _ in (*heads, *rows))
    named = max(0, min(longest, width - numbers))
    lines = [_lines(name, cells, named, sizes) for name, cells in (*heads, *rows)]
    ruled = [rule * (named + numbers)]
    parts = (*lines[: len(heads)], ruled, *lines[len(heads) : -1], ruled, lines[-1])
    return [line.rstrip() for part in parts for line in part]


def _heads(header: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Returns the lines of a header, as rows."""
    titles = [title.split("\n") for title in header]
    height = max(map(len, titles))
    filled = [[""] * (height - len(title)) + title for title in titles]
    return [(name, cells) for name, *cells in zip(*filled, strict=True)]


def _sizes(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _lines(
    name: str, cells: Sequence[str], named: int, sizes: Sequence[int]
) -> list[str]:
    numbers = "".join(
        " " * _GAP + cell.rjust(size) for cell, size in zip(cells, sizes, strict=True)
    )
    room = named - cell_len(name)
    if room >= 0:
        return [name + " " * room + numbers]
    return [name, " " * named + numbers]


def layer_table(rows: Sequence[LayerRow], width: int, rule: str = "─") -> list[str]:
    """Returns the lines of a table of layers, the last of which is their total.

    Numbers are exact where they fit, else rounded to three digits; where these do not
    fit either, the multiply-adds are in a separate table.
    """
    grouped = any(isinstance(row, GroupRow) for row in rows)
    first = [_LAYERS if grouped else _UNITS, *_PARAMETERS]
    whole, apart = [first + _PRODUCTS], [first, _PRODUCTS]
    names = [visible(row.layer) for row in rows]
    # With the least room for names; the last layout is used regardless.
    least = len("Layer")
    room = min(_NAME, max(map(cell_len, names)))
    exact, short = ("{:,}".format, whole, room), (short_number, whole, least)
    for number, columns, named in (exact, short, (short_number, apart, least)):
        tables = [_texts(part, rows, number) for part in columns]
        if named + max(_width(*table) for table in tables) <= width:
            break
    lines: list[str] = []
    for header, cells in tables:
        rows_of_text = list(zip(names, cells, strict=True))
        lines += ["", *table_lines(["Layer", *header], rows_of_text, width, rule)]
    return lines[1:]


def _width(header: Sequence[str], cells: Sequence[Sequence[str]]) -> int:
    sizes = _sizes([*(line for _, line in _heads(["", *header])), *cells])
    return sum(sizes) + _GAP * len(sizes)


_Number = Callable[[int], str]


@dataclasses.dataclass(frozen=True)
class _Column:
    """A column of a table of layers: its title, and the function that fills a cell."""

    header: str
    cell: Callable[[LayerRow, _Number], str]


def _texts(
    columns: Sequence[_Column], rows: Sequence[LayerRow], number: _Number
) -> tuple[list[str], list[list[str]]]:
    cells = [[column.cell(row, number) for column in columns] for row in rows]
    return [column.header for column in columns], cells


def _count(header: str, name: str) -> _Column:
    def cell(row: LayerRow, number: _Number) -> str:
        value = getattr(row, name)
        return "" if value is None else number(value)

    return _Column(header, cell)


def _share(header: str, part: str, whole: str) -> _Column:
    def cell(row: LayerRow, number: _Number) -> str:
        del number
        return percent(getattr(row, part), getattr(row, whole))

    return _Column(header, cell)


def _units(row: LayerRow, number: _Number) -> str:
    del number
    if row.units is None:
        return ""
    changed = row.compacted_units not in (None, row.units)
    return f"{row.units:,}" + (f" > {row.compacted_units:,}" if changed else "")


_LAYERS = _count("Layers", "count")
_UNITS = _Column("Units", _units)
_PARAMETERS = [
    _count("Para-\nmeters", "parameters"),
    _share("not 0", "non_zero", "parameters"),
    _share("compact", "compacted_parameters", "parameters"),
]
_PRODUCTS = [
    _count("Multiply-\nadds", "multiply_adds"),
    _share("not 0", "effective", "multiply_adds"),
    _share("compact", "compacted_multiply_adds", "multiply_adds"),
]

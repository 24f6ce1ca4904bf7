"""report: what pruning saves in a model, as a table, a page and exported data."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Sequence
from typing import Any

import keras
import rich.console
import rich.text

from snip_tf.checks import check_path, list_of, visible
from snip_tf.files import whole_file
from snip_tf.network import Network
from snip_tf.reports.cost_chart import cost_chart
from snip_tf.reports.costs import Costs, LayerRow, analysed, weight_size
from snip_tf.reports.dead_units import MOST_LINES, DeadUnits, dead_lines, dead_units
from snip_tf.reports.groups import MOST_ROWS, group, grouped
from snip_tf.reports.html import (
    PAGE,
    html_fragment,
    html_list,
    html_picture,
    html_table,
    html_text,
)
from snip_tf.reports.sparsity import WeightRow, weight_rows
from snip_tf.reports.tables import layer_table
from snip_tf.reports.text import csv_cell, markdown_cell, percent


def report(model: keras.Model) -> Report:
    """Returns what pruning saves in a model, and what it does not.

    Args:
        model: a built `keras.Model`, pruned, stripped or dense. It is left unchanged.

    Returns:
        A `Report`, which a notebook displays. `print()` shows it, `to_dict()`,
        `to_csv()` and `to_markdown()` export it, and `write_html(path)` writes a page
        with a picture.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if it is not built.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="out")])
    >>> pruned = snip_tf.apply_masks(model, {"out/kernel": np.eye(2, dtype=bool)})
    >>> report = snip_tf.report(pruned)
    >>> report.layers[0].multiply_adds, report.layers[0].effective
    (4, 2)
    """
    network = Network(model)
    weights = weight_rows(network)
    layers, constant = analysed(network)
    in_memory = sum(map(_bytes, network.weights.values()))
    dead = dead_units(weights, network.masks, constant)
    return Report(model.name, weights, layers, in_memory, dead)


@dataclasses.dataclass(frozen=True, repr=False)
class Report:
    """See `snip_tf.report`.

    Attributes:
        model: the name of the model.
        weights: a row for each pruned weight; empty for a stripped model.
        layers: a row for each layer with weights.
        bytes: the size of all weights in memory, zeros included, without masks.
        dead: the dead units and inputs of each pruned weight that has any.
    """

    model: str
    weights: list[WeightRow]
    layers: list[LayerRow]
    bytes: int
    dead: list[DeadUnits]

    def __repr__(self) -> str:
        return (
            f"<Report of {self.model!r}: {len(self.layers):,} layers, "
            f"{Costs.of(self.layers).parameters:,} parameters; print() shows it>"
        )

    def totals(self) -> dict[str, int | None]:
        """Returns the sums over the layers; None where a layer lacks the number."""
        return dataclasses.asdict(Costs.of(self.layers))

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as a dict that JSON can hold."""
        return {
            "model": self.model,
            "bytes": self.bytes,
            "totals": self.totals(),
            "layers": [dataclasses.asdict(row) for row in self.layers],
            "weights": [
                {**dataclasses.asdict(row), "shape": list(row.shape)}
                for row in self.weights
            ],
        }

    def to_csv(self) -> str:
        """Returns a CSV table with a header and a line for each layer.

        Names that a spreadsheet would interpret as formulas get an apostrophe in front.
        """
        text = io.StringIO()
        names = [field.name for field in dataclasses.fields(LayerRow)]
        # Quotes all text, since Python before 3.13 does not quote a carriage return.
        table = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        table.writerow(names)
        for row in self.layers:
            table.writerow(map(csv_cell, dataclasses.astuple(row)))
        return text.getvalue()

    def to_markdown(self) -> str:
        """Returns a table of the layers and their sums, then a list of the rest."""
        names, rows = _table([*self.layers, self._total()])
        lines = [names, ["---", "---", *["---:"] * (len(names) - 3), "---"]]
        lines += [[markdown_cell(cell) for cell in row] for row in rows]
        table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        rest = "".join(f"- {markdown_cell(line)}\n" for line in self._rest())
        return f"{table}\n{rest}"

    def print(
        self, console: rich.console.Console | None = None, *, all_layers: bool = False
    ) -> None:
        """Shows the report in the terminal, or on another `rich` console.

        More than 40 layers are grouped, by the blocks that their names begin with, or
        else a few at a time.

        Args:
            console: where to print; default: the terminal, or the cell of a notebook.
            all_layers: whether each layer has a row, however many there are.
        """
        console = console or rich.console.Console(highlight=False)
        rule = "-" if console.options.ascii_only else "─"
        rows, on_groups = self._rows(all_layers)
        lines = [
            f'What pruning leaves of "{visible(self.model)}"',
            "",
            *layer_table(rows, console.width, rule),
            *(f" {visible(line)}" for line in [*on_groups, *self._rest(MOST_LINES)]),
            *(f" {visible(line)}" for line in self._notes()),
        ]
        # As one text, which a notebook shows as one block, without cutting anything
        # off.
        console.print(rich.text.Text("\n".join(lines)), soft_wrap=True)

    def _repr_html_(self) -> str:
        """Returns what a notebook shows: the contents of `print`, as HTML."""
        rows, on_groups = self._rows()
        lines = [*on_groups, *self._rest(MOST_LINES), *self._notes()]
        title = f'What pruning leaves of "{self.model}"'
        return html_fragment(title, html_table(*_table(rows)), html_list(lines))

    def _rows(self, all_layers: bool = False) -> tuple[list[LayerRow], list[str]]:
        """Returns the layers or their groups, a total, and notes on groups."""
        if all_layers or len(self.layers) <= MOST_ROWS:
            return [*self.layers, self._total()], []
        rows = grouped(self.layers)
        line = (
            f"{len(self.layers):,} layers in {len(rows):,} rows: "
            f"`print(all_layers=True)` shows each"
        )
        return [*rows, group("Total", self.layers)], [line]

    def _notes(self) -> list[str]:
        """Returns a line for each kind of note, with the layers that have it."""
        by_note: dict[str, list[str]] = {}
        for row in self.layers:
            if row.note:
                by_note.setdefault(row.note, []).append(f"{row.layer} ({row.kind})")
        return [f"{list_of(names)}: {note}" for note, names in by_note.items()]

    def write_html(self, path: str | os.PathLike) -> None:
        """Writes a self-contained page with the table and pictures.

        Args:
            path: where to write. An existing file is replaced after all is written.

        Raises:
            TypeError: if `path` is not a path.
            ImportError: if matplotlib is not installed.
        """
        check_path(path)
        page = PAGE.format(
            title=html_text(f"Pruning of {self.model}"),
            picture=self._picture(),
            table=html_table(*_table([*self.layers, self._total()])),
            rest=html_list(self._rest()),
        )
        with whole_file(path) as partial:
            partial.write_text(page, encoding="utf-8")

    def _rest(self, most: int | None = None) -> list[str]:
        """Returns what is not in the table: the bytes, and the dead units."""
        size = f"Weights in memory: {self.bytes:,} bytes, zeros included"
        return [size, *(dead_lines(self.dead, most) if self.weights else [])]

    def _total(self) -> LayerRow:
        return LayerRow("Total", "", **dataclasses.asdict(Costs.of(self.layers)))

    def _picture(self) -> str:
        if not any(row.parameters for row in self.layers):
            return ""
        picture = io.BytesIO()
        cost_chart(self.layers).savefig(picture, format="png", dpi=110)
        return html_picture("Parameters and multiply-adds by layer", picture.getvalue())


def _table(rows: Sequence[LayerRow]) -> tuple[list[str], list[list[str]]]:
    names = ["Layer", "Kind", "Units", "compacted", "Parameters", "not zero", "%"]
    names += ["compacted", "Multiply-adds", "of non-zeros", "%", "compacted", "Note"]
    cells = []
    for row in rows:
        units = map(_number, (row.units, row.compacted_units))
        parameters = map(_number, (row.parameters, row.non_zero))
        products = map(_number, (row.multiply_adds, row.effective))
        line = [row.layer, row.kind, *units]
        line += [*parameters, percent(row.non_zero, row.parameters)]
        line += [_number(row.compacted_parameters)]
        line += [*products, percent(row.effective, row.multiply_adds)]
        cells.append([*line, _number(row.compacted_multiply_adds), row.note])
    return names, cells


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _bytes(weight: keras.Variable) -> int:
    return weight_size(weight) * keras.ops.convert_to_numpy(weight).itemsize

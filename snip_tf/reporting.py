"""What pruning saves in a model: a table, a page, and files for others."""

from __future__ import annotations

import base64
import csv
import dataclasses
import html
import io
import os
from typing import Any

import keras
import rich.box
import rich.console
import rich.markup
import rich.table

from snip_tf import plots
from snip_tf.files import whole_file
from snip_tf.rows import (
    LayerRow,
    WeightRow,
    dead_units,
    layer_rows,
    weight_rows,
    weight_size,
)
from snip_tf.weights import check_built, weights_by_path
from snip_tf.wrapping import current_masks


def report(model: keras.Model) -> Report:
    """What pruning saves in a model, and what it does not.

    Args:
        model: a built `keras.Model`, pruned or stripped; of a dense one all is kept.
            It is left as it is.

    Returns:
        A `Report`. Its `print()` shows it, `to_dict()`, `to_csv()` and `to_markdown()`
        give it to others, `write_html(path)` writes a page with pictures.

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
    check_built(model)
    weights = weight_rows(model) if current_masks(model) else []
    in_memory = sum(map(_bytes, weights_by_path(model).values()))
    return Report(model.name, weights, layer_rows(model), in_memory)


@dataclasses.dataclass(frozen=True)
class Report:
    """See `snip_tf.report`.

    Attributes:
        model: its name.
        weights: a row for each pruned weight; none of a stripped model.
        layers: a row for each layer with weights.
        bytes: of all weights in memory, zeros included, without masks.
    """

    model: str
    weights: list[WeightRow]
    layers: list[LayerRow]
    bytes: int

    def totals(self) -> dict[str, int | None]:
        """The sums over the layers; None for what is not known of one of them."""
        names = ("parameters", "non_zero", "multiply_adds", "effective")
        names += ("compacted_parameters", "compacted_multiply_adds")
        totals: dict[str, int | None] = {}
        for name in names:
            values = [getattr(row, name) for row in self.layers]
            totals[name] = None if None in values else sum(values)
        return totals

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
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
        """A line for each layer, below one of names."""
        text = io.StringIO()
        names = [field.name for field in dataclasses.fields(LayerRow)]
        table = csv.DictWriter(text, names, lineterminator="\n")
        table.writeheader()
        table.writerows(dataclasses.asdict(row) for row in self.layers)
        return text.getvalue()

    def to_markdown(self) -> str:
        """A table of the layers and their sums, then a list of the rest."""
        names, rows = self._table()
        lines = [names, ["---", "---", *["---:"] * (len(names) - 3), "---"], *rows]
        lines = [[cell.replace("|", r"\|") for cell in line] for line in lines]
        table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        return table + "\n" + "".join(f"- {line}\n" for line in self._rest())

    def print(self, console: rich.console.Console | None = None) -> None:
        """Shows it in the terminal, or on another `rich` console."""
        title = f'What pruning leaves of "{self.model}"'
        table = rich.table.Table(
            title=rich.markup.escape(title),
            box=rich.box.SIMPLE,
            header_style="bold",
            show_edge=False,
            pad_edge=False,
            collapse_padding=True,
        )
        table.add_column("Layer", overflow="fold", min_width=6)
        for name in ("Units", "Parameters", "not 0", "compact"):
            table.add_column(name, justify="right", no_wrap=True)
        for name in ("Multiply-\nadds", "not 0", "compact"):
            table.add_column(name, justify="right", no_wrap=True)
        rows = [*self.layers, self._total()]
        for row in rows:
            changed = row.units != row.compacted_units
            units = "" if row.units is None else f"{row.units:,}"
            table.add_row(
                rich.markup.escape(row.layer),
                f"{units} > {row.compacted_units:,}" if units and changed else units,
                f"{row.parameters:,}",
                _percent(row.non_zero, row.parameters),
                _percent(row.compacted_parameters, row.parameters),
                "" if row.multiply_adds is None else f"{row.multiply_adds:,}",
                _percent(row.effective, row.multiply_adds),
                _percent(row.compacted_multiply_adds, row.multiply_adds),
            )
        console = console or rich.console.Console(highlight=False)
        console.print(table)
        for line in self._rest():
            console.print(f" {line}", markup=False, soft_wrap=True)
        for row in rows:
            if row.note:
                line = f" {row.layer} ({row.kind}): {row.note}"
                console.print(line, markup=False, soft_wrap=True)

    def write_html(self, path: str | os.PathLike) -> None:
        """Writes a page that needs no other file, with the table and pictures of it.

        Args:
            path: where to write. What is there is replaced once all is written.

        Raises:
            ImportError: if matplotlib is not installed.
        """
        names, rows = self._table()
        cells = [
            "".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows
        ]
        page = _PAGE.format(
            title=html.escape(f"Pruning of {self.model}"),
            picture=base64.b64encode(self._picture()).decode(),
            header="".join(f"<th>{html.escape(name)}</th>" for name in names),
            rows="\n".join(f"<tr>{row}</tr>" for row in cells),
            rest="\n".join(f"<li>{html.escape(line)}</li>" for line in self._rest()),
        )
        with whole_file(path) as partial:
            partial.write_text(page, encoding="utf-8")

    def _rest(self) -> list[str]:
        """What is not in the table: the bytes, and what is dead."""
        size = f"Weights in memory: {self.bytes:,} bytes, zeros included"
        return [size, *(dead_units(self.weights) if self.weights else [])]

    def _total(self) -> LayerRow:
        return LayerRow("Total", "", **self.totals())

    def _table(self) -> tuple[list[str], list[list[str]]]:
        names = ["Layer", "Kind", "Units", "compacted", "Parameters", "not zero"]
        names += ["compacted", "Multiply-adds", "of non-zeros", "compacted", "Note"]
        rows = []
        for row in (*self.layers, self._total()):
            numbers = (
                *(row.units, row.compacted_units, row.parameters, row.non_zero),
                *(row.compacted_parameters, row.multiply_adds, row.effective),
                row.compacted_multiply_adds,
            )
            cells = ["" if n is None else f"{n:,}" for n in numbers]
            rows.append([row.layer, row.kind, *cells, row.note])
        return names, rows

    def _picture(self) -> bytes:
        try:
            figure = plots.layer_costs(self.layers)
        except ImportError as error:
            raise ImportError(
                "Expected matplotlib, for the pictures of the page: "
                "`pip install matplotlib`."
            ) from error
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=110)
        return picture.getvalue()


def _percent(part: int | None, whole: int | None) -> str:
    return f"{100 * part / whole:.3g}%" if whole and part is not None else ""


def _bytes(weight: keras.Variable) -> int:
    return weight_size(weight) * keras.ops.convert_to_numpy(weight).itemsize


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 15px/1.4 sans-serif; margin: 2em; }}
table {{ border-collapse: collapse; }}
th, td {{ border: 1px solid #bbb; padding: .2em .6em; text-align: right; }}
th:first-child, th:nth-child(2), th:last-child {{ text-align: left; }}
td:first-child, td:nth-child(2), td:last-child {{ text-align: left; }}
tr:last-child {{ font-weight: bold; }}
img {{ max-width: 100%; }}
</style>
<h1>{title}</h1>
<p>Multiply-adds are of the kernels, for one example. "Compacted" is what
<code>snip_tf.compact</code> leaves, with the same outputs.</p>
<img alt="Parameters and multiply-adds by layer" src="data:image/png;base64,{picture}">
<table>
<tr>{header}</tr>
{rows}
</table>
<ul>
{rest}
</ul>
</html>
"""

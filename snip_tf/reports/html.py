"""Reports as HTML: tables, lists, a picture, a page."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

from snip_tf.checks import visible

# The columns that hold words; the others hold numbers.
_WORDS = ("Layer", "Kind", "Note")


def html_text(text: str) -> str:
    """Returns text as HTML that shows it literally.

    Example:

    >>> from snip_tf.reports.html import html_text
    >>> html_text("<i>")
    '&lt;i&gt;'
    """
    return html.escape(visible(text))


def html_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table without its empty columns; its last row is a total."""
    columns = zip(names, zip(*rows, strict=True), strict=True)
    used = [(name, cells) for name, cells in columns if any(cells)]
    kinds = ["" if name in _WORDS else ' class="n"' for name, _ in used]
    header = _row("th", kinds, [name for name, _ in used])
    lines = zip(*(cells for _, cells in used), strict=True)
    body = "\n".join(_row("td", kinds, line) for line in lines)
    return f"<table>\n<thead>{header}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _row(tag: str, kinds: Sequence[str], cells: Sequence[str]) -> str:
    inner = "".join(
        f"<{tag}{kind}>{html_text(cell)}</{tag}>"
        for kind, cell in zip(kinds, cells, strict=True)
    )
    return f"<tr>{inner}</tr>"


def html_list(lines: Sequence[str]) -> str:
    """Returns lines as the items of a list."""
    items = "\n".join(f"<li>{html_text(line)}</li>" for line in lines)
    return f"<ul>\n{items}\n</ul>"


def html_picture(what: str, png: bytes) -> str:
    """Returns a picture within the page."""
    data = base64.b64encode(png).decode()
    return f'<img alt="{html_text(what)}" src="data:image/png;base64,{data}">'


def html_fragment(title: str, table: str, rest: str) -> str:
    """Returns HTML for a notebook, in which dollar signs do not begin formulas."""
    return (
        f'<div class="snip_tf tex2jax_ignore mathjax_ignore">{_STYLE}'
        f"<p>{html_text(title)}</p>\n{table}\n{rest}</div>"
    )


_STYLE = """<style>
.snip_tf th, .snip_tf td { text-align: left; }
.snip_tf .n { text-align: right; }
</style>"""

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="color-scheme" content="light">
<title>{title}</title>
<style>
body {{ font: 14px/1.4 sans-serif; margin: 2em; color: #111; background: #fff; }}
table {{ border-collapse: collapse; font-size: 12px; }}
th, td {{ border: 1px solid #bbb; padding: .15em .35em; text-align: left; }}
th {{ position: sticky; top: 0; background: #eee; }}
td {{ overflow-wrap: anywhere; min-width: 7em; }}
.n {{ text-align: right; white-space: nowrap; min-width: 0; }}
tbody tr:last-child {{ font-weight: bold; }}
li {{ overflow-wrap: anywhere; }}
img {{ max-width: 100%; margin-bottom: 1em; }}
</style>
<h1>{title}</h1>
<p>Multiply-adds are of the kernels, for one example. "Compacted" is what
<code>snip_tf.compact</code> leaves, with the same outputs.</p>
{picture}
{table}
{rest}
</html>
"""

"""Formats names and numbers for terminals, tables and spreadsheets.

The name of a layer may come from an untrusted file, and contain anything.
"""

from __future__ import annotations

import html
import re
from typing import Any

from snip_tf.checks import visible

# Characters that begin a formula in a spreadsheet; the last four are full-width.
# Source: https://owasp.org/www-community/attacks/CSV_Injection
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", *"\uff1d\uff0b\uff0d\uff20")
# Characters with a meaning in Markdown; underscores only around words.
_MARKDOWN = re.compile(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)")


def csv_cell(value: Any) -> Any:
    """Returns a value for a CSV cell that no spreadsheet interprets as a formula.

    Text that begins like a formula gets an apostrophe in front, and is made `visible`,
    as the file may be printed to a terminal. Numbers stay numbers and None stays None.

    Example:

    >>> from snip_tf.reports.text import csv_cell
    >>> [csv_cell(value) for value in ("dense", "=1+1", -1)]
    ['dense', "'=1+1", -1]
    """
    if not isinstance(value, str):
        return value
    formula = value.lstrip(" ").startswith(_FORMULAS)
    return f"'{visible(value)}" if formula else visible(value)


def markdown_cell(text: str) -> str:
    r"""Returns text that Markdown shows literally, on one line of a table.

    Example:

    >>> from snip_tf.reports.text import markdown_cell
    >>> print(markdown_cell("a|b `<i>`"))
    a\|b \`&lt;i&gt;\`
    """
    return _MARKDOWN.sub(r"\\\g<0>", html.escape(visible(text), quote=False))


def percent(part: int | None, whole: int | None) -> str:
    """Returns a share in percent, never rounded to 0% or 100%.

    Args:
        part, whole: counts; None where unknown.

    Returns:
        Text of at most seven characters if the part is less than ten times the whole;
        empty if a count is unknown.

    Example:

    >>> from snip_tf.reports.text import percent
    >>> [percent(part, 100_000) for part in (0, 1, 51, 5_512, 99_999, 100_000)]
    ['0%', '<0.01%', '0.05%', '5.51%', '>99.99%', '100%']
    """
    if part is None or not whole:
        return ""
    share = 100 * part / whole
    if part == whole or share >= 999.5:
        return f"{share:,.0f}%"
    if 0 < share < 0.01:
        return "<0.01%"
    if 99.99 < share < 100:
        return ">99.99%"
    if 100 < share < 100.01:
        return ">100%"
    digits = f"{round(share, 2):.3g}"
    return f"{share:.2f}%" if digits == "100" else f"{digits}%"


def sparsity_percent(kept: int, total: int) -> str:
    """Returns the share that is removed, 100.00% only if nothing is kept.

    Example:

    >>> from snip_tf.reports.text import sparsity_percent
    >>> [sparsity_percent(kept, 10**6) for kept in (0, 1, 250_000, 10**6)]
    ['100.00%', '>99.99%', '75.00%', '0.00%']
    """
    text = f"{1 - kept / total:.2%}"
    if text == "100.00%" and kept:
        return ">99.99%"
    return "<0.01%" if text == "0.00%" and kept < total else text


def short_number(number: int) -> str:
    """Returns a count in three digits, with a letter for thousands or more.

    Example:

    >>> from snip_tf.reports.text import short_number
    >>> [short_number(number) for number in (0, 288, 999_950, 19_267_584)]
    ['0', '288', '1M', '19.3M']
    """
    size, letters = float(number), iter(("k", "M", "G", "T", "P"))
    letter = ""
    while size >= 999.5 and letter != "P":
        size, letter = size / 1000, next(letters)
    return f"{size:.3g}{letter}"

"""Names and numbers as terminals, tables and spreadsheets take them.

A layer's name may be a stranger's, and hold whatever its author liked.
"""

from __future__ import annotations

import html
import re
from typing import Any

from snip_tf.checks import visible

# With these a spreadsheet begins a formula; the last four are the wide forms.
# Source: https://owasp.org/www-community/attacks/CSV_Injection
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", *"\uff1d\uff0b\uff0d\uff20")
# What Markdown takes for more than a character; underscores only around words.
_MARKDOWN = re.compile(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)")


def csv_cell(value: Any) -> Any:
    """Returns a value for a CSV cell, which no spreadsheet takes for a formula.

    Text that begins as a formula does gets an apostrophe in front, and is `visible`, as
    the file may be printed to a terminal. Numbers stay numbers and None stays None.

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
    r"""Returns text that Markdown shows letter by letter, on one line of a table.

    Example:

    >>> from snip_tf.reports.text import markdown_cell
    >>> print(markdown_cell("a|b `<i>`"))
    a\|b \`&lt;i&gt;\`
    """
    return _MARKDOWN.sub(r"\\\g<0>", html.escape(visible(text), quote=False))


def percent(part: int | None, whole: int | None) -> str:
    """Returns a share in percent: 0% and 100% are none and all, not rounded numbers.

    Args:
        part, whole: counts; None where unknown.

    Returns:
        Text of at most seven characters for what is less than ten times the whole;
        empty where there is no share.

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
    """Returns the share that is removed: 100.00% only if nothing is kept.

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
    """Returns three digits of a count, with its thousands as a letter.

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

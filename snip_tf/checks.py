"""Checks of arguments, and how their errors show names."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any


def check_steps(steps: Any) -> None:
    """Raises unless `steps` is a whole number, 1 or more."""
    expected = "Expected `steps` to be a whole number, 1 or more. "
    if isinstance(steps, bool) or not isinstance(steps, numbers.Integral):
        raise TypeError(
            f"{expected}Received: steps={steps!r} of type {type(steps).__name__}"
        )
    if steps < 1:
        raise ValueError(f"{expected}Received: steps={steps}")


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raises unless an argument is a whole number of at least `least`."""
    expected = f"Expected `{name}` to be a whole number, {least} or more. "
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(
            f"{expected}Received: {name}={value!r} of type {type(value).__name__}"
        )
    if value < least:
        raise ValueError(f"{expected}Received: {name}={value}")


def check_positive(name: str, value: Any) -> None:
    """Raises unless a setting is a finite number above 0."""
    expected = f"Expected `{name}` to be a number above 0. "
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"{expected}Received: {name}={value!r} of type {type(value).__name__}"
        )
    if not 0 < value < float("inf"):
        raise ValueError(f"{expected}Received: {name}={value!r}")


def check_seed(seed: Any) -> None:
    """Raises unless `seed` is a whole number, 0 or more, or None."""
    expected = "Expected `seed` to be a whole number, 0 or more, or None. "
    if seed is None:
        return
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise TypeError(
            f"{expected}Received: seed={seed!r} of type {type(seed).__name__}"
        )
    if seed < 0:
        raise ValueError(f"{expected}Received: seed={seed}")


def visible(text: str) -> str:
    r"""Shows what a terminal would obey, or not show, as its escaped text.

    These are control characters, whole escape sequences, line breaks, and characters
    that change the direction of the text or have no width.

    Example:

    >>> from snip_tf.checks import visible
    >>> print(visible("\x1b[31mred\n"))
    \x1b[31mred\n
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def list_of(names: Sequence[str], most: int = 4) -> str:
    """The first of some names, and how many more there are.

    Example:

    >>> from snip_tf.checks import list_of
    >>> list_of(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

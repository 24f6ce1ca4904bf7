"""Checks arguments, each with one wording, and formats names for errors."""

from __future__ import annotations

import difflib
import inspect
import math
import numbers
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np


def check_one_of(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Raises unless an argument is one of a few strings.

    Raises:
        TypeError: if it is not a string.
        ValueError: if it is another string.

    Example:

    >>> from snip_tf.checks import check_one_of
    >>> check_one_of("axis", "z", ["x", "y"])
    Traceback (most recent call last):
    ...
    ValueError: Expected `axis` to be one of 'x', 'y'. Received: axis='z'
    """
    allowed = list(allowed)
    expected = f"Expected `{name}` to be one of {', '.join(map(repr, allowed))}. "
    if not isinstance(value, str):
        raise TypeError(expected + _received(name, value))
    if value not in allowed:
        raise ValueError(f"{expected}Received: {name}={value!r}")


def check_bool(name: str, value: Any) -> None:
    """Raises a TypeError unless an argument is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(
            f"Expected `{name}` to be True or False. {_received(name, value)}"
        )


def check_callable(name: str, value: Any) -> None:
    """Raises a TypeError unless an argument can be called."""
    if not callable(value):
        raise TypeError(f"Expected `{name}` to be callable. {_received(name, value)}")


def check_path(path: Any) -> None:
    """Raises a TypeError unless `path` is a path of a file or folder."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(
            f"Expected `path` to be a string or a pathlib.Path. "
            f"{_received('path', path)}"
        )


def check_number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Raises unless an argument is a finite number within some limits.

    Args:
        name: the name of the argument.
        value: what was received.
        least: float, the smallest allowed number.
        above: float, which all allowed numbers exceed.
        below: float, which exceeds all allowed numbers.

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is outside the limits, infinite or NaN.

    Example:

    >>> from snip_tf.checks import check_number
    >>> check_number("rate", 2, least=0, below=1)
    Traceback (most recent call last):
    ...
    ValueError: Expected `rate` to be a number, 0 or more and below 1. Received: rate=2
    """
    limits = [
        words
        for limit, words in (
            (least, f", {least} or more"),
            (above, f" above {above}"),
            (below, f" below {below}"),
        )
        if limit is not None
    ]
    expected = f"Expected `{name}` to be a number{' and'.join(limits)}. "
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(expected + _received(name, value))
    number: Any = value
    if not (
        -math.inf < number < math.inf
        and (least is None or number >= least)
        and (above is None or number > above)
        and (below is None or number < below)
    ):
        raise ValueError(f"{expected}Received: {name}={value!r}")


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raises unless an argument is a whole number of at least `least`.

    Raises:
        TypeError: if it is not a whole number.
        ValueError: if it is below `least`.
    """
    _check_whole(name, value, f"a whole number, {least} or more", least)


def check_seed(seed: Any) -> None:
    """Raises unless `seed` is a whole number, 0 or more, or None.

    Raises:
        TypeError: if it is of another kind.
        ValueError: if it is negative.
    """
    if seed is not None:
        _check_whole("seed", seed, "a whole number, 0 or more, or None", 0)


def _check_whole(name: str, value: Any, expected: str, least: int) -> None:
    expected = f"Expected `{name}` to be {expected}. "
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(expected + _received(name, value))
    if int(value) < least:
        raise ValueError(f"{expected}Received: {name}={value}")


def _received(name: str, value: Any) -> str:
    return f"Received: {name}={value!r} of type {type(value).__name__}"


def check_signature(name: str, function: Callable, arguments: Sequence[str]) -> None:
    """Raises a TypeError unless a function takes these arguments."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # some functions written in C have no signature
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise TypeError(
            f"Expected `{name}` to be a function of ({', '.join(arguments)}). "
            f"Received: {name}={function!r} of {signature}, which cannot be called "
            f"like that: {error}"
        ) from error


def check_paths(paths: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raises a ValueError that names the first of `paths` that is not `known`."""
    known = list(known)
    known_set = set(known)
    for path in paths:
        if path not in known_set:
            raise ValueError(
                f"{what} must be one of the model's weight paths. "
                f"Received: {path!r}, which the model does not have. "
                f"{near_misses(path, known)}"
            )


def near_misses(wanted: str, known: list[str], what: str = "weight paths") -> str:
    """Returns a sentence that names the known paths that may have been meant."""
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.4)
    if near:
        return f"Did you mean {' or '.join(repr(path) for path in near)}?"
    return f"The {what} are: {', '.join(map(visible, known))}"


def visible(text: str) -> str:
    r"""Returns a text in which everything that a terminal obeys or hides is escaped.

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
    """Returns the first of some names, and how many more there are.

    Example:

    >>> from snip_tf.checks import list_of
    >>> list_of(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

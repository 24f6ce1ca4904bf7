"""Checks the arguments of drawing functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def check_mapping(name: str, value: Any, form: str) -> None:
    """Raises a TypeError unless it is a dict."""
    if not isinstance(value, Mapping):
        raise wrong_form(name, value, form)


def check_nested(name: str, value: Any, form: str) -> None:
    """Raises a TypeError unless it is a dict of dicts."""
    check_mapping(name, value, form)
    if not all(isinstance(part, Mapping) for part in value.values()):
        raise wrong_form(name, value, form)


def wrong_form(name: str, value: Any, form: str) -> TypeError:
    """Returns an error that says which form was expected, and what was received."""
    kind = type(value).__name__
    if isinstance(value, Mapping) and value:
        kind += f" of {type(next(iter(value.values()))).__name__}"
    return TypeError(f"Expected `{name}` to be {form}. Received: a {kind}")

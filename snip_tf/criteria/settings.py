"""Checks of the settings of criteria."""

from __future__ import annotations

import numbers
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

"""Switch: something that one thread turns on for a while, and no other sees."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator


class Switch:
    """Off, but in the body of `with switch.on():` of the thread that runs it.

    A function of another library may ask it: it is wrapped once, for good, and does
    what it always did where the switch is off.
    """

    def __init__(self, name: str):
        self._is_on = contextvars.ContextVar(name, default=False)

    def __bool__(self) -> bool:
        return self._is_on.get()

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Turns it on for a while."""
        token = self._is_on.set(True)
        try:
            yield
        finally:
            self._is_on.reset(token)

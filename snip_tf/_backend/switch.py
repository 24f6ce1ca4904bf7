"""Switch: a flag that a thread turns on for a while, unseen by other threads."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator


class Switch:
    """A flag that is on in the body of `with switch.on():`, for the current thread.

    A function of another library may ask it: it is wrapped once, permanently, and
    behaves as before where the switch is off.
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

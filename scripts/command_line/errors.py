"""Errors that end a program with one line, without a traceback."""

import contextlib
import sys
from collections.abc import Iterator

from command_line import output


@contextlib.contextmanager
def told(
    about: str = "", kinds: tuple[type[Exception], ...] = (ValueError,)
) -> Iterator[None]:
    """Ends the program with what an error says.

    Args:
        about: what comes before it.
        kinds: of errors.
    """
    try:
        yield
    except kinds as error:
        sys.exit(output.one_line(f"{about}{error}"))


@contextlib.contextmanager
def running_into(folder: object, kind: type[Exception]) -> Iterator[None]:
    """Ends a program that runs others with what an error says.

    Args:
        folder: where it writes.
        kind: of the errors that the program is written to expect.
    """
    try:
        with told(kinds=(ImportError, kind)):  # the first of what draws
            yield
    except OSError as error:
        sys.exit(f"Expected to be able to write to {folder}. Received: {error}")


def end_if_failed(failed: list[str]) -> None:
    """Ends the program if runs failed."""
    if failed:
        several = f"{len(failed)} runs" if len(failed) > 1 else "A run"
        sys.exit(f"{several} failed, as said above. The same command tries again.")

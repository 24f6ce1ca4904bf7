"""Errors that end a program with one line, without a traceback."""

import contextlib
import sys
from collections.abc import Iterator

from command_line import output


@contextlib.contextmanager
def exit_on(
    about: str = "", kinds: tuple[type[Exception], ...] = (ValueError,)
) -> Iterator[None]:
    """Ends the program with the message of an error.

    Args:
        about: text before the message.
        kinds: the classes of errors.
    """
    try:
        yield
    except kinds as error:
        sys.exit(output.one_line(f"{about}{error}"))


@contextlib.contextmanager
def exit_on_failure(folder: object, kind: type[Exception]) -> Iterator[None]:
    """Ends a program that runs others with the message of an error.

    Args:
        folder: where it writes.
        kind: the class of the errors that the program expects.
    """
    try:
        with exit_on(kinds=(ImportError, kind)):  # no matplotlib, say
            yield
    except OSError as error:
        sys.exit(f"Expected to be able to write to {folder}. Received: {error}")


def end_if_failed(failed: list[str]) -> None:
    """Ends the program if runs failed."""
    if failed:
        several = f"{len(failed)} runs" if len(failed) > 1 else "A run"
        sys.exit(f"{several} failed, see above. The same command tries again.")

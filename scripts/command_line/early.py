"""Handles Ctrl-C and SIGTERM while a program still imports modules.

The package imports it before all else, and `command_line.start` takes over. It must not
import anything slow itself.
"""

import os
import signal
import sys


def ending_signals() -> list[signal.Signals]:
    """Returns the signals to handle: a shell makes background jobs ignore SIGINT."""
    return [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]


def _is_program() -> bool:
    """Returns whether this process runs one of the programs, rather than a test."""
    main = getattr(sys.modules["__main__"], "__file__", None) or ""
    return os.path.dirname(main) == os.path.dirname(os.path.dirname(__file__))


def _end(number: int, frame: object) -> None:
    name = signal.Signals(number).name
    text = f"\nInterrupted ({name}) before it began. The same command starts it.\n"
    os.write(2, text.encode())
    os._exit(128 + number)


if _is_program():
    for _number in ending_signals():
        signal.signal(_number, _end)

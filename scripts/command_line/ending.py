"""Ends a program with one line when it gets a signal."""

import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any, NoReturn

from command_line import early

# The process that started this one and must outlive it (snip_tf.experiments.runner).
_PARENT = "SNIP_TF_PARENT"

# Set while the program runs, and read by `command_line.output`.
received: int | None = None  # the signal that ends the program
real_stderr = 2  # also while standard error is redirected
advice = ""  # what to do after an interruption

_swallowed = False  # the KeyboardInterrupt of the signal
_ending = threading.Lock()


def by_signals(after_interrupt: str, grace: float) -> None:
    """Has SIGINT and SIGTERM end the program with one line.

    The handler raises a KeyboardInterrupt, so that half-written files are removed.
    Python calls it between two of its own instructions, and a call of TensorFlow can
    take minutes. Therefore a thread ends the process after the grace period.

    Args:
        after_interrupt: what to do after an interruption, a sentence.
        grace: seconds in which the program may end by itself.
    """
    global advice
    advice = after_interrupt
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    wanted = early.ending_signals()
    for number in wanted:
        signal.signal(number, _interrupt)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    _in_background(_await_signal, reader, wanted, grace)
    if os.environ.get(_PARENT):
        _in_background(_await_orphanhood, int(os.environ[_PARENT]), grace)
    sys.unraisablehook = _unraisable
    sys.excepthook = _end_of_main


def _in_background(function: Any, *arguments: Any) -> None:
    threading.Thread(target=function, args=arguments, daemon=True).start()


def _await_signal(reader: int, wanted: list[signal.Signals], grace: float) -> None:
    while (number := os.read(reader, 1)[0]) not in wanted:
        pass
    time.sleep(grace)
    _end(number)


def _await_orphanhood(parent: int, grace: float) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    _end(signal.SIGTERM)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global received, _swallowed
    if received is None or _swallowed:
        received, _swallowed = number, False
        raise KeyboardInterrupt


def _unraisable(found: Any) -> None:
    """Raises the interruption again after a `__del__` that swallowed it."""
    global _swallowed
    if received is None:
        sys.__unraisablehook__(found)
    elif found.exc_type is KeyboardInterrupt:
        _swallowed = True
        threading.Timer(0.01, os.kill, (os.getpid(), received)).start()


def _end_of_main(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if received is None:
        sys.__excepthook__(kind, error, trace)
        return
    with contextlib.suppress(OSError, ValueError, SystemExit):
        sys.stdout.flush()
    _end(received)


def _end(number: int) -> NoReturn:
    """Ends the process at once: TensorFlow's threads would wait for each other."""
    # One of two threads writes it; both do if the first hangs because nobody reads.
    if _ending.acquire(timeout=1):
        # On a line of its own, below a progress bar or a terminal's ^C.
        text = f"\nInterrupted ({signal.Signals(number).name}). {advice}\n"
        with contextlib.suppress(OSError):
            if os.isatty(1):
                os.write(1, b"\x1b[?25h")  # a progress bar hides the cursor
            os.write(real_stderr, text.encode())
    os._exit(128 + number)

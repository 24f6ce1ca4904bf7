"""Holds back TensorFlow's log lines while it writes files."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator

# Two at once would each restore what the other has set.
_ONE_AT_A_TIME = threading.Lock()


@contextlib.contextmanager
def quiet() -> Iterator[Callable[[], str]]:
    """Holds back what is written to standard error, and TensorFlow's info messages.

    Its C++ code writes to the file descriptor, which Python can redirect only for the
    whole process, so no user code should run inside.

    Yields:
        A function that returns what was written so far.
    """
    with _ONE_AT_A_TIME, _warnings_only("tensorflow"), _error_output() as held:

        def written() -> str:
            size = os.fstat(held).st_size
            return os.pread(held, size, 0).decode(errors="replace")

        yield written


@contextlib.contextmanager
def _error_output() -> Iterator[int]:
    """Yields the descriptor of a file to which standard error is redirected."""
    with tempfile.TemporaryFile() as file, contextlib.ExitStack() as after:
        if sys.stderr is not None:
            sys.stderr.flush()
        with contextlib.suppress(OSError):  # a process may run without standard error
            before = os.dup(2)
            after.callback(os.close, before)
            os.dup2(file.fileno(), 2)
            after.callback(os.dup2, before, 2)
        yield file.fileno()
        if sys.stderr is not None:
            sys.stderr.flush()


@contextlib.contextmanager
def _warnings_only(name: str) -> Iterator[None]:
    def is_a_warning(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING

    logger = logging.getLogger(name)
    logger.addFilter(is_a_warning)
    try:
        yield
    finally:
        logger.removeFilter(is_a_warning)

"""The output of a program: quiet libraries, plain lines, ending if nobody reads."""

import contextlib
import faulthandler
import io
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from command_line import ending

_started = False


def one_line(text: object) -> str:
    """Returns foreign text, such as a library's error, as one plain line."""
    return " ".join(_plain(text).split())


def _plain(text: object) -> str:
    """Removes what moves a terminal's cursor or changes its colours."""
    text = re.sub(
        r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?)", "", str(text)
    )
    return re.sub(r"[^\S\n\t ]|[\x00-\x08\x0e-\x1f\x7f-\x9f]", " ", text)


def say(text: object) -> None:
    """Prints one plain line at once."""
    print(one_line(text), flush=True)


class _Output(io.FileIO):
    """Standard output that ends the program when it cannot be written to.

    Otherwise its error would be mistaken for that of a file that is being written.
    """

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[super().write(rest) or 0 :]
        except BrokenPipeError:
            sys.exit(128 + signal.SIGPIPE)  # as `| head` ends other programs
        except OSError as error:
            sys.exit(f"Cannot write to standard output: {error}. {ending.advice}")
        return len(data)


def watch() -> None:
    """Ends the program when printing fails, and allows any character."""
    global _started
    _started = True
    if sys.stdout is None or os.name == "nt":
        return
    sys.stdout.flush()
    # Without a buffer, whose contents would be lost silently at the end.
    sys.stdout = io.TextIOWrapper(
        _Output(1, "w", closefd=False),
        sys.stdout.encoding,
        errors="backslashreplace",
        write_through=True,
    )


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Holds back what libraries write to stderr, unless the body fails.

    TensorFlow's C++ code logs before it has read TF_CPP_MIN_LOG_LEVEL; with 0
    everything is shown.
    """
    wanted = os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0"
    if wanted or not _started or sys.stderr is None:
        yield
        return
    ending.real_stderr = os.dup(2)
    faulthandler.enable(ending.real_stderr)  # shows at least where a library aborts
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(ending.real_stderr, b"" if ending.received else held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(ending.real_stderr, 2)
            faulthandler.disable()

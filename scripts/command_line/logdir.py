"""Checks, before TensorFlow is loaded, whether a run may use a folder."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from command_line.output import one_line


def refuse_taken(logdir: Path, chosen: Mapping[str, object]) -> None:
    """Ends the program if another run uses the folder, or was made with other flags.

    The run itself checks this, too, but only after TensorFlow and data are loaded.
    """
    if not logdir.is_dir() or os.environ.get("TF_CONFIG"):  # workers share it
        return
    if _is_locked(logdir):
        sys.exit(
            f"Expected --logdir to be free. Received: {logdir}, where another process "
            f"is training now. Wait for it, or name another --logdir."
        )
    earlier = _flags_in(logdir)
    if earlier is None or not (logdir / "checkpoint.keras").exists():
        return
    different = [
        f"--{name} was {earlier.get(name)!r} there and is {chosen.get(name)!r} now"
        for name in sorted(earlier.keys() | chosen.keys())
        if earlier.get(name) != chosen.get(name)
    ]
    if different:
        text = f"{logdir}, where {'; '.join(different)}. Name another --logdir."
        sys.exit(
            one_line(
                f"Expected --logdir to be new, or to hold a run with the same flags to "
                f"continue. Received: {text}"
            )
        )


def _flags_in(logdir: Path) -> dict[str, Any] | None:
    """Returns a run's flags; None for damaged ones, which the run itself reports."""
    if not (logdir / "flags.json").is_file():
        return None
    try:
        found = json.loads((logdir / "flags.json").read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _is_locked(folder: Path) -> bool:
    try:
        import fcntl
    except ImportError:  # not available on Windows
        return False
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return False  # the run reports it
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False

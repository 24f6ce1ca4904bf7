"""Files that are never found half-written, folders that one process has at a time."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PARTIAL = ".partial-"  # how no file of a user's begins


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a path beside `path` to write to, and renames it once the body has ended.

    If the body fails, for example on a full disk, what it wrote is removed, and what
    was at `path` stays.

    Raises:
        FileNotFoundError: if the folder of `path` is not there.
    """
    path = Path(path)
    partial = _partial(path)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike) -> Iterator[Path]:
    """The same for a folder, which replaces the whole one at `path`."""
    path = Path(path)
    partial = _partial(path)
    old = partial.with_name(f"{partial.name}-old")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        # A folder cannot be renamed onto another, and to remove one takes time, in
        # which it is neither there nor gone.
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(path, old)
        os.replace(partial, path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_folder(path: Path) -> None:
    """Raises a FileNotFoundError unless the folder of `path` is there."""
    if not path.parent.is_dir():
        raise FileNotFoundError(
            errno.ENOENT, "Expected a folder that is there. Received", str(path.parent)
        )


def _partial(path: Path) -> Path:
    """Where to write first: always the same place, lest a killed program's pile up."""
    check_folder(path)
    return path.with_name(f"{PARTIAL}{path.name}")


def write_json(path: str | os.PathLike, value: object) -> None:
    """Writes a JSON file."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(value, indent=1) + "\n")


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Keeps other processes that ask for it out of a folder.

    The operating system lets go of the lock, however the process ends.

    Raises:
        BlockingIOError: if another process has it.
    """
    import fcntl  # which Windows has not

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def read_json(path: str | os.PathLike) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: if it is missing or damaged; it names the file.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"Expected {path} to be a JSON file as it was written. Received one that "
            f"cannot be read: {error}"
        ) from error

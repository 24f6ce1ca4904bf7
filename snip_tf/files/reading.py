"""Reads files, and refuses damaged ones."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

_MOST_JSON = 1 << 26
# What libraries raise on files that are damaged, or malicious.
DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,  # also RecursionError, NotImplementedError
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def is_device(path: Path) -> bool:
    """Returns whether this is a pipe or the like, such as /dev/stdout."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def read_json(path: str | os.PathLike) -> object:
    """Reads a JSON file.

    Raises:
        OSError: if it cannot be read, as FileNotFoundError.
        ValueError: if it is damaged, is not JSON, or has more than 64 MiB.
    """
    with named_damage(path, "a JSON file"), open(path, "rb") as file:
        is_long = os.fstat(file.fileno()).st_size > _MOST_JSON
        content = b"" if is_long else file.read(_MOST_JSON + 1)
        if is_long or len(content) > _MOST_JSON:  # it may grow while it is read
            raise ValueError(f"it has more than {_MOST_JSON:,} bytes")
        return json.loads(content.decode())


@contextlib.contextmanager
def named_damage(path: str | os.PathLike, expected: str) -> Iterator[None]:
    """Turns what libraries raise on a damaged file into a ValueError that names it.

    Also refuses a pipe or a device, on which a reader might block forever. Errors of
    the operating system, such as FileNotFoundError, are unchanged.

    Args:
        path: the file.
        expected: what kind of file it should be.
    """
    try:
        if is_device(Path(path)):
            raise ValueError("it is not a file, but a pipe or a device")
        yield
    except DAMAGE as error:
        # EINVAL means that something in the file points outside of it.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise ValueError(
            f"Expected {expected}. Received: {os.fspath(path)!r}, which is damaged or "
            f"of another kind: {str(error) or type(error).__name__}"
        ) from error


def inflate(data: bytes, most: int) -> bytes:
    """Decompresses what `zlib.compress` made from at most `most` bytes.

    Raises:
        ValueError: if there are more bytes, which are then not decompressed.
    """
    decompressor = zlib.decompressobj()
    content = decompressor.decompress(data, most + 1)
    if len(content) > most or not decompressor.eof or decompressor.unused_data:
        raise ValueError(f"its data is truncated or has over {most:,} bytes")
    return content

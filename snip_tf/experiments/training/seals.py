"""Seals a zip archive with a hash of every byte, and notes about the archive.

The seal is the archive's comment, at its end, so that both are in one file and cannot
get out of step. Zip archives have checksums, but Keras does not verify that of the
weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

from snip_tf.files import named_damage

_HASH = hashlib.sha256().digest_size
_CHUNK = 1 << 20


def digest_of(value: Any) -> str:
    """Returns a hash of a JSON value, to be kept beside it or in a seal."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def seal(path: Path, about: dict[str, Any]) -> None:
    """Seals an archive.

    Args:
        path: the path of the archive.
        about: notes to keep in the seal, short and of JSON values.
    """
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = json.dumps(about).encode() + bytes(_HASH)
    with open(path, "r+b") as file:
        digest = _digest(path)
        file.seek(-_HASH, os.SEEK_END)
        file.write(digest)


def check_seal(path: Path, kind: str) -> dict[str, Any] | None:
    """Returns the notes in the seal of an archive; None if it was never sealed.

    Args:
        path: the path of the archive.
        kind: what it should be, for the message.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is damaged, or larger when it is decompressed.
    """
    with named_damage(path, kind), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("Keras does not compress what it writes")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("its parts are larger than the file")
        if not archive.comment:
            if damaged := archive.testzip():
                raise ValueError(f"the checksum of {damaged} is not that of its bytes")
            return None
        if _stored_digest(path) != _digest(path):
            raise ValueError("it is truncated or was changed")
        return json.loads(archive.comment[:-_HASH])


def _stored_digest(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(-_HASH, os.SEEK_END)
        return file.read()


def _digest(path: Path) -> bytes:
    """Returns the hash of everything before the stored hash."""
    digest, left = hashlib.sha256(), path.stat().st_size - _HASH
    with open(path, "rb") as file:
        while chunk := file.read(min(_CHUNK, left)):
            digest.update(chunk)
            left -= len(chunk)
    return digest.digest()

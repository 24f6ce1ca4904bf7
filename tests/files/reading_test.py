import errno
import os
import zlib

import pytest

from snip_tf.files import (
    inflate,
    named_damage,
    read_json,
    reading,
)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[" * 100_000, b"9" * 5000, b'"' + b"x" * 2000]
)
def test_json_that_is_damaged(tmp_path, monkeypatch, content):
    monkeypatch.setattr(reading, "_MOST_JSON", 200_000)
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"JSON file\. Received: '{path}', which is"):
        read_json(path)


def test_json_that_is_long_is_not_read(tmp_path):
    path = tmp_path / "a.json"
    with open(path, "wb") as file:
        file.truncate(10**12)
    with pytest.raises(ValueError, match=f"'{path}'.*more than 67,108,864"):
        read_json(path)


def test_pipes_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ValueError, match=f"'{path}'.* a pipe or a device"):
            read_json(path)


def test_json_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "a.json")
    with pytest.raises(IsADirectoryError):
        read_json(tmp_path)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (zlib.error("bad block"), "bad block"),
        (MemoryError(), "MemoryError"),
        (RecursionError("too deep"), "too deep"),
        (OSError("Unable to open file"), "Unable"),
        (OSError(errno.EINVAL, "Invalid argument"), "Invalid argument"),
    ],
)
def test_what_libraries_raise_names_the_file(error, words):
    with (
        pytest.raises(ValueError, match=rf"Expected this\. Received: 'a'.*{words}"),
        named_damage("a", "this"),
    ):
        raise error


def test_inflates_at_most_the_limit():
    for content in (b"", b"four"):
        assert inflate(zlib.compress(content), len(content)) == content
    bomb = zlib.compress(bytes(1 << 20))
    for data in (bomb, bomb[:-1], zlib.compress(b"four")[:-1]):
        with pytest.raises(ValueError, match="over 4 bytes"):
            inflate(data, 4)
    with pytest.raises(ValueError, match="over 4 bytes"):
        inflate(zlib.compress(b"four") + b"more", 4)

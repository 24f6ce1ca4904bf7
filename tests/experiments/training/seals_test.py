import zipfile

import pytest

from snip_tf.experiments.training.seals import check_seal, digest_of, seal

ABOUT = {"rows": 3}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"content of a")
        archive.writestr("b", bytes(100))
    return path


def test_tells_what_it_was_sealed_with(path):
    assert check_seal(path, "an archive") is None
    seal(path, ABOUT)
    assert check_seal(path, "an archive") == ABOUT
    seal(path, {})
    assert check_seal(path, "an archive") == {}
    with zipfile.ZipFile(path) as archive:
        assert archive.read("a") == b"content of a"


def refuses(path):
    with pytest.raises(ValueError, match=f"Expected an archive. Received: '{path}'"):
        check_seal(path, "an archive")


def test_finds_any_change(path):
    seal(path, ABOUT)
    content = path.read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        refuses(path)
    for changed in (b"", content[:-1], content[:-60], content + b"x", content[5:]):
        path.write_bytes(changed)
        refuses(path)


def test_finds_changed_content_where_there_is_no_seal(path):
    path.write_bytes(path.read_bytes().replace(b"content", b"cOntent"))
    refuses(path)


def test_refuses_what_would_grow(path):
    for compression in (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("a", bytes(1000))
        seal(path, ABOUT)
        refuses(path)


def test_a_digest_is_of_the_value_and_its_kind():
    values = (1, 1.0, "1", [1], {"1": 1}, None, 1.0000000000000002)
    assert len({*map(digest_of, values)}) == len(values)
    assert digest_of({"a": [1.5]}) == digest_of({"a": [1.5]})


def test_a_file_that_is_not_there(path):
    with pytest.raises(FileNotFoundError):
        check_seal(path.with_name("b"), "an archive")

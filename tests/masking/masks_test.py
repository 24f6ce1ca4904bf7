import base64
import io
import json
import re
import tracemalloc
import zipfile
import zlib

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest

import snip_tf
from snip_tf.masking.mask_files import decode_mask, encode_mask

MASK = hnp.arrays(
    bool, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
)


@hypothesis.given(st.dictionaries(st.text(min_size=1), MASK, min_size=1, max_size=4))
@hypothesis.settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_round_trip(tmp_path, masks):
    path = tmp_path / "masks.npz"
    snip_tf.save_masks(path, masks)
    loaded = snip_tf.load_masks(path)
    assert list(loaded) == list(masks)
    for name, mask in masks.items():
        assert loaded[name].dtype == bool
        np.testing.assert_array_equal(loaded[name], mask)


def test_takes_one_bit_for_a_connection_at_most(tmp_path):
    mask = np.random.default_rng(0).random((1000, 800)) < 0.5
    snip_tf.save_masks(tmp_path / "masks.npz", {"w": mask})
    assert (tmp_path / "masks.npz").stat().st_size < mask.size / 8 + 2000


def test_replaces_a_file_whole_and_leaves_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "masks.npz"
    snip_tf.save_masks(path, {"w": np.ones(3, bool)})

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", fail)
        with pytest.raises(OSError, match="disk full"):
            snip_tf.save_masks(path, {"w": np.zeros(3, bool)})
    assert [entry.name for entry in tmp_path.iterdir()] == ["masks.npz"]
    assert snip_tf.load_masks(path)["w"].all()


def test_refuses_invalid_masks(tmp_path):
    path = tmp_path / "masks.npz"
    with pytest.raises(TypeError, match=r"masks\['w'\] of float64"):
        snip_tf.save_masks(path, {"w": np.ones(3)})
    with pytest.raises(TypeError, match="dict"):
        snip_tf.save_masks(path, [np.ones(3, bool)])
    with pytest.raises(ValueError, match="at least one mask"):
        snip_tf.save_masks(path, {})
    assert not path.exists()


def test_refuses_damaged_and_foreign_files(tmp_path):
    path = tmp_path / "masks.npz"
    snip_tf.save_masks(path, {"w": np.ones((40, 50), bool)})
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], whole[:-10], b"not an archive"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"masks\.npz.*damaged or of another kind"):
            snip_tf.load_masks(path)
    np.savez(path, header=np.ones(3))
    with pytest.raises(ValueError, match="damaged or of another kind"):
        snip_tf.load_masks(path)
    np.savez(path, header=np.array({"pickled": 1}, dtype=object))
    with pytest.raises(ValueError, match="damaged or of another kind"):
        snip_tf.load_masks(path)
    with pytest.raises(FileNotFoundError):
        snip_tf.load_masks(tmp_path / "none.npz")


def test_refuses_keys_that_are_not_paths(tmp_path):
    for key in (1, None, b"w", ("w",)):
        with pytest.raises(TypeError, match=rf"paths.*{re.escape(repr(key))} of"):
            snip_tf.save_masks(tmp_path / "m.npz", {"w": np.ones(3, bool), key: WHOLE})
    assert not list(tmp_path.iterdir())


def test_says_when_path_and_masks_are_swapped(tmp_path):
    for path in ("m.npz", tmp_path / "m.npz"):
        with pytest.raises(TypeError, match=r"path first: `save_masks\(path, masks\)`"):
            snip_tf.save_masks({"w": WHOLE}, path)


WHOLE = np.ones(8, bool)


def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path):
    path = tmp_path / "masks.npz"
    rng = np.random.default_rng(0)
    masks = {name: rng.random((9, 5)) < 0.3 for name in ("a", "b")}
    snip_tf.save_masks(path, masks)
    content, refused = path.read_bytes(), 0
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found = snip_tf.load_masks(path)
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            np.testing.assert_equal(found, masks)
            assert list(found) == list(masks)
    assert refused > len(content) / 2


def array(descr, shape, content=b""):
    """An array of an npz file, which may say what is not so."""
    head = {"descr": descr, "fortran_order": False, "shape": shape}
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, head)
    return file.getvalue() + content


def text(value):
    file = io.BytesIO()
    np.save(file, np.array(value))
    return file.getvalue()


def header(**changes):
    fields = {"format": "snip_tf masks 1", "shapes": {"w": [8]}, **changes}
    return text(json.dumps(fields))


ONES = array("|u1", (1,), b"\xff")
BOMB = array("|u1", (1 << 26,), bytes(1 << 26))
HARMFUL = {
    f"the shape {shape}": {"header.npy": header(shapes={"w": shape})}
    for shape in (
        *([10**11], [2**32, 2**32], [-8], [8.0], [True] * 3, ["8"], [0, 10**30]),
        *([1] * 33, [[8]], None, "8", 8, {"8": 8}),
    )
} | {
    "no shapes": {"header.npy": header(shapes={})},
    "a list of shapes": {"header.npy": header(shapes=[["w", [8]]])},
    "another format": {"header.npy": header(format="snip_tf masks 2")},
    "a header of no dict": {"header.npy": text("[]")},
    "a deep header": {"header.npy": text("[" * 100_000)},
    "a header of bytes": {"header.npy": ONES},
    "a header of no text": {"header.npy": array("<U1", (), b"\xff" * 4)},
    "a header of 4 GB": {"header.npy": array("<U1000000000", ())},
    "a header that inflates": {"header.npy": text(" " * (1 << 25))},
    "100 GB of bits": {"bits0.npy": array("|u1", (10**11,))},
    "bits that inflate": {"bits0.npy": BOMB},
    "bits that are text": {"bits0.npy": array("<U1", (1,), b"\xff")},
    "bits that are objects": {"bits0.npy": array("|O", (1,), b"\xff")},
    "bits of no array": {"bits0.npy": b"\x93NUMPY\x01\x00\x02\x00{("},
    "bits beyond the shape": {"header.npy": header(shapes={"w": [7]})},
    "one mask more": {"bits1.npy": ONES},
}


def refuses_quickly(load, *words):
    """That a ValueError says these, and no memory to speak of is taken."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as error:
            load()
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("what", HARMFUL)
def test_refuses_a_file_that_was_made_to_harm(tmp_path, what):
    path = tmp_path / "masks.npz"
    parts = {"header.npy": header(), "bits0.npy": ONES}
    for changes in ({}, HARMFUL[what]):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in {**parts, **changes}.items():
                archive.writestr(name, content)
        if not changes:
            np.testing.assert_equal(snip_tf.load_masks(path), {"w": WHOLE})
    refuses_quickly(lambda: snip_tf.load_masks(path), str(path), "damaged")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_refuses_other_compressions(tmp_path, method):
    path = tmp_path / "masks.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("header.npy", header())
        archive.writestr("bits0.npy", ONES)
    refuses_quickly(lambda: snip_tf.load_masks(path), str(path), "compressed")


def test_refuses_an_archive_that_lies_about_its_sizes(tmp_path):
    """What says that it has as many bytes as it should, and inflates to more."""
    path = tmp_path / "masks.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.npy", header())
        archive.writestr("bits0.npy", BOMB)
    length = len(BOMB).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(length, len(ONES).to_bytes(4, "little")))
    refuses_quickly(lambda: snip_tf.load_masks(path), str(path), "CRC")


def test_refuses_endless_files(tmp_path):
    with open(tmp_path / "masks.npz", "wb") as file:
        file.truncate(10**12)
    for path in (tmp_path / "masks.npz", "/dev/zero"):
        refuses_quickly(lambda path=path: snip_tf.load_masks(path), str(path))


@hypothesis.given(MASK)
def test_a_mask_as_text_comes_back(mask):
    text = json.loads(json.dumps(encode_mask(mask)))
    np.testing.assert_array_equal(decode_mask(text), mask)


def packed(content):
    return base64.b64encode(zlib.compress(content)).decode()


EYE = encode_mask(np.eye(5, dtype=bool))
CUT = base64.b64encode(base64.b64decode(EYE["kept"])[:-1]).decode()


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {"shape": shape}
            for shape in (
                *([10**11], [25, 0], [-5, -5], [5.0, 5.0], [True, 25], "55", None),
                *([5, 5, 2], [2**40, 2**40], [1] * 40),
            )
        ),
        *(
            {"kept": packed(content)}
            for content in (b"", b"abc", b"abcde", bytes(1 << 26), b"\xff" * 4)
        ),
        *({"kept": kept} for kept in ("***", "é", CUT, packed(bytes(4)) + "AAAA")),
        {"shape": [0], "kept": packed(bytes(1 << 26))},
    ],
)
def test_refuses_text_that_is_no_mask(changes):
    refuses_quickly(lambda: decode_mask({**EYE, **changes}), "which are damaged")


@pytest.mark.parametrize(
    "config", [None, [], "x", {}, {"shape": [5, 5]}, {"shape": [5, 5], "kept": b"x"}]
)
def test_refuses_an_invalid_configuration_of_a_mask(config):
    with pytest.raises(TypeError, match=r"dict of `shape`.*Received: "):
        decode_mask(config)

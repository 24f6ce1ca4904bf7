import json

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest

import snip_tf
from snip_tf.masks import decode_mask, encode_mask

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


def test_refuses_what_are_no_masks(tmp_path):
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


@hypothesis.given(MASK)
def test_a_mask_as_text_comes_back(mask):
    text = json.loads(json.dumps(encode_mask(mask)))
    np.testing.assert_array_equal(decode_mask(text), mask)

"""A public call walks over the weights of the model once."""

import pytest

import snip_tf
from tests.small_network import cut, small_network


@pytest.mark.parametrize("file", ["m.keras", "m.tflite", "saved_model"])
def test_one_walk_of_export(file, walks, tmp_path):
    pruned = cut(small_network())
    walks.clear()
    formats = {"m.keras": "keras", "m.tflite": "litert", "saved_model": "saved_model"}
    snip_tf.export(pruned, tmp_path / file, formats[file], print_fn=lambda line: None)
    assert walks == ["small"]


def test_one_walk_of_load_sparse(walks, tmp_path):
    pruned, path = cut(small_network()), tmp_path / "m"
    walks.clear()
    snip_tf.export(pruned, path, "sparse", print_fn=lambda line: None)
    assert walks == ["small"] * 2  # the second is of the copy that is written
    snip_tf.load_sparse(path)
    assert walks == ["small"] * 3


def test_one_walk_of_sparse_runtime(walks):
    pruned = cut(small_network())
    walks.clear()
    snip_tf.sparse_runtime(pruned)
    assert walks == ["small"]

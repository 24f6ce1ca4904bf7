"""Masks in weight files, in shards of them and in checkpoints."""

import collections
import re

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf.masking.stored_masks import StoredMasks
from tests.masking.networks import (
    RNG,
    assert_zeros,
    assert_zeros_at_least,
    network,
    outputs,
    pruned_network,
)
from tests.versions import since

layers = keras.layers


def assert_same_masks(one, other):
    """In order: inside, layers that were not named have other names."""
    masks, others = (list(snip_tf.get_masks(m).values()) for m in (one, other))
    for mask, other_mask in zip(masks, others, strict=True):
        np.testing.assert_array_equal(mask, other_mask)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.weights.h5"


def test_a_file_of_a_pruned_model_loads_into_the_plain_one(path):
    pruned, plain = pruned_network(0), network(1)
    pruned.save_weights(path)
    plain.load_weights(path)
    np.testing.assert_array_equal(outputs(plain), outputs(pruned))
    for weight, other in zip(plain.weights, pruned.weights, strict=True):
        np.testing.assert_array_equal(weight, other)


def test_a_file_of_the_plain_model_loads_into_a_pruned_one(path):
    """Masks stay, and what they remove is zero at once, however deep inside."""
    plain, pruned = network(0), pruned_network(1)
    masks = snip_tf.get_masks(pruned)
    plain.save_weights(path)
    pruned.load_weights(path)
    assert_zeros(pruned, masks)
    in_order = zip(snip_tf.prunable_weights(plain), masks.values(), strict=True)
    expected = outputs(snip_tf.apply_masks(plain, dict(in_order)))
    np.testing.assert_array_equal(outputs(pruned), expected)


def test_a_file_of_a_pruned_model_brings_its_masks(path):
    saved, other = pruned_network(0), pruned_network(1)
    saved.save_weights(path)
    other.load_weights(path)
    assert_same_masks(other, saved)
    assert_zeros(other, snip_tf.get_masks(other))
    np.testing.assert_array_equal(outputs(other), outputs(saved))


def test_names_of_layers_that_were_not_named_may_be_others(path):
    """As in another process, where Keras counts from the start."""
    pruned = pruned_network(0)
    pruned.save_weights(path)
    [layers.Dense(1) for _ in range(3)]
    other = pruned_network(1)
    inside = [path for path in snip_tf.get_masks(pruned) if path.startswith("block/")]
    assert not set(inside) & snip_tf.get_masks(other).keys()
    other.load_weights(path)
    np.testing.assert_array_equal(outputs(other), outputs(pruned))


@pytest.mark.parametrize("exclude", ["gru/gru_cell/kernel", "out/*", "both/*/kernel"])
def test_masks_of_other_weights_are_refused(path, exclude):
    """Of the same layer, of another layer, and inside another."""
    saved, other = pruned_network(0, exclude=exclude), pruned_network(1)
    saved.save_weights(path)
    with pytest.raises(ValueError, match="pruned alike"):
        other.load_weights(path)
    assert_zeros_at_least(other, snip_tf.get_masks(other))


@pytest.mark.parametrize("exclude", ["gru/gru_cell/kernel", "out/*", "both/*/kernel"])
def test_masks_of_weights_that_are_not_pruned_are_refused(path, exclude):
    saved, other = pruned_network(0), pruned_network(1, exclude=exclude)
    saved.save_weights(path)
    with pytest.raises(ValueError, match="pruned alike"):
        other.load_weights(path)
    assert_zeros_at_least(other, snip_tf.get_masks(other))


def test_a_damaged_weight_file_is_named(path):
    """One in which HDF5 does not find its way, for which it has several errors."""
    pruned = pruned_network(0)
    pruned.save_weights(path)
    content = path.read_bytes()
    assert content.count(b"TREE") > 9
    path.write_bytes(content.replace(b"TREE", b"FREE"))
    with pytest.raises(ValueError, match=re.escape(str(path))):
        pruned.load_weights(path)


@since("3.13")
def test_masks_in_several_files(tmp_path):
    """Keras' shards: loaded as one file is, and refused where it is."""
    path = tmp_path / "model.weights.json"
    pruned, plain, other = pruned_network(0), network(1), pruned_network(2)
    pruned.save_weights(path, max_shard_size=1e-6)
    assert len(list(tmp_path.glob("*.h5"))) > 3
    for model in (plain, other):
        model.load_weights(path)
        np.testing.assert_array_equal(outputs(model), outputs(pruned))
    assert_same_masks(other, pruned)
    for exclude in ("gru/*", "out/*", "both/*"):
        pruned_network(0, exclude=exclude).save_weights(path, max_shard_size=1e-6)
        with pytest.raises(ValueError, match="masks of none there"):
            other.load_weights(path)


DAMAGED = {
    "empty": lambda bits: bits[:0],
    "short": lambda bits: bits[1:],
    "long": lambda bits: np.tile(bits, 3),
    "floats": lambda bits: bits.astype(np.float32),
    "int16": lambda bits: bits.astype(np.int16),
    "shape": lambda bits: bits[None],
    "a bit": lambda bits: bits ^ (np.arange(bits.size) == 1).astype(np.uint8),
    "a bit beyond the last": lambda bits: bits ^ (np.arange(bits.size) == 2),
    "a bit of the checksum": lambda bits: bits ^ (np.arange(bits.size) == 4),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_masks_that_do_not_fit_are_refused(path, damage):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(7, name="out")])
    pruned = snip_tf.apply_masks(model, {"out/kernel": RNG.random((3, 7)) < 0.5})
    pruned.save_weights(path)
    with h5py.File(path, "a") as file:
        group = file["layers/dense/_snip_masks/vars"]
        bits = group["kernel"][:]
        assert bits.shape == (3 + 4,)  # 21 bits, and the checksum
        del group["kernel"]
        group["kernel"] = DAMAGED[damage](bits)
    before = snip_tf.get_masks(pruned)
    with pytest.raises(ValueError, match="mask of 'kernel' of layer 'out'"):
        pruned.load_weights(path)
    np.testing.assert_equal(snip_tf.get_masks(pruned), before)


def test_a_damaged_name_of_the_group_is_noticed(path):
    pruned = snip_tf.apply_masks(network(), {"out/kernel": RNG.random((8, 3)) < 0.5})
    pruned.save_weights(path)
    with h5py.File(path, "a") as file:
        file.move("layers/dense/_snip_masks", "layers/dense/_snip_mbsks")
    with pytest.raises(ValueError, match="masks of none there"):
        pruned.load_weights(path)


def test_files_of_earlier_versions_still_load(path):
    """Which had the masks of a layer among its variables, by their number."""
    pruned, other = pruned_network(0), pruned_network(1)
    pruned.save_weights(path)
    in_order = collections.defaultdict(list)
    for name, mask in snip_tf.get_masks(pruned).items():
        in_order[name.partition("/")[0]].append(np.packbits(mask))
    with h5py.File(path, "a") as file:
        for group in masks_in(file):
            del file[group]
        for place in file["layers"]:
            group = file["layers"][place]
            group = group["vars"] if "vars" in group else group.create_group("vars")
            for number, bits in enumerate(in_order[group.attrs["name"]]):
                group[f"mask_bits{number}"] = bits
    other.load_weights(path)
    assert_same_masks(other, pruned)
    np.testing.assert_array_equal(outputs(other), outputs(pruned))
    with h5py.File(path, "a") as file:
        del file["layers/gru/vars/mask_bits0"]
    with pytest.raises(ValueError, match="a mask for each of the 2 pruned weights"):
        other.load_weights(path)


def masks_in(file):
    found = []
    file.visit(
        lambda name: found.append(name) if name.endswith("_snip_masks") else None
    )
    return found


def test_tensorflow_checkpoints_have_the_masks(tmp_path):
    saved, other = pruned_network(0), pruned_network(1)
    path = tf.train.Checkpoint(model=saved).save(tmp_path / "checkpoint")
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    weights = [snip_tf.prunable_weights(model).values() for model in (saved, other)]
    masks = [snip_tf.get_masks(model).values() for model in (saved, other)]
    restored = 0
    for before, after, mask, found in zip(*weights, *masks, strict=True):
        if np.array_equal(before, after):  # else in a list, where it sees no layers
            np.testing.assert_array_equal(mask, found)
            restored += 1
    assert restored >= len(masks[0]) - 2


def test_keras_knows_what_it_has_to_save():
    """By a base class that has no public name."""
    from keras.src.saving import saving_lib

    layer = pruned_network().get_layer("out")
    assert isinstance(layer._snip_masks, StoredMasks)
    assert "_snip_masks" in dict(saving_lib._walk_saveable(layer))

"""Masks in weight files, in threads, and beside whatever a user's layers have."""

import collections
import concurrent.futures
import gc
import json
import re
import threading
import tracemalloc
import weakref

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf.masking.stored_masks import StoredMasks
from snip_tf.weights import weights_by_path
from tests.replicas import two_replicas

layers = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 5, 8)).astype(np.float32)


class Block(layers.Layer):
    """A composite layer, with private names before and after ours."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._first = layers.Dense(8, "relu")
        self._values = [layers.Dense(8), layers.Dense(8)]

    def build(self, shape):
        for layer in (self._first, *self._values):
            layer.build(shape)

    def call(self, x):
        return self._values[1](self._values[0](self._first(x)))


def network(seed=0, names=("gru", "block", "attention", "both", "out")):
    """Layers that own their weights, and layers whose parts do."""
    keras.utils.set_random_seed(seed)
    x = keras.Input((5, 8))
    y = layers.GRU(8, return_sequences=True, name=names[0])(x)
    y = Block(name=names[1])(y)
    y = layers.MultiHeadAttention(2, 4, name=names[2])(y, y)
    y = layers.Bidirectional(layers.LSTM(4), name=names[3])(y)
    return keras.Model(x, layers.Dense(3, name=names[4])(y))


def random_masks(model, seed=0, **options):
    rng = np.random.default_rng(seed)
    weights = snip_tf.prunable_weights(model, **options)
    return {path: rng.random(weight.shape) < 0.4 for path, weight in weights.items()}


def pruned_network(seed=0, **options):
    model = network(seed)
    return snip_tf.apply_masks(model, random_masks(model, seed, **options))


def assert_same_masks(one, other):
    """In order: inside, layers that were not named have other names."""
    masks, others = (list(snip_tf.get_masks(m).values()) for m in (one, other))
    for mask, other_mask in zip(masks, others, strict=True):
        np.testing.assert_array_equal(mask, other_mask)


def outputs(model):
    return np.asarray(model(X, training=False))


def assert_zeros(model, masks):
    weights = weights_by_path(model)
    for path, mask in masks.items():
        assert not weights[path].numpy()[~mask].any(), path
        assert weights[path].numpy()[mask].all(), path


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


def assert_zeros_at_least(model, masks):
    weights = weights_by_path(model)
    for path, mask in masks.items():
        assert not weights[path].numpy()[~mask].any(), path


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


OURS = ("masks", "masked_weights", "set_masks", "get_masks", "unmasked_class", "layer")


@pytest.mark.parametrize("name", OURS)
def test_names_on_a_layer_are_its_own(name, tmp_path):
    """As attributes, methods and weights."""

    class WithAttribute(layers.Dense):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            setattr(self, name, {"a": [1, 2]})

    with_method = type("WithMethod", (layers.Dense,), {name: lambda self: 7})
    x = keras.Input((8,))
    y = WithAttribute(6, name="first")(x)
    y = with_method(6, name="second")(y)
    model = keras.Model(x, layers.Dense(3, name=f"{name}_of_mine")(y))
    pruned = snip_tf.apply_masks(model, random_masks(model))
    pruned.compile("adam", LOSS)
    pruned.fit(X[:, 0], np.arange(16) % 3, verbose=0)
    assert dict(getattr(pruned.get_layer("first"), name)) == {"a": [1, 2]}
    assert getattr(pruned.get_layer("second"), name)() == 7
    pruned.save(tmp_path / "model.keras")
    custom = {"WithAttribute": WithAttribute, "WithMethod": with_method}
    for other in (
        keras.models.load_model(tmp_path / "model.keras", custom_objects=custom),
        snip_tf.strip_pruning(pruned),
    ):
        np.testing.assert_array_equal(other(X[:, 0]), pruned(X[:, 0]))


@keras.saving.register_keras_serializable("snip_tf_tests")
class MayRound(layers.Layer):
    """Its flag has the name of a method that Keras gives each layer."""

    def __init__(self, quantize=False, **kwargs):
        super().__init__(**kwargs)
        self.quantize = quantize

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")

    def call(self, x):
        return keras.ops.round(x @ self.kernel) if self.quantize else x @ self.kernel

    def get_config(self):
        return {**super().get_config(), "quantize": self.quantize}


@pytest.mark.parametrize("flag", [False, True])
def test_a_flag_of_the_name_of_a_method_of_keras(flag, tmp_path):
    model = keras.Sequential([keras.Input((8,)), MayRound(flag, name="own")])
    pruned = snip_tf.apply_masks(model, random_masks(model))
    expected = np.asarray(X[:, 0] @ pruned.layers[0].kernel)
    expected = np.round(expected) if flag else expected
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for copied in (pruned, loaded, snip_tf.strip_pruning(pruned)):
        assert copied.layers[0].quantize is flag
        np.testing.assert_allclose(copied(X[:, 0]), expected, atol=1e-5)
        copied.layers[0].quantize = not flag
        assert copied.layers[0].quantize is not flag
    assert model.layers[0].quantize is flag


class WithBits(layers.Dense):
    """It saves something under a name that masks had in files of earlier versions."""

    def __init__(self, *args, key="mask_bits", **kwargs):
        super().__init__(*args, **kwargs)
        self.key = key
        self.loaded = None

    def get_config(self):
        return {**super().get_config(), "key": self.key}

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store[self.key] = np.arange(3)

    def load_own_variables(self, store):
        self.loaded = np.asarray(store[self.key])
        super().load_own_variables({key: store[key] for key in "01"})


@pytest.mark.parametrize("key", ["mask_bits", "mask_bits0", "mask_bits_of_mine"])
def test_what_a_layer_saves_is_its_own(key, tmp_path):
    model = keras.Sequential([keras.Input((8,)), WithBits(4, key=key, name="own")])
    masks = random_masks(model)
    snip_tf.apply_masks(model, masks).save(tmp_path / "model.keras")
    custom = {"WithBits": WithBits}
    loaded = keras.models.load_model(tmp_path / "model.keras", custom_objects=custom)
    np.testing.assert_array_equal(loaded.layers[0].loaded, np.arange(3))
    np.testing.assert_equal(snip_tf.get_masks(loaded), masks)


def test_only_names_of_our_own_are_added_to_a_layer():
    layer = layers.Dense(4, name="out")
    layer.build((None, 3))
    names, attributes = set(dir(layer)), dict(vars(layer))
    snip_tf.MaskedLayer(layer, {"kernel": np.ones((3, 4), bool)})
    assert all(name.startswith("_snip_") for name in set(dir(layer)) - names)
    assert all(name.startswith("_snip_") for name in vars(layer).keys() - attributes)
    for name, value in attributes.items():
        assert vars(layer)[name] is value


def test_a_layer_makes_another_of_its_class():
    class Doubling(layers.Dense):
        def doubled(self):
            return self.__class__(2 * self.units)

    layer = Doubling(4)
    layer.build((None, 3))
    snip_tf.MaskedLayer(layer, {"kernel": np.ones((3, 4), bool)})
    other = layer.doubled()
    assert type(other) is Doubling
    assert other.units == 8


def test_code_for_subclasses_does_not_run():
    """Neither `__init_subclass__` nor a metaclass of the user's."""
    seen = []

    class Meta(type):
        def __new__(cls, name, bases, namespace):
            seen.append(name)
            return super().__new__(cls, name, bases, namespace)

        def __init__(cls, name, bases, namespace):
            seen.append(name)
            super().__init__(name, bases, namespace)

    class Registered(layers.Dense, metaclass=Meta):
        def __init_subclass__(cls, **kwargs):
            super().__init_subclass__(**kwargs)
            seen.append(cls.__name__)

    class Mine(Registered):
        pass

    seen.clear()
    model = keras.Sequential([keras.Input((8,)), Mine(4, name="mine")])
    pruned = snip_tf.apply_masks(model, random_masks(model))
    assert isinstance(pruned.layers[0], Mine)
    assert not seen


def test_keras_numbers_the_next_layers_as_before():
    keras.backend.clear_session()
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    pruned = snip_tf.prune_model(model, sparsity=0.5, criterion="magnitude")
    snip_tf.strip_pruning(pruned)
    x = keras.Input((8,))
    following = keras.Model(x, layers.Dense(4)(x))
    assert model.layers[0].name == "dense"
    assert following.layers[1].name == "dense_1"
    assert following.layers[0].name == "input_layer_1"
    # After the one that `model` has inside.
    assert following.name == "functional_1"


def test_classes_of_past_trials_are_freed():
    """40 folds, each with a model class of its own, that holds a megabyte."""

    def fold():
        held = np.ones(1 << 17)

        class Net(keras.Model):
            def __init__(self):
                super().__init__()
                self.out = layers.Dense(3)

            def call(self, x):
                return self.out(x) * float(held[0])

            def get_config(self):
                return {}

        model = Net()
        model(X[:, 0])
        pruned = snip_tf.prune_model(model, sparsity=0.5, criterion="magnitude")
        snip_tf.strip_pruning(pruned)
        pruned(X[:, 0])
        return weakref.ref(Net)

    fold()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    classes = [fold() for _ in range(40)]
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert sum(made() is not None for made in classes) == 0
    assert grown < 10 << 20


def test_what_is_read_at_once_is_what_one_thread_reads(tmp_path):
    """Saving, stripping, reading, pruning further and predicting, all at once."""
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(8, "relu"), HoldsItsLayers(name="inside")]
    )
    pruned = snip_tf.apply_masks(model, random_masks(model))
    masks, expected = snip_tf.get_masks(pruned), np.asarray(pruned(X[:, 0]))
    config = json.dumps(pruned.get_config())
    everything = {path: np.ones_like(mask) for path, mask in masks.items()}
    turn = threading.local()

    def save():
        turn.path = tmp_path / f"{threading.get_ident()}.keras"
        pruned.save(turn.path)
        return snip_tf.get_masks(keras.models.load_model(turn.path))

    def strip():
        stripped = snip_tf.strip_pruning(pruned)
        np.testing.assert_array_equal(stripped(X[:, 0]), expected)
        assert not any(isinstance(x, snip_tf.MaskedLayer) for x in stripped.layers)
        return masks

    def predict():
        np.testing.assert_array_equal(np.asarray(pruned(X[:, 0])), expected)
        assert json.dumps(pruned.get_config()) == config
        return masks

    calls = [save, strip, predict]
    calls += [lambda: snip_tf.get_masks(pruned)]
    calls += [lambda: snip_tf.get_masks(snip_tf.apply_masks(pruned, everything))]
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        found = [pool.submit(call) for _ in range(8) for call in calls]
        for each in found:
            np.testing.assert_equal(list(each.result()), list(masks))
            np.testing.assert_equal(each.result(), masks)


@keras.saving.register_keras_serializable("snip_tf_tests")
class HoldsItsLayers(keras.Model):
    """Its configuration has its layers, which are masked, too."""

    def __init__(self, inner=None, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner or layers.Dense(4, name="inner")
        self.out = layers.Dense(3, name="out")

    def build(self, shape):
        self.inner.build(shape)
        self.out.build((None, 4))

    def call(self, x):
        return self.out(self.inner(x))

    def get_config(self):
        inner = keras.saving.serialize_keras_object(self.inner)
        return {**super().get_config(), "inner": inner}

    @classmethod
    def from_config(cls, config):
        inner = keras.saving.deserialize_keras_object(config.pop("inner"))
        assert type(inner) is layers.Dense
        return cls(inner, **config)


def test_set_masks_leaves_everything_as_it_was_if_one_is_wrong():
    pruned = pruned_network()
    masks, weights = snip_tf.get_masks(pruned), pruned.get_weights()
    good = np.zeros_like(masks["out/kernel"])
    for bad, error, words in (
        ({"out/krnel": good}, ValueError, "Did you mean 'out/kernel'"),
        ({"out/kernel": good.T}, ValueError, r"of shape \(3, 8\), for a weight"),
        ({"out/kernel": good * 1.0}, TypeError, "float64"),
        ({"out/bias": np.zeros(3, bool)}, ValueError, "out/bias, which is not pruned"),
        ({}, ValueError, "at least one mask"),
    ):
        with pytest.raises(error, match=words):
            snip_tf.set_masks(pruned, {"out/kernel": good, **bad} if bad else bad)
        np.testing.assert_equal(snip_tf.get_masks(pruned), masks)
        np.testing.assert_equal(pruned.get_weights(), weights)
    with pytest.raises(ValueError, match="no masks"):
        snip_tf.set_masks(network(), {"out/kernel": good})


def test_functions_that_are_traced_see_new_masks():
    pruned = pruned_network()
    traced = tf.function(lambda x: pruned(x, training=False))
    before = traced(X).numpy()
    snip_tf.set_masks(pruned, random_masks(pruned, seed=5))
    assert (traced(X).numpy() != before).any()
    np.testing.assert_allclose(traced(X), outputs(pruned), atol=1e-6)


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_quantizing_keeps_zeros(mode):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, "relu", name="a"),
            layers.Dense(4, name="b"),
        ]
    )
    masks = random_masks(model)
    pruned = snip_tf.apply_masks(model, masks)
    expected = np.asarray(pruned(X[:, 0]))
    pruned.quantize(mode)
    assert {layer.quantization_mode for layer in pruned.layers} == {mode}
    np.testing.assert_allclose(pruned(X[:, 0]), expected, atol=0.3)
    if mode == "float8":  # which goes on training
        pruned.compile("adam", LOSS)
        pruned.fit(X[:, 0], np.arange(16) % 4, epochs=2, verbose=0)
        np.testing.assert_equal(snip_tf.get_masks(pruned), masks)
        assert_zeros_at_least(pruned, masks)
        return
    for layer in pruned.layers:
        # Of the identity, a layer gives its kernel.
        inputs = np.eye(masks[f"{layer.name}/kernel"].shape[0], dtype=np.float32)
        kernel = np.asarray(layer(inputs)) - np.asarray(layer.bias)
        kernel = np.where(kernel > 0, kernel, 0) if layer.name == "a" else kernel
        assert not kernel[~masks[f"{layer.name}/kernel"]].any()


def test_other_ways_to_quantize_are_refused_with_advice():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="out")])
    pruned = snip_tf.apply_masks(model, random_masks(model))
    with pytest.raises(ValueError, match=r"int8.*'out'.*strip_pruning"):
        pruned.layers[0].quantize("nf4")
    assert snip_tf.get_masks(pruned)


def test_masks_of_low_rank_factors_are_refused():
    layer = layers.Dense(4, name="out")
    model = keras.Sequential([keras.Input((8,)), layer])
    layer.enable_lora(2)
    factor = np.ones((2, 4), bool)
    with pytest.raises(ValueError, match=r"out/lora_kernel_b.*masks would be lost"):
        snip_tf.apply_masks(model, {"out/lora_kernel_b": factor})
    with pytest.raises(ValueError, match="lora_kernel_b"):
        snip_tf.MaskedLayer(layer, {"lora_kernel_b": factor})
    with pytest.raises(ValueError, match="out/lora_kernel_a, out/lora_kernel_b"):
        snip_tf.prune_model(
            model, sparsity=0.5, criterion="magnitude", include="*/lora_*"
        )


def test_a_kernel_with_a_low_rank_update_is_refused(tmp_path):
    """Its bias is saved as it is."""
    layer = layers.Dense(4, name="out")
    model = keras.Sequential([keras.Input((8,)), layer])
    layer.enable_lora(2)
    with pytest.raises(ValueError, match=r"of out/kernel, of a low-rank update"):
        snip_tf.apply_masks(model, {"out/kernel": np.ones((8, 4), bool)})
    with pytest.raises(ValueError, match=r"of kernel, of a low-rank update"):
        snip_tf.MaskedLayer(layer, {"kernel": np.ones((8, 4), bool)})
    mask = np.array([True, False, True, False])
    pruned = snip_tf.apply_masks(model, {"out/bias": mask})
    pruned.compile("adam", LOSS)
    pruned.fit(X[:, 0], np.arange(16) % 4, verbose=0)
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_equal(snip_tf.get_masks(loaded), {"out/bias": mask})
    np.testing.assert_allclose(loaded(X[:, 0]), pruned(X[:, 0]), atol=1e-6)


def test_a_low_rank_update_inside_a_masked_layer_is_refused():
    """As code that adapts the layers of an attention one by one asks for it."""
    pruned, plain = pruned_network(), network()
    for model in (pruned, plain):
        attention = model.get_layer("attention")
        parts = [attention.query_dense, attention.value_dense]
        parts += [model.get_layer("block")._first]
        for part in parts:
            if model is plain:
                part.enable_lora(2)
                continue
            with pytest.raises(ValueError, match=r"LoRA.*strip_pruning"):
                part.enable_lora(2)
    assert len(snip_tf.strip_pruning(pruned).weights) == len(pruned.weights)


def test_zeros_stay_where_weights_are_set():
    """As `EarlyStopping` does, with weights from before the masks."""
    pruned, plain = pruned_network(), network(1)
    masks, before = snip_tf.get_masks(pruned), plain.get_weights()
    pruned.set_weights(before)
    assert_zeros(pruned, masks)
    paths = snip_tf.prunable_weights(plain)  # inside, layers have other names
    same_masks = dict(zip(paths, masks.values(), strict=True))
    expected = snip_tf.apply_masks(plain, same_masks)
    np.testing.assert_array_equal(outputs(pruned), outputs(expected))
    np.testing.assert_equal(plain.get_weights(), before)


def test_the_state_of_a_pruned_model_as_a_tree():
    """Keras wants no path twice in it."""
    pruned = pruned_network()
    pruned.compile("adam", LOSS)
    masks, expected = snip_tf.get_masks(pruned), outputs(pruned)
    state = pruned.get_state_tree(value_format="numpy_array")
    snip_tf.set_masks(pruned, random_masks(pruned, seed=5))
    pruned.set_state_tree(state)
    np.testing.assert_equal(snip_tf.get_masks(pruned), masks)
    np.testing.assert_array_equal(outputs(pruned), expected)


class MaskedConvolution(layers.Layer):
    """With a mask of its own among its weights, as in a PixelCNN."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")
        self.kernel_mask = self.add_weight(
            shape=(shape[-1], 4),
            name="kernel_mask",
            initializer="ones",
            trainable=False,
        )

    def call(self, x):
        return x @ (self.kernel * self.kernel_mask)


def test_a_mask_of_the_layers_own_in_the_state(tmp_path):
    model = keras.Sequential([keras.Input((8,)), MaskedConvolution(name="own")])
    pruned = snip_tf.apply_masks(model, random_masks(model))
    pruned.compile("adam", LOSS)
    state = pruned.get_state_tree(value_format="numpy_array")
    masks = snip_tf.get_masks(pruned)
    snip_tf.set_masks(pruned, random_masks(model, seed=5))
    pruned.set_state_tree(state)
    np.testing.assert_equal(snip_tf.get_masks(pruned), masks)
    expected = np.asarray(pruned(X[:, 0]))
    pruned.export(tmp_path / "saved_model", verbose=False)
    saved = tf.saved_model.load(tmp_path / "saved_model")
    np.testing.assert_allclose(saved.serve(X[:, 0]), expected, atol=1e-6)


def test_new_masks_reach_all_replicas():
    """And the steps that are traced already."""
    strategy = two_replicas()
    x, y = np.repeat(X, 2, axis=0), np.arange(32) % 3
    with strategy.scope():
        pruned = pruned_network()
        pruned.compile(keras.optimizers.Adam(0.01), LOSS)
    pruned.fit(x, y, verbose=0)
    masks = random_masks(pruned, seed=5)
    snip_tf.set_masks(pruned, masks)
    pruned.fit(x, y, epochs=2, verbose=0)
    weights = weights_by_path(pruned)
    for path, mask in masks.items():
        weight = weights[path]
        for value, kept in zip(
            strategy.experimental_local_results(weight.value),
            strategy.experimental_local_results(weight._snip_mask.value),
            strict=True,
        ):
            np.testing.assert_array_equal(kept, mask)
            assert not value.numpy()[~mask].any()

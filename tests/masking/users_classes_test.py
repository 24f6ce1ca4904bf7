"""Masks beside whatever the classes of a user's layers have."""

import gc
import tracemalloc
import weakref

import keras
import numpy as np
import pytest

import snip_tf
from tests.masking.networks import X, random_masks

layers = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
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
    names, attributes = {"__annotations__", *dir(layer)}, dict(vars(layer))
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

"""The configuration of a masked layer: in files, in clones, in code of its own."""

import json
import zipfile

import keras
import numpy as np
import pytest

from snip_tf import (
    MaskedLayer,
    apply_masks,
    get_masks,
    prunable_weights,
)
from tests.masking.layers import RNG, built, keep_all, random_masks


def test_from_config():
    layer = built(keras.layers.Dense(4, name="head"), 3)
    masks = random_masks(layer)
    masked = MaskedLayer(layer, masks)
    copy = MaskedLayer.from_config(masked.get_config())
    assert copy.name == "head"
    assert not copy.built
    copy.build((None, 3))
    np.testing.assert_equal(get_masks(copy), masks)
    np.testing.assert_array_equal(copy.kernel.numpy() != 0, masks["kernel"])
    assert copy.get_config() == masked.get_config()


def test_a_frozen_layer_stays_frozen():
    layer = built(keras.layers.Dense(4), 3)
    layer.trainable = False
    masked = MaskedLayer(layer, {"kernel": keep_all(3, 4)})
    assert masked.trainable_variables == []
    copy = MaskedLayer.from_config(masked.get_config())
    assert copy.trainable_variables == []


@keras.saving.register_keras_serializable("snip_tf_tests")
class MakesLayersInBuild(keras.layers.Layer):
    def build(self, shape):
        self.first, self.second = keras.layers.Dense(6), keras.layers.Dense(6)
        self.first.build(shape)
        self.second.build((None, 6))

    def call(self, x):
        return self.second(self.first(x))


def test_layers_made_in_build_are_found_again(tmp_path):
    model = keras.Sequential([keras.Input((3,)), MakesLayersInBuild(name="made")])
    weights = prunable_weights(model)
    masks = {path: RNG.random(w.shape) < 0.5 for path, w in weights.items()}
    pruned = apply_masks(model, masks)
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_equal(get_masks(loaded), masks)
    np.testing.assert_array_equal(loaded(np.ones((1, 3))), pruned(np.ones((1, 3))))


def renamed_in_file(path, change):
    """A `.keras` file whose configuration was changed by another hand."""
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    config = json.loads(parts["config.json"])
    for layer in config["config"]["layers"]:
        if layer["registered_name"] == "snip_tf>MaskedLayer":
            change(layer["config"])
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            is_config = name == "config.json"
            file.writestr(name, json.dumps(config) if is_config else content)


@pytest.mark.parametrize("made_in_a_call", [False, True])
def test_a_mask_of_an_unknown_weight_is_refused(tmp_path, made_in_a_call):
    layer = MakesLayersInCall() if made_in_a_call else keras.layers.Dense(4)
    model = keras.Sequential([keras.Input((3,)), layer])
    weights = prunable_weights(model)
    masks = {path: RNG.random(w.shape) < 0.5 for path, w in weights.items()}
    apply_masks(model, masks).save(tmp_path / "model.keras")

    def rename(config):
        [path] = config["masks"]
        config["masks"] = {path.replace("kernel", "kernal"): config["masks"][path]}

    renamed_in_file(tmp_path / "model.keras", rename)
    with pytest.raises((TypeError, ValueError), match="Did you mean"):
        get_masks(keras.models.load_model(tmp_path / "model.keras"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("masks", 5), ("masks", [1]), ("sublayer_names", None), ("sublayer_names", [3])],
)
def test_configurations_of_another_form_are_refused(name, value):
    masked = MaskedLayer(built(keras.layers.Dense(2), 3), {"kernel": keep_all(3, 2)})
    with pytest.raises(ValueError, match=f"without a valid {name}"):
        MaskedLayer.from_config({**masked.get_config(), name: value})


@pytest.mark.parametrize("kind", [keras.optimizers.SGD, keras.losses.MeanAbsoluteError])
def test_configurations_of_no_layer_are_refused(kind):
    masked = MaskedLayer(built(keras.layers.Dense(2), 3), {"kernel": keep_all(3, 2)})
    other = keras.saving.serialize_keras_object(kind())
    for config, name in ((other, kind.__name__), ({}, "dict")):
        with pytest.raises(ValueError, match=f"to describe a layer.*{name}"):
            MaskedLayer.from_config({**masked.get_config(), "layer": config})


@keras.saving.register_keras_serializable("snip_tf_tests")
class MakesLayersInCall(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(4, name="dense")

    def call(self, x):
        return self.dense(x)


@pytest.mark.parametrize("of", [lambda self: self.__class__, type])
def test_code_of_a_layer_may_ask_for_its_class(of, tmp_path):
    class Base(keras.layers.Dense):
        def call(self, x):
            return 2 * super().call(x)

    @keras.saving.register_keras_serializable("snip_tf_tests")
    class Asks(Base):
        def build(self, shape):
            super(of(self), self).build(shape)

        def call(self, x):
            assert of is type or self.__class__ is Asks
            return 1 + super(of(self), self).call(x)

        def get_config(self):
            return super(of(self), self).get_config()

    model = keras.Sequential([keras.Input((3,)), Asks(4, name="asks")])
    masks = {"asks/kernel": RNG.random((3, 4)) < 0.5}
    pruned, x = apply_masks(model, masks), np.ones((2, 3), np.float32)
    kernel = model.get_weights()[0] * masks["asks/kernel"]
    np.testing.assert_allclose(pruned(x), 1 + 2 * x @ kernel, rtol=1e-5)
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), pruned(x))


def test_a_functional_class_with_a_constructor_of_its_own_is_cloned():
    class Own(keras.Model):
        def __init__(self, units=4, **kwargs):
            x = keras.Input((3,))
            super().__init__(x, keras.layers.Dense(units, name="out")(x), **kwargs)
            self.units = units

        def get_config(self):
            return {"units": self.units, "name": self.name}

    pruned = apply_masks(Own(), {"out/kernel": RNG.random((3, 4)) < 0.5})
    clone = keras.models.clone_model(pruned)
    np.testing.assert_equal(get_masks(clone), get_masks(pruned))


def test_a_class_that_is_not_registered_is_cloned():
    class Mine(keras.layers.Dense):
        pass

    class Net(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.out = keras.layers.Dense(2, name="out")

        def call(self, x):
            return self.out(x)

        def get_config(self):
            return {"name": self.name}

    x = keras.Input((3,))
    model = keras.Model(x, Net(name="net")(Mine(4, name="mine")(x)))
    pruned = apply_masks(model, random_masks(model))
    np.testing.assert_equal(
        get_masks(keras.models.clone_model(pruned)), get_masks(pruned)
    )
    layer = pruned.get_layer("mine")
    assert type(type(layer).from_config(layer.get_config())) is type(layer)

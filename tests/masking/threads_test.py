"""A pruned model that several threads read at once."""

import concurrent.futures
import json
import threading

import keras
import numpy as np

import snip_tf
from tests.masking.networks import X, random_masks

layers = keras.layers


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

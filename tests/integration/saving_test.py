"""A pruned model is an ordinary file: load_model after a bare import of snip_tf."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf.weights import weights_by_path

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

# Runs where the model was not made: loads, compares, trains on, compares again.
_ELSEWHERE = """
import json, sys
import keras, numpy as np
import snip_tf

folder = sys.argv[1]
data = np.load(folder + "/data.npz")
model = keras.models.load_model(folder + "/model.keras")
masks = snip_tf.get_masks(model)
flat = {path.replace("/", "|"): mask for path, mask in masks.items()}
np.savez(folder + "/masks.npz", **flat)
same = np.array_equal(model.predict(data["x"], verbose=0), data["outputs"])
model.fit(data["x"], data["y"], epochs=2, verbose=0)
weights = snip_tf.prunable_weights(model)
zeros = all(not weights[path].numpy()[~mask].any() for path, mask in masks.items())
moved = not np.array_equal(model.predict(data["x"], verbose=0), data["outputs"])
print(json.dumps({"same": same, "zeros": zeros, "moved": moved}))
"""


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 8, 8, 1)).astype(np.float32), rng.integers(4, size=32)


@pytest.fixture(scope="module")
def pruned(data):
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 1))
    y = keras.layers.Conv2D(4, 3, name="conv")(x)
    y = keras.layers.BatchNormalization(name="norm")(y)
    y = keras.layers.Flatten(name="flat")(y)
    inner = keras.Sequential(
        [keras.Input((144,)), keras.layers.Dense(8, name="fc")], name="in"
    )
    y = keras.layers.Dropout(0.2, name="drop")(inner(y))
    model = keras.Model(x, keras.layers.Dense(4, name="head")(y), name="net")
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), LOSS, metrics=["accuracy"])
    pruned = snip_tf.prune_model(model, *data, sparsity=0.8)
    pruned.fit(*data, verbose=0)
    return pruned


def test_loads_in_a_new_process_and_trains_on(pruned, data, tmp_path):
    pruned.save(tmp_path / "model.keras")
    outputs = pruned.predict(data[0], verbose=0)
    np.savez(tmp_path / "data.npz", x=data[0], y=data[1], outputs=outputs)
    command = [sys.executable, "-c", _ELSEWHERE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"same": True, "zeros": True, "moved": True}
    with np.load(tmp_path / "masks.npz") as masks:
        for path, mask in snip_tf.get_masks(pruned).items():
            np.testing.assert_array_equal(masks[path.replace("/", "|")], mask)


def test_stripped_file_needs_no_snip_tf(pruned, data, tmp_path):
    stripped = snip_tf.strip_pruning(pruned)
    stripped.save(tmp_path / "plain.keras")
    outputs = pruned.predict(data[0], verbose=0)
    np.testing.assert_array_equal(stripped.predict(data[0], verbose=0), outputs)
    np.savez(tmp_path / "data.npz", x=data[0], outputs=outputs)
    code = (
        "import sys, keras, numpy as np\n"
        "data = np.load(sys.argv[1] + '/data.npz')\n"
        "model = keras.models.load_model(sys.argv[1] + '/plain.keras')\n"
        "assert np.array_equal(model.predict(data['x'], verbose=0), data['outputs'])\n"
        "assert 'snip_tf' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@keras.saving.register_keras_serializable(package="tests")
class Block(keras.layers.Layer):
    """Holds layers without names of their own, which Keras numbers as they come."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.parts = [keras.layers.Dense(units), keras.layers.Dense(units)]

    def build(self, shape):
        for part in self.parts:
            part.build(shape)
            shape = (*shape[:-1], self.units)

    def call(self, x):
        return self.parts[1](self.parts[0](x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def test_paths_through_numbered_sublayers_stay(tmp_path):
    model = keras.Sequential([keras.Input((3,)), Block(4, name="block")])
    paths = list(snip_tf.prunable_weights(model))
    masks = {
        path: np.random.default_rng(0).random(w.shape) < 0.5
        for path, w in snip_tf.prunable_weights(model).items()
    }
    pruned = snip_tf.apply_masks(model, masks)
    pruned.save(tmp_path / "block.keras")
    loaded = keras.models.load_model(tmp_path / "block.keras")
    x = np.ones((2, 3), np.float32)
    for each in (pruned, loaded):
        assert list(snip_tf.get_masks(each)) == paths
        np.testing.assert_equal(snip_tf.get_masks(each), masks)
        np.testing.assert_array_equal(each(x), pruned(x))
    assert list(snip_tf.prunable_weights(snip_tf.strip_pruning(loaded))) == paths


def test_weights_can_be_saved_alone(pruned, data, tmp_path):
    pruned.save_weights(tmp_path / "some.weights.h5")
    copy = keras.models.clone_model(pruned)
    copy.load_weights(tmp_path / "some.weights.h5")
    np.testing.assert_array_equal(
        copy.predict(data[0], verbose=0), pruned.predict(data[0], verbose=0)
    )
    np.testing.assert_equal(snip_tf.get_masks(copy), snip_tf.get_masks(pruned))


def test_masks_move_to_another_copy_of_the_model(pruned, tmp_path):
    snip_tf.save_masks(tmp_path / "masks.npz", snip_tf.get_masks(pruned))
    plain = snip_tf.strip_pruning(pruned)
    for weight in weights_by_path(plain).values():
        weight.assign(weight + 1)
    again = snip_tf.apply_masks(plain, snip_tf.load_masks(tmp_path / "masks.npz"))
    np.testing.assert_equal(snip_tf.get_masks(again), snip_tf.get_masks(pruned))
    assert snip_tf.sparsity(again) == snip_tf.sparsity(pruned)

import io

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from snip_tf import _keras
from tests.versions import since

layers = keras.layers


X, Y = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)


def small_model():
    return keras.Sequential([keras.Input((3,)), layers.Dense(2, name="dense")])


def test_the_converter_raises_its_error():
    inverse = tf.function(tf.math.erfinv, input_signature=[tf.TensorSpec([2])])
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [inverse.get_concrete_function()]
    )
    with pytest.raises(_keras.converter_error()):
        converter.convert()


def test_litert_schema_reads_a_file():
    double = tf.function(lambda x: 2 * x, input_signature=[tf.TensorSpec([2])])
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [double.get_concrete_function()]
    )
    file = _keras.litert_schema().Model.GetRootAs(converter.convert())
    assert file.SubgraphsLength() == 1
    assert file.Subgraphs(0).TensorsLength() >= 2


class Part(_keras.SavedPart):
    """Saves a number, and knows which names were in its file."""

    def save_own_variables(self, store):
        store["number"] = np.array([7.0])

    def load_own_variables(self, store):
        self.loaded = store["number"][()]
        self.paths = list(_keras.paths_in(store))


@pytest.mark.parametrize("shards", [None, pytest.param(3e-8, marks=since("3.10"))])
def test_saved_part(tmp_path, shards):
    models = small_model(), small_model()
    for model in models:
        object.__setattr__(model.layers[0], "own_part", Part())
    name = "model.weights.h5" if shards is None else "model.weights.json"
    options = {} if shards is None else {"max_shard_size": shards}
    models[0].save_weights(tmp_path / name, **options)
    models[1].load_weights(tmp_path / name)
    part = models[1].layers[0].own_part
    assert part.loaded == [7.0]
    assert any("own_part" in path.split("/") for path in part.paths)


def test_paths_in_a_store_of_another_kind():
    assert list(_keras.paths_in({})) == []
    with h5py.File(io.BytesIO(), "w") as file:
        file["a/b"] = X
        store = type("Store", (), {"h5_file": file})()
        assert set(_keras.paths_in(store)) == {"a", "a/b"}

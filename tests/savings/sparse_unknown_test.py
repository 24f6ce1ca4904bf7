import keras
import numpy as np
import pytest

import snip_tf
from tests.savings.sparse_files import parts, write

layers = keras.layers


class Unregistered(layers.Dense):
    pass


def test_says_which_class_is_not_known(tmp_path):
    path = tmp_path / "m"
    model = keras.Sequential([keras.Input((2,)), Unregistered(3)])
    snip_tf.export(model, path, "sparse", print_fn=lambda line: None)
    header, data = parts(path)
    header["model"]["config"]["layers"][1]["module"] = "of_another_process"
    write(path, header, data)
    with pytest.raises(ValueError, match="needs the class 'Unregistered'") as raised:
        snip_tf.load_sparse(path)
    assert "damaged" not in str(raised.value)
    with keras.saving.custom_object_scope({"Unregistered": Unregistered}):
        loaded = snip_tf.load_sparse(path)
    np.testing.assert_array_equal(loaded.weights[0], model.weights[0])


class UnregisteredConstraint(keras.constraints.Constraint):
    def __call__(self, weight):
        return weight


def test_says_which_part_of_a_layer_is_not_known(tmp_path):
    path = tmp_path / "m"
    dense = layers.Dense(3, kernel_constraint=UnregisteredConstraint())
    model = keras.Sequential([keras.Input((2,)), dense])
    snip_tf.export(model, path, "sparse", print_fn=lambda line: None)
    header, data = parts(path)
    of_layer = header["model"]["config"]["layers"][1]["config"]
    of_layer["kernel_constraint"]["module"] = None
    write(path, header, data)
    name = "UnregisteredConstraint"
    with pytest.raises(ValueError, match=f"needs the class '{name}'") as raised:
        snip_tf.load_sparse(path)
    assert len(str(raised.value)) < 500  # and not the whole configuration
    with keras.saving.custom_object_scope({name: UnregisteredConstraint}):
        snip_tf.load_sparse(path)


@pytest.mark.parametrize(
    ("role", "settings"),
    [
        ("activation function", {"activation": lambda x: 2 * x}),
        ("initializer", {"kernel_initializer": lambda s, dtype: keras.ops.ones(s)}),
    ],
)
def test_says_which_lambda_cannot_be_read(tmp_path, role, settings):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2, **settings)])
    with pytest.warns(UserWarning, match="lambda"):  # of Keras
        snip_tf.export(model, tmp_path / "m", "sparse", print_fn=lambda line: None)
    with pytest.raises(ValueError, match=f"lambda as {role}, which Keras") as raised:
        snip_tf.load_sparse(tmp_path / "m")
    assert len(str(raised.value)) < 600


def test_says_that_a_lambda_is_code(tmp_path):
    path = tmp_path / "m"
    inputs = keras.Input((2,))
    model = keras.Model(inputs, layers.Lambda(lambda x: 2 * x)(layers.Dense(2)(inputs)))
    snip_tf.export(model, path, "sparse", print_fn=lambda line: None)
    with pytest.raises(ValueError, match="enable_unsafe_deserialization") as raised:
        snip_tf.load_sparse(path)
    assert "damaged" not in str(raised.value)

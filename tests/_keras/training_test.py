import keras
import numpy as np

from snip_tf import _keras

X, Y = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)


layers = keras.layers


def small_model():
    return keras.Sequential([keras.Input((3,)), layers.Dense(2, name="dense")])


def test_autocast():
    for cast in (True, False):
        assert (
            _keras.variable_settings(keras.Variable(X, autocast=cast))["autocast"]
            is cast
        )


def test_path():
    variable = keras.Variable(X, name="one")
    _keras.set_path(variable, "other/two")
    assert variable.path == "other/two"


def test_has_value():
    variable = keras.Variable(X)
    assert _keras.has_value(variable)
    # As Keras does on JAX.
    variable._value = None
    assert not _keras.has_value(variable)


def test_compile_config():
    def loss(y_true, y_pred):
        return y_pred

    model = small_model()
    model.compile("adam", loss, loss_weights=[2.0], metrics=["mae"], jit_compile=False)
    config = _keras.compile_config(model)
    assert config["loss"] is loss
    assert config["loss_weights"] == [2.0]
    assert config["metrics"] == ["mae"]
    assert config["optimizer"] is model.optimizer
    assert config["jit_compile"] is False


def test_settings_of_a_loss():
    loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1)
    settings = _keras.loss_settings(loss)
    assert settings["from_logits"] is True and settings["label_smoothing"] == 0.1


def test_slots_of_optimizers():
    weights = [keras.Variable(X), keras.Variable(Y)]
    adagrad = keras.optimizers.Adagrad(initial_accumulator_value=0.25)
    adam = keras.optimizers.Adam()
    for optimizer in (adagrad, adam):
        assert list(_keras.trained_by(optimizer)) == []
        optimizer.build(weights)
        assert list(_keras.trained_by(optimizer)) == weights
        assert _keras.position_in(optimizer, weights[1]) == 1
        assert vars(optimizer)["_trainable_variables"] is _keras.trained_by(optimizer)
    assert _keras.first_value(adagrad, "_accumulators") == 0.25
    np.testing.assert_array_equal(adagrad._accumulators[0], np.full_like(X, 0.25))
    assert _keras.first_value(adam, "_momentums") == 0
    assert not np.any(adam._momentums[0])


def test_averages_of_optimizers():
    weights = [keras.Variable(X), keras.Variable(Y)]
    optimizer = keras.optimizers.SGD(use_ema=True)
    optimizer.build(weights)
    pairs = list(_keras.averages_of(optimizer))
    assert [weight for weight, _ in pairs] == weights
    assert all(average.shape == weight.shape for weight, average in pairs)
    optimizer = keras.optimizers.SGD()
    optimizer.build(weights)
    assert list(_keras.averages_of(optimizer)) == []

import keras

from snip_tf.masking.compiling import compile_arguments


def test_the_arguments_of_compile_are_the_very_objects():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    assert compile_arguments(model) == {}

    def loss(y_true, y_pred):
        return y_pred

    model.compile("adam", loss, loss_weights=[2.0], metrics=["mae"], jit_compile=False)
    arguments = compile_arguments(model)
    assert arguments["loss"] is loss
    assert arguments["loss_weights"] == [2.0]
    assert arguments["metrics"] == ["mae"]
    assert arguments["optimizer"] is model.optimizer
    assert arguments["jit_compile"] is False

import keras
import numpy as np
import pytest

from snip_tf import prunable_weights
from snip_tf.experiments.models.lenet import lenet5, lenet300


def output_shapes(model):
    return {layer.name: layer.output.shape[1:] for layer in model.layers}


def arrays(model):
    return [weight.numpy().astype(np.float64) for weight in model.weights]


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


@pytest.mark.parametrize(
    ("make", "parameters", "prunable"),
    [(lenet300, 266_610, 266_200), (lenet5, 431_080, 430_500)],
)
def test_parameters_of_the_paper(make, parameters, prunable):
    model = make()
    assert model.count_params() == parameters
    sizes = [np.prod(weight.shape) for weight in prunable_weights(model).values()]
    assert sum(sizes) == prunable


def test_lenet300_is_made_of_three_dense_layers():
    assert output_shapes(lenet300()) == {
        "flatten": (784,),
        "dense1": (300,),
        "dense2": (100,),
        "logits": (10,),
    }


def test_lenet5_is_made_of_two_pooled_convolutions_and_two_dense_layers():
    assert output_shapes(lenet5()) == {
        "conv1": (24, 24, 20),
        "pool1": (12, 12, 20),
        "conv2": (8, 8, 50),
        "pool2": (4, 4, 50),
        "flatten": (800,),
        "dense1": (500,),
        "logits": (10,),
    }


def test_lenet300_computes_relu_of_relu_and_then_logits():
    model = lenet300((6, 5, 2), classes=4)
    x = images(3, 6, 5, 2)
    w1, b1, w2, b2, w3, b3 = arrays(model)
    hidden = np.maximum(x.reshape(3, 60) @ w1 + b1, 0)
    hidden = np.maximum(hidden @ w2 + b2, 0)
    np.testing.assert_allclose(model(x), hidden @ w3 + b3, rtol=1e-4, atol=1e-5)


def test_lenet5_has_one_relu_only_in_its_dense_layer():
    model = lenet5((18, 16, 2), classes=4)
    for weight in model.weights:  # biases too, so that their place is seen
        weight.assign(0.1 * images(*weight.shape))
    x = images(3, 18, 16, 2)
    k1, c1, k2, c2, w3, b3, w4, b4 = arrays(model)
    hidden = pooled(convolved(x, k1) + c1)
    hidden = pooled(convolved(hidden, k2) + c2)
    hidden = np.maximum(hidden.reshape(3, -1) @ w3 + b3, 0)
    np.testing.assert_allclose(model(x), hidden @ w4 + b4, rtol=1e-4, atol=1e-5)


def convolved(x, kernel):
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))
    return np.einsum("brschw,hwcf->brsf", windows, kernel)


def pooled(x):
    # An odd row or column at the end is left out.
    batch, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    shape = (batch, height // 2, 2, width // 2, 2, channels)
    return x.reshape(shape).max(axis=(2, 4))


def test_lenet5_takes_images_from_16_pixels_on():
    assert lenet5((16, 16, 3)).output_shape == (None, 10)
    with pytest.raises(ValueError):
        lenet5((15, 15, 3))


@pytest.mark.parametrize("make", [lenet300, lenet5])
def test_another_number_of_classes(make):
    model = make(classes=7)
    assert model.output_shape == (None, 7)
    assert model.layers[-1].activation is keras.activations.linear

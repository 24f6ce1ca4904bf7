import re

import keras
import numpy as np
import pytest

from snip_tf import models, prunable_weights

LENETS = ("lenet300", "lenet5")


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


def kernels(model):
    return [weight.numpy() for weight in prunable_weights(model).values()]


def biases(model):
    return [w.numpy() for w in model.trainable_weights if w.name == "bias"]


def fans(shape):
    """Inputs and outputs of one unit of a dense layer, or of a convolution."""
    positions = np.prod(shape[:-2])
    return positions * shape[-2], positions * shape[-1]


@pytest.mark.parametrize(
    ("name", "parameters", "prunable"),
    [("lenet300", 266_610, 266_200), ("lenet5", 431_080, 430_500)],
)
def test_the_default_networks_are_the_papers(name, parameters, prunable):
    model = models.build(name)
    assert model.built
    assert model.name == name
    assert model.input_shape == (None, 28, 28, 1)
    assert model.count_params() == parameters
    assert sum(kernel.size for kernel in kernels(model)) == prunable


@pytest.mark.parametrize("name", LENETS)
def test_takes_a_shape_and_a_number_of_classes(name):
    model = models.build(name, input_shape=(20, 16, 3), classes=7)
    assert model(np.zeros((2, 20, 16, 3))).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("vgg_d", (28, 28, 1)), ("lenet5", (8, 8, 1)), ("alexnet_s", (784,))],
)
def test_says_that_a_shape_does_not_fit(name, shape):
    with pytest.raises(
        ValueError, match=rf"shape` that {name} can.*{re.escape(str(shape))}"
    ) as caught:
        models.build(name, input_shape=shape)
    assert str(caught.value).isprintable(), "in one line, without colours"


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=r"Received: name='lenet'") as caught:
        models.build("lenet")
    assert set(LENETS) <= set(models.MODELS)
    for name in models.MODELS:
        assert repr(name) in str(caught.value)


# Variances: 1 / inputs; after Glorot 2 / (inputs + outputs); after He 2 / inputs.
@pytest.mark.parametrize(
    ("initializer", "variance"),
    [
        ("vs", lambda inputs, outputs: 1 / inputs),
        ("vs-x", lambda inputs, outputs: 2 / (inputs + outputs)),
        ("vs-h", lambda inputs, outputs: 2 / inputs),
    ],
)
def test_initializers_by_name_have_the_variance_of_the_formula(initializer, variance):
    drawn = []
    for name in LENETS:
        drawn += kernels(models.build(name, kernel_initializer=initializer))
    for kernel in drawn:
        expected = variance(*fans(kernel.shape))
        # The sample's variance of n normal numbers has a deviation of sqrt(2 / n).
        tolerance = 5 * np.sqrt(2 / kernel.size)
        np.testing.assert_allclose(kernel.var(), expected, rtol=tolerance)
        assert abs(kernel.mean()) < 5 * np.sqrt(expected / kernel.size)
        # Normal numbers cut off at twice their deviation: 0.88 of it remains.
        largest = 2 / 0.8796 * np.sqrt(expected)
        assert 0.7 * largest < abs(kernel).max() <= 1.001 * largest


def test_the_default_is_vs_with_zero_biases():
    default = models.build("lenet300")
    keras.utils.set_random_seed(0)
    named = models.build("lenet300", kernel_initializer="vs", bias_initializer="zeros")
    for a, b in zip(default.get_weights(), named.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.concatenate(biases(default)).any()


def test_biases_have_an_initializer_of_their_own():
    model = models.build("lenet5", kernel_initializer="zeros", bias_initializer="ones")
    assert not np.concatenate([kernel.ravel() for kernel in kernels(model)]).any()
    assert (np.concatenate(biases(model)) == 1).all()


@pytest.mark.parametrize("name", LENETS)
@pytest.mark.parametrize(
    "make",
    [
        lambda: "vs",
        lambda: "vs-x",
        lambda: "glorot_uniform",
        lambda: keras.initializers.HeNormal(),
        lambda: keras.initializers.HeNormal(seed=1),
        lambda: keras.initializers.HeNormal(seed=keras.random.SeedGenerator(1)),
    ],
    ids=["vs", "vs-x", "by Keras' name", "unseeded", "seeded", "seed generator"],
)
def test_layers_do_not_draw_the_same_numbers(name, make):
    drawn = kernels(models.build(name, kernel_initializer=make()))
    for number, first in enumerate(drawn):
        for second in drawn[number + 1 :]:
            count = min(first.size, second.size)
            pair = first.ravel()[:count], second.ravel()[:count]
            assert abs(np.corrcoef(*pair)[0, 1]) < 5 / np.sqrt(count)


def test_each_network_is_another_draw_unless_seeded_again():
    first, second = (kernels(models.build("lenet300"))[0] for _ in range(2))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02
    keras.utils.set_random_seed(0)
    again = kernels(models.build("lenet300"))[0]
    np.testing.assert_array_equal(again, first)


@pytest.mark.parametrize("which", ["kernel_initializer", "bias_initializer"])
def test_an_unknown_initializer_lists_the_known(which):
    with pytest.raises(ValueError, match=r"'vs', 'vs-x', 'vs-h'.*'vs-y'"):
        models.build("lenet300", **{which: "vs-y"})


def test_a_function_may_be_the_initializer():
    """As with any Keras layer."""

    def half(shape, dtype=None):
        return np.full(shape, 0.5, dtype)

    drawn = kernels(models.build("lenet300", kernel_initializer=half))
    assert all((kernel == 0.5).all() for kernel in drawn)


@pytest.mark.parametrize("which", ["kernel", "bias"])
def test_regularizers_reach_every_layer(which):
    regularizer = {f"{which}_regularizer": keras.regularizers.L2(0.5)}
    model = models.build("lenet5", bias_initializer="ones", **regularizer)
    chosen = {"kernel": kernels, "bias": biases}[which](model)
    expected = sum(0.5 * (w.astype(np.float64) ** 2).sum() for w in chosen)
    np.testing.assert_allclose(sum(model.losses), expected, rtol=1e-5)

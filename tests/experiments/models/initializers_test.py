import keras
import numpy as np
import pytest

from snip_tf.experiments.models.initializers import INITIALIZERS, for_layer

SHAPE = (30, 40)


def draw(initializer, layer=0):
    return np.asarray(for_layer(initializer, layer)(SHAPE))


def test_the_papers_names():
    assert set(INITIALIZERS) == {"rn", "tn", "vs", "vs-x", "vs-h", "zeros"}


@pytest.mark.parametrize(
    ("name", "variance", "limit"),
    [
        ("rn", 1, np.inf),
        # Cut off at two deviations, a normal distribution keeps 0.774 of its variance.
        ("tn", 0.774, 2),
        ("vs", 1 / 300, 2.3 / np.sqrt(300)),
        ("vs-x", 2 / 700, 2.3 * np.sqrt(2 / 700)),
        ("vs-h", 2 / 300, 2.3 * np.sqrt(2 / 300)),
    ],
)
def test_variances(name, variance, limit):
    keras.utils.set_random_seed(0)
    drawn = np.asarray(for_layer(name, 0)((300, 400)))
    np.testing.assert_allclose((drawn**2).mean(), variance, rtol=0.02)
    assert abs(drawn.mean()) < 0.02 * np.sqrt(variance)
    assert abs(drawn).max() <= limit


def test_names_that_keras_knows_are_known_too():
    keras.utils.set_random_seed(0)
    drawn = draw("he_uniform")
    limit = np.sqrt(6 / SHAPE[0])
    assert 0.95 * limit < abs(drawn).max() <= limit


def test_an_unseeded_initializer_draws_anew_for_each_layer():
    shared = keras.initializers.GlorotNormal()
    assert (draw(shared) != draw(shared)).mean() > 0.99


def test_a_seed_gives_each_layer_its_own_numbers_and_repeats_them():
    seeded = keras.initializers.GlorotNormal(seed=3)
    first, second = draw(seeded, 0), draw(seeded, 1)
    assert (first != second).mean() > 0.99
    np.testing.assert_array_equal(draw(seeded, 0), first)
    np.testing.assert_array_equal(draw(seeded, 1), second)
    np.testing.assert_array_equal(first, seeded(SHAPE))


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=r"'vs', 'vs-x', 'vs-h', 'zeros'.*'vs-y'"):
        for_layer("vs-y", 0)

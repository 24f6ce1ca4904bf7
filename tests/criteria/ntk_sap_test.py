"""NTK-SAP against its formula, with derivatives by hand in NumPy."""

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf.criteria import NtkSap

layers = keras.layers


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5, "relu", name="a"),
            layers.Dense(3, name="b"),
        ]
    )


def by_hand(seed, batch_size, batches, epsilon):
    """|dR/dm| at m = 1, in the order in which the criterion draws."""
    rng = np.random.default_rng([seed, 6 * 5 + 5 * 3])
    total = [np.zeros((6, 5)), np.zeros((5, 3))]
    for _ in range(batches):
        x = rng.normal(size=(batch_size, 6))
        pairs = []
        for shape in ((6, 5), (5, 3)):
            w = rng.normal(scale=np.sqrt(2 / shape[0]), size=shape)
            pairs.append((w, w + rng.normal(scale=epsilon, size=shape)))
        outputs, hidden = [], []
        for which in (0, 1):
            h = np.maximum(x @ pairs[0][which], 0)
            hidden.append(h)
            outputs.append(h @ pairs[1][which])
        by_output = 2 * (outputs[0] - outputs[1])
        gradients = [np.zeros((6, 5)), np.zeros((5, 3))]
        for which, sign in ((0, 1), (1, -1)):
            d = sign * by_output
            gradients[1] += hidden[which].T @ d * pairs[1][which]
            d_hidden = d @ pairs[1][which].T * (hidden[which] > 0)
            gradients[0] += x.T @ d_hidden * pairs[0][which]
        for sums, gradient in zip(total, gradients, strict=True):
            sums += np.abs(gradient) / batches
    return total


def test_scores_against_numpy():
    criterion = NtkSap(batches=3, batch_size=16, epsilon=0.1)
    found = snip_tf.score(network(), criterion=criterion, seed=4)
    for score, own in zip(found.values(), by_hand(4, 16, 3, 0.1), strict=True):
        np.testing.assert_allclose(score, own, rtol=2e-4, atol=1e-5 * own.max())


def test_the_weights_do_not_matter():
    model, criterion = network(), NtkSap(steps=2, batches=1)
    first = snip_tf.score(model, criterion=criterion, seed=0)
    for weight in model.trainable_weights:
        if weight.name == "kernel":
            weight.assign(2 * weight)
    second = snip_tf.score(model, criterion=criterion, seed=0)
    for path, score in first.items():
        np.testing.assert_array_equal(second[path], score)


def test_prunes_in_steps():
    criterion = NtkSap(steps=5, batches=1, batch_size=8)
    model = network()
    before = [np.array(weight) for weight in model.get_weights()]
    pruned = snip_tf.prune_model(model, sparsity=0.6, criterion=criterion, seed=0)
    assert snip_tf.sparsity(pruned) == pytest.approx(0.6, abs=0.02)
    again = snip_tf.prune_model(model, sparsity=0.6, criterion=criterion, seed=0)
    for path, mask in snip_tf.get_masks(pruned).items():
        np.testing.assert_array_equal(mask, snip_tf.get_masks(again)[path])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_tokens_are_refused():
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            layers.Embedding(10, 4),
            layers.Dense(3, name="a"),
        ]
    )
    with pytest.raises(ValueError, match=r"real numbers.*int32"):
        snip_tf.prune_model(model, sparsity=0.5, criterion="ntk_sap")


@pytest.mark.parametrize("name", ["steps", "batches", "batch_size", "epsilon"])
def test_bad_settings(name):
    with pytest.raises(ValueError, match=f"{name}=0"):
        NtkSap(**{name: 0})

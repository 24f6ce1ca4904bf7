"""Models that override `compute_loss`."""

import threading

import keras
import numpy as np
import pytest

import snip_tf
from tests.scoring.of_fit import (
    WEIGHT,
    Adds,
    X,
    Y,
    assert_scored,
    functional,
    of_fit,
)

ops = keras.ops


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


class Alone(keras.Model):
    """All of the loss, as before Keras 3.3, with a metric and what layers add."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = keras.metrics.Mean()

    def compute_loss(self, inputs, targets, outputs, weights=None):
        loss = ops.mean(ops.abs(outputs - targets)) + sum(self.losses)
        self.seen.update_state(loss)
        return loss


class Keywords(keras.Model):
    def compute_loss(self, x, y, y_pred, *args, **kwargs):
        loss = super().compute_loss(x, y, y_pred, *args, **kwargs)
        return loss + ops.mean(ops.exp(y_pred))


class Positional(keras.Model):
    def compute_loss(self, *args):
        return super().compute_loss(*args) + ops.mean(ops.square(args[2]))


class Inner(keras.Model):
    """Adds the penalties of a layer by hand, which are then no others than Keras'."""

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        return ops.mean(ops.square(y - y_pred)) + sum(self.get_layer("out").losses)


@pytest.mark.parametrize("regularizer", [None, "l2"])
@pytest.mark.parametrize("cls", [Adds, Alone, Keywords, Positional])
def test_an_own_compute_loss(cls, regularizer):
    model = functional(cls, regularizer, activity_regularizer="l1")
    model.compile("sgd", "mse")
    data = (X, Y) if cls is Alone else (X, Y, WEIGHT)
    expected = of_fit(model, *data)
    assert_scored(model, expected, *data)
    masks = snip_tf.get_masks(snip_tf.prune_model(model, *data, sparsity=0.5))
    chosen = snip_tf.select_masks(expected, 0.5)
    assert sum((masks[path] != chosen[path]).sum() for path in masks) <= 2


def test_penalties_of_a_layer_in_compute_loss():
    model = functional(Inner, "l2")
    model.compile("sgd")
    plain = functional()
    plain.set_weights(model.get_weights())
    plain.compile("sgd", "mse")
    found = [snip_tf.connection_sensitivity(m, X, Y) for m in (model, plain)]
    for one, other in zip(*(scores.values() for scores in found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-8)


def test_penalties_are_in_the_losses_of_every_other_thread():
    seen = []
    model = functional(Alone, "l2")

    class Watches(Alone):
        def compute_loss(self, *args, **kwargs):
            looks = threading.Thread(target=lambda: seen.append(sum(model.losses) > 0))
            looks.start()
            looks.join()
            seen.append(sum(self.losses) > 0)
            assert len(self.losses) == 2  # zeros, for who adds them up
            return super().compute_loss(*args, **kwargs)

    watching = functional(Watches, "l2")
    watching.compile("sgd")
    snip_tf.connection_sensitivity(watching, X, Y)
    assert seen == [True, False]
    assert sum(watching.losses) > 0


def test_compute_loss_needs_no_compiled_loss():
    model = functional(Alone)
    model.compile("sgd")
    assert_scored(model, of_fit(model, X, Y), X, Y)
    # With NumPy's usual type, as `fit` takes it.
    double = X.astype(np.float64), Y.astype(np.float64)
    assert_scored(model, of_fit(model, X, Y), *double)


def test_a_loss_replaces_compute_loss():
    model, plain = functional(Adds), functional()
    plain.set_weights(model.get_weights())
    plain.compile("sgd", "mae")
    model.compile("sgd", "mse")
    assert_scored(model, of_fit(plain, X, Y), X, Y, loss="mae")

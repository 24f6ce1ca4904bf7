"""What `fit` minimizes, computed by hand and by the library."""

import keras
import numpy as np

import snip_tf
from snip_tf import _backend
from snip_tf.network import prunable_weights
from snip_tf.scoring.examples import as_tensors
from snip_tf.scoring.gradients import mean_derivative
from snip_tf.scoring.objective import Objective

layers, ops = keras.layers, keras.ops

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype(np.float32)
Y = RNG.normal(size=(24, 2)).astype(np.float32)
WEIGHT = RNG.random(24).astype(np.float32)


class Adds(keras.Model):
    """A term of the outputs beside the compiled loss."""

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if training:
            loss += 3 * ops.mean(ops.square(y_pred[:, 0] - ops.sum(x, axis=-1)))
        return loss


def of_fit(model, x, y=None, sample_weight=None, training=False):
    """w * dL/dw of what `fit` minimizes but for the penalties, in magnitude."""
    weights = prunable_weights(model)
    x, y, sample_weight = as_tensors((x, y, sample_weight))

    def minimized(values):
        given = [(weights[path], value) for path, value in values.items()]
        with keras.StatelessScope(given, collect_losses=True):
            y_pred = model(x, training=training)
            loss = model.compute_loss(x, y, y_pred, sample_weight)
            for variable in model.trainable_variables:
                if variable.regularizer is not None:
                    loss -= variable.regularizer(ops.convert_to_tensor(variable))
        return loss, None

    values = {path: ops.convert_to_tensor(w.value) for path, w in weights.items()}
    _, _, found = _backend.differentiate(minimized, values)
    return {
        path: np.abs(_backend.as_array(values[path]) * _backend.as_array(gradient))
        for path, gradient in found.items()
        if gradient is not None
    }


def assert_scored(model, expected, *data, **options):
    """SNIP's scores are these, but for their sum; masks, too, are chosen by them."""
    total = sum(score.sum() for score in expected.values())
    options = {"batch_size": len(X), **options}
    found = snip_tf.connection_sensitivity(model, *data, **options)
    assert found.keys() == expected.keys()
    for path, score in expected.items():
        np.testing.assert_allclose(
            found[path], score / total, rtol=2e-4, atol=1e-7, err_msg=path
        )


def functional(cls=keras.Model, regularizer=None, **options):
    x = keras.Input((6,))
    options = {"name": "hidden", "kernel_regularizer": regularizer, **options}
    hidden = layers.Dense(9, "tanh", **options)(x)
    return cls(x, layers.Dense(2, kernel_regularizer=regularizer, name="out")(hidden))


def sequence(*stack):
    return keras.Sequential([keras.Input((6,)), *stack])


def mean_gradients(model, weights, batches, loss=None, **options):
    return mean_derivative(
        model, weights, batches, objective=Objective(loss), **options
    )


def gradients(model, *batches, **options):
    batches = [(x, y, None) for x, y in batches]
    found = mean_gradients(model, prunable_weights(model), batches, **options)
    return {path: _backend.as_array(gradient) for path, gradient in found.items()}

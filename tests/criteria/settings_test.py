"""Settings of criteria that make no sense are refused."""

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf import criteria

layers = keras.layers


@pytest.mark.parametrize("steps", [0, 2.5])
def test_refuses_invalid_steps_of_a_custom_criterion(steps):
    class Ones(criteria.Criterion):
        needs_data = False

        def __call__(self, context):
            return {path: np.ones(w.shape) for path, w in context.weights.items()}

    criterion = Ones()
    criterion.steps = steps
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    with pytest.raises((TypeError, ValueError), match="`steps` to be a whole number"):
        snip_tf.prune_model(model, sparsity=0.5, criterion=criterion)


@pytest.mark.parametrize(
    "kind", [criteria.IterativeSnip, criteria.Force, criteria.SynFlow]
)
def test_refuses_invalid_settings(kind):
    with pytest.raises(ValueError, match="1 or more"):
        kind(steps=0)
    with pytest.raises(TypeError, match=r"Received: steps=2\.5 of type float"):
        kind(steps=2.5)
    with pytest.raises(TypeError, match=rf"write {kind.__name__}\(\)"):
        criteria.get(kind)
    with pytest.raises(ValueError, match="above 0"):
        criteria.Grasp(temperature=0)
    with pytest.raises(TypeError, match="above 0"):
        criteria.Grasp(temperature="hot")
    with pytest.raises(ValueError, match="0 or more"):
        criteria.Random(-1)
    with pytest.raises(TypeError, match="0 or more"):
        criteria.Random("a")

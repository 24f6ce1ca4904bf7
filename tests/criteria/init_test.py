import keras
import numpy as np
import pytest

import snip_tf
from snip_tf import criteria


def test_by_name_or_itself():
    assert criteria.get("snip") == criteria.Snip()
    force = criteria.Force(steps=3)
    assert criteria.get(force) is force


def test_a_function_has_the_defaults():
    criterion = criteria.get(lambda context: {"a": 1})
    assert isinstance(criterion, criteria.Criterion)
    assert (criterion.needs_data, criterion.steps, criterion.revives) == (
        True,
        None,
        False,
    )
    assert criterion(None) == {"a": 1}


def test_a_function_may_have_the_attributes_of_a_criterion():
    """And so may any other callable, whatever its class."""
    seen = []

    def criterion(context):
        seen.append(sum(mask.sum() for mask in context.masks.values()))
        return {path: np.abs(w) for path, w in context.weights.items()}

    criterion.needs_data = False
    criterion.steps = 2
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
    pruned = snip_tf.prune_model(model, sparsity=0.75, criterion=criterion)
    assert snip_tf.sparsity(pruned) == 0.75
    assert seen == [64, 32]
    scores = snip_tf.score(model, criterion=criterion)
    np.testing.assert_array_equal(*scores.values(), np.abs(model.get_weights()[0]))


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match=r"'snip'.*Received: criterion='snipp'"):
        criteria.get("snipp")
    with pytest.raises(TypeError, match=r"Received: criterion=\['snip'\] of type list"):
        criteria.get(["snip"])


def test_a_criterion_takes_a_scoring_context():
    words = r"`criterion` to be a function of \(context\).*of \(model, weights\)"
    with pytest.raises(TypeError, match=words):
        criteria.get(lambda model, weights: {})

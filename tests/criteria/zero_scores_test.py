"""Scores of zero: refused, or named where they are kept by their position."""

import warnings

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf import criteria
from tests.criteria.networks import LOSS, data

layers = keras.layers


@pytest.mark.parametrize("name", ["snip", "grasp", "force", "synflow"])
def test_refuses_to_choose_by_zeros(name):
    stack = [layers.Dense(n, kernel_initializer="zeros") for n in (9, 4)]
    model, (x, y) = keras.Sequential([keras.Input((12,)), *stack]), data()
    with pytest.raises(ValueError, match="Expected a score that is not zero"):
        snip_tf.prune_model(model, x, y, sparsity=0.5, loss=LOSS, criterion=name)


def with_a_branch_of_zeros():
    inputs = keras.Input((8,))
    branch = layers.Dense(16, "relu", name="branch")(inputs)
    last = layers.Dense(8, kernel_initializer="zeros", name="last")(branch)
    joined = layers.Add()([inputs, last])
    return keras.Model(inputs, layers.Dense(4, name="head")(joined))


@pytest.mark.filterwarnings("ignore:Pruning kept nothing")
@pytest.mark.parametrize(
    ("zeros", "options"),
    [
        ("branch", {}),
        ("branch", {"criterion": criteria.IterativeSnip(steps=4)}),
        ("branch", {"criterion": criteria.Force(steps=4)}),
        ("last", {"criterion": "grasp", "scope": "layer"}),
        ("last", {"criterion": "magnitude", "scope": "layer"}),
        ("branch", {"structure": "2:4"}),
        ("branch", {"structure": "2x2"}),
        ("branch", {"scope": "erk"}),
    ],
    ids=str,
)
def test_zeros_kept_by_position_are_reported(zeros, options):
    keras.utils.set_random_seed(0)
    model = with_a_branch_of_zeros()
    x, y = np.random.rand(32, 8), np.arange(32) % 4
    options = {"sparsity": 0.5, "loss": LOSS, **options}
    with pytest.warns(UserWarning, match="score of zero") as told:
        pruned = snip_tf.prune_model(model, x, y, **options)
    [words] = [str(one.message) for one in told if "score of zero" in str(one.message)]
    kept = int(snip_tf.get_masks(pruned)[f"{zeros}/kernel"].sum())
    assert f"{kept} of '{zeros}/kernel'" in words
    assert not any("Lower the sparsity" in str(one.message) for one in told)
    with warnings.catch_warnings():
        # What was chosen before is not told again.
        warnings.filterwarnings("error", message=".*score of zero")
        snip_tf.prune_model(pruned, x, y, **options)


def test_units_of_zeros_that_are_kept_by_their_position_are_told():
    keras.utils.set_random_seed(0)
    stack = [layers.Dense(8, "relu"), layers.Dense(8), layers.Dense(4)]
    model = keras.Sequential([keras.Input((8,)), *stack])
    model.layers[1].kernel.assign(np.eye(8) * (np.arange(8) == 3)[:, np.newaxis])
    x, y = np.random.rand(32, 8), np.arange(32) % 4
    options = {"sparsity": 0.25, "loss": LOSS, "structure": "units"}
    with pytest.warns(UserWarning, match="kept units have a score of zero"):
        snip_tf.prune_model(model, x, y, **options)

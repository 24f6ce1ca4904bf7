"""What must hold of criteria in steps: of `iterative_snip`, `force` and others."""

import itertools

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf import criteria
from tests.criteria.networks import LOSS, RECURRENT, attention, bits, data, dense

layers = keras.layers


def masks_of_each_step(kind, model, x, y, sparsity, steps):
    seen = []

    class Recording(kind):
        def __call__(self, context):
            masks = context.masks.values()
            seen.append(np.concatenate([m.ravel() for m in masks]))
            return super().__call__(context)

    pruned = snip_tf.prune_model(
        model, x, y, sparsity=sparsity, loss=LOSS, criterion=Recording(steps)
    )
    return [*seen, bits(pruned)]


@pytest.mark.parametrize("kind", [criteria.IterativeSnip, criteria.Force])
def test_one_step_is_snip(kind):
    model, (x, y) = dense(12, 9, 4), data()
    one, snip = (
        snip_tf.prune_model(model, x, y, sparsity=0.8, loss=LOSS, criterion=criterion)
        for criterion in (kind(steps=1), "snip")
    )
    np.testing.assert_array_equal(bits(one), bits(snip))


@pytest.mark.parametrize("kind", [criteria.IterativeSnip, criteria.Force])
def test_the_fraction_kept_falls_exponentially_and_only_force_revives(kind):
    keras.utils.set_random_seed(0)
    model, (x, y) = dense(12, 30, 30, 4), data()
    steps = masks_of_each_step(kind, model, x, y, sparsity=0.97, steps=12)
    size = steps[0].size
    final = round(0.03 * size)
    for step, mask in enumerate(steps):
        assert mask.sum() == round(size * (final / size) ** (step / 12))
    revived = sum((late & ~early).sum() for early, late in itertools.pairwise(steps))
    assert (revived > 0) == (kind is criteria.Force)


@pytest.mark.parametrize("name", ["iterative_snip", "force", "synflow"])
def test_what_was_pruned_before_stays_out(name):
    keras.utils.set_random_seed(0)
    model, (x, y) = dense(12, 30, 4), data()
    first = snip_tf.prune_model(model, sparsity=0.5, criterion="random")
    again = snip_tf.prune_model(first, x, y, sparsity=0.9, loss=LOSS, criterion=name)
    assert not (bits(again) & ~bits(first)).any()
    assert bits(again).sum() == round(0.1 * bits(again).size)


@pytest.mark.parametrize(
    "criterion", [criteria.Grasp(), criteria.Force(5), criteria.SynFlow(5)], ids=str
)
@pytest.mark.parametrize("kind", [*RECURRENT, "attention"])
def test_through_time_and_attention(kind, criterion):
    keras.utils.set_random_seed(0)
    model = attention() if kind == "attention" else keras.Sequential(RECURRENT[kind]())
    x = np.random.default_rng(0).normal(size=(16, 5, 6)).astype(np.float32)
    pruned = snip_tf.prune_model(
        model, x, np.arange(16) % 4, sparsity=0.5, loss=LOSS, criterion=criterion
    )
    assert bits(pruned).sum() == round(0.5 * bits(pruned).size)


def test_a_layer_that_ends_with_nothing_is_scored_until_the_last_step():
    seen = []

    class Watched(snip_tf.criteria.IterativeSnip):
        def __call__(self, context):
            seen.append(context.masks["out/kernel"].sum())
            return super().__call__(context)

    dense = [layers.Dense(50), layers.Dense(4, name="out")]
    model = keras.Sequential([keras.Input((20,)), *dense])
    x = np.random.default_rng(0).normal(size=(16, 20)).astype(np.float32)
    options = {"sparsity": {"out/*": 0.999, "*": 0.99}, "loss": LOSS}
    with pytest.warns(UserWarning, match="Pruning kept nothing of out/kernel"):
        snip_tf.prune_model(
            model, x, np.arange(16) % 4, criterion=Watched(4), **options
        )
    assert min(seen) >= 1

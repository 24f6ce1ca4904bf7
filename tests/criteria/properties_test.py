"""What must hold of criteria in any network."""

import itertools
import warnings

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
        *(model, x, y), sparsity=sparsity, loss=LOSS, criterion=Recording(steps)
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


@pytest.mark.parametrize("name", ["grasp", "force", "synflow"])
@pytest.mark.parametrize("kind", [*RECURRENT, "attention"])
def test_through_time_and_attention(kind, name):
    keras.utils.set_random_seed(0)
    model = attention() if kind == "attention" else keras.Sequential(RECURRENT[kind]())
    x = np.random.default_rng(0).normal(size=(16, 5, 6)).astype(np.float32)
    pruned = snip_tf.prune_model(
        *(model, x, np.arange(16) % 4), sparsity=0.5, loss=LOSS, criterion=name
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


@pytest.mark.parametrize("name", ["snip", "grasp", "force", "synflow"])
def test_refuses_to_choose_by_zeros(name):
    stack = [layers.Dense(n, kernel_initializer="zeros") for n in (9, 4)]
    model, (x, y) = keras.Sequential([keras.Input((12,)), *stack]), data()
    with pytest.raises(ValueError, match="Expected a score that is not zero"):
        snip_tf.prune_model(model, x, y, sparsity=0.5, loss=LOSS, criterion=name)


def test_random_takes_the_seed_of_the_call():
    model = dense(12, 9, 4)
    first, second, other = (
        bits(snip_tf.prune_model(model, sparsity=0.5, criterion="random", seed=seed))
        for seed in (3, 3, 4)
    )
    assert (first == second).all()
    assert (first != other).any()


class Halved(criteria.Random):
    """A criterion of one's own, with a constructor of its own."""

    def __init__(self, path, seed=None):
        super().__init__(seed)
        object.__setattr__(self, "path", path)

    def __call__(self, context):
        scores = super().__call__(context)
        return scores | {self.path: scores[self.path] / 2}


def test_a_subclass_stays_what_it_is():
    model = dense(12, 9, 4)

    def masks(criterion, seed=None):
        options = {"sparsity": 0.5, "criterion": criterion, "seed": seed}
        return bits(snip_tf.prune_model(model, **options))

    path = next(iter(snip_tf.prunable_weights(model)))
    own = Halved(path)
    assert (masks(own, 3) == masks(own, 3)).all()
    assert (masks(own, 3) == masks(Halved(path, seed=3), 4)).all()
    assert (masks(own, 3) != masks(own, 4)).any()
    assert (masks(own, 3) != masks("random", 3)).any()
    assert own.seed is None


def with_a_branch_of_zeros():
    inputs = keras.Input((8,))
    branch = layers.Dense(16, "relu", name="branch")(inputs)
    last = layers.Dense(8, kernel_initializer="zeros", name="last")(branch)
    joined = layers.Add()([inputs, last])
    return keras.Model(inputs, layers.Dense(4, name="head")(joined))


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
def test_zeros_that_are_kept_by_their_position_are_told(zeros, options):
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


@pytest.mark.parametrize("steps", [0, 2.5])
def test_refuses_the_steps_of_a_criterion_of_ones_own(steps):
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
def test_refuses_settings_that_are_none(kind):
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

import numpy as np
import pytest

import snip_tf
from tests.schedules.programs import (
    LOSS,
    Recorder,
    X,
    Y,
    dense,
    fit,
    network,
    sparse,
    weights_of,
)
from tests.versions import on

TOTAL = 12 * 32 + 32 * 16 + 16 * 4


def formula(step, final, begin, end, frequency, initial=0.0, power=3):
    """The sparsity after a step, by counting all updates."""
    due = [t for t in range(begin, end + 1) if (t - begin) % frequency == 0 or t == end]
    done = [t for t in due if t <= step]
    if not done:
        return initial
    progress = (done[-1] - begin) / (end - begin)
    return final + (initial - final) * (1 - progress) ** power


@pytest.mark.parametrize(
    ("begin", "end", "frequency", "initial", "power"),
    [(0, 16, 4, 0.0, 3), (3, 14, 4, 0.0, 3), (0, 13, 5, 0.25, 1), (2, 9, 1, 0.1, 2)],
)
def test_the_sparsity_follows_the_formula(begin, end, frequency, initial, power):
    schedule = snip_tf.GradualPruning(
        0.9,
        begin_step=begin,
        end_step=end,
        frequency=frequency,
        initial_sparsity=initial,
        power=power,
    )
    recorder = Recorder()
    fit(dense(), schedule, recorder)
    expected = [
        formula(t, 0.9, begin, end, frequency, initial, power) if t >= begin else 0.0
        for t in range(1, 17)
    ]
    kept = [round((1 - sparsity) * TOTAL) for sparsity in recorder.sparsities()]
    assert kept == [round((1 - s) * TOTAL) for s in expected]
    for step, sparsity in enumerate(expected, 1):
        if step >= begin:
            assert schedule.sparsity_at(step) == pytest.approx(sparsity, abs=1e-12)


def test_the_smallest_go_and_stay_away():
    recorder = Recorder()
    schedule = snip_tf.GradualPruning(0.8, end_step=9, frequency=3)
    fit(dense(), recorder, schedule, recorder, epochs=1)
    before, after = recorder.masks[::2], recorder.masks[1::2]
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        weights = recorder.weights[2 * number]
        magnitudes = np.concatenate([np.abs(w).ravel() for w in weights.values()])
        is_old, is_new = (
            np.concatenate([m.ravel() for m in masks.values()]) for masks in (old, new)
        )
        assert not (is_new & ~is_old).any()
        if (is_old & ~is_new).any():
            gone = magnitudes[is_old & ~is_new].max()
            assert gone <= magnitudes[is_new].min()


@on("tensorflow", "jax")
def test_steps_per_execution():
    """Updates that are due inside of an execution follow it, for their own step."""
    recorder = Recorder()
    schedule = snip_tf.GradualPruning(0.9, begin_step=1, end_step=13, frequency=4)
    pruned = dense(steps_per_execution=3)
    fit(pruned, schedule, recorder, batch_size=14, epochs=2)  # 10 steps an epoch
    executed = [3, 6, 9, 10, 13, 16, 19, 20]
    expected = [formula(t, 0.9, 1, 13, 4) for t in executed]
    assert recorder.sparsities() == pytest.approx(expected, abs=1 / TOTAL)


def test_patterns_have_sparsities_of_their_own():
    pruned = dense()
    schedule = snip_tf.GradualPruning(
        {"hidden/*": 0.9, "*": 0.5}, end_step=8, frequency=4
    )
    fit(pruned, schedule)
    masks = snip_tf.get_masks(pruned)
    assert masks["hidden/kernel"].sum() == round(0.1 * 12 * 32)
    others = [masks["second/kernel"], masks["out/kernel"]]
    assert sum(m.sum() for m in others) == round(0.5 * (32 * 16 + 16 * 4))
    assert schedule.sparsity_at(4)["hidden/*"] == pytest.approx(0.9 - 0.9 / 8)


def test_two_of_four():
    recorder = Recorder()
    schedule = snip_tf.GradualPruning(0.5, end_step=8, frequency=2, structure="2:4")
    pruned = dense()
    fit(pruned, schedule, recorder, epochs=1)
    for step, masks in enumerate(recorder.masks, 1):
        of_four = int(np.ceil(4 * (1 - schedule.sparsity_at(step)) - 1e-9))
        for mask in masks.values():
            groups = mask.reshape(-1, 4, mask.shape[-1]).sum(axis=1)
            assert (groups == of_four).all()
    assert snip_tf.sparsity(pruned) == 0.5


def test_blocks():
    pruned = dense()
    schedule = snip_tf.GradualPruning(0.75, end_step=8, frequency=3, structure="4x4")
    fit(pruned, schedule)
    for mask in snip_tf.get_masks(pruned).values():
        blocks = mask.reshape(mask.shape[0] // 4, 4, -1, 4).sum(axis=(1, 3))
        assert set(np.unique(blocks)) <= {0, 16}
    assert snip_tf.sparsity(pruned) == 0.75


@pytest.mark.parametrize("scope", ["layer", "unit", "erk"])
def test_scopes(scope):
    pruned = dense()
    fit(pruned, snip_tf.GradualPruning(0.75, end_step=8, frequency=4, scope=scope))
    assert snip_tf.sparsity(pruned) == pytest.approx(0.75, abs=1e-3)
    if scope != "erk":
        for mask in snip_tf.get_masks(pruned).values():
            assert mask.mean() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("criterion", ["snip", "grasp", "synflow", "force", "random"])
def test_other_criteria(criterion):
    data = {} if criterion in ("synflow", "random") else {"x": X, "y": Y}
    pruned = dense()
    schedule = snip_tf.GradualPruning(
        0.8, end_step=8, frequency=4, criterion=criterion, seed=0, min_kept=1, **data
    )
    recorder = Recorder()
    fit(pruned, schedule, recorder)
    assert snip_tf.sparsity(pruned) == pytest.approx(0.8, abs=1e-3)


def test_scores_are_those_of_the_model_at_the_time():
    class Spy(snip_tf.criteria.Criterion):
        def __init__(self):
            self.seen = []

        def __call__(self, context):
            self.seen.append({p: np.array(w) for p, w in context.weights.items()})
            return snip_tf.criteria.Snip()(context)

    spy, recorder, pruned = Spy(), Recorder(), dense()
    schedule = snip_tf.GradualPruning(
        0.8, end_step=4, frequency=4, criterion=spy, x=X, y=Y
    )
    fit(pruned, recorder, schedule, epochs=1)
    for path, weight in recorder.weights[3].items():
        np.testing.assert_array_equal(spy.seen[-1][path], weight)


def test_what_is_pruned_already_waits_for_the_formula():
    recorder, pruned = Recorder(), sparse(sparsity=0.5)
    fit(pruned, snip_tf.GradualPruning(0.9, end_step=8, frequency=1), recorder)
    expected = [max(0.5, formula(t, 0.9, 0, 8, 1)) for t in range(1, 17)]
    assert recorder.sparsities() == pytest.approx(expected, abs=1 / TOTAL)


def test_a_lower_sparsity_is_refused():
    pruned = sparse(sparsity=0.75)
    with pytest.raises(ValueError, match=r"at least 0\.75.*already pruned.*0\.5"):
        fit(pruned, snip_tf.GradualPruning(0.5, end_step=8))


def test_an_end_beyond_fit_warns_of_the_sparsity_reached():
    schedule = snip_tf.GradualPruning(0.9, end_step=40, frequency=4)
    with pytest.warns(UserWarning, match=r"step 16, before end_step=40: at a sparsity"):
        fit(pruned := dense(), schedule)
    reached = formula(16, 0.9, 0, 40, 4)
    assert snip_tf.sparsity(pruned) == pytest.approx(reached, abs=1 / TOTAL)


def test_a_collapse_warns_at_the_end():
    schedule = snip_tf.GradualPruning({"out/*": 0.995, "*": 0.5}, end_step=4)
    with pytest.warns(snip_tf.CollapseWarning, match="out/kernel"):
        fit(dense(), schedule, epochs=1)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"end_step": 5, "begin_step": 6}, ValueError, "end_step=5"),
        ({"end_step": 5, "frequency": 0}, ValueError, "frequency=0"),
        ({"end_step": 0}, ValueError, "end_step=0"),
        ({"end_step": None}, TypeError, "end_step=None"),
        ({"end_step": 5, "begin_step": -1}, ValueError, "begin_step=-1"),
        ({"end_step": 5, "initial_sparsity": 0.95}, ValueError, "initial_sparsity"),
        ({"end_step": 5, "power": 0}, ValueError, "power=0"),
        ({"end_step": 5, "seed": -1}, ValueError, "seed=-1"),
        ({"end_step": 5, "scope": "all"}, ValueError, "scope='all'"),
        ({"end_step": 5, "structure": "units"}, ValueError, "structure='units'"),
        ({"end_step": 5, "structure": "2:4"}, ValueError, "sparsity=0.5"),
        ({"end_step": 5, "criterion": "snip"}, ValueError, "x=None"),
        ({"end_step": 5, "criterion": "best"}, ValueError, "criterion='best'"),
        ({"end_step": 5, "batches": 0}, ValueError, "batches=0"),
        ({"end_step": 5, "batch_size": 1.5}, TypeError, "batch_size=1.5"),
        ({"end_step": 5, "objective": 3}, TypeError, "objective"),
        ({"sparsity": 1.0, "end_step": 5}, ValueError, "sparsity=1.0"),
        ({"sparsity": 90, "end_step": 5}, ValueError, r"write sparsity=0\.9"),
    ],
)
def test_bad_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        schedule = snip_tf.GradualPruning(**{"sparsity": 0.9, **arguments})
        fit(dense(), schedule)


def test_a_loop_of_ones_own():
    """The same masks and weights as `fit`."""
    by_fit, by_loop = dense("sgd"), dense("sgd")
    fit(by_fit, snip_tf.GradualPruning(0.9, end_step=13, frequency=4))
    schedule = snip_tf.GradualPruning(0.9, end_step=13, frequency=4)
    schedule.set_model(by_loop)
    for _ in range(2):
        for start in range(0, 128, 16):
            by_loop.train_on_batch(X[start : start + 16], Y[start : start + 16])
            schedule.step()
    assert snip_tf.sparsity(by_loop) == pytest.approx(0.9, abs=1 / TOTAL)
    for path, mask in snip_tf.get_masks(by_fit).items():
        np.testing.assert_array_equal(snip_tf.get_masks(by_loop)[path], mask)
    for path, weight in weights_of(by_fit).items():
        np.testing.assert_allclose(weights_of(by_loop)[path], weight, atol=1e-6)


def test_a_trained_model():
    model = network()
    model.fit(X, Y, verbose=0)
    before = weights_of(model)
    pruned = snip_tf.apply_masks(
        model, {path: np.ones(w.shape, bool) for path, w in before.items()}
    )
    pruned.compile("adam", LOSS)
    schedule = snip_tf.GradualPruning(
        0.9, end_step=8, frequency=4, initial_sparsity=0.5
    )
    recorder = Recorder()
    fit(pruned, schedule, recorder, epochs=1)
    magnitudes = np.concatenate([np.abs(w).ravel() for w in before.values()])
    masks = np.concatenate([m.ravel() for m in recorder.masks[0].values()])
    # The update at step 0, before the first step.
    assert magnitudes[masks].min() >= magnitudes[~masks].max()
    assert masks.mean() == 0.5
    plain = snip_tf.strip_pruning(pruned)
    zeros = sum((w == 0).sum() for w in weights_of(plain).values())
    assert zeros == TOTAL - round(0.1 * TOTAL)

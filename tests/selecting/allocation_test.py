import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from snip_tf import select_masks

SHAPES = st.lists(
    st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple),
    min_size=1,
    max_size=5,
).map(lambda shapes: {f"w{i}/kernel": shape for i, shape in enumerate(shapes)})
SPARSITY = st.floats(0, 1, exclude_max=True)


def size(shapes):
    return sum(map(math.prod, shapes.values()))


def scores_of(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {path: rng.random(shape) for path, shape in shapes.items()}


def kept_of_each(shapes, sparsity, scope):
    masks = select_masks(scores_of(shapes), sparsity, scope)
    return {path: int(mask.sum()) for path, mask in masks.items()}


@hypothesis.given(SHAPES, SPARSITY)
@hypothesis.settings(max_examples=200, deadline=None)
def test_erdos_renyi_is_exact_and_proportional(shapes, sparsity):
    found = kept_of_each(shapes, sparsity, "erk")
    assert sum(found.values()) == round((1 - sparsity) * size(shapes))
    density, raw = {}, {}
    for path, kept in found.items():
        count = math.prod(shapes[path])
        density[path] = kept / count, 1 / count
        raw[path] = sum(shapes[path]) / count
    for a in shapes:
        for b in shapes:
            whole = density[a][0] + density[a][1] >= 1
            if raw[a] >= raw[b] and not whole:
                # In proportion, up to the rounding of both.
                ratio = raw[a] / raw[b]
                slack = density[a][1] + ratio * density[b][1]
                assert abs(density[a][0] - ratio * density[b][0]) <= slack + 1e-9


def test_erdos_renyi_equals_a_manual_calculation():
    """LeNet-300-100 at 90 %: epsilon of the formula by hand."""
    shapes = {"a/kernel": (784, 300), "b/kernel": (300, 100), "c/kernel": (100, 10)}
    kept = round(0.1 * 266200)
    epsilon = (kept - 1000) / (1084 + 400)  # the last one is dense
    assert epsilon * 110 / 1000 > 1
    found = kept_of_each(shapes, 0.9, "erk")
    assert found["c/kernel"] == 1000
    assert abs(found["a/kernel"] - epsilon * 1084) <= 1
    assert sum(found.values()) == kept


@hypothesis.given(SHAPES, SPARSITY, st.integers(0, 6), st.integers(0, 99))
@hypothesis.settings(max_examples=200, deadline=None)
def test_minimums_are_kept_and_the_total_is_exact(shapes, sparsity, minimum, seed):
    scores = scores_of(shapes, seed)
    kept = round((1 - sparsity) * size(shapes))
    minimums = {path: min(minimum, math.prod(shape)) for path, shape in shapes.items()}
    if sum(minimums.values()) > kept:
        with pytest.raises(ValueError, match="that the sparsity leaves"):
            select_masks(scores, sparsity, min_kept=minimum)
        return
    masks = select_masks(scores, sparsity, min_kept=minimum)
    assert sum(mask.sum() for mask in masks.values()) == kept
    highest = -1.0  # of what was removed where there is more than the minimum
    lowest = {}
    for path, mask in masks.items():
        assert mask.sum() >= minimums[path]
        if (~mask).any():
            # Of each weight the best are kept.
            assert scores[path][mask].min(initial=2) > scores[path][~mask].max()
            highest = max(highest, scores[path][~mask].max())
        if mask.sum() > minimums[path]:
            lowest[path] = scores[path][mask].min()
    # Above its minimum a weight keeps only what is better than all that was removed.
    assert all(value > highest for value in lowest.values())


def test_a_minimum_may_be_a_fraction():
    scores = {"a": np.arange(100.0), "b": np.full(50, 1000.0)}
    masks = select_masks(scores, 0.6, min_kept=0.25)
    assert masks["a"].sum() == 25
    assert masks["b"].sum() == 35

    # Of 100 they are 7, whatever 0.07 * 100 is in binary.
    assert select_masks({"a": np.arange(100.0)}, 0.93, min_kept=0.07)["a"].sum() == 7


def test_any_fraction_keeps_one():
    scores = {"a": np.arange(100.0), "b": np.zeros(50)}
    assert select_masks(scores, 0.5, min_kept=1e-12)["b"].sum() == 1


@pytest.mark.parametrize("scope", ["layer", "unit", "erk"])
def test_the_others_give_where_a_part_is_below_its_minimum(scope):
    scores = scores_of({"a": (20, 20), "b": (5, 8)})
    for minimum in (1, 3):
        masks = select_masks(scores, 0.98, scope, min_kept=minimum)
        assert masks["b"].sum() >= minimum
        assert masks["a"].sum() + masks["b"].sum() == 9
    with pytest.raises(ValueError, match="that the sparsity leaves room for"):
        select_masks(scores, 0.98, scope, min_kept=6)


def test_a_minimum_is_met_within_the_sparsity_of_a_pattern():
    scores = scores_of({"a": (20, 20), "b": (5, 8)})
    with pytest.raises(ValueError, match=r"min_kept=1, which keeps 1 of b.*0\.99"):
        select_masks(scores, {"b": 0.99, "a": 0.5}, min_kept=1)


def test_sparsities_by_pattern():
    shapes = {"a/kernel": (10, 10), "b/kernel": (20, 20), "c/kernel": (5, 20)}
    scores = scores_of(shapes)
    masks = select_masks(scores, {"a/*": 0.5, "b/kernel": 0.9})
    counts = {path: mask.sum() for path, mask in masks.items()}
    assert counts == {"a/kernel": 50, "b/kernel": 40, "c/kernel": 100}
    named = {f"{path}[0]": score for path, score in scores.items()}
    masks = select_masks(named, {"a/kernel[0]": 0.5, "b/kernel[0]": 0.9})
    assert [mask.sum() for mask in masks.values()] == list(counts.values())
    together = select_masks(scores, {"[ab]/*": 0.9, "*": 0.3})
    counts = {path: mask.sum() for path, mask in together.items()}
    assert counts["a/kernel"] + counts["b/kernel"] == 50
    assert counts["c/kernel"] == 70
    best = np.sort(
        np.concatenate([scores[p].ravel() for p in ("a/kernel", "b/kernel")])
    )
    assert counts["a/kernel"] == (scores["a/kernel"] >= best[-50]).sum()


def test_what_no_pattern_matches_need_not_divide_into_blocks():
    scores = scores_of({"a": (6, 8), "b": (3, 5)})
    masks = select_masks(scores, {"a": 0.5}, structure="2x4")
    assert masks["a"].sum() == 24
    assert masks["b"].all()


@pytest.mark.parametrize("sparsity", [0.1, 0.7, 0.9])
def test_shares_are_counted_as_they_are_written(sparsity):
    """1 - 0.9 is less than a tenth in binary, and 1 - 0.7 more than three."""
    scores = scores_of({"a": (10, 30), "b": (100, 2), "c": (20, 7)})
    masks = select_masks(scores, sparsity, "unit")
    for mask in masks.values():
        assert set(mask.sum(axis=0)) == {round((1 - sparsity) * len(mask))}


def test_the_first_outputs_take_the_rest():
    scores = {"a": np.ones((4, 3)), "b": np.ones((2, 5)), "c": np.ones((2, 3))}
    masks = select_masks(scores, 0.25, "unit")
    # 21 of 28: the share of each of a is 3, of the others 1.5.
    kept = {path: mask.sum(axis=0).tolist() for path, mask in masks.items()}
    assert kept == {"a": [3, 3, 3], "b": [2, 2, 2, 2, 1], "c": [1, 1, 1]}


@pytest.mark.parametrize(
    ("sparsity", "scope", "words"),
    [
        (0.5, "erik", "'global', 'layer', 'unit', 'erk'"),
        ({}, "global", "at least one"),
        (
            {"d/*": 0.5},
            "global",
            r"'d/\*', which matches none. .*(Did you|The weight)",
        ),
        ({"*": 0.5, "a/*": 0.5}, "layer", r"'a/\*', whose weights are all taken"),
        ({"*": 1.5}, "global", r"sparsity\['\*'\]"),
    ],
)
def test_refuses_what_cannot_be(sparsity, scope, words):
    shapes = {"a/kernel": (10, 10), "b/kernel": (20, 20), "c/kernel": (5, 20)}
    with pytest.raises(ValueError, match=words):
        select_masks(scores_of(shapes), sparsity, scope)


def test_refuses_patterns_and_minimums_of_the_wrong_kind():
    scores = {"a": np.arange(9.0)}
    with pytest.raises(TypeError, match="pattern of `sparsity` to be a string"):
        select_masks(scores, {3: 0.5})
    for minimum, kind in ((-1, ValueError), (1.5, ValueError), ("2", TypeError)):
        with pytest.raises(kind, match="whole number of connections, or a fraction"):
            select_masks(scores, 0.5, min_kept=minimum)

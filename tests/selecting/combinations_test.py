"""Every scope with every structure against a reference in plain Python."""

import itertools

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import keras
import numpy as np
import pytest

import snip_tf
from tests.selecting import reference

layers = keras.layers
SPARSITY = st.sampled_from([0, 0.1, 0.25, 0.3, 0.5, 0.7, 0.75, 0.9, 0.95]) | st.floats(
    0, 1, exclude_max=True
)
SCOPES = ("global", "layer", "unit")


@st.composite
def scores(draw, rows=1, columns=1, smallest_rank=1):
    """A few weights of whole scores with many ties, which blocks divide."""
    masks = {}
    for number in range(draw(st.integers(1, 4))):
        shape = draw(hnp.array_shapes(min_dims=smallest_rank, max_dims=3, max_side=4))
        sides = (1, rows, columns)[-len(shape) :]
        shape = tuple(a * b for a, b in zip(shape, sides, strict=True))
        elements = st.integers(1, draw(st.sampled_from([2, 99])))
        masks[f"{'ab'[number % 2]}{number}/kernel"] = draw(
            hnp.arrays(np.int32, shape, elements=elements)
        )
    return masks


def assert_equal(masks, expected):
    assert list(masks) == list(expected)
    for path in expected:
        np.testing.assert_array_equal(masks[path], expected[path], err_msg=path)


@hypothesis.given(scores(), SPARSITY, st.sampled_from(SCOPES))
@hypothesis.settings(max_examples=300, deadline=None)
def test_scopes_of_connections(scores, sparsity, scope):
    masks = snip_tf.select_masks(scores, sparsity, scope)
    assert_equal(masks, reference.select(scores, sparsity, scope))
    size = sum(score.size for score in scores.values())
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert kept == round((1 - sparsity) * size)


@hypothesis.given(scores(2, 3, 2), SPARSITY, st.sampled_from(["global", "layer"]))
@hypothesis.settings(max_examples=100, deadline=None)
def test_scopes_of_blocks(scores, sparsity, scope):
    masks = snip_tf.select_masks(scores, sparsity, scope, structure="2x3")
    assert_equal(masks, reference.select(scores, sparsity, scope, "2x3"))


@hypothesis.given(scores(2, 1, 2), SPARSITY)
@hypothesis.settings(max_examples=100, deadline=None)
def test_blocks_of_one_output_are_ranked_in_each_output(scores, sparsity):
    masks = snip_tf.select_masks(scores, sparsity, "unit", structure="2x1")
    assert_equal(masks, reference.select(scores, sparsity, "unit", "2x1"))


@hypothesis.given(scores(4, 1, 2), st.integers(1, 3))
@hypothesis.settings(max_examples=100, deadline=None)
def test_n_of_four(scores, n):
    masks = snip_tf.select_masks(scores, 1 - n / 4, structure=f"{n}:4")
    assert_equal(masks, reference.select(scores, 1 - n / 4, structure=f"{n}:4"))


@hypothesis.given(scores(2, 2, 2), SPARSITY, SPARSITY, st.data())
@hypothesis.settings(max_examples=150, deadline=None)
def test_sparsities_by_pattern(scores, first, second, data):
    patterns = {"a*": first}
    if any(path.startswith("b") for path in scores):
        patterns |= data.draw(st.sampled_from([{}, {"b*": second}, {"*": second}]))
    scope = data.draw(st.sampled_from(["global", "layer"]))
    structure = data.draw(st.sampled_from(["weights", "2x2"]))
    masks = snip_tf.select_masks(scores, patterns, scope, structure)
    assert_equal(masks, reference.select(scores, patterns, scope, structure))


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.9, 0.97, {"b": 0.5, "[cd]": 0.8}])
@pytest.mark.parametrize("structure", ["weights", "2x2"])
def test_erdos_renyi(sparsity, structure):
    rng = np.random.default_rng(0)
    shapes = {"a": (20, 14), "b": (4, 6), "c": (3, 8, 12), "d": (30, 2)}
    scores = {path: rng.integers(1, 50, shape) for path, shape in shapes.items()}
    masks = snip_tf.select_masks(scores, sparsity, "erk", structure)
    assert_equal(masks, reference.select(scores, sparsity, "erk", structure))


@pytest.mark.parametrize("scope", [*SCOPES, "erk"])
@pytest.mark.parametrize("sparsity", [0.6, {"a": 0.5, "b": 0.9}, {"b": 0.9}])
@pytest.mark.parametrize("min_kept", [1, 9, 0.1])
def test_a_minimum_leaves_every_total_exact(scope, sparsity, min_kept):
    rng = np.random.default_rng(0)
    scores = {"a": 9 + rng.random((30, 20)), "b": rng.random((10, 10)), "c": np.eye(3)}
    if isinstance(sparsity, float):
        del scores["c"]
        asked = {"*": (0.6, 700)}
    else:
        asked = {p: (s, scores[p].size) for p, s in sparsity.items()}
    masks = snip_tf.select_masks(scores, sparsity, scope, min_kept=min_kept)
    for pattern, (fraction, size) in asked.items():
        own = [m for path, m in masks.items() if pattern in ("*", path)]
        assert sum(int(m.sum()) for m in own) == round((1 - fraction) * size)
    for path, mask in masks.items():
        assert mask.sum() >= (min_kept if min_kept >= 1 else min_kept * mask.size)
        if path not in asked and "*" not in asked:
            assert mask.all()  # it is left whole


def test_a_minimum_is_divided_among_outputs():
    scores = {"a": np.ones((5, 4)), "b": np.ones((100, 10))}
    masks = snip_tf.select_masks(scores, 0.95, "unit", min_kept=7)
    assert masks["a"].sum(axis=0).tolist() == [2, 2, 2, 1]
    assert sum(mask.sum() for mask in masks.values()) == 51
    assert set(masks["b"].sum(axis=0)) == {4, 5}


def test_many_rows_are_ranked_in_pieces(monkeypatch):
    from snip_tf.selecting import ranking

    monkeypatch.setattr(ranking, "_MOST_AT_ONCE", 16)
    rng = np.random.default_rng(0)
    scores = {"a": rng.integers(0, 4, (7, 30)), "b": rng.integers(0, 9, (3, 4, 5))}
    with pytest.warns(UserWarning, match="score of zero"):
        masks = snip_tf.select_masks(scores, 0.3, "unit")
    assert_equal(masks, reference.select(scores, 0.3, "unit"))


def zeros_told(scores, sparsity, scope):
    with pytest.warns(UserWarning, match="score of zero") as told:
        masks = snip_tf.select_masks(scores, sparsity, scope)
    return str(told[0].message), masks


def test_zeros_are_counted_where_an_output_divides_them():
    score = np.array([[0, 0, 1, 5], [0, 0, 0, 6], [2, 0, 0, 7], [3, 0, 0, 8]])
    words, masks = zeros_told({"a": score, "b": 1 + score}, 0.25, "unit")
    # Outputs keep 3 of 4: one of two zeros, three of four, two of three, none.
    assert words.startswith("6 of the kept connections")
    assert "6 of 'a'." in words
    assert masks["a"].sum(axis=0).tolist() == [3, 3, 3, 3]


def attention():
    inputs = keras.Input((5, 8))
    x = layers.MultiHeadAttention(2, 3, name="mha")(inputs, inputs)
    return keras.Model(inputs, layers.Dense(4, name="d")(x))


def einsum(equation, output_shape, bias_axes=None):
    def make():
        layer = layers.EinsumDense(
            equation, output_shape, bias_axes=bias_axes, name="e"
        )
        return keras.Sequential([keras.Input((5, 6)), layer])

    return make


# (model, weight, the axes of its outputs)
OUTPUTS = [
    (attention, "mha/query/kernel", (1, 2)),
    (attention, "mha/value/kernel", (1, 2)),
    (attention, "mha/attention_output/kernel", (2,)),
    (attention, "d/kernel", (1,)),
    (einsum("abc,cd->abd", (5, 4)), "e/kernel", (1,)),
    (einsum("abc,dc->abd", (5, 4)), "e/kernel", (0,)),
    (einsum("abc,bcd->abd", (5, 4)), "e/kernel", (0, 2)),
    (lambda: of_layer(layers.Conv1D(4, 3, name="e"), (5, 6)), "e/kernel", (2,)),
    (
        lambda: of_layer(layers.Conv1DTranspose(4, 3, name="e"), (5, 6)),
        "e/kernel",
        (1,),
    ),
    (lambda: of_layer(layers.LSTM(3, name="e"), (5, 6)), "e/lstm_cell/kernel", (1,)),
]


def of_layer(layer, shape):
    return keras.Sequential([keras.Input(shape), layer])


@pytest.mark.parametrize(("make", "path", "outputs"), OUTPUTS)
@pytest.mark.parametrize("sparsity", [0.5, 0.72, 0.9])
@pytest.mark.filterwarnings("ignore::snip_tf.CollapseWarning")
def test_every_output_of_a_layer_keeps_its_share(make, path, outputs, sparsity):
    keras.utils.set_random_seed(0)
    model = make()
    pruned = snip_tf.prune_model(
        model, sparsity=sparsity, scope="unit", criterion="magnitude", min_kept=0
    )
    masks = snip_tf.get_masks(pruned)
    size = sum(mask.size for mask in masks.values())
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert kept == round((1 - sparsity) * size)
    mask = masks[path]
    weight = np.abs(snip_tf.prunable_weights(model)[path].numpy())
    others = [axis for axis in range(mask.ndim) if axis not in outputs]
    share = (1 - sparsity) * np.prod([mask.shape[axis] for axis in others])
    for index in itertools.product(*(range(mask.shape[axis]) for axis in outputs)):
        place = [slice(None)] * mask.ndim
        for axis, number in zip(outputs, index, strict=True):
            place[axis] = number
        row, score = mask[tuple(place)], weight[tuple(place)]
        assert np.floor(share + 1e-9) <= row.sum() <= np.ceil(share - 1e-9)
        if row.any() and not row.all():
            assert score[row].min() > score[~row].max()


@pytest.mark.parametrize("criterion", ["iterative_snip", "force", "synflow"])
@pytest.mark.filterwarnings("ignore:.* score of zero")  # unused units
def test_each_output_is_exact_after_many_steps(criterion):
    keras.utils.set_random_seed(0)
    stack = [layers.Dense(10, "tanh"), layers.Dense(3)]
    model = keras.Sequential([keras.Input((8,)), *stack])
    x, y = np.random.default_rng(0).normal(size=(2, 16, 8))
    criterion = {
        "iterative_snip": snip_tf.criteria.IterativeSnip(5),
        "force": snip_tf.criteria.Force(5),
        "synflow": snip_tf.criteria.SynFlow(5),
    }[criterion]
    pruned = snip_tf.prune_model(
        model, x, y[:, :3], sparsity=0.75, scope="unit", criterion=criterion, loss="mse"
    )
    first, second = snip_tf.get_masks(pruned).values()
    assert (first.sum(axis=0) == 2).all()
    # A quarter of 110 is 27.5, rounded to the even 28.
    assert sorted(second.sum(axis=0)) == [2, 3, 3]
    assert second.sum() == 8


def test_each_output_of_a_pruned_model_keeps_what_it_has():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="d")])
    once = snip_tf.prune_model(model, sparsity=0.5, scope="unit", criterion="magnitude")
    twice = snip_tf.prune_model(
        once, sparsity=0.75, scope="unit", criterion="magnitude"
    )
    before, after = (snip_tf.get_masks(each)["d/kernel"] for each in (once, twice))
    assert not (after & ~before).any()
    assert (after.sum(axis=0) == 2).all()
    with pytest.raises(ValueError, match=r"at least 0\.75.*already pruned to that"):
        snip_tf.prune_model(twice, sparsity=0.5, scope="unit", criterion="magnitude")

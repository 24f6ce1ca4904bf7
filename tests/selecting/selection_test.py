import decimal
import warnings

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import keras
import numpy as np
import pytest

import snip_tf.selecting.scores
from snip_tf import _backend, select_masks
from snip_tf.selecting import threshold
from snip_tf.selecting.scores import Product
from tests.numpy_reference import keep_largest

FLOATS = [np.float16, np.float32, np.float64]


@st.composite
def scores_of_any_kind(draw):
    """A few weights of one float type, with as many ties as hypothesis likes."""
    dtype = draw(st.sampled_from(FLOATS))
    width = 8 * np.dtype(dtype).itemsize
    plain = st.floats(allow_nan=False, allow_infinity=False, width=width)
    tied = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0])
    shapes = draw(
        st.lists(hnp.array_shapes(min_dims=1, max_dims=3, max_side=6), min_size=1)
    )
    elements = draw(st.sampled_from([plain, tied]))
    return {
        f"w{i}": draw(hnp.arrays(dtype, shape, elements=elements))
        for i, shape in enumerate(shapes)
    }


def reference(scores, sparsity):
    total = sum(score.size for score in scores.values())
    kept = round((1 - sparsity) * total)
    masks = keep_largest([s.astype(np.float64) for s in scores.values()], kept)
    return dict(zip(scores, masks, strict=True))


def assert_same(masks, expected):
    assert list(masks) == list(expected)
    for path in expected:
        np.testing.assert_array_equal(masks[path], expected[path], err_msg=path)


@hypothesis.given(scores_of_any_kind(), st.floats(0, 1, exclude_max=True))
@hypothesis.settings(max_examples=300, deadline=None)
def test_equals_a_full_stable_sort(scores, sparsity):
    assert_same(select_masks(scores, sparsity), reference(scores, sparsity))


@hypothesis.given(scores_of_any_kind(), st.floats(0, 1, exclude_max=True))
@hypothesis.settings(max_examples=50, deadline=None)
def test_the_size_of_the_chunks_does_not_matter(scores, sparsity):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snip_tf.selecting.scores, "_CHUNK", 8)
        assert_same(select_masks(scores, sparsity), reference(scores, sparsity))


@hypothesis.given(scores_of_any_kind(), st.floats(0, 1, exclude_max=True))
@hypothesis.settings(max_examples=100, deadline=None)
def test_too_many_near_the_threshold_equal_a_full_stable_sort(scores, sparsity):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threshold, "_MOST_NEAR", 0)
        assert_same(select_masks(scores, sparsity), reference(scores, sparsity))


def products_and_arrays(kind):
    """Scores that are worked out where they are read, and the same as arrays."""
    rng = np.random.default_rng(0)
    shapes = {"a": (300, 500), "b": (7,), "c": (0, 3), "d": (3, 3, 64, 128)}
    products, arrays = {}, {}
    for path, shape in shapes.items():
        factors = rng.normal(size=(2, *shape)).astype(np.float32)
        if kind == "tied":
            factors = factors.round(1)
        gradient, weight = map(keras.ops.convert_to_tensor, factors)
        products[path] = Product(gradient, weight)
        arrays[path] = np.abs(factors[0] * factors[1])
    return products, arrays


@pytest.fixture(params=["on the host", "on an accelerator"])
def place(request, monkeypatch):
    """Both ways of finding the threshold; the second runs on any device."""
    if request.param == "on an accelerator":
        monkeypatch.setattr(Product, "on_accelerator", property(lambda self: True))
        monkeypatch.setattr(snip_tf.selecting.scores, "_CHUNK_ON_ACCELERATOR", 20_000)


@pytest.mark.parametrize("kind", ["different", "tied"])
@pytest.mark.parametrize("sparsity", [0, 0.1, 0.5, 0.95, 0.999, 1 - 1e-9])
def test_products_are_selected_as_arrays_are(place, kind, sparsity):
    products, arrays = products_and_arrays(kind)
    assert_same(select_masks(products, sparsity), reference(arrays, sparsity))


@pytest.mark.parametrize("sparsity", [0.5, 1 - 1e-9])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_names_the_weight_whose_product_is_bad(place, bad, sparsity):
    products, _ = products_and_arrays("different")
    gradient = np.ones((2, 2), np.float32)
    gradient[1, 0] = bad
    ones = keras.ops.ones((2, 2))
    products["head/kernel"] = Product(keras.ops.convert_to_tensor(gradient), ones)
    with pytest.raises(ValueError, match="'head/kernel'"):
        select_masks(products, sparsity)


def test_products_compare_with_arrays_of_another_type():
    ones = keras.ops.ones((2,))
    scores = {"a": Product(ones, 2 * ones), "b": np.array([3.0, 1.0])}
    masks = select_masks(scores, 0.25)
    assert masks["a"].tolist() == [True, True]
    assert masks["b"].tolist() == [True, False]


def test_large_scores_across_several_chunks():
    rng = np.random.default_rng(0)
    # Rounded, so that thousands tie at the threshold, on both sides of a chunk's end.
    scores = {
        "a": rng.exponential(size=(1500, 1000)).astype(np.float32).round(2),
        "b": rng.exponential(size=700_001).astype(np.float32).round(2),
    }
    for sparsity in (0.1, 0.5, 0.95, 0.999):
        assert_same(select_masks(scores, sparsity), reference(scores, sparsity))


@pytest.mark.parametrize("odd", [1e-9, 1e9, -1.0])
def test_a_sample_unlike_the_rest_does_not_matter(odd):
    # What is sampled is every so many scores, from the first on.
    scores = np.random.default_rng(0).exponential(size=11 * threshold._FEWEST_SAMPLED)
    scores[::11] = odd
    for sparsity in (0.05, 0.5, 0.95):
        scores_32 = {"a": scores.astype(np.float32)}
        assert_same(select_masks(scores_32, sparsity), reference(scores_32, sparsity))


@pytest.mark.parametrize("sparsity", [0, 0.0, 0.5, 0.9, np.float32(0.25)])
def test_the_number_kept_is_exact_when_all_scores_tie(sparsity):
    scores = {"a": np.zeros((7, 9)), "b": np.zeros(38)}
    masks = select_masks(scores, sparsity)
    kept = round((1 - sparsity) * 101)
    assert sum(mask.sum() for mask in masks.values()) == kept
    in_order = np.concatenate([mask.ravel() for mask in masks.values()])
    np.testing.assert_array_equal(in_order, np.arange(101) < kept)


def test_scores_of_several_types_are_compared_by_value():
    scores = {"a": np.array([1, 2], np.int32), "b": np.array([1.5, 0.1], np.float32)}
    masks = select_masks(scores, 0.5)
    assert masks["a"].tolist() == [False, True]
    assert masks["b"].tolist() == [True, False]


@pytest.mark.parametrize("dtype", ["bfloat16", np.longdouble, np.uint8])
def test_scores_of_any_real_type(dtype):
    if dtype == "bfloat16":  # TensorFlow brings it to NumPy
        dtype = _backend.as_array(keras.ops.zeros(1, dtype)).dtype
    masks = select_masks({"a": np.array([3, 1, 2, 0]).astype(dtype)}, 0.5)
    assert masks["a"].tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("scores", "dtype"),
    [
        ([2**53, 2**53 + 1], np.int64),
        ([-(2**53), -(2**53) - 1], np.int64),
        ([2**63, 2**63 + 1], np.uint64),
        ([1, 1 + np.finfo(np.longdouble).eps], np.longdouble),
        (["1e4000", "1"], np.longdouble),
    ],
)
def test_refuses_scores_that_float64_cannot_hold(scores, dtype):
    scores = np.array(scores, dtype)
    if dtype == np.longdouble and scores.dtype.itemsize == 8:
        pytest.skip("is float64 here")
    with pytest.raises(TypeError, match=r"'a'\] of dtype .*ranks over all"):
        select_masks({"a": scores, "b": np.ones(2, np.float32)}, 0.5)


def test_large_types_of_small_scores_are_exact():
    for dtype in (np.int64, np.uint64, np.longdouble):
        scores = np.array([2**53 - 1, 2**53], dtype)
        assert select_masks({"a": scores}, 0.5)["a"].tolist() == [False, True]


@pytest.mark.parametrize("value", [decimal.Decimal(1), 2**70, None, 1j, "1"])
def test_refuses_scores_that_are_no_numbers_of_numpy(value):
    with pytest.raises(TypeError, match="real numbers"):
        select_masks({"a": np.array([value, value])}, 0.5)


def zeros_told(scores, sparsity, **options):
    """The warning of zeros that are kept by their position; None without one."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        select_masks(scores, sparsity, **options)
    [words] = [str(warning.message) for warning in told] or [None]
    return words


@pytest.fixture(params=["in one pass", "in several"])
def passes(request, monkeypatch):
    if request.param == "in several":
        monkeypatch.setattr(threshold, "_MOST_NEAR", 0)


@pytest.mark.parametrize("dtype", FLOATS)
def test_says_how_many_zeros_are_kept_by_their_position(passes, dtype):
    scores = {"a": np.array([0, 0, 1], dtype), "b": np.array([0, 2, 0, 0], dtype)}
    scores["c"] = np.array([3], dtype)
    assert zeros_told(scores, 5 / 8) is None
    words = zeros_told(scores, 3 / 8)
    assert words.startswith("2 of the kept connections have a score of zero")
    assert "2 of 'a'." in words
    assert "initialized with zeros" in words
    assert "exclude=['a']" in words
    assert "sparsity" not in words
    assert "2 of 'a', 1 of 'b'." in zeros_told(scores, 2 / 8)
    assert zeros_told(scores, 0) is None  # nothing is chosen


def test_zeros_are_reported_for_each_group():
    scores = {"a": np.array([0.0, 0, 0, 0]), "b": np.arange(4.0)}
    assert "2 of 'a'." in zeros_told(scores, 0.5, scope="layer")
    assert zeros_told(scores, {"a": 0.0, "b": 0.5}) is None
    assert "1 of 'a'." in zeros_told(scores, 0.5, min_kept=1)


def test_divided_zeros_of_signed_scores_are_reported():
    scores = {"a": np.array([0.0, -1, 0, -2, 3, -4])}
    assert zeros_told(scores, 3 / 6) is None  # all three of 0 and above are kept
    assert zeros_told(scores, 2 / 6) is None
    assert "1 of 'a'." in zeros_told(scores, 4 / 6)


def test_zeros_of_products_are_reported(place):
    ones = keras.ops.ones((10,))
    zeros = keras.ops.convert_to_tensor(np.arange(10, dtype=np.float32) // 5)
    assert "1 of 'a'." in zeros_told({"a": Product(zeros, ones)}, 0.4)
    assert zeros_told({"a": Product(zeros, ones)}, 0.5) is None


def test_a_sparsity_in_half_precision_counts_exactly():
    masks = select_masks({"a": np.arange(70_000.0)}, np.float16(0.5))
    assert masks["a"].sum() == 35_000
    assert select_masks({"a": np.arange(2_051.0)}, np.float16(0))["a"].all()


def test_empty_weights_are_no_obstacle():
    masks = select_masks({"a": np.zeros((0, 3)), "b": np.arange(4.0)}, 0.5)
    assert masks["a"].shape == (0, 3)
    assert masks["b"].tolist() == [False, False, True, True]


@pytest.mark.parametrize("sparsity", [1.0, -0.1, 1.5, 95, float("nan"), float("inf")])
def test_refuses_a_sparsity_outside_the_range(sparsity):
    with pytest.raises(ValueError, match=r"0 <= sparsity < 1.*Received"):
        select_masks({"a": np.ones(3)}, sparsity)


def test_says_how_95_percent_is_written():
    with pytest.raises(ValueError, match=r"write sparsity=0\.95"):
        select_masks({"a": np.ones(3)}, 95)


@pytest.mark.parametrize("sparsity", ["0.9", None, True, [0.9]])
def test_refuses_a_sparsity_that_is_no_number(sparsity):
    with pytest.raises(TypeError, match="Received: sparsity="):
        select_masks({"a": np.ones(3)}, sparsity)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_names_the_weight_with_a_bad_score(bad):
    with pytest.raises(ValueError, match="'head/kernel'"):
        select_masks({"a": np.ones(2), "head/kernel": np.array([1, bad])}, 0.5)
    with pytest.raises(ValueError, match="'a'"):
        select_masks({"a": np.array([bad])}, 0.9)  # of which none is kept


def test_refuses_invalid_scores():
    with pytest.raises(ValueError, match="at least one"):
        select_masks({}, 0.5)
    with pytest.raises(TypeError, match="real numbers"):
        select_masks({"a": np.array(["x"])}, 0.5)
    with pytest.raises(TypeError, match="dtype bool"):
        select_masks({"a": np.array([True])}, 0.5)
    with pytest.raises(ValueError, match="'global', 'layer', 'unit'"):
        select_masks({"a": np.ones(2)}, 0.5, scope="tensor")

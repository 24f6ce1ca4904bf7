import contextlib

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np

import snip_tf
from tests.random_networks import (
    IMAGE_PARTS,
    and_back,
    assert_same_outputs,
    compacted,
    cut_at_random,
    flat,
    network,
    recurrent,
)

layers = keras.layers


@contextlib.contextmanager
def in_float64():
    for change in (keras.config.set_floatx, keras.config.set_dtype_policy):
        change("float64")
    try:
        yield
    finally:
        for change in (keras.config.set_floatx, keras.config.set_dtype_policy):
            change("float32")


def networks(max_examples):
    """Draws networks of random parts: the same ones each time."""

    def decorate(test):
        given = hypothesis.given(
            st.lists(st.sampled_from(IMAGE_PARTS), min_size=1, max_size=5),
            st.sampled_from([flat, recurrent, and_back]),
            st.booleans(),
            st.booleans(),
            st.floats(0.5, 0.999),
            st.integers(0, 2**32),
        )
        return hypothesis.settings(
            max_examples=max_examples, deadline=None, derandomize=True
        )(given(test))

    return decorate


@networks(max_examples=40)
def test_outputs_are_the_same_and_no_more_parameters(
    parts, head, residual_head, two_outputs, sparsity, seed
):
    rng = np.random.default_rng(seed)
    # In float32, sums that are large but cancel may differ by more, in any order.
    with in_float64():
        model = network(parts, head, residual_head, two_outputs, rng)
        cut_at_random(model, sparsity, rng)
        smaller = compacted(model)
        x = rng.normal(size=(3, 6, 6, 3))
        assert_same_outputs(smaller, model, x, 1e-9)
    assert smaller.count_params() <= model.count_params()


# Of very few other networks (one in some thousands) a second pass removes more, where a
# branch is found to be zero only after its features are gone.
@networks(max_examples=15)
def test_another_round_finds_nothing_more(
    parts, head, residual_head, two_outputs, sparsity, seed
):
    rng = np.random.default_rng(seed)
    model = network(parts, head, residual_head, two_outputs, rng)
    cut_at_random(model, sparsity, rng)
    smaller = compacted(model)
    assert compacted(smaller).count_params() == smaller.count_params()


def test_an_unused_input():
    inputs = [keras.Input((4,)), keras.Input((4,))]
    parts = [
        layers.Dense(5, use_bias=False, name=n)(x)
        for n, x in zip("ab", inputs, strict=True)
    ]
    model = keras.Model(inputs, layers.Dense(2)(layers.Add()(parts)))
    pruned = snip_tf.apply_masks(model, {"b/kernel": np.zeros((4, 5), bool)})
    smaller = snip_tf.compact(pruned)
    assert smaller.count_params() < model.count_params()
    assert_same_outputs(smaller, pruned, [np.random.rand(3, 4) for _ in inputs])


def test_a_layer_that_is_used_twice_stays_as_it_is():
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    model = keras.Model(inputs, layers.Dense(2)(shared(shared(inputs))))
    mask = np.eye(4, dtype=bool)
    mask[2] = False
    pruned = snip_tf.apply_masks(model, {"shared/kernel": mask})
    smaller = compacted(pruned)
    assert smaller.get_layer("shared").units == 4
    assert_same_outputs(smaller, pruned, np.random.rand(3, 4))


@keras.saving.register_keras_serializable("compaction_test")
class OwnDense(layers.Dense):
    """May compute anything."""


def test_a_layer_of_an_own_class_keeps_its_neighbours():
    stack = [layers.Dense(5, name="a"), OwnDense(5, name="own"), layers.Dense(5)]
    model = keras.Sequential([keras.Input((4,)), *stack, layers.Dense(2, name="b")])
    cut = np.zeros((5, 5), bool)
    pruned = snip_tf.apply_masks(model, {"own/kernel": cut})
    smaller = compacted(pruned)
    assert smaller.get_layer("a").units == smaller.get_layer("own").units == 5
    assert type(smaller.get_layer("own")) is OwnDense

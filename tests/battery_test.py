"""Every kind of model through its whole life; some trained in every way."""

import contextlib
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf.weights import weights_by_path
from tests import numpy_reference
from tests.battery import (
    SPARSITY,
    assert_kept_weights_alone_moved,
    assert_pruned_exactly,
    assert_same_outputs,
    prunable_values,
    pruned_and_left_alone,
    restart,
    saved_and_loaded,
)
from tests.kinds import EXAMPLES, KINDS
from tests.matrix import pages
from tests.network_kinds import ALL_KINDS, HAS_KERAS_HUB, NETWORKS
from tests.replicas import two_replicas

# All connections of some weights of the larger networks go.
pytestmark = pytest.mark.filterwarnings("ignore:Pruning kept nothing")
EPOCHS = 2
WRITE_TABLES = bool(os.environ.get("WRITE_TABLES"))
# One kind for each of the things that may go wrong in one way and not in another.
IN_EVERY_WAY = (
    "Functional: dict inputs, two outputs, loss weights",
    "Conv2D, BatchNormalization, Dropout",
    "LSTM(stateful=True)",
    "MultiHeadAttention, GroupedQueryAttention",
    "regularizers and constraints",
    "a composite layer: attributes, lists, dicts, no `build`",
    "a subclassed model with its own `train_step`",
    "a quantized layer",
)
# The outcome of each (kind, way), for the table.
OUTCOMES = {}
NOT_IN_KERAS = "not in Keras"


def fit(model, x, y):
    model.fit(x, y, batch_size=EXAMPLES, epochs=EPOCHS, verbose=0)


def fit_with_loss_scaling(model, x, y):
    """Long enough for the scale to fall to where gradients are finite in float16."""
    model.fit(x, y, batch_size=EXAMPLES, epochs=10, verbose=0)


def hand_written_loop(model, x, y):
    for _ in range(EPOCHS):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)


def compiled_by_xla(model, x, y):
    model.jit_compile = True
    fit(model, x, y)
    model.jit_compile = False


@contextlib.contextmanager
def mixed_float16():
    """While models are made."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        yield
    finally:
        keras.config.set_dtype_policy("float32")


no_scope = contextlib.nullcontext
# How a model is made and trained.
WAYS = {
    "`fit`": (no_scope, fit),
    "hand-written loop": (no_scope, hand_written_loop),
    "`mixed_float16`": (mixed_float16, fit_with_loss_scaling),
    "`jit_compile`": (no_scope, compiled_by_xla),
    "two replicas": (lambda: two_replicas().scope(), fit),
}


def made(title, scope):
    """The model of a kind with its data, unless Keras cannot make it in that scope."""
    try:
        return ALL_KINDS[title]()
    except ValueError:
        assert scope is not no_scope
        return None


def combinations():
    """The kinds and ways to try: all of them when the table is written."""
    return [
        (title, way)
        for title in ALL_KINDS
        for way in WAYS
        if way == "`fit`" or title in IN_EVERY_WAY or WRITE_TABLES
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("title", "way"), combinations())
def test_battery(title, way, tmp_path):
    OUTCOMES[title, way] = outcome = life(title, way, tmp_path)
    if not WRITE_TABLES:
        assert outcome == written_outcomes()[title, way]


def life(title, way, folder):
    """Checks a model of a kind; returns the cell of the table."""
    scope, train = WAYS[way]
    keras.utils.set_random_seed(0)
    with scope():
        model_and_data = made(title, scope)
        if model_and_data is None:
            return NOT_IN_KERAS
        model, x, y = model_and_data
        pruned = pruned_and_left_alone(model, x, y)
    assert_pruned_exactly(pruned, model)

    masks = snip_tf.get_masks(pruned)
    start = prunable_values(pruned)
    try:
        train(pruned, x, y)
    except Exception:
        assert_keras_cannot_either(title, way)
        return NOT_IN_KERAS
    assert_kept_weights_alone_moved(pruned, masks, start)

    stripped = snip_tf.strip_pruning(pruned)
    assert type(stripped) is type(model)
    assert list(weights_by_path(stripped)) == list(weights_by_path(model))
    assert_same_outputs(stripped, pruned, x)

    with scope():
        loaded = saved_and_loaded(pruned, folder)
        if "LoRA" in title:
            # Keras saves the sum of a kernel and its update, rounded.
            pruned = saved_and_loaded(stripped, folder)
    np.testing.assert_equal(snip_tf.get_masks(loaded), masks)
    assert_same_outputs(loaded, pruned, x)
    return "yes"


def assert_keras_cannot_either(title, way):
    scope, train = WAYS[way]
    with scope():
        dense, x, y = ALL_KINDS[title]()
    with pytest.raises(Exception):  # noqa: B017 - whatever Keras raises
        train(dense, x, y)


def data_loss(y, outputs):
    """The loss that the models of `ALL_KINDS` are compiled with."""
    if isinstance(y, dict):
        weights = {"z": 0.5}
        return sum(weights.get(k, 1.0) * data_loss(y[k], outputs[k]) for k in y)
    if y.dtype.kind == "f":
        return tf.reduce_mean(tf.square(y - outputs))
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, outputs)
    return tf.reduce_mean(losses)


@pytest.mark.parametrize(
    "title",
    [*KINDS, *(pytest.param(title, marks=pytest.mark.slow) for title in NETWORKS)],
)
def test_masks_are_those_of_the_reference(title):
    """`|w * dL/dw|` in float64 and a full sort, on the gradients of the model itself.

    Two scores that are equal but for the rounding of float32 may change places.
    """
    keras.utils.set_random_seed(0)
    model, x, y = ALL_KINDS[title]()
    pruned = snip_tf.prune_model(model, x, y, sparsity=SPARSITY, batch_size=EXAMPLES)
    masks = snip_tf.get_masks(pruned)
    weights = snip_tf.prunable_weights(model)
    restart(model)
    values = [weight.value for weight in weights.values()]
    with tf.GradientTape() as tape:
        loss = data_loss(y, model(x, training=False))
    gradients = map(tf.convert_to_tensor, tape.gradient(loss, values))
    scores = [
        np.abs(weight.numpy().astype(np.float64) * gradient.numpy())
        for weight, gradient in zip(weights.values(), gradients, strict=True)
    ]
    kept = sum(int(mask.sum()) for mask in masks.values())
    expected = numpy_reference.keep_largest(scores, kept)
    threshold = min(
        score[mask].min()
        for score, mask in zip(scores, expected, strict=True)
        if mask.any()
    )
    for path, score, mask in zip(masks, scores, expected, strict=True):
        differs = mask != masks[path]
        np.testing.assert_allclose(score[differs], threshold, rtol=1e-5, err_msg=path)
        assert differs.sum() <= 2, path


def table():
    lines = [["model", *WAYS]]
    for title in ALL_KINDS:
        lines.append([title, *(OUTCOMES[title, way] for way in WAYS)])
    return pages.table(lines)


def written_outcomes():
    """The outcomes in the table as it stands."""
    rows = pages.part("ways").splitlines()
    lines = [row.strip("| ").split(" | ") for row in rows[2:]]
    return {
        (title, way): cell
        for title, *cells in lines
        for way, cell in zip(WAYS, cells, strict=True)
    }


def test_the_table_is_complete():
    """`WRITE_TABLES=1 pytest -m "" tests/battery_test.py` writes it anew."""
    if not HAS_KERAS_HUB:
        pytest.skip("keras-hub, which the table has models of, is not installed")
    if WRITE_TABLES:
        pages.write_part("ways", table())
    assert list(written_outcomes()) == [
        (title, way) for title in ALL_KINDS for way in WAYS
    ]

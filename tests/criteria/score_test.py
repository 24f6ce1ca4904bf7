"""`snip_tf.score`, beside what `prune_model` does with it."""

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf import criteria, weights
from tests.criteria.networks import LOSS, bits, data, dense


@pytest.mark.parametrize("name", criteria.CRITERIA)
def test_masks_of_the_scores_are_those_of_prune_model(name):
    keras.utils.set_random_seed(0)
    model, (x, y) = dense(12, 9, 4), data()
    options = {"criterion": name, "loss": LOSS, "seed": 0}
    if criteria.get(name).steps is not None:
        options["criterion"] = type(criteria.get(name))(steps=1)
    scores = snip_tf.score(model, x, y, **options)
    assert list(scores) == list(snip_tf.prunable_weights(model))
    assert {score.dtype for score in scores.values()} == {np.dtype(np.float32)}
    masks = snip_tf.select_masks(scores, sparsity=0.7)
    pruned = snip_tf.prune_model(model, x, y, sparsity=0.7, **options)
    np.testing.assert_equal(masks, snip_tf.get_masks(pruned))


def test_an_iterative_criterion_scores_what_is_left_of_the_network():
    model, (x, y) = dense(12, 9, 4), data()
    pruned = snip_tf.prune_model(model, sparsity=0.5, criterion="magnitude")
    for name in ("iterative_snip", "force", "synflow"):
        whole, left = (
            snip_tf.score(each, x, y, loss=LOSS, criterion=name)
            for each in (model, pruned)
        )
        for path, mask in snip_tf.get_masks(pruned).items():
            assert not left[path][~mask].any()
            assert (whole[path][~mask] > 0).any()


def test_sensitivities_are_scores_of_snip_that_sum_to_one():
    model, (x, y) = dense(12, 9, 4), data()
    scores = snip_tf.score(model, x, y, loss=LOSS)
    total = sum(score.sum(dtype=np.float64) for score in scores.values())
    found = snip_tf.connection_sensitivity(model, x, y, loss=LOSS)
    for path, score in scores.items():
        np.testing.assert_allclose(found[path], score / total, rtol=1e-6)


def test_a_custom_criterion_sees_all_arguments():
    seen = []

    def criterion(context):
        seen.append(context)
        return {path: np.ones(w.shape, int) for path, w in context.weights.items()}

    model, (x, y) = dense(12, 9, 4), data()
    options = {"training": True, "seed": 3, "include": "*/bias", "loss": "mse"}
    scores = snip_tf.score(model, x, y, criterion=criterion, **options)
    [context], prunable = seen, snip_tf.prunable_weights(model, include="*/bias")
    assert context.model is model
    assert list(context.weights) == list(scores) == list(prunable)
    assert (context.training, context.seed, context.masks) == (True, 3, {})
    assert context.objective.loss == "mse"
    assert [len(batch[0]) for batch in context.batches] == [32]


def test_scores_beyond_float32_keep_their_order():
    keras.utils.set_random_seed(0)
    model = dense(*[16] * 60 + [10])
    for layer in model.layers:
        layer.kernel.assign(32 * layer.kernel)
    scores = snip_tf.score(model, criterion="synflow")
    assert max(score.max() for score in scores.values()) == 1
    assert all(np.isfinite(score).all() for score in scores.values())


def test_scores_are_in_the_order_of_the_model():
    def backwards(context):
        weights = reversed(list(context.weights.items()))
        return {path: np.abs(w.numpy()) for path, w in weights}

    model = dense(12, 9, 4)
    scores = snip_tf.score(model, *data(), criterion=backwards)
    assert list(scores) == list(snip_tf.prunable_weights(model))


def test_a_score_that_is_not_a_number_names_its_weight():
    def criterion(context):
        return {path: np.full(w.shape, np.nan) for path, w in context.weights.items()}

    with pytest.raises(ValueError, match="of 'head/kernel' are NaN"):
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(2, name="head")]
        )
        snip_tf.score(model, np.ones((4, 4)), criterion=criterion)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, ValueError, "x=None with the criterion Snip"),
        ({"criterion": "sinp"}, ValueError, "'snip'"),
        ({"criterion": lambda model, x: {}}, TypeError, r"function of \(context\)"),
        ({"criterion": "magnitude", "seed": -1}, ValueError, "`seed`"),
        ({"criterion": "magnitude", "verbose": 2}, ValueError, "`verbose`"),
        ({"x": 0.5}, TypeError, "as `Model.fit` takes it"),
    ],
)
def test_refuses(options, error, words):
    with pytest.raises(error, match=words):
        snip_tf.score(dense(12, 4), **options)


@pytest.mark.parametrize(
    "call", [snip_tf.prune_model, snip_tf.score, snip_tf.connection_sensitivity]
)
def test_the_model_is_read_once(call, monkeypatch):
    model, (x, y), read = dense(12, 9, 4), data(), weights.Walk.__init__
    walked = []

    def init(walk, layer):
        walked.append(layer)
        read(walk, layer)

    monkeypatch.setattr(weights.Walk, "__init__", init)
    options = {"sparsity": 0.5} if call is snip_tf.prune_model else {}
    call(model, x, y, loss=LOSS, **options)
    assert sum(layer is model for layer in walked) == 1


@pytest.mark.parametrize(("verbose", "shown"), [("auto", True), (1, True), (0, False)])
def test_the_progress_of_steps_is_shown(verbose, shown, capsys):
    options = {"criterion": criteria.SynFlow(3), "sparsity": 0.5, "verbose": verbose}
    pruned = snip_tf.prune_model(dense(12, 9, 4), **options)
    assert bits(pruned).mean() == pytest.approx(0.5, abs=0.01)
    assert ("3/3" in capsys.readouterr().out) == shown

"""`objective=`, for what no loss on outputs can say, and where it is asked for."""

import contextlib
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf import criteria
from tests.by_hand import Gan, X, Y, assert_close, by_hand, dense
from tests.replicas import two_replicas

layers, ops = keras.layers, keras.ops


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


def test_pairs_of_views():
    model = dense("encoder", 6, 8, 3)

    def contrast(model, batch, training):
        one, other = (
            model(batch[view], training=training) for view in ("one", "other")
        )
        alike = ops.matmul(ops.normalize(one), ops.transpose(ops.normalize(other)))
        return ops.mean(ops.logsumexp(alike, axis=1) - ops.diagonal(alike))

    views = {"one": X, "other": X + 0.1}
    expected = by_hand(model, lambda: contrast(model, views, False))
    dataset = tf.data.Dataset.from_tensor_slices(views).batch(24)
    for data in (views, dataset, iter([views])):
        found = snip_tf.connection_sensitivity(model, data, objective=contrast)
        assert_close(found, expected)


@pytest.mark.parametrize("how", ["alone", "replicas"])
def test_a_number_for_the_whole_batch(how):
    model = dense("net", 6, 4)

    def scaled(model, batch, training):
        return batch["by"] * ops.mean(ops.square(model(batch["x"], training=training)))

    data = [{"by": np.float32(3), "x": X[:12]}, {"by": np.float32(1), "x": X[12:]}]
    expected = by_hand(model, lambda: sum(scaled(model, b, 0) for b in data))
    with two_replicas().scope() if how == "replicas" else contextlib.nullcontext():
        found = snip_tf.connection_sensitivity(
            model, iter(data), objective=scaled, batches=2
        )
    assert_close(found, expected)


def test_what_is_more_than_three():
    """Transitions of reinforcement: state, action, reward, next state."""
    model, rewards, actions = dense("q", 6, 8, 3), Y[:, 0], np.arange(24) % 3

    def error(model, batch, training):
        state, action, reward, following = batch
        best = ops.max(model(following, training=training), axis=-1)
        value = ops.sum(model(state) * ops.one_hot(action, 3), axis=-1)
        target = reward + 0.9 * ops.stop_gradient(best)
        return ops.mean(ops.square(target - value))

    batch = (X, actions, rewards, X[::-1].copy())
    dataset = tf.data.Dataset.from_tensor_slices(batch).batch(24)
    found = snip_tf.connection_sensitivity(model, dataset, objective=error)
    assert_close(found, by_hand(model, lambda: error(model, batch, False)))


@pytest.mark.parametrize("given", [(X,), (X, Y), (X, Y, X[:, 0]), (X, None, X[:, 0])])
def test_arrays_are_given_as_they_came(given):
    seen = []

    def objective(model, batch, training):
        seen.append((batch, training))
        return ops.mean(model(batch if len(given) == 1 else batch[0]))

    double = [a if a is None else a.astype(np.float64) for a in given]
    snip_tf.connection_sensitivity(
        dense("net", 6, 4), *double, objective=objective, training=True, batch_size=24
    )
    [(batch, training)] = seen
    assert training is True
    batch = (batch,) if len(given) == 1 else batch
    for tensor, array in zip(batch, given, strict=True):
        if array is None:
            assert tensor is None
            continue
        assert tf.is_tensor(tensor)
        assert tensor.dtype == "float32"
        np.testing.assert_array_equal(tensor, array)


def squares(model, batch, training):
    x, y = batch
    return ops.mean(ops.square(model(x, training=training) - y))


@pytest.mark.parametrize(
    "pieces", [{"batch_size": 10, "batches": 3}, {"batch_size": 7, "batches": 4}]
)
def test_pieces_are_weighed_by_their_examples(pieces):
    model = dense("net", 6, 5, 2)
    found = snip_tf.connection_sensitivity(model, X, Y, objective=squares, **pieces)
    assert_close(found, by_hand(model, lambda: squares(model, (X, Y), False)))


@pytest.mark.parametrize("name", ["snip", "force", "iterative_snip", "grasp", "units"])
@pytest.mark.filterwarnings("ignore:The temperature")
def test_every_criterion_takes_an_objective(name):
    steps = {"force": criteria.Force(3), "iterative_snip": criteria.IterativeSnip(3)}
    options = {"criterion": steps.get(name, name), "sparsity": 0.5}
    if name == "units":
        options = {"structure": "units", "sparsity": 0.5}
    model = dense("net", 6, 8, 7, 2)
    traced = tf.function(squares)  # it must not keep the values of the first step
    masks = [
        snip_tf.get_masks(snip_tf.prune_model(model, X, Y, **options, **loss))
        for loss in ({"objective": squares}, {"objective": traced}, {"loss": "mse"})
    ]
    for same in masks[:2]:
        for path, mask in masks[2].items():
            np.testing.assert_array_equal(same[path], mask)


def test_penalties_are_left_out_of_losses():
    plain = dense("net", 6, 5, 2)
    model = dense("net", 6, 5, 2, kernel_regularizer="l2", activity_regularizer="l1")
    model.set_weights(plain.get_weights())

    def objective(model, batch, training):
        return squares(model, batch, training) + sum(model.losses)

    found = snip_tf.connection_sensitivity(model, X, Y, objective=objective)
    activity = dense("net", 6, 5, 2, activity_regularizer="l1")
    activity.set_weights(plain.get_weights())
    assert_close(found, snip_tf.connection_sensitivity(activity, X, Y, loss="mse"))


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_replicas_score_as_one_device(where):
    def objective(model, batch, training):
        # A loss of Keras', which it divides among replicas, beside one's own.
        loss = keras.losses.MeanSquaredError()(batch[1], model(batch[0]))
        return loss + ops.mean(ops.abs(model(batch[0], training=training)))

    alone = dense("net", 6, 5, 2)
    expected = snip_tf.connection_sensitivity(alone, X, Y, objective=objective)
    with two_replicas().scope():
        model = dense("net", 6, 5, 2)
        model.set_weights(alone.get_weights())
        if where == "inside":
            found = snip_tf.connection_sensitivity(model, X, Y, objective=objective)
    if where == "outside":
        found = snip_tf.connection_sensitivity(model, X, Y, objective=objective)
    assert_close(found, expected)


def test_one_example_of_an_objective_is_not_shared():
    model = dense("net", 6, 5, 2)
    expected = snip_tf.connection_sensitivity(model, X[:1], Y[:1], objective=squares)
    with two_replicas().scope():
        found = snip_tf.connection_sensitivity(model, X[:1], Y[:1], objective=squares)
    assert_close(found, expected)


def test_a_custom_criterion_can_pass_it_on():
    def mine(context):
        return criteria.Snip()(context)

    model = dense("net", 6, 5, 2)
    masks = [
        snip_tf.get_masks(
            snip_tf.prune_model(
                model, X, Y, sparsity=0.5, objective=squares, criterion=criterion
            )
        )
        for criterion in ("snip", mine)
    ]
    for path in masks[0]:
        np.testing.assert_array_equal(masks[0][path], masks[1][path])


@pytest.mark.parametrize(
    ("objective", "kind", "words"),
    [
        ("mse", TypeError, "Expected `objective` to be a function"),
        (
            keras.losses.MeanSquaredError(),
            TypeError,
            "what `compile` takes is a `loss`",
        ),
        (
            lambda model, batch: 0.0,
            TypeError,
            r"function of \(model, batch, training\).*of \(model, batch\), which",
        ),
        (keras.losses.mean_squared_error, TypeError, r"of \(y_true, y_pred\), which"),
        (lambda m, b, t: None, ValueError, "objective returns to be one number.*None"),
        (lambda m, b, t: m(b[0]), ValueError, r"objective.*of shape \(24, 2\).*mean"),
        (lambda m, b, t: {"a": 1.0}, TypeError, "objective returns.*of type dict"),
        (lambda m, b, t: ops.sum(m(b[0])) / 0, ValueError, "finite objective"),
        (lambda m, b, t: 3.0, ValueError, "objective to depend on .*on none of"),
        (
            lambda m, b, t: ops.mean(m(b[0]).numpy()),
            ValueError,
            "objective.*on none of",
        ),
        (
            lambda m, b, t: ops.mean(m.layers[0](b[0])),
            ValueError,
            re.escape("an objective that does not depend on 'd2/kernel'. Leave"),
        ),
    ],
)
def test_says_what_is_wrong_with_an_objective(objective, kind, words):
    with pytest.raises(kind, match=words):
        snip_tf.prune_model(
            dense("net", 6, 5, 2), X, Y, sparsity=0.5, objective=objective
        )


def test_errors_of_an_objective_are_its_own():
    with pytest.raises(ZeroDivisionError):
        snip_tf.prune_model(
            dense("net", 6, 5), X, Y, sparsity=0.5, objective=lambda m, b, t: 1 / 0
        )


@pytest.mark.parametrize("function", ["prune_model", "connection_sensitivity"])
def test_refuses_a_loss_beside_an_objective(function):
    options = {"sparsity": 0.5} if function == "prune_model" else {}
    with pytest.raises(ValueError, match="a `loss` or an `objective`, not both"):
        getattr(snip_tf, function)(
            dense("net", 6, 5), X, Y, loss="mse", objective=squares, **options
        )


class Stepping(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


class Below(Stepping):
    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        return ops.mean(ops.abs(y - y_pred))


def stepping(cls):
    x = keras.Input((6,))
    return cls(x, layers.Dense(2, name="out")(layers.Dense(5, "tanh")(x)))


@pytest.mark.parametrize("cls", [Stepping, Below])
def test_warns_of_a_train_step(cls):
    model = stepping(cls)
    model.compile("sgd", "mae")
    used = "`compute_loss`" if cls is Below else "the compiled loss"
    with pytest.warns(UserWarning, match=f"`train_step`.*{used}.*objective=") as told:
        found = snip_tf.connection_sensitivity(model, X, Y)
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = snip_tf.connection_sensitivity(model, X, Y, loss="mae")
        snip_tf.prune_model(model, X, Y, sparsity=0.5, objective=squares)
        snip_tf.prune_model(model, sparsity=0.5, criterion="synflow")
    assert_close(found, said)


@pytest.mark.parametrize("cls", [Stepping, Gan])
def test_asks_for_an_objective_where_the_loss_is_unknown(cls):
    if cls is Gan:
        model, words = Gan(dense("g", 4, 6), dense("d", 6, 1)), "no `call`"
    else:
        model, words = stepping(cls), "`train_step`"
    model.compile("sgd")
    for options in ({"criterion": "snip"}, {"criterion": "grasp"}):
        with pytest.raises(ValueError, match=f"{words}.*objective=lambda"):
            snip_tf.prune_model(model, X, Y, sparsity=0.5, **options)


def test_criteria_without_a_loss_read_inputs_beside_an_objective():
    model = dense("net", 6, 5, 2)
    masks = [
        snip_tf.get_masks(
            snip_tf.prune_model(
                model, *data, sparsity=0.5, criterion="synflow", objective=squares
            )
        )
        for data in ((), (X, Y))
    ]
    for path, mask in masks[0].items():
        np.testing.assert_array_equal(masks[1][path], mask)

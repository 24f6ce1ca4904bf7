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
from snip_tf.weights import prunable_weights
from tests.replicas import two_replicas

layers, ops = keras.layers, keras.ops
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype(np.float32)
Y = RNG.normal(size=(24, 2)).astype(np.float32)


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


def dense(name, inputs, *units, **options):
    stack = [layers.Dense(n, "tanh", name=f"d{n}", **options) for n in units]
    return keras.Sequential([keras.Input((inputs,)), *stack], name=name)


def by_hand(model, value, paths=None):
    """w * dL/dw in magnitude, all of them 1 in sum; `value` is computed on a tape."""
    weights = prunable_weights(model)
    weights = {path: weights[path] for path in paths or weights}
    with tf.GradientTape() as tape:
        loss = value()
    found = tape.gradient(loss, [weight.value for weight in weights.values()])
    scores = {
        path: np.abs(np.asarray(weight) * gradient)
        for (path, weight), gradient in zip(weights.items(), found, strict=True)
    }
    total = sum(score.sum() for score in scores.values())
    return {path: score / total for path, score in scores.items()}


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for path, score in expected.items():
        np.testing.assert_allclose(found[path], score, rtol=2e-4, atol=1e-7)


class Gan(keras.Model):
    """Has no `call`, and a step of its own."""

    def __init__(self, generator, discriminator):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator

    def train_step(self, data):
        raise AssertionError("not to be run")


def of_generator(model, batch, training):
    del training
    return ops.mean(ops.softplus(-model.discriminator(model.generator(batch))))


@pytest.mark.parametrize("built", [True, False])
def test_parts_of_a_model_without_a_call(built):
    generator, discriminator = dense("g", 4, 8, 6), dense("d", 6, 7, 1)
    if not built:
        generator, discriminator = (
            keras.Sequential(
                [layers.Dense(n, "tanh", name=f"d{n}") for n in units], name=name
            )
            for name, units in (("g", (8, 6)), ("d", (7, 1)))
        )
    z = X[:, :4]
    model = Gan(generator, discriminator)
    model.compile("sgd")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = snip_tf.connection_sensitivity(model, z, objective=of_generator)
    expected = by_hand(model, lambda: of_generator(model, z, False))
    assert list(expected) == [
        "g/d8/kernel",
        "g/d6/kernel",
        "d/d7/kernel",
        "d/d1/kernel",
    ]
    assert_close(found, expected)
    pruned = snip_tf.prune_model(
        model, z, sparsity=0.5, objective=of_generator, exclude="d/*"
    )
    assert set(snip_tf.get_masks(pruned)) == {"g/d8/kernel", "g/d6/kernel"}
    assert snip_tf.sparsity(pruned) == pytest.approx(0.5, abs=0.01)


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
        options = {"pattern": "units", "sparsity": 0.5}
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


def test_a_criterion_of_ones_own_can_hand_it_on():
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
def test_asks_for_an_objective_where_nobody_knows(cls):
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


@pytest.mark.parametrize("criterion", ["magnitude", "random"])
@pytest.mark.parametrize("data", [(), (X,)])
def test_parts_without_a_call_need_no_objective_without_a_loss(criterion, data):
    model = Gan(dense("g", 4, 6), dense("d", 6, 1))
    pruned = snip_tf.prune_model(model, *data, sparsity=0.5, criterion=criterion)
    assert snip_tf.sparsity(pruned) == 0.5


@pytest.mark.parametrize("data", [(), (X,)])
def test_nothing_flows_through_a_model_without_a_call(data):
    model = Gan(dense("g", 4, 6), dense("d", 6, 1))
    with pytest.raises(ValueError, match=r"no `call`\. Prune its parts.*'magnitude'"):
        snip_tf.prune_model(model, *data, sparsity=0.5, criterion="synflow")


@pytest.mark.parametrize("format", ["litert", "saved_model"])
def test_a_model_without_a_call_is_exported_by_its_parts(format, tmp_path):
    model = Gan(dense("g", 4, 6), dense("d", 6, 1))
    pruned = snip_tf.prune_model(model, sparsity=0.5, criterion="magnitude")
    path = tmp_path / ("file.tflite" if format == "litert" else "folder")
    with pytest.raises(ValueError, match=r"with a `call`.*Export its parts"):
        snip_tf.export(pruned, path, format)
    assert not path.exists()
    snip_tf.export(pruned.generator, path, format, print_fn=lambda line: None)
    assert path.exists()


def test_a_model_without_a_call_is_compacted_by_its_parts():
    model = Gan(dense("g", 4, 6), dense("d", 6, 8, 1))
    pruned = snip_tf.prune_model(model, sparsity=0.9, criterion="magnitude")
    for tool in (snip_tf.compact, snip_tf.sparse_runtime):
        with pytest.raises(ValueError, match="no `call`, only parts"):
            tool(pruned)
    part = pruned.discriminator
    small = snip_tf.compact(part)
    assert small.count_params() < part.count_params()
    np.testing.assert_allclose(small(X), part(X), atol=1e-6)

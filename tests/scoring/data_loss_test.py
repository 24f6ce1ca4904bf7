"""Losses as `compile` takes them: whose they are, their sums, means and masks."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf.network import prunable_weights
from snip_tf.scoring.losses import built_in
from tests.kinds import activity_is_a_mean
from tests.replicas import two_replicas

layers, losses, ops = keras.layers, keras.losses, keras.ops
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype(np.float32)


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


def own_function(name):
    def loss(y, y_pred):
        return ops.mean(ops.square(y_pred), axis=-1)

    loss.__name__ = name
    return loss


class Void(losses.SparseCategoricalCrossentropy):
    """Leaves out the label 255."""

    def call(self, y, y_pred):
        known = ops.cast(y < 255, "float32")
        return known * super().call(ops.where(y < 255, y, 0), y_pred)


class Logits(losses.SparseCategoricalCrossentropy):
    """Keras' loss with another default."""

    def __init__(self, **options):
        super().__init__(from_logits=True, **options)


@pytest.mark.parametrize(
    ("loss", "function"),
    [
        ("mse", losses.mean_squared_error),
        ("SparseCategoricalCrossentropy", losses.sparse_categorical_crossentropy),
        (losses.binary_crossentropy, losses.binary_crossentropy),
        (losses.CTC(), losses.ctc),
        (losses.Huber, losses.huber),
        (Logits(), losses.sparse_categorical_crossentropy),
        (functools.partial(losses.huber, delta=2.0), losses.huber),
        (own_function("sparse_categorical_crossentropy"), None),
        (Void(from_logits=True), None),
        (type("BinaryCrossentropy", (losses.Loss,), {})(), None),
        (None, None),
        ("ce", None),
    ],
)
def test_a_loss_is_that_of_keras_by_what_it_is(loss, function):
    found = built_in(loss)
    assert (found and found[0]) is function


@pytest.mark.parametrize("name", losses.__dict__)
def test_every_class_of_loss_is_known(name):
    cls = getattr(losses, name)
    if isinstance(cls, type) and cls is not losses.Loss:
        function, settings = built_in(cls())
        assert vars(losses)[function.__name__] is function
        assert settings.items() <= {**settings, **cls().get_config()}.items()


@pytest.mark.parametrize(
    "loss", [own_function("sparse_categorical_crossentropy"), Void()]
)
def test_a_custom_loss_interprets_its_labels(loss):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4, "softmax")])
    y = np.where(np.arange(24) % 5, np.arange(24) % 4, 255)
    model.compile("sgd", loss)
    pruned = snip_tf.prune_model(model, X, y, sparsity=0.5)
    assert snip_tf.sparsity(pruned) == 0.5


def two_heads(*given):
    x = keras.Input((6,))
    hidden = layers.Dense(8, "tanh", name="hidden")(x)
    outputs = [layers.Dense(n, name=name)(hidden) for n, name in ((1, "a"), (3, "b"))]
    model = keras.Model(x, outputs)
    if given:
        model.compile("sgd", *given)
    return model


def one_head():
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, "tanh", name="a"),
            layers.Dense(3, name="b"),
        ]
    )


TWO = [X[:, :1], np.arange(24) % 3]
SUM = losses.MeanSquaredError(reduction="sum")
MEAN = losses.SparseCategoricalCrossentropy(from_logits=True)


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for path, score in expected.items():
        np.testing.assert_allclose(found[path], score, rtol=1e-3, atol=1e-6)


def scores_of(model, value):
    weights = prunable_weights(model)
    with tf.GradientTape() as tape:
        loss = value(model)
    found = tape.gradient(loss, [weight.value for weight in weights.values()])
    pairs = zip(weights.items(), found, strict=True)
    scores = {p: np.abs(np.asarray(w) * np.asarray(g)) for (p, w), g in pairs}
    total = sum(score.sum() for score in scores.values())
    return {path: score / total for path, score in scores.items()}


PIECES = [
    {"batch_size": 10, "batches": 3},
    {"batch_size": 9, "batches": 3},
    {"batch_size": 24},
]


@pytest.mark.parametrize("pieces", PIECES)
@pytest.mark.parametrize(
    "given",
    [([SUM, MEAN],), ({"a": SUM, "b": MEAN}, {"a": 0.1, "b": 3.0}), ([SUM, SUM],)],
)
def test_sums_beside_means_in_pieces(given, pieces):
    model = two_heads(*given)
    y = [TWO[0], X[:, 1:4]] if given == ([SUM, SUM],) else TWO
    expected = scores_of(model, lambda model: model.compute_loss(X, y, model(X)))
    assert_close(snip_tf.connection_sensitivity(model, X, y, **pieces), expected)


@pytest.mark.skipif(not activity_is_a_mean(), reason="adds up over the examples")
@pytest.mark.parametrize("pieces", PIECES)
def test_a_sum_beside_what_a_layer_adds_in_pieces(pieces):
    stack = layers.Dense(8, activity_regularizer="l2"), layers.Dense(1)
    model = keras.Sequential([keras.Input((6,)), *stack])
    model.compile("sgd", SUM)
    y = X[:, :1]
    expected = scores_of(model, lambda model: model.compute_loss(X, y, model(X)))
    assert_close(snip_tf.connection_sensitivity(model, X, y, **pieces), expected)


def padded(outputs=1, **options):
    tokens = keras.Input((9,), dtype="int32")
    hidden = layers.Embedding(15, 8, mask_zero=True, name="embedding")(tokens)
    inner = layers.Dense(12, "tanh", name="inner")
    hidden = layers.TimeDistributed(inner, name="hidden")(hidden)
    dense = [layers.Dense(4, name=f"out{n}", **options) for n in range(outputs)]
    heads = [layer(hidden) for layer in dense]
    return keras.Model(tokens, heads if outputs > 1 else heads[0])


TOKENS = RNG.integers(1, 15, (24, 9))
TOKENS[np.arange(9)[None, :] >= RNG.integers(2, 9, (24, 1))] = 0
LABELS = RNG.integers(4, size=TOKENS.shape)


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_labels_of_padding_do_not_matter(criterion):
    model = padded()
    other = np.where(TOKENS == 0, (LABELS + 1) % 4, LABELS)
    masks = [
        snip_tf.get_masks(
            snip_tf.prune_model(
                model, TOKENS, y, sparsity=0.7, loss=MEAN, criterion=criterion
            )
        )
        for y in (LABELS, other)
    ]
    for path in masks[0]:
        np.testing.assert_array_equal(masks[0][path], masks[1][path])


@pytest.mark.parametrize("pieces", PIECES)
@pytest.mark.parametrize("weight", [None, RNG.random((24, 9)).astype(np.float32)])
def test_masked_timesteps_in_pieces(pieces, weight):
    model = padded()
    model.compile("sgd", MEAN)
    expected = scores_of(
        model, lambda m: m.compute_loss(TOKENS, LABELS, m(TOKENS), weight)
    )
    found = snip_tf.connection_sensitivity(model, TOKENS, LABELS, weight, **pieces)
    assert_close(found, expected)


def test_masked_timesteps_in_pieces_of_a_loss_of_another_type():
    model = padded()
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    expected = snip_tf.connection_sensitivity(model, TOKENS, LABELS, loss=loss)
    found = snip_tf.connection_sensitivity(
        model, TOKENS, LABELS, loss=loss, batch_size=5, batches=5
    )
    assert_close(found, expected)


VOID = losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=1)
void = functools.partial(
    losses.sparse_categorical_crossentropy, from_logits=True, ignore_class=1
)


@pytest.mark.parametrize("pieces", PIECES)
@pytest.mark.parametrize("loss", [VOID, void])
@pytest.mark.parametrize(
    ("make", "x", "y"), [(padded, TOKENS, LABELS), (one_head, X, TWO[1])]
)
def test_a_class_that_is_ignored_in_pieces(make, x, y, loss, pieces):
    model = make()
    model.compile("sgd", loss)
    expected = scores_of(model, lambda model: model.compute_loss(x, y, model(x)))
    assert_close(snip_tf.connection_sensitivity(model, x, y, **pieces), expected)


def own_mean(y, y_pred):
    return ops.mean(ops.square(ops.one_hot(y, 4) - y_pred), axis=-1)


def own_void(y, y_pred):
    return void(y, y_pred)


def of_some(y, y_pred):
    return tf.boolean_mask(ops.mean(ops.square(y - y_pred), -1), y[:, 0] > 0)


class OwnVoid(losses.Loss):
    def call(self, y, y_pred):
        return void(y, y_pred)


def weighted_mean():
    return losses.MeanSquaredError(reduction="mean_with_sample_weight")


REFUSED = {
    "two masked outputs": (lambda: padded(2), TOKENS, [LABELS] * 2, None, MEAN),
    "masks beside a term": (
        lambda: padded(activity_regularizer="l2"), TOKENS, LABELS, None, MEAN
    ),
    "masks and an own loss": (padded, TOKENS, LABELS, None, own_mean),
    "divided by weights": (
        two_heads, X, [X[:, :1], X[:, :3]], X[:, 0] ** 2, weighted_mean()
    ),
    "pairs": (two_heads, X, [TWO[1], TWO[1]], None, losses.Circle()),
    "a quotient of sums": (two_heads, X, [X[:, :1], X[:, :3]], None, losses.Dice()),
    "a quotient by its name": (one_head, X, X[:, :3], None, "dice"),
    "an ignored class of two": (two_heads, X, TWO, None, [SUM, VOID]),
    "an ignored class of an own function": (one_head, X, TWO[1], None, own_void),
    "an ignored class of an own loss": (one_head, X, TWO[1], None, OwnVoid()),
    "values of some examples": (one_head, X, X[:, :3], None, of_some),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_refuses_pieces_that_do_not_add_up(kind):
    make, x, y, weight, loss = REFUSED[kind]
    model = make()
    snip_tf.connection_sensitivity(model, x, y, weight, loss=loss)
    for pieces in PIECES[:2]:
        with pytest.raises(ValueError, match=r"one mini-batch \(batches=1.*since"):
            snip_tf.connection_sensitivity(model, x, y, weight, loss=loss, **pieces)


def test_a_mean_by_weights_without_weights_is_a_mean():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(1)])
    found = [
        snip_tf.connection_sensitivity(
            model, X, X[:, :1], loss=weighted_mean(), **pieces
        )
        for pieces in (PIECES[0], PIECES[2])
    ]
    assert_close(*found)


def together(y, y_pred):
    one, other = y_pred
    return ops.mean(ops.square(one - other))


class Together(losses.Loss):
    def call(self, y, y_pred):
        return together(y, y_pred)


@pytest.mark.parametrize("loss", [together, Together()])
def test_one_function_for_several_outputs_is_ambiguous(loss):
    with pytest.raises(
        ValueError, match=r"several outputs.*loss=\[loss, loss\].*objective="
    ):
        snip_tf.prune_model(two_heads(), X, TWO, sparsity=0.5, loss=loss)


def squares(y, y_pred):
    return ops.mean(ops.square(y - y_pred), axis=-1)


@pytest.mark.parametrize("loss", ["mse", losses.MeanSquaredError(), [squares, squares]])
def test_a_loss_of_each_of_several_outputs(loss):
    y, model = [X[:, :1], X[:, 1:4]], two_heads("mse")
    expected = snip_tf.connection_sensitivity(model, X, y)
    assert_close(snip_tf.connection_sensitivity(model, X, y, loss=loss), expected)
    model.compile("sgd", loss if isinstance(loss, list) else squares)  # as `fit` does
    assert_close(snip_tf.connection_sensitivity(model, X, y), expected)


@pytest.mark.parametrize(
    "kind", ["masks", *(kind for kind in REFUSED if kind != "masks and an own loss")]
)
@pytest.mark.parametrize("where", ["inside", "outside"])
def test_replicas_share_what_adds_up_and_nothing_else(kind, where):
    one = (padded, TOKENS, LABELS, None, MEAN)
    make, x, y, weight, loss = one if kind == "masks" else REFUSED[kind]
    alone = make()
    expected = snip_tf.connection_sensitivity(alone, x, y, weight, loss=loss)
    with two_replicas().scope():
        model = make()
        model.set_weights(alone.get_weights())
        if where == "inside":
            found = snip_tf.connection_sensitivity(model, x, y, weight, loss=loss)
    if where == "outside":
        found = snip_tf.connection_sensitivity(model, x, y, weight, loss=loss)
    assert_close(found, expected)

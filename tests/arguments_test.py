"""What `prune_model` says of arguments in wrong places and of data of another kind."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf import datasets
from snip_tf.scoring.targets import check_names

layers = keras.layers
SPARSE, ONE_HOT = "sparse_categorical_crossentropy", "categorical_crossentropy"
RNG = np.random.default_rng(0)
X, Y = RNG.random((32, 8)).astype(np.float32), np.arange(32) % 4
TEXT = np.array(["cat", "dog", "cow", "hen"])[Y]


def network(loss=SPARSE, outputs=4):
    stack = [layers.Dense(6, "relu", name="hidden"), layers.Dense(outputs, "softmax")]
    model = keras.Sequential([keras.Input((8,)), *stack])
    model.compile("sgd", loss)
    return model


class OfLayers(keras.Model):
    """A model that does not know the shape of its inputs."""

    def __init__(self, *stack):
        super().__init__()
        self.stack = list(stack)

    def call(self, x):
        for layer in self.stack:
            x = layer(x)
        return x


def refusal(*arguments, model=None, **options):
    model = network() if model is None else model
    with pytest.raises((TypeError, ValueError)) as raised:
        snip_tf.prune_model(model, *arguments, **{"sparsity": 0.5, **options})
    return str(raised.value)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_sparsity_by_position(count):
    before = (X, Y)[:count]
    for value in (0.9, 90):
        words = refusal(*before, value, sparsity=None)
        assert "write sparsity=0.9" in words
    with pytest.raises(TypeError, match=r"Received: y=0\.9 of type float$"):
        snip_tf.connection_sensitivity(network(), X, 0.9)


def test_a_sparsity_is_always_needed():
    assert "`sparsity`" in refusal(X, Y, sparsity=None)
    assert "every weight" in refusal(X, Y, sparsity=100)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (X, "The model comes first"),
        (keras.Sequential, r"the class Sequential.*Sequential\(\.\.\.\)"),
        (layers.Dense(2), r"keras\.Sequential\(\[keras\.Input"),
        ("m.keras", r"'m\.keras'.*load_model"),
    ],
)
def test_something_else_as_the_model(model, words):
    with pytest.raises(TypeError, match=words):
        snip_tf.prune_model(model, X, Y, sparsity=0.5)
    with pytest.raises(TypeError, match="`model` first"):
        snip_tf.prune_model(X, network(), sparsity=0.5)


def test_inputs_and_targets_in_the_wrong_order():
    assert "(32,) and y of shape (32, 8)" in refusal(Y, X)
    # An input of one number may come without its axis, and be its own target.
    model = keras.Sequential([keras.Input((1,)), layers.Dense(3), layers.Dense(1)])
    for x in (X[:, 0], X[:, :1]):
        for y in (X[:, 0], X[:, :1]):
            snip_tf.prune_model(model, x, y, sparsity=0.5, loss="mse")


@pytest.mark.parametrize("seed", [-1, 1.5, True, np.True_, "1", np.float32(1)])
def test_seeds_are_whole_numbers_everywhere(seed):
    model = network()
    calls = [
        lambda: snip_tf.prune_model(model, X, Y, sparsity=0.5, seed=seed),
        lambda: snip_tf.prune_model(
            model, sparsity=0.5, criterion="magnitude", seed=seed
        ),
        lambda: snip_tf.connection_sensitivity(model, X, Y, seed=seed),
        lambda: snip_tf.criteria.Random(seed),
        lambda: datasets.load("digits", seed=seed),
    ]
    for call in calls:
        with pytest.raises((TypeError, ValueError), match="`seed` to be a whole"):
            call()


def test_seeds_of_numpy():
    for seed in (np.int64(3), np.uint8(3)):
        options = {"sparsity": 0.5, "criterion": "random"}
        model = network()
        found, expected = (
            snip_tf.get_masks(snip_tf.prune_model(model, seed=s, **options))
            for s in (seed, 3)
        )
        np.testing.assert_equal(found, expected)


def test_arguments_are_checked_before_data_are_read():
    def data():
        read.append(1)
        yield X, Y

    read = []
    for options in (
        {"exclude": "*"},
        {"sparsity": 0.9, "min_kept": 0.5},
        {"sparsity": {"zzz": 0.5}},
        {"structure": "3:4:5"},
        {"structure": "units", "scope": "layer"},
        {"structure": "2:4", "exclude": "hidden/*"},
        {"seed": -1},
        {"batches": 0},
    ):
        refusal(data(), **options)
    assert not read


@pytest.mark.parametrize(
    "loss",
    [
        SPARSE,
        [SPARSE],
        keras.losses.sparse_categorical_crossentropy,
        keras.losses.SparseCategoricalCrossentropy(),
    ],
)
def test_one_hot_targets_of_labels(loss):
    words = refusal(X, np.eye(4)[Y], model=network(loss))
    assert f"with the loss {SPARSE!r}" in words
    assert f"Use the loss {ONE_HOT!r}, or y.argmax(-1)" in words
    snip_tf.prune_model(network(loss), X, Y[:, np.newaxis], sparsity=0.5)


@pytest.mark.parametrize(
    "loss",
    [
        ONE_HOT,
        keras.losses.CategoricalCrossentropy(),
        keras.losses.categorical_focal_crossentropy,
        "binary_crossentropy",
    ],
)
def test_labels_where_each_output_has_a_target(loss):
    for y in (Y, Y[:, np.newaxis]):
        words = refusal(X, y, model=network(loss))
        assert f"Use the loss {SPARSE!r}" in words
        assert "keras.utils.to_categorical(y, 4)" in words
    snip_tf.prune_model(network(loss), X, np.eye(4)[Y], sparsity=0.5)


def test_labels_of_several_outputs():
    inputs = keras.Input((8,))
    outputs = {n: layers.Dense(4, "softmax", name=n)(inputs) for n in "ab"}
    model = keras.Model(inputs, outputs)
    model.compile("sgd", {"a": SPARSE, "b": ONE_HOT})
    one_hot = np.eye(4)[Y]
    assert "look one-hot" in refusal(X, {"a": one_hot, "b": one_hot}, model=model)
    assert "look like labels" in refusal(X, {"a": Y, "b": Y}, model=model)
    snip_tf.prune_model(model, X, {"a": Y, "b": one_hot}, sparsity=0.5)


@pytest.mark.parametrize("by_name", [(True, True), (True, False), (False, True)])
def test_labels_of_several_outputs_in_a_list(by_name):
    inputs = keras.Input((8,))
    heads = [("value", 1, None), ("label", 4, "softmax")]
    outputs = [layers.Dense(n, act, name=name)(inputs) for name, n, act in heads]
    model = keras.Model(inputs, outputs)

    def given(nest, named):
        pairs = zip(("value", "label"), nest, strict=True)
        return dict(sorted(pairs)) if named else list(nest)  # another order

    for loss, y, words in (
        (SPARSE, np.eye(4)[Y], f"Use the loss {ONE_HOT!r}"),
        (ONE_HOT, Y, f"Use the loss {SPARSE!r}"),
    ):
        model.compile("sgd", given(["mse", loss], by_name[0]))
        targets = given([X[:, :1], y], by_name[1])
        assert words in refusal(X, targets, model=model)
    model.compile("sgd", {"label": SPARSE})
    assert "look one-hot" in refusal(X, {"label": np.eye(4)[Y]}, model=model)


def heads():
    inputs = keras.Input((8,), name="image")
    outputs = {
        "a": layers.Dense(4, "softmax", name="a")(inputs),
        "b": layers.Dense(1, name="b")(inputs),
    }
    model = keras.Model(inputs, outputs)
    model.compile("sgd", {"a": SPARSE, "b": "mse"})
    return model


def test_says_which_labels_of_several_outputs_are_out_of_range():
    words = refusal(X, {"a": Y + 5, "b": X[:, :1]}, model=heads())
    assert "labels from 0 to 3, since the model has 4 outputs" in words


def test_says_which_outputs_have_weights():
    y, weights = {"a": Y, "b": X[:, :1]}, {"a": np.ones(len(Y))}
    assert "with weights for 'a' (each output" in refusal(X, y, weights, model=heads())


def test_counts_losses_and_outputs():
    model = heads()
    model.compile("sgd", [SPARSE, "mse", "mse"])
    words = refusal(X, {"a": Y, "b": X[:, :1]}, model=model)
    assert "3 losses for 2 outputs" in words


def test_a_wrong_name_of_an_input_says_nothing_of_targets():
    words = refusal({"images": X}, {"a": Y, "b": X[:, :1]}, model=heads())
    assert "The model takes 'image'. " in words
    assert "hold the targets" not in words


def test_labels_of_one_output():
    assert "'binary_crossentropy'" in refusal(X, Y % 2, model=network(outputs=1))


@pytest.mark.parametrize("y", [TEXT, TEXT.astype(object), tf.constant(TEXT)])
def test_labels_of_text(y):
    for loss in (SPARSE, "mse"):
        words = refusal(X, y, model=network(loss))
        assert "numbers" in words
        assert "return_inverse=True" in words
        assert "StringLookup" in words


def dataset(elements):
    return tf.data.Dataset.from_tensor_slices(elements)


def test_a_dataset_of_dicts_without_pairs():
    data = dataset({"image": X, "label": Y}).batch(8)
    named = keras.Input((8,), name="image")
    model = keras.Model(named, layers.Dense(4, "softmax")(named))
    model.compile("sgd", SPARSE)
    unbuilt = OfLayers(layers.Dense(4))
    unbuilt.compile("sgd", SPARSE)
    for each in (network(), model, unbuilt):
        words = refusal(data, model=each)
        assert "pair (inputs, targets)" in words
        assert "as_supervised=True" in words
        assert "data.map(lambda d: (d[" in words
        assert ".batch(" not in words


def test_a_pair_is_made_of_the_targets():
    data = dataset({"target": Y, "image": X, "id": Y}).batch(8)
    assert "(d['image'], d['target'])" in refusal(data, model=network())


def test_a_dataset_of_dicts_of_inputs():
    inputs = {name: keras.Input((8,), name=name) for name in ("left", "right")}
    joined = layers.Concatenate()(list(inputs.values()))
    model = keras.Model(inputs, layers.Dense(4, "softmax")(joined))
    model.compile("sgd", SPARSE)
    pairs = dataset(({"left": X, "right": 2 * X}, Y))
    masks = [
        snip_tf.get_masks(snip_tf.prune_model(model, *data, sparsity=0.5))
        for data in ((pairs.batch(32),), ({"left": X, "right": 2 * X}, Y))
    ]
    np.testing.assert_equal(*masks)
    words = refusal(dataset(({"left": X, "rihgt": X}, Y)).batch(8), model=model)
    assert "The model takes 'left', 'right'." in words
    assert "`.batch(...)`" in refusal(pairs, model=model)


@pytest.mark.parametrize("build", [True, False])
def test_batches_are_asked_for_where_an_axis_is_missing(build):
    model = OfLayers(layers.Dense(4, "softmax"))
    model.compile("sgd", SPARSE)
    if build:
        model(X)
    for each in (network(), model):
        assert "`.batch(...)`" in refusal(dataset((X, Y)), model=each)
    assert ".batch" not in refusal(X[:, :3], Y)
    assert ".batch" not in refusal(np.ones((32, 2, 3)), Y)
    images = OfLayers(layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(4))
    images.compile("sgd", SPARSE)
    assert "x[..., None]" in refusal(np.ones((32, 5, 5)), Y, model=images)


def test_a_loss_whose_name_is_not_known():
    model, unread = network(), iter(())
    words = refusal(unread, loss="sparse_crossentropy", model=model)
    assert "'sparse_crossentropy', which names none" in words
    with pytest.raises(TypeError, match="Received: 3 of type int"):
        snip_tf.prune_model(model, X, Y, sparsity=0.5, loss=3)
    assert "'sparse_categorical_crossentropy'" in words
    assert "'mse'" in refusal(X, Y, loss=[ONE_HOT, "msee"])
    for known in ("mse", "crossentropy", "MeanSquaredError", [ONE_HOT], {"a": "bce"}):
        check_names(known)


def test_a_list_of_text_as_targets():
    assert "targets of text. Number the classes" in refusal(X, list(TEXT))
    assert "Wrap plain Python lists" in refusal(X, Y.tolist())

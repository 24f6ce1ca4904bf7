"""Arguments of the wrong kind: a TypeError that names them, before any work."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf

RNG = np.random.default_rng(0)
X, Y = RNG.random((32, 8)).astype(np.float32), np.arange(32) % 4
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
MASKS = {"out/kernel": np.eye(8, 4, dtype=bool)}


def network():
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="out")])


def pruned():
    return snip_tf.apply_masks(network(), MASKS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("criterion", 3),
        ("criterion", None),
        ("structure", (2, 4)),
        ("scope", None),
        ("scope", ["global"]),
        ("training", "yes"),
        ("training", None),
        ("training", 2),
        ("batch_size", "16"),
        ("batches", None),
        ("batches", 1.0),
        ("verbose", None),
        ("verbose", [1]),
        ("verbose", np.arange(2)),
    ],
)
def test_of_prune_model(name, value):
    # Also where a criterion needs neither data nor gradients.
    for options in ({"x": X, "y": Y, "loss": LOSS}, {"criterion": "magnitude"}):
        options = {"sparsity": 0.5, **options, name: value}
        with pytest.raises(TypeError, match=f"`{name}`"):
            snip_tf.prune_model(network(), **options)
    if name not in ("structure", "scope"):
        with pytest.raises(TypeError, match=f"`{name}`"):
            snip_tf.score(network(), X, Y, loss=LOSS, **{name: value})


def test_counts_are_checked_where_no_data_is_read():
    for name in ("batches", "batch_size"):
        with pytest.raises(ValueError, match=f"`{name}` to be a whole number, 1 or"):
            snip_tf.prune_model(
                network(), sparsity=0.5, criterion="random", **{name: 0}
            )


@pytest.mark.parametrize("training", [True, np.False_])
def test_booleans_of_numpy(training):
    assert snip_tf.score(network(), X, Y, loss=LOSS, training=training)


@pytest.mark.parametrize("verbose", ["auto", 0, 1, True, False])
def test_what_verbose_may_be(verbose):
    assert snip_tf.score(network(), criterion="magnitude", verbose=verbose)


def test_a_class_as_data():
    with pytest.raises(TypeError, match="Received: type"):
        snip_tf.prune_model(network(), dict, Y, sparsity=0.5, loss=LOSS)


@pytest.mark.parametrize("returned", ["a", True, 1j, tf.constant("a")])
def test_an_objective_that_returns_no_number(returned):
    with pytest.raises(TypeError, match="objective returns to be one number"):
        snip_tf.score(network(), X, Y, objective=lambda *arguments: returned)


@pytest.mark.parametrize("returned", [None, [1, 2], 3])
def test_a_criterion_that_returns_no_dict(returned):
    with pytest.raises(TypeError, match="Received: "):
        snip_tf.score(network(), X, criterion=lambda context: returned)


@pytest.mark.parametrize("kind", ["U", complex, bool])
def test_scores_that_are_no_real_numbers(kind):
    def criterion(context):
        return {path: np.ones(w.shape, kind) for path, w in context.weights.items()}

    for call, options in (
        (snip_tf.score, {}),
        (snip_tf.prune_model, {"sparsity": 0.5}),
    ):
        with pytest.raises(TypeError, match=r"scores\['out/kernel'\] of dtype"):
            call(network(), X, criterion=criterion, **options)


@pytest.mark.parametrize("scores", [np.ones(3), None, {3: np.ones(3)}])
def test_scores_that_are_no_dict_by_path(scores):
    with pytest.raises(TypeError, match="`scores` to be a dict"):
        snip_tf.select_masks(scores, 0.5)


@pytest.mark.parametrize(
    "call",
    [
        lambda path: snip_tf.save_masks(path, MASKS),
        snip_tf.load_masks,
        snip_tf.load_sparse,
        lambda path: snip_tf.export(network(), path),
        lambda path: snip_tf.report(pruned()).write_html(path),
    ],
)
@pytest.mark.parametrize("path", [None, 3])
def test_paths(call, path):
    with pytest.raises(TypeError, match=f"`path` to be .* Received: path={path}"):
        call(path)


def test_of_export(tmp_path):
    path = tmp_path / "model.keras"
    with pytest.raises(TypeError, match="`print_fn`"):
        snip_tf.export(network(), path, print_fn=3)
    with pytest.raises(TypeError, match="`format`"):
        snip_tf.export(network(), path, 3)
    assert not path.exists()


def test_of_summary():
    for name in ("line_length", "print_fn"):
        with pytest.raises(TypeError, match=f"`{name}`"):
            snip_tf.summary(pruned(), **{name: "a"})
    with pytest.raises(ValueError, match="`line_length`"):
        snip_tf.summary(pruned(), line_length=-3)


def test_of_values_with_settings():
    with pytest.raises(TypeError, match="`cost`"):
        snip_tf.Units(cost=3)
    with pytest.raises(TypeError, match="`criterion`"):
        snip_tf.controls.invert(3)


def test_of_networks_and_data_sets():
    for load in (snip_tf.models.build, snip_tf.datasets.load):
        with pytest.raises(TypeError, match="`name`"):
            load(3)
    with pytest.raises(TypeError, match="`classes`"):
        snip_tf.models.build("lenet300", classes="a")
    with pytest.raises(ValueError, match="`classes`"):
        snip_tf.models.build("lenet300", classes=0)
    for value, kind in (("a", TypeError), (0, ValueError)):
        with pytest.raises(kind, match="`max_examples`"):
            snip_tf.datasets.load("digits", max_examples=value)


def test_a_number_of_examples_as_the_targets_of_a_dataset():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    with pytest.raises(ValueError, match="write n=3"):
        snip_tf.sample_per_class(data, 3)

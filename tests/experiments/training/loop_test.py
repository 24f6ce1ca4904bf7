import dataclasses
import itertools
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf.experiments.datasets import Dataset
from snip_tf.experiments.training import checkpoint, loop
from snip_tf.experiments.training.input_pipeline import training_batches
from snip_tf.experiments.training.optimizers import make_optimizer
from tests.replicas import two_replicas

DECAY = 0.02
SETTINGS = loop.Settings(
    iterations=12,
    batch_size=8,
    check_interval=6,
    save_interval=4,
    seed=5,
    aug_kinds=("translate_px",),
)


def made_up(count, seed):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(count, 6, 5, 1)).astype(np.float32)
    return images, rng.integers(3, size=count).astype(np.int32)


DATA = Dataset("made up", 3, made_up(50, 0), made_up(20, 1), made_up(30, 2))


def make_model(optimizer=None):
    keras.utils.set_random_seed(0)
    l2 = keras.regularizers.L2(DECAY / 2)
    options = {"kernel_regularizer": l2, "bias_regularizer": l2}
    model = keras.Sequential(
        [
            keras.Input((6, 5, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(7, activation="relu", name="hidden", **options),
            keras.layers.Dense(3, name="logits", **options),
        ]
    )
    compile_model(model, optimizer)
    return model


def compile_model(model, optimizer=None):
    if optimizer is None:
        optimizer = make_optimizer("momentum", 0.1, "piecewise", [5], [0.1, 0.05])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)


def make_pruned(optimizer=None):
    pruned = snip_tf.prune_model(make_model(), *DATA.train, sparsity=0.7, seed=0)
    compile_model(pruned, optimizer)
    return pruned


def train(model, logdir, history=(), on_progress=None, strategy=None, **changes):
    return loop.train(
        model,
        DATA,
        dataclasses.replace(SETTINGS, **changes),
        logdir,
        strategy or tf.distribute.get_strategy(),
        on_progress or (lambda iteration, loss, check: None),
        list(history),
    )


def state(model):
    return [v.numpy() for v in [*model.variables, *model.optimizer.variables]]


def assert_same_state(model, expected):
    for found, wanted in zip(state(model), state(expected), strict=True):
        np.testing.assert_array_equal(found, wanted)


def timeless(history):
    return [dataclasses.replace(check, seconds=0) for check in history]


def numpy_step(weights, images, labels):
    """The loss with the L2 terms, and its gradients, of `make_model` in float64."""
    w1, b1, w2, b2 = weights
    x = images.reshape(len(images), -1).astype(np.float64)
    hidden = np.maximum(x @ w1 + b1, 0)
    logits = hidden @ w2 + b2
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    loss = -np.log(softmax[rows, labels]).mean()
    loss += DECAY / 2 * sum((w**2).sum() for w in weights)
    d2 = (softmax - np.eye(3)[labels]) / len(labels)
    d1 = d2 @ w2.T * (hidden > 0)
    gradients = [x.T @ d1, d1.sum(axis=0), hidden.T @ d2, d2.sum(axis=0)]
    return loss, [g + DECAY * w for g, w in zip(gradients, weights, strict=True)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A pruned model, trained in one go, and its history."""
    model = make_pruned()
    return model, train(model, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def no_errors(monkeypatch):
    """Leaves out the evaluations, which take the most time."""
    monkeypatch.setattr(loop, "evaluation_function", lambda model: lambda _: 0.0)


@pytest.mark.usefixtures("no_errors")
@pytest.mark.parametrize("jit_compile", [False, True])
def test_equals_momentum_sgd_written_out_in_numpy(tmp_path, jit_compile):
    model = make_model()
    weights = [weight.numpy().astype(np.float64) for weight in model.weights]
    velocities = [np.zeros_like(weight) for weight in weights]
    batches = training_batches(*DATA.train, 8, seed=5, aug_kinds=["translate_px"])
    losses = []
    for iteration, batch in enumerate(batches.take(12).as_numpy_iterator()):
        loss, gradients = numpy_step(weights, *batch)
        losses.append(loss)
        rate = 0.1 if iteration < 5 else 0.05
        for weight, velocity, gradient in zip(
            weights, velocities, gradients, strict=True
        ):
            velocity *= 0.9
            velocity -= rate * gradient
            weight += velocity

    history = train(model, tmp_path, check_interval=1, jit_compile=jit_compile)
    np.testing.assert_allclose([c.loss for c in history], losses, rtol=1e-5)
    for found, expected in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_removed_weights_stay_exactly_zero(undisturbed):
    model, _ = undisturbed
    stripped = snip_tf.strip_pruning(model)
    before = snip_tf.strip_pruning(make_pruned())
    masks = snip_tf.get_masks(model)
    for (path, mask), old, new in zip(
        masks.items(), before.layers[1:], stripped.layers[1:], strict=True
    ):
        assert path == f"{new.name}/kernel"
        np.testing.assert_array_equal(new.kernel.numpy()[~mask], 0)
        moved = new.kernel.numpy() != old.kernel.numpy()
        np.testing.assert_array_equal(moved, mask)


def test_a_check_at_each_interval_each_checkpoint_and_the_end(undisturbed):
    _, history = undisturbed
    assert [check.iteration for check in history] == [4, 6, 8, 12]
    saved = [check.iteration for check in history if check.test_error is not None]
    assert saved == [4, 8, 12]
    seconds = [check.seconds for check in history]
    assert seconds[0] > 0
    assert seconds == sorted(seconds)


def test_the_end_is_checked_and_saved_between_intervals(tmp_path):
    model = make_model()
    history = train(model, tmp_path, iterations=5)
    assert [check.iteration for check in history] == [4, 5]
    assert history[-1].test_error is not None
    saved, saved_history = checkpoint.load_checkpoint(tmp_path)
    assert saved_history == history
    assert_same_state(saved, model)


def test_errors_are_those_of_the_model(undisturbed):
    model, history = undisturbed
    for (images, labels), found in (
        (DATA.validation, history[-1].validation_error),
        (DATA.test, history[-1].test_error),
    ):
        wrong = np.asarray(model(images)).argmax(axis=1) != labels
        np.testing.assert_allclose(found, 100 * wrong.sum() / len(labels))


@pytest.mark.usefixtures("no_errors")
def test_the_loss_of_a_check_is_the_mean_since_the_last(tmp_path):
    """Over more iterations than are run in one call, too."""
    changes = {"iterations": 130, "save_interval": 1000}
    one_by_one = train(make_model(), tmp_path, check_interval=1, **changes)
    losses = [check.loss for check in one_by_one]
    history = train(make_model(), tmp_path, check_interval=120, **changes)
    assert [check.iteration for check in history] == [120, 130]
    expected = [np.mean(losses[:120]), np.mean(losses[120:])]
    np.testing.assert_allclose([c.loss for c in history], expected, rtol=1e-5)


@pytest.mark.usefixtures("no_errors")
def test_progress_is_shown_at_least_every_100_iterations(tmp_path):
    told = []
    history = train(
        make_model(),
        tmp_path,
        iterations=230,
        check_interval=150,
        save_interval=1000,
        on_progress=lambda iteration, loss, check: told.append((iteration, check)),
    )
    iterations = [0, *(iteration for iteration, _ in told)]
    assert iterations[-1] == 230
    assert max(np.diff(iterations)) <= 100
    assert [check for _, check in told if check] == history


def test_the_summary_holds_the_history(tmp_path):
    history = train(make_model(), tmp_path)
    [file] = (tmp_path / "summary").iterdir()
    found = {}
    for event in tf.compat.v1.train.summary_iterator(str(file)):
        for value in event.summary.value:
            found[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    expected = {
        (name, check.iteration): value
        for check in history
        for name, value in dataclasses.asdict(check).items()
        if name != "iteration" and value is not None
    }
    assert found == pytest.approx(expected)


def test_interrupted_and_continued_is_undisturbed(tmp_path, undisturbed):
    """Interrupted at iteration 6, and continued at the checkpoint of iteration 4."""

    def interrupt(iteration, loss, check):
        if iteration == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(make_pruned(), tmp_path, on_progress=interrupt)
    model, history = checkpoint.load_checkpoint(tmp_path)
    assert int(model.optimizer.iterations) == 4
    assert [check.iteration for check in history] == [4]
    history = train(model, tmp_path, history)
    expected, expected_history = undisturbed
    assert_same_state(model, expected)
    assert timeless(history) == timeless(expected_history)


@pytest.mark.parametrize("renamings", range(4))
def test_killed_while_saving(tmp_path, monkeypatch, undisturbed, renamings):
    """The process may die before any renaming of its first two checkpoints."""
    number = itertools.count()
    replace = os.replace

    def replace_or_die(*args):
        if next(number) == renamings:
            raise KeyboardInterrupt
        replace(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_or_die)
        with pytest.raises(KeyboardInterrupt):
            train(make_pruned(), tmp_path)
    model, history = checkpoint.load_checkpoint(tmp_path) or (make_pruned(), [])
    assert int(model.optimizer.iterations) == renamings // 2 * 4
    history = train(model, tmp_path, history)
    expected, expected_history = undisturbed
    assert_same_state(model, expected)
    assert timeless(history) == timeless(expected_history)
    assert_complete(tmp_path)


def assert_complete(logdir):
    names = {path.name for path in logdir.iterdir()}
    assert names == {"checkpoint.keras", "history.json", "summary"}


def test_writes_whole_files_only(tmp_path, undisturbed):
    model = make_pruned()
    history = train(model, tmp_path)
    assert_complete(tmp_path)
    rows = json.loads((tmp_path / "history.json").read_text())
    assert rows == [dataclasses.asdict(check) for check in history]


@pytest.mark.usefixtures("no_errors")
def test_a_finished_run_is_not_trained_further(tmp_path):
    model = make_model()
    history = train(model, tmp_path)
    before = state(model)
    assert train(model, tmp_path, history) == history
    for old, new in zip(before, state(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_there_is_no_checkpoint_in_a_new_folder(tmp_path):
    assert checkpoint.load_checkpoint(tmp_path) is None


@pytest.mark.usefixtures("no_errors")
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(FloatingPointError, match=r"(nan|inf).*--lr"):
        train(make_model(keras.optimizers.SGD(1e30)), tmp_path)
    saved = checkpoint.load_checkpoint(tmp_path)
    assert saved is None or all(np.isfinite(w).all() for w in saved[0].get_weights())


def test_two_replicas_equal_one_device(tmp_path):
    """Also where the two continue at a checkpoint."""
    one_folder, two_folder = tmp_path / "one", tmp_path / "two"
    for folder in (one_folder, two_folder):
        folder.mkdir()
    one = make_pruned()
    masks = snip_tf.get_masks(one)
    one_history = train(one, one_folder, save_interval=6)
    strategy = two_replicas()
    assert strategy.num_replicas_in_sync == 2
    with strategy.scope():
        two = snip_tf.apply_masks(make_model(), masks)
        compile_model(two)
    options = {"strategy": strategy, "save_interval": 6}
    train(two, two_folder, iterations=6, **options)
    with strategy.scope():
        two, history = checkpoint.load_checkpoint(two_folder)
    two_history = train(two, two_folder, history, **options)
    for a, b in zip(state(one), numbers_of(two), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for a, b in zip(one_history, two_history, strict=True):
        assert a.iteration == b.iteration
        np.testing.assert_allclose(
            [a.loss, a.learning_rate, a.validation_error, a.test_error or 0],
            [b.loss, b.learning_rate, b.validation_error, b.test_error or 0],
            atol=1e-5,
        )


def numbers_of(model):
    """The state of a model whose variables are mirrored."""
    variables = [*model.variables, *model.optimizer.variables]
    return [np.asarray(variable.value) for variable in variables]

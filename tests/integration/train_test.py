"""scripts/train.py: a few runs, one of them interrupted in a process of its own."""

import re
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf.weights import weights_by_path
from tests.programs import start_program
from tests.replicas import two_replicas
from tests.training_runs import (
    FILES,
    FILES_IF_PRUNED,
    LENET300,
    SHORT,
    load,
    names,
    read,
)

pytest.importorskip("sklearn")

# Long enough to be interrupted in the middle.
LONG = (
    *LENET300,
    "--train_iterations=160",
    "--save_interval=20",
    "--target_sparsity=0.95",
    "--seed=3",
    "--aug_kinds=translate_px",
    "--lr_decay_type=piecewise",
    "--decay_boundaries=90,150",
    "--decay_values=0.1,0.01,0.001",
)


@pytest.fixture(scope="module")
def run(main, tmp_path_factory):
    def run_in_a_folder(*arguments):
        logdir = tmp_path_factory.mktemp("runs")
        main(f"--logdir={logdir}", *arguments)
        return logdir

    return run_in_a_folder


@pytest.fixture(scope="module")
def undisturbed(run):
    return run(*LONG)


@pytest.fixture(scope="module")
def dense(run):
    return run("--target_sparsity=0", *SHORT)


@pytest.fixture(scope="module")
def like_the_release(run):
    """Its weights after pruning hardly move."""
    return run("--initializer_w_ap=vs", "--prune_biases", "--lr=1e-6", *SHORT)


@pytest.fixture(scope="module")
def continued(main, tmp_path_factory):
    """Interrupted in a process after its first checkpoint, continued in this one."""
    logdir = tmp_path_factory.mktemp("runs") / "continued"
    arguments = (f"--logdir={logdir}", *LONG)
    with start_program("train.py", *arguments, cwd=logdir.parent) as process:
        lines = iter(process.stdout.readline, "")
        assert any(line.startswith("20/160") for line in lines)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert not (logdir / "result.json").exists(), "ended too late to be a test"
    assert process.returncode == 130
    assert rest.endswith("\nInterrupted (SIGINT). The same command continues.\n")
    assert "Traceback" not in rest
    main(*arguments)
    return logdir


def timeless(value):
    """Without the measured seconds, which are never the same."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if "seconds" not in k}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def error_percent(model, examples):
    wrong = np.asarray(model(examples[0])).argmax(axis=1) != examples[1]
    return 100 * wrong.sum() / len(wrong)


def mean_square_of_kept(logdir, layer, fan_in):
    """Of the weights of a layer that are left, in the variance of the first draw."""
    kernel = load(logdir).get_layer(layer).kernel.numpy()
    return fan_in * (kernel[kernel != 0] ** 2).mean()


def test_writes_all_files(undisturbed):
    assert names(undisturbed) == FILES_IF_PRUNED


def test_all_files_may_be_read_by_the_same_people(undisturbed):
    modes = {
        p.name: oct(p.stat().st_mode) for p in undisturbed.iterdir() if p.is_file()
    }
    assert set(modes.values()) == {modes["result.json"]}, modes


def test_the_sparsity_is_exact(undisturbed):
    masks = snip_tf.load_masks(undisturbed / "masks.npz")
    assert list(masks) == ["dense1/kernel", "dense2/kernel", "logits/kernel"]
    kept = sum(mask.sum() for mask in masks.values())
    assert kept == round(0.05 * 266_200)
    np.testing.assert_allclose(
        read(undisturbed / "result.json")["sparsity"], 1 - kept / 266_200
    )


def test_the_model_has_the_masks_and_zeros_where_they_remove(undisturbed):
    model, masks = load(undisturbed), snip_tf.load_masks(undisturbed / "masks.npz")
    stripped = keras.models.load_model(undisturbed / "stripped.keras")
    of_model = snip_tf.get_masks(model)
    assert list(of_model) == list(masks)
    for path, mask in masks.items():
        np.testing.assert_array_equal(of_model[path], mask)
        for weights in (weights_by_path(model), weights_by_path(stripped)):
            np.testing.assert_array_equal(weights[path].numpy() != 0, mask)


def test_the_stripped_model_is_plain_and_computes_the_same(undisturbed):
    model = load(undisturbed)
    stripped = keras.models.load_model(undisturbed / "stripped.keras")
    assert not any(isinstance(x, snip_tf.MaskedLayer) for x in stripped.layers)
    images = snip_tf.datasets.load("digits", seed=3).test[0]
    np.testing.assert_allclose(stripped(images), model(images), atol=1e-6)


def test_the_result_agrees_with_the_model(undisturbed):
    result, model = read(undisturbed / "result.json"), load(undisturbed)
    data = snip_tf.datasets.load("digits", seed=3)
    test, validation = (error_percent(model, e) for e in (data.test, data.validation))
    np.testing.assert_allclose(result["final_error"], test)
    np.testing.assert_allclose(result["validation_error"], validation)
    assert test < 40, "it learned nothing: chance is 90"
    assert int(model.optimizer.iterations) == 160


def test_the_result_agrees_with_the_history(undisturbed):
    result, history = (
        read(undisturbed / f"{name}.json") for name in ("result", "history")
    )
    assert [row["iteration"] for row in history] == list(range(20, 161, 20))
    errors = [row["test_error"] for row in history]
    assert result["final_error"] == errors[-1]
    assert result["best_checkpoint_error"] == min(errors[-5:])
    assert result["training_seconds"] == history[-1]["seconds"] > 0
    pruning = read(undisturbed / "pruning.json")
    assert result["pruning_seconds"] == pruning["seconds"] > 0


def test_the_result_describes_the_run(undisturbed):
    result = read(undisturbed / "result.json")
    assert result["flags"] == read(undisturbed / "flags.json")
    assert result["flags"]["decay_boundaries"] == ["90", "150"]
    assert result["versions"]["keras"] == keras.__version__
    assert result["versions"]["snip_tf"] == snip_tf.__version__
    assert result["commit"] is None or re.search("[0-9a-f]{7}", result["commit"])
    masks = snip_tf.load_masks(undisturbed / "masks.npz")
    for layer, (path, mask) in zip(result["layers"], masks.items(), strict=True):
        assert layer["path"] == path
        assert layer["shape"] == list(mask.shape)
        assert (layer["kept"], layer["total"]) == (mask.sum(), mask.size)


def test_interrupted_and_continued_equals_undisturbed(undisturbed, continued):
    assert names(continued) == FILES_IF_PRUNED
    for name in ("result.json", "history.json"):
        expected = timeless(read(undisturbed / name))
        assert timeless(read(continued / name)) == expected
    first, second = load(undisturbed), load(continued)
    for model in (first, second):
        model.optimizer.build(model.trainable_variables)
    for a, b in zip(
        [*first.variables, *first.optimizer.variables],
        [*second.variables, *second.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_sparsity_0_trains_the_dense_network(dense):
    assert names(dense) == FILES
    result, model = read(dense / "result.json"), load(dense)
    assert (result["sparsity"], result["layers"]) == (0, [])
    assert not any(isinstance(layer, snip_tf.MaskedLayer) for layer in model.layers)
    assert all((w.numpy() != 0).all() for w in snip_tf.prunable_weights(model).values())
    test = snip_tf.datasets.load("digits").test
    np.testing.assert_allclose(result["final_error"], error_percent(model, test))


def test_prunes_biases_as_the_release_does(like_the_release):
    """They are zero when they are scored, so all of them go; and they stay zero."""
    masks = snip_tf.load_masks(like_the_release / "masks.npz")
    assert sum(mask.sum() for mask in masks.values()) == round(0.1 * 266_610)
    biases = [path for path in masks if path.endswith("bias")]
    assert len(biases) == 3
    weights = weights_by_path(load(like_the_release))
    for path in biases:
        assert not masks[path].any()
        assert not weights[path].numpy().any()


def test_draws_the_weights_anew_as_the_release_does(undisturbed, like_the_release):
    """What is kept of the scored draw is larger than the rest; of another it is not."""
    assert mean_square_of_kept(undisturbed, "dense2", 300) > 1.5
    new = mean_square_of_kept(like_the_release, "dense2", 300)
    np.testing.assert_allclose(new, 1, atol=0.1)


def test_a_mirrored_strategy_gives_the_same(dense, main, tmp_path, monkeypatch):
    """Twice: the second time it continues at the end of the first."""
    strategy = two_replicas()
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda: strategy)
    arguments = ("--target_sparsity=0", *SHORT, f"--logdir={tmp_path}")
    main(*arguments, "--strategy=mirrored")
    first = read(tmp_path / "result.json")
    for found, expected in zip(
        load(tmp_path).get_weights(), load(dense).get_weights(), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    main(*arguments, "--strategy=mirrored")
    assert read(tmp_path / "result.json") == first

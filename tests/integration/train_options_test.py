"""What the flags of scripts/train.py change in a run."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf.experiments.training import loop
from tests.training_runs import ONE_STEP, SHORT, load, names, read

pytest.importorskip("sklearn")


@pytest.fixture
def float32_again():
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.usefixtures("float32_again")
@pytest.mark.parametrize(
    "policy",
    # A processor computes in float16 slowly.
    [pytest.param("mixed_float16", marks=pytest.mark.slow), "mixed_bfloat16"],
)
def test_trains_in_half_precision(main, tmp_path, policy):
    precise = (*SHORT, "--max_examples=400", "--weight_decay_form=decoupled")
    main(f"--logdir={tmp_path / 'a'}", *precise)
    main(f"--logdir={tmp_path / 'b'}", *precise, f"--dtype_policy={policy}")
    model = load(tmp_path / "b")
    assert model.get_layer("dense1").compute_dtype == policy.removeprefix("mixed_")
    losses = [read(tmp_path / name / "history.json")[-1]["loss"] for name in "ab"]
    assert 0.5 < losses[0] < 2
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)
    masks = [snip_tf.load_masks(tmp_path / name / "masks.npz") for name in "ab"]
    np.testing.assert_equal(masks[1], masks[0])


@pytest.fixture
def another_configuration():
    """As of somebody's ~/.keras/keras.json."""
    keras.config.set_floatx("float16")
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")


@pytest.mark.usefixtures("another_configuration")
def test_a_configuration_of_keras_is_no_part_of_a_run(main, tmp_path):
    main(f"--logdir={tmp_path}", *ONE_STEP, "--arch=lenet5", "--lr=0.01")
    model = load(tmp_path)
    assert model.get_layer("conv1").data_format == "channels_last"
    assert model.get_layer("conv1").kernel.shape == (5, 5, 1, 20)


def test_random_labels_are_trained_on_but_not_scored_on(
    main, train, tmp_path, monkeypatch
):
    found = {}
    prune = train.initial_model.prune_model

    def prune_model(model, x, y, **options):
        found["scored"] = y
        return prune(model, x, y, **options)

    def stop(model, data, *args):
        found["data"] = data
        sys.exit("enough")

    monkeypatch.setattr(train.initial_model, "prune_model", prune_model)
    monkeypatch.setattr(loop, "train", stop)
    with pytest.raises(SystemExit, match="enough"):
        main(f"--logdir={tmp_path}", *ONE_STEP, "--random_labels", "--seed=3")
    true, random = snip_tf.datasets.load("digits", None, 3, 200), found["data"]
    np.testing.assert_array_equal(found["scored"], true.train[1])
    np.testing.assert_array_equal(random.train[0], true.train[0])
    assert (random.train[1] != true.train[1]).mean() > 0.5
    np.testing.assert_array_equal(*(np.sort(d.train[1]) for d in (random, true)))
    np.testing.assert_array_equal(random.validation[1], true.validation[1])
    np.testing.assert_array_equal(random.test[1], true.test[1])


def test_out_of_memory(main, train, tmp_path, monkeypatch):
    """Wherever it is; the folder is free for another try, as it is advised."""
    arguments = (f"--logdir={tmp_path / 'logs'}", *ONE_STEP)
    exhausted = tf.errors.ResourceExhaustedError(None, None, "no\nmore")
    for owner, name, flag, error in (
        (snip_tf.datasets, "load", "--max_examples", MemoryError("no")),
        (train.initial_model, "prune_model", "--batch_size", exhausted),
        (loop, "train", "--batch_size", exhausted),
    ):

        def fail(*args, error=error, **kwargs):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            words = f"Out of memory: no.*Lower.*{flag} "
            with pytest.raises(SystemExit, match=words) as ending:
                main(*arguments)
        assert "None" not in str(ending.value)
    main(*arguments, "--batch_size=10")
    assert "result.json" in names(tmp_path / "logs")


def test_a_loss_that_is_not_finite_ends_the_run_without_a_result(main, tmp_path):
    with pytest.raises(SystemExit, match=r"(nan|inf).*--lr"):
        main(f"--logdir={tmp_path}", *SHORT, "--lr=1e30")
    assert not names(tmp_path) & {"checkpoint.keras", "model.keras", "result.json"}
    found = read(tmp_path / "diverged.json")
    assert "--lr" in found["diverged"]
    assert found["sparsity"] == pytest.approx(0.9, abs=1e-4)


def test_units_are_removed_with_all_their_connections(main, tmp_path):
    main(f"--logdir={tmp_path}", *ONE_STEP, "--structure=units")
    result = read(tmp_path / "result.json")
    masks = snip_tf.load_masks(tmp_path / "masks.npz")
    kept = [mask.any(axis=0) for mask in masks.values()]
    for mask, units in zip(masks.values(), kept, strict=True):
        assert (mask.any(axis=1)[:, None] & units == mask).all()
    assert sum(map(len, kept[:2])) > sum(units.sum() for units in kept[:2])
    assert result["totals"]["compacted_multiply_adds"] < 266_200

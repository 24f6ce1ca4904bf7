"""The folder of a run of scripts/train.py: claimed, continued, refused, full."""

import errno
import fcntl
import json
import os
import shutil

import keras
import pytest
import tensorflow as tf
from absl import flags

import snip_tf
from snip_tf.experiments.training import checkpoint
from tests.training_runs import LENET300, ONE_STEP, names, read

pytest.importorskip("sklearn")

REFUSALS = (flags.Error, SystemExit)
OWN = (*ONE_STEP, "--seed=3", "--target_sparsity=0.95")


@pytest.fixture(scope="module")
def finished(main, tmp_path_factory):
    logdir = tmp_path_factory.mktemp("runs")
    main(f"--logdir={logdir}", *OWN)
    return logdir


@pytest.fixture
def float32_again():
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def no_work(monkeypatch):
    def fail(*args, **kwargs):
        pytest.fail("it began to work")

    monkeypatch.setattr(snip_tf.datasets, "load", fail)


def test_a_file_instead_of_a_folder_is_named(main, tmp_path):
    (tmp_path / "summary").touch()
    with pytest.raises(SystemExit, match=r"able to write to --logdir=.*summary"):
        main(f"--logdir={tmp_path}", *ONE_STEP)


@pytest.mark.slow  # a processor computes in float16 slowly
@pytest.mark.usefixtures("float32_again")
def test_continues_where_steps_of_half_precision_were_left_out(main, tmp_path):
    """Where gradients overflow, the optimizer makes no step."""
    flags_of_a_run = (*LENET300, "--max_examples=200", "--dtype_policy=mixed_float16")
    flags_of_a_run += ("--save_interval=20", "--batch_size=8", "--lr=1e-4")
    logdir = tmp_path / "logs"
    main(f"--logdir={logdir}", *flags_of_a_run, "--train_iterations=40")
    rows = read(logdir / "history.json")
    model, checks = checkpoint.load_checkpoint(logdir)
    assert checkpoint.iterations_done(checks) == 40
    # As if fewer steps had been made than there were iterations.
    model.optimizer.iterations.assign(33)
    rows[0]["steps"], rows[1]["steps"] = 15, 33
    history = [checkpoint.Check(**row) for row in rows]
    checkpoint.save_checkpoint(logdir, model, history)
    _, again = checkpoint.load_checkpoint(logdir)
    assert checkpoint.iterations_done(again) == 40
    assert again == history


def test_one_folder_has_one_run_at_a_time(main, tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        with pytest.raises(SystemExit, match="another process is training"):
            main(f"--logdir={tmp_path}", *ONE_STEP)
    finally:
        os.close(folder)
    assert not names(tmp_path)


@pytest.mark.usefixtures("no_work")
def test_refuses_the_folder_of_a_run_with_other_flags(main, finished):
    before = {p.name: p.read_bytes() for p in finished.iterdir() if p.is_file()}
    with pytest.raises(REFUSALS, match=r"--seed was 3 there and is 4 now"):
        main(f"--logdir={finished}", *OWN, "--seed=4")
    with pytest.raises(REFUSALS, match="--prune_biases was False"):
        main(f"--logdir={finished}", *OWN, "--prune_biases")
    after = {p.name: p.read_bytes() for p in finished.iterdir() if p.is_file()}
    assert after == before


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"arch": "lenet5"}, "'lenet300', whose weights"),
        ({"target_sparsity": 0.9}, "sparsity 0.95"),
    ],
)
def test_refuses_a_checkpoint_of_another_run(main, finished, tmp_path, changes, found):
    """Although the flags in the folder are right."""
    for name in ("checkpoint.keras", "history.json", "pruning.json"):
        shutil.copy(finished / name, tmp_path)
    chosen = read(finished / "flags.json") | changes
    (tmp_path / "flags.json").write_text(json.dumps(chosen))
    given = [f"--{name}={value}" for name, value in changes.items()]
    with pytest.raises(REFUSALS, match=f"or none. Received: .*{found}"):
        main(f"--logdir={tmp_path}", *OWN, *given)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("checkpoint.keras", "PK"),
        ("flags.json", None),
        ("flags.json", "x"),
        ("history.json", None),
        ("history.json", "{"),
        ("pruning.json", None),
        ("pruning.json", "{}"),
    ],
)
def test_refuses_a_run_whose_files_are_damaged(main, finished, tmp_path, name, content):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(REFUSALS, match=r"of a run\. Received: .*Name another"):
        main(f"--logdir={tmp_path}", *OWN)


def test_a_disk_that_tensorflow_finds_full(main, monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        words = "events.out.tfevents; No space left on device"
        raise tf.errors.ResourceExhaustedError(None, None, words)

    monkeypatch.setattr(tf.summary, "scalar", fail)
    with pytest.raises(REFUSALS, match="No space in --logdir"):
        main(f"--logdir={tmp_path}", *ONE_STEP)


def test_a_full_disk_leaves_the_old_content(main, monkeypatch, tmp_path):
    def fill(model, path):
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", fill)
    with pytest.raises(REFUSALS, match="No space left on device"):
        main(f"--logdir={tmp_path}", *ONE_STEP)
    assert not [name for name in names(tmp_path) if "partial" in name]
    assert "checkpoint.keras" not in names(tmp_path)

"""scripts/train.py: a few real runs as processes of their own, and what it refuses."""

import dataclasses
import errno
import fcntl
import json
import os
import re
import shutil
import signal
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver

import snip_tf
from snip_tf.experiments.training import checkpoint, loop
from snip_tf.weights import weights_by_path
from tests.programs import loaded, run_program, start_program
from tests.replicas import two_replicas

pytest.importorskip("sklearn")

LENET300 = ("--arch=lenet300", "--optimizer=momentum", "--check_interval=20")
SHORT = (*LENET300, "--train_iterations=20", "--save_interval=20")
# Long enough to be killed in the middle.
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
REFUSALS = (flags.Error, SystemExit)
FILES = {
    "checkpoint.keras",
    "flags.json",
    "history.json",
    "model.keras",
    "pruning.json",
    "result.json",
    "summary",
}
FILES_IF_PRUNED = FILES | {"masks.npz", "stripped.keras"}


def run(logdir, *arguments):
    done = run_program("train.py", f"--logdir={logdir}", *arguments, cwd=logdir.parent)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return logdir


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs") / "undisturbed", *LONG)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("runs") / "dense"
    return run(logdir, "--target_sparsity=0", *SHORT)


@pytest.fixture(scope="module")
def like_the_release(tmp_path_factory):
    """Its weights after pruning hardly move."""
    logdir = tmp_path_factory.mktemp("runs") / "release"
    options = ("--initializer_w_ap=vs", "--prune_biases", "--lr=1e-6")
    return run(logdir, *options, *SHORT)


@pytest.fixture(scope="module")
def continued(tmp_path_factory):
    """Interrupted after its first checkpoint, killed after another, started again."""
    logdir = tmp_path_factory.mktemp("runs") / "continued"
    for iteration, number in ((20, signal.SIGINT), (60, signal.SIGKILL)):
        arguments = (f"--logdir={logdir}", *LONG)
        with start_program("train.py", *arguments, cwd=logdir.parent) as process:
            lines = iter(process.stdout.readline, "")
            assert any(line.startswith(f"{iteration}/160") for line in lines)
            process.send_signal(number)
            rest = process.stdout.read()
        assert not (logdir / "result.json").exists(), "ended too late to be a test"
        if number == signal.SIGINT:
            assert process.returncode == 130
            assert rest.endswith(
                "\nInterrupted (SIGINT). The same command continues.\n"
            )
            assert "Traceback" not in rest
    return run(logdir, *LONG)


def read(path):
    return json.loads(path.read_text())


def timeless(value):
    """Without the measured seconds, which are never the same."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if "seconds" not in k}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def load(logdir):
    return keras.models.load_model(logdir / "model.keras")


def error_percent(model, examples):
    wrong = np.asarray(model(examples[0])).argmax(axis=1) != examples[1]
    return 100 * wrong.sum() / len(wrong)


def names(logdir):
    return {path.name for path in logdir.iterdir()}


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


def test_killed_and_continued_equals_undisturbed(undisturbed, continued):
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


@pytest.fixture(scope="module")
def train():
    with loaded("scripts/train.py") as module:
        yield module


@pytest.fixture
def parse(train):
    with flagsaver.flagsaver():
        yield lambda *arguments: flags.FLAGS(["train.py", *arguments])


@pytest.fixture
def main(train, parse):
    def run_main(*arguments):
        parse(*arguments)
        train.main()

    return run_main


@pytest.fixture
def no_work(monkeypatch):
    def fail(*args, **kwargs):
        pytest.fail("it began to work")

    monkeypatch.setattr(snip_tf.datasets, "load", fail)


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


@pytest.mark.parametrize(
    ("argument", "known"),
    [
        ("--datasource=imagenet", "digits.*mnist"),
        ("--arch=lenet", "lenet300.*lenet5"),
        ("--aug_kinds=fliplr,rotate", "fliplr.*translate_px"),
        ("--optimizer=lamb", "sgd.*momentum.*adam"),
        ("--initializer_w_bp=vs-y", "vs.*vs-x.*vs-h"),
        ("--criterion=gradients", "snip.*synflow"),
        ("--target_sparsity=1", "0 <= target_sparsity < 1"),
        ("--target_sparsity=-0.1", "0 <= target_sparsity < 1"),
        ("--target_sparsity=nan", "0 <= target_sparsity < 1"),
        ("--lr=0", "positive"),
        ("--batch_size=0", "positive|greater|at least"),
        ("--train_iterations=0", "positive|greater|at least"),
        ("--seed=-1", "range"),
        ("--weight_decay=-1", "non-negative"),
    ],
)
def test_refuses_a_value_and_says_what_is_known(parse, argument, known):
    name = argument.partition("=")[0].removeprefix("--")
    with pytest.raises(flags.Error, match=f"(?s){name}.*({known})"):
        parse(argument)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr_decay_type=piecewise", "--decay_boundaries=10"], "one more value"),
        (["--lr_decay_type=piecewise", "--decay_values=0.1"], "one boundary"),
        (["--decay_boundaries=10", "--decay_values=0.1,0.01"], "'constant'"),
        (
            [
                "--lr_decay_type=piecewise",
                "--decay_boundaries=ten",
                "--decay_values=0.1,0.01",
            ],
            "ten.*: expected whole numbers",
        ),
        (["--decay_values=0.1,abc"], "abc.*: expected positive numbers"),
    ],
)
@pytest.mark.usefixtures("no_work")
def test_refuses_a_schedule_that_does_not_fit(main, tmp_path, arguments, message):
    logdir = tmp_path / "logs"
    with pytest.raises(REFUSALS, match=f"--decay_.*{message}"):
        main(f"--logdir={logdir}", *arguments)
    assert not logdir.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch_size=1351"], "--batch_size to be at most the 1350 training"),
        (["--scoring_batch_size=1351"], "--scoring_batch_size to be at most the 1350"),
        (
            ["--examples_per_class=100000"],
            "--examples_per_class to be at most 1[0-9]{2},",
        ),
        (["--min_kept=1000000"], "`min_kept`.*Received: min_kept=1000000"),
        (["--min_kept=0.5", "--scope=layer"], "`min_kept`.*Received: min_kept=0.5"),
        (["--arch=vgg_d"], r"vgg_d can take, as \(32, 32, 3\).*size would be zero"),
    ],
)
def test_refuses_what_the_data_and_the_network_do_not_allow(
    main, tmp_path, monkeypatch, arguments, message
):
    """In one line, before it prunes, and without a claim to the folder."""
    monkeypatch.setattr(snip_tf, "prune_model", lambda *_, **__: pytest.fail("pruned"))
    logdir = tmp_path / "logs"
    with pytest.raises(SystemExit, match=message) as refusal:
        main(f"--logdir={logdir}", *SHORT, *arguments)
    assert refusal.value.code.isprintable()
    assert not logdir.exists()


def test_refuses_augmentations_of_sequences(main, tmp_path, monkeypatch):
    data = snip_tf.datasets.load("digits")
    rows = dataclasses.replace(data, train=(data.train[0][..., 0], data.train[1]))
    monkeypatch.setattr(snip_tf.datasets, "load", lambda *_: rows)
    with pytest.raises(SystemExit, match=r"no --aug_kinds.*sequences"):
        main(f"--logdir={tmp_path}", *SHORT, "--aug_kinds=fliplr")


def test_what_cannot_be_pruned_is_said_in_a_line(main, tmp_path):
    with pytest.raises(SystemExit, match="a score that is not zero") as refusal:
        main(f"--logdir={tmp_path}", *SHORT, "--initializer_w_bp=zeros")
    assert refusal.value.code.isprintable()


@pytest.fixture
def float32_again():
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.usefixtures("float32_again")
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_trains_in_half_precision(main, tmp_path, policy):
    precise = ("--max_examples=400", *SHORT, "--weight_decay_form=decoupled")
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
    main(f"--logdir={tmp_path}", *SHORT, "--arch=lenet5", "--lr=0.01")
    model = load(tmp_path)
    assert model.get_layer("conv1").data_format == "channels_last"
    assert model.get_layer("conv1").kernel.shape == (5, 5, 1, 20)


def test_a_file_in_the_place_of_a_folder_is_named(main, tmp_path):
    (tmp_path / "summary").touch()
    with pytest.raises(SystemExit, match=r"able to write to --logdir=.*summary"):
        main(f"--logdir={tmp_path}", "--max_examples=400", *SHORT)


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
            main(f"--logdir={tmp_path}", *SHORT)
    finally:
        os.close(folder)
    assert not names(tmp_path)


def test_decoupled_decay_is_no_part_of_the_loss(main, tmp_path):
    """At a rate near 0 the loss of both is that of the first weights."""
    short = (*SHORT, "--max_examples=200", "--lr=1e-6", "--weight_decay=0.1")
    losses = {}
    for form in ("l2", "decoupled"):
        main(f"--logdir={tmp_path / form}", *short, f"--weight_decay_form={form}")
        losses[form] = read(tmp_path / form / "history.json")[-1]["loss"]
    model = load(tmp_path / "l2")
    squares = sum((weight.numpy() ** 2).sum() for weight in model.trainable_weights)
    np.testing.assert_allclose(
        losses["l2"] - losses["decoupled"], 0.05 * squares, rtol=1e-3
    )


def test_random_labels_are_learned_from_but_not_scored_on(main, tmp_path):
    few = ("--arch=lenet300", "--optimizer=adam", "--lr=0.001", "--weight_decay=0")
    few += ("--max_examples=60", "--batch_size=54", "--target_sparsity=0.5")
    few += ("--train_iterations=200", "--save_interval=200")
    main(f"--logdir={tmp_path / 'true'}", *few)
    main(f"--logdir={tmp_path / 'random'}", *few, "--random_labels")
    results = {
        name: read(tmp_path / name / "result.json") for name in ("true", "random")
    }
    assert results["true"]["layers"] == results["random"]["layers"]
    assert read(tmp_path / "random" / "history.json")[-1]["loss"] < 0.2
    assert results["true"]["final_error"] < 50 < results["random"]["final_error"]


@pytest.mark.parametrize(
    ("owner", "name", "flag"),
    [
        (snip_tf.datasets, "load", "--max_examples"),
        (snip_tf, "prune_model", "--batch_size"),
        (loop, "train", "--batch_size"),
    ],
)
@pytest.mark.parametrize(
    "error",
    [MemoryError("no"), tf.errors.ResourceExhaustedError(None, None, "no\nmore")],
)
def test_out_of_memory(main, tmp_path, monkeypatch, owner, name, flag, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(owner, name, fail)
    logdir = f"--logdir={tmp_path / 'logs'}"
    with pytest.raises(SystemExit, match=f"Out of memory: no.*Lower.*{flag} ") as exit:
        main(logdir, *SHORT)
    assert "None" not in str(exit.value)
    monkeypatch.undo()
    main(logdir, *SHORT, "--batch_size=50")  # in the same folder, as it was advised


def test_data_that_is_not_there(main, tmp_path, monkeypatch):
    def load(*args, **kwargs):
        raise OSError("no folder of that name")

    monkeypatch.setattr(snip_tf.datasets, "load", load)
    logdir = tmp_path / "logs"
    with pytest.raises(REFUSALS, match=r"mnist.*no folder of that name"):
        main(f"--logdir={logdir}", "--datasource=mnist")
    assert not logdir.exists()


def test_a_loss_that_is_not_finite_ends_the_run_without_a_result(main, tmp_path):
    with pytest.raises(SystemExit, match=r"(nan|inf).*--lr"):
        main(f"--logdir={tmp_path}", *SHORT, "--lr=1e30")
    assert not names(tmp_path) & {"checkpoint.keras", "model.keras", "result.json"}
    found = json.loads((tmp_path / "diverged.json").read_text())
    assert "--lr" in found["diverged"]
    assert found["sparsity"] == pytest.approx(0.9, abs=1e-4)


@pytest.mark.usefixtures("no_work")
def test_refuses_the_folder_of_a_run_with_other_flags(main, undisturbed):
    before = {p.name: p.read_bytes() for p in undisturbed.iterdir() if p.is_file()}
    with pytest.raises(REFUSALS, match=r"--seed was 3 there and is 4 now"):
        main(f"--logdir={undisturbed}", *LONG, "--seed=4")
    with pytest.raises(REFUSALS, match="--prune_biases was False"):
        main(f"--logdir={undisturbed}", *LONG, "--prune_biases")
    after = {p.name: p.read_bytes() for p in undisturbed.iterdir() if p.is_file()}
    assert after == before


@pytest.mark.parametrize(
    ("flag", "found"),
    [
        ("--arch=lenet5", "'lenet300', whose weights"),
        ("--seed=3", "sparsity 0.95"),
    ],
)
def test_refuses_a_checkpoint_of_another_run(
    train, parse, undisturbed, tmp_path, flag, found
):
    for name in ("checkpoint.keras", "history.json", "pruning.json"):
        shutil.copy(undisturbed / name, tmp_path)
    parse(f"--logdir={tmp_path}", *SHORT, flag)
    (tmp_path / "flags.json").write_text(json.dumps(train._chosen_flags()))
    with pytest.raises(REFUSALS, match=f"or none. Received: .*{found}"):
        train.main()


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
def test_refuses_a_run_whose_files_are_damaged(
    main, undisturbed, tmp_path, name, content
):
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(REFUSALS, match=r"as it left them\. Received: .*Name another"):
        main(f"--logdir={tmp_path}", *LONG)


def test_workers_tell_their_data_apart(train):
    data = snip_tf.datasets.load("digits", None, 0, 40)
    other = snip_tf.datasets.load("digits", None, 1, 40)
    assert train._digest(data) == train._digest(data) != train._digest(other)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    "flag",
    [
        *("--seed=4294967296", "--weight_decay=nan", "--lr=inf", "--lr=nan"),
        *("--min_kept=nan", "--min_kept=inf", "--min_kept=1e400", "--min_kept=1.5"),
        *("--target_sparsity=nan", "--decay_values=0.1,inf", "--decay_values=nan"),
        *("--worker_timeout=nan", "--worker_timeout=inf", "--worker_timeout=0"),
    ],
)
def test_refuses_numbers_that_are_none(main, tmp_path, flag):
    with pytest.raises((*REFUSALS, flags.IllegalFlagValueError), match=flag[2:6]):
        main(f"--logdir={tmp_path}", *SHORT, flag)


def test_a_folder_that_cannot_be_made(main, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(REFUSALS, match=r"expected the name of a folder"):
        main(f"--logdir={tmp_path / 'file' / 'logs'}", *SHORT)
    if sys.platform == "linux":  # where nobody can make one in /proc
        with pytest.raises(REFUSALS, match=r"write to --logdir=.*Received: .Errno"):
            main("--logdir=/proc/logs", *SHORT)


def test_a_disk_that_tensorflow_finds_full(main, monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        words = "events.out.tfevents; No space left on device"
        raise tf.errors.ResourceExhaustedError(None, None, words)

    monkeypatch.setattr(tf.summary, "scalar", fail)
    with pytest.raises(REFUSALS, match="No room in --logdir"):
        main(f"--logdir={tmp_path}", *SHORT)


def test_a_full_disk_leaves_what_was_there(main, monkeypatch, tmp_path):
    def fill(model, path):
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", fill)
    with pytest.raises(REFUSALS, match="No space left on device"):
        main(f"--logdir={tmp_path}", *SHORT)
    assert not [name for name in names(tmp_path) if "partial" in name]
    assert "checkpoint.keras" not in names(tmp_path)


def test_path_data_is_the_releases_name_of_data_dir(parse, tmp_path):
    parse(f"--path_data={tmp_path}")
    assert str(tmp_path) == flags.FLAGS.data_dir

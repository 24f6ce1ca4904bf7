"""What scripts/train.py refuses of its flags, before it prunes or writes anything."""

import dataclasses
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

import snip_tf
from tests.training_runs import SHORT

pytest.importorskip("sklearn")

REFUSALS = (flags.Error, SystemExit)


@pytest.fixture
def parse(train):
    with flagsaver.flagsaver():
        yield lambda *arguments: flags.FLAGS(["train.py", *arguments])


@pytest.fixture
def no_work(monkeypatch):
    def fail(*args, **kwargs):
        pytest.fail("it began to work")

    monkeypatch.setattr(snip_tf.datasets, "load", fail)


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
        ("--structure=4", "units, N:M"),
        ("--structure=0:4", "units, N:M"),
        ("--control=turn", "none.*shuffle.*reinitialize.*invert"),
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
            "--examples_per_class to be at most the 1[0-9]{2} training examples of the",
        ),
        (["--min_kept=1000000"], "`min_kept`.*Received: min_kept=1000000"),
        (["--min_kept=0.5", "--scope=layer"], "`min_kept`.*Received: min_kept=0.5"),
        (
            ["--arch=vgg_d"],
            r"--datasource=digits: .*vgg_d can take, such as .*size would be zero",
        ),
    ],
)
def test_refuses_what_the_data_and_the_network_do_not_allow(
    train, main, tmp_path, monkeypatch, arguments, message
):
    """In one line, before it prunes, and without a claim to the folder."""
    monkeypatch.setattr(
        train.initial_model, "prune_model", lambda *_, **__: pytest.fail("pruned")
    )
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


def test_what_cannot_be_pruned_takes_one_line(main, tmp_path):
    with pytest.raises(SystemExit, match="a score that is not zero") as refusal:
        main(f"--logdir={tmp_path}", *SHORT, "--initializer_w_bp=zeros")
    assert refusal.value.code.isprintable()


def test_data_that_is_not_there(main, tmp_path, monkeypatch):
    def load(*args, **kwargs):
        raise OSError("no folder of that name")

    monkeypatch.setattr(snip_tf.datasets, "load", load)
    logdir = tmp_path / "logs"
    with pytest.raises(REFUSALS, match=r"mnist.*no folder of that name"):
        main(f"--logdir={logdir}", "--datasource=mnist")
    assert not logdir.exists()


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
def test_refuses_invalid_numbers(main, tmp_path, flag):
    with pytest.raises((*REFUSALS, flags.IllegalFlagValueError), match=flag[2:6]):
        main(f"--logdir={tmp_path}", *SHORT, flag)


def test_a_folder_that_cannot_be_made(main, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(REFUSALS, match=r"expected the name of a folder"):
        main(f"--logdir={tmp_path / 'file' / 'logs'}", *SHORT)
    if sys.platform == "linux":  # where nobody can make one in /proc
        with pytest.raises(REFUSALS, match=r"write to --logdir=.*Received: .Errno"):
            main("--logdir=/proc/logs", *SHORT)


def test_shuffled_connections_have_no_structure(parse):
    parse("--control=shuffle")
    with pytest.raises(flags.Error, match=r"--structure=weights with --control=shuf"):
        parse("--control=shuffle", "--structure=2:4")


@pytest.mark.parametrize("flag", ["--criterion=force", "--control=invert"])
def test_units_are_ranked_by_snip_alone(parse, flag):
    parse("--structure=units", "--control=reinitialize")
    with pytest.raises(flags.Error, match=r"--criterion=snip.* with --structure=units"):
        parse("--structure=units", "--control=none", flag)


def test_path_data_is_the_releases_name_of_data_dir(parse, tmp_path):
    parse(f"--path_data={tmp_path}")
    assert str(tmp_path) == flags.FLAGS.data_dir

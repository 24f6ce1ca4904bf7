"""scripts/train.py with a schedule: what it prunes, and when it is interrupted."""

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

import snip_tf
from tests.training_runs import LENET300, load, read

pytest.importorskip("sklearn")

RUN = (
    *LENET300,
    "--train_iterations=60",
    "--save_interval=20",
    "--check_interval=20",
    "--target_sparsity=0.9",
    "--max_examples=400",
    "--batch_size=20",
    "--frequency=10",
    "--lr=0.02",
    "--lr_decay_type=cosine",
    "--seed=2",
)


class InterruptedError(Exception):
    pass


@pytest.mark.parametrize("schedule", ["gradual", "set", "rigl"])
def test_continues_to_the_bit(main, train, schedule, tmp_path, monkeypatch):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    main(f"--logdir={whole}", *RUN, f"--schedule={schedule}")

    def interrupt(logdir, model, history):
        save(logdir, model, history)
        if history[-1].iteration == 40:
            raise InterruptedError

    save = train.loop.save_checkpoint
    monkeypatch.setattr(train.loop, "save_checkpoint", interrupt)
    with pytest.raises(InterruptedError):
        main(f"--logdir={parted}", *RUN, f"--schedule={schedule}")
    monkeypatch.setattr(train.loop, "save_checkpoint", save)
    main(f"--logdir={parted}", *RUN, f"--schedule={schedule}")
    models = load(whole), load(parted)
    for one, other in zip(*(m.get_weights() for m in models), strict=True):
        np.testing.assert_array_equal(one, other)
    masks = [snip_tf.load_masks(folder / "masks.npz") for folder in (whole, parted)]
    np.testing.assert_equal(masks[0], masks[1])
    assert read(whole / "result.json")["sparsity"] == pytest.approx(0.9, abs=1e-4)


def scalars(logdir):
    """{name: {step: value}} of the summaries."""
    found = {}
    for path in sorted((logdir / "summary").glob("events*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                number = float(tf.make_ndarray(value.tensor))
                found.setdefault(value.tag, {})[event.step] = number
    return found


def test_gradual_pruning_by_magnitude_with_its_course_in_the_summary(main, tmp_path):
    main(f"--logdir={tmp_path}", *RUN, "--schedule=gradual", "--begin_step=10")
    recorded = read(tmp_path / "flags.json")
    assert recorded["criterion"] == "magnitude"
    schedule = snip_tf.GradualPruning(0.9, begin_step=10, end_step=45, frequency=10)
    found = scalars(tmp_path)
    for step in (20, 40, 60):
        expected = schedule.sparsity_at(step)
        assert found["sparsity"][step] == pytest.approx(expected, abs=1e-4)
    layers = {name.split("/")[1] for name in found if name.startswith("sparsity/")}
    assert layers == {"dense1", "dense2", "logits"}


def test_a_criterion_that_is_given_scores_on_training_data(main, tmp_path):
    main(f"--logdir={tmp_path}", *RUN, "--schedule=gradual", "--criterion=snip")
    assert read(tmp_path / "flags.json")["criterion"] == "snip"
    assert read(tmp_path / "result.json")["sparsity"] == pytest.approx(0.9, abs=1e-4)


def test_two_of_four(main, tmp_path):
    main(
        f"--logdir={tmp_path}",
        *RUN,
        "--schedule=gradual",
        "--target_sparsity=0.5",
        "--structure=2:4",
    )
    for mask in snip_tf.load_masks(tmp_path / "masks.npz").values():
        groups = mask.reshape(-1, 4, mask.shape[-1]).sum(axis=1)
        assert (groups == 2).all()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            ["--schedule=gradual", "--begin_step=90"],
            r"=gradual: .*end_step=45",
        ),
        (["--schedule=set", "--fraction=1.5"], "--schedule=set: .*fraction"),
        (["--schedule=gradual", "--initial_sparsity=0.95"], "initial_sparsity"),
        (["--schedule=set", "--frequency=50"], "--schedule=set: .*end_step=45"),
    ],
)
def test_wrong_settings_end_the_program_before_it_writes(main, tmp_path, wrong, words):
    with pytest.raises(SystemExit, match=words):
        main(f"--logdir={tmp_path / 'run'}", *RUN, *wrong)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        ["--schedule=rigl", "--target_sparsity=0"],
        ["--schedule=gradual", "--control=shuffle"],
        ["--schedule=rigl", "--structure=2:4"],
        ["--schedule=gradual", "--structure=units"],
        ["--schedule=later"],
        ["--frequency=0"],
    ],
)
def test_flags_that_do_not_go_together(main, tmp_path, wrong):
    with pytest.raises(flags.IllegalFlagValueError):
        main(f"--logdir={tmp_path / 'run'}", *RUN, *wrong)

import dataclasses
import json
import shutil
import zipfile

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf.experiments.training import checkpoint, run_folder

layers = keras.layers
WORDS = "Expected --logdir to hold the unchanged files of a run"


def check(iteration, steps=None):
    steps = iteration if steps is None else steps
    return checkpoint.Check(iteration, steps, 1.5, 0.1, 9.0, 8.0, 0.25)


def make_model(optimizer):
    keras.utils.set_random_seed(0)
    stack = [layers.Dense(6, name="hidden"), layers.Dense(3, name="out")]
    model = keras.Sequential([keras.Input((8,)), *stack])
    pruned = snip_tf.prune_model(model, sparsity=0.5, criterion="magnitude")
    pruned.compile(optimizer, "mse")
    pruned.optimizer.build(pruned.trainable_variables)
    pruned.optimizer.iterations.assign(40)
    return pruned


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of 40 iterations."""
    folder = tmp_path_factory.mktemp("run")
    checkpoint.save_checkpoint(folder, make_model("sgd"), [check(20), check(40)])
    return folder


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def unseal(run):
    """As an earlier version left it."""
    with zipfile.ZipFile(run / "checkpoint.keras", "a") as archive:
        archive.comment = b""


def refuses(run, name):
    with pytest.raises(ValueError, match=f"{WORDS}.*{run / name}.*Name another"):
        run_folder.load_checkpoint(run)


def values(run):
    model, history = run_folder.load_checkpoint(run)
    state = [*model.variables, *model.optimizer.variables]
    return [np.asarray(value).tobytes() for value in state], history


def test_a_changed_checkpoint_is_refused(run):
    path = run / "checkpoint.keras"
    content = path.read_bytes()
    places = np.random.default_rng(0).integers(0, 8 * len(content), 200)
    for place in places:
        changed = bytearray(content)
        changed[place // 8] ^= 1 << int(place) % 8
        path.write_bytes(changed)
        refuses(run, "checkpoint.keras")
    for changed in (b"", b"PK", content[:-1], content[: len(content) // 2]):
        path.write_bytes(changed)
        refuses(run, "checkpoint.keras")


def test_a_checkpoint_of_an_earlier_version_loads_as_it_was_saved(run):
    expected = values(run)
    unseal(run)
    assert values(run) == expected
    path = run / "checkpoint.keras"
    content = path.read_bytes()
    places = np.random.default_rng(0).integers(0, 8 * len(content), 60)
    for place in places:
        changed = bytearray(content)
        changed[place // 8] ^= 1 << int(place) % 8
        path.write_bytes(changed)
        try:
            assert values(run) == expected
        except ValueError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize(
    "rows",
    [
        [],
        [check(20)],
        [check(40)],
        [check(20), check(10**9, 40)],
        [check(20), check(-5, 40)],
        [check(30), check(20), check(40)],
        [check(40), check(20)],
        [check(20, 30), check(40)],
        [check(20), check(40.0)],
        [check(20), check("40")],
        [check(20), check(True, 40)],
        [check(20), dataclasses.replace(check(40), iteration=None)],
        [dataclasses.replace(check(20), loss="1.5"), check(40)],
    ],
)
def test_another_history_is_refused(run, rows, sealed):
    if not sealed:
        unseal(run)
        if rows == [check(40)]:
            return  # of a run that was first checked then
    rows = [dataclasses.asdict(row) for row in rows]
    (run / "history.json").write_text(json.dumps(rows))
    refuses(run, "history.json")


@pytest.mark.parametrize("text", ["", "{}", "3", "[1, 2]", '[{"iteration": 40}]'])
def test_a_history_of_another_kind_is_refused(run, text):
    (run / "history.json").write_text(text)
    refuses(run, "history.json")
    assert checkpoint.saved_iteration(run) == 0


def test_another_runs_checkpoint_is_refused(run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    rows = [check(20), dataclasses.replace(check(40), loss=1.25)]
    checkpoint.save_checkpoint(other, make_model("sgd"), rows)
    assert run_folder.load_checkpoint(other)[1] == rows
    shutil.copy(other / "checkpoint.keras", run)
    refuses(run, "history.json")


def test_a_history_that_is_longer_than_the_checkpoint_is_cut(run):
    """As a kill between the two leaves it."""
    path = run / "history.json"
    later = dataclasses.asdict(check(60, 40))  # all steps were left out
    path.write_text(json.dumps([*json.loads(path.read_text()), later]))
    assert run_folder.load_checkpoint(run)[1] == [check(20), check(40)]
    assert checkpoint.saved_iteration(run) == 60


def test_steps_that_were_left_out_are_no_damage(tmp_path):
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    rows = [check(20, 10), check(50, 40)]
    checkpoint.save_checkpoint(tmp_path, make_model(optimizer), rows)
    assert run_folder.load_checkpoint(tmp_path)[1] == rows
    unseal(tmp_path)
    assert run_folder.load_checkpoint(tmp_path)[1] == rows


@pytest.mark.parametrize("seconds", ["x", None, -1, True, float("nan"), [1]])
def test_invalid_seconds_are_refused(tmp_path, seconds):
    run_folder.keep_pruning_seconds(tmp_path, 1.5)
    assert run_folder.pruning_seconds(tmp_path) == 1.5
    run_folder.keep_pruning_seconds(tmp_path, seconds)
    with pytest.raises(ValueError, match=f"{WORDS}.*pruning.json has"):
        run_folder.pruning_seconds(tmp_path)


def test_changed_seconds_are_refused(tmp_path):
    run_folder.keep_pruning_seconds(tmp_path, 12.5)
    path = tmp_path / "pruning.json"
    content = path.read_bytes()
    for place in range(8 * len(content)):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=WORDS):
            run_folder.pruning_seconds(tmp_path)


def test_seconds_of_an_earlier_version_have_no_seal(tmp_path):
    path = tmp_path / "pruning.json"
    path.write_text('{\n "seconds": 12.5\n}\n')
    assert run_folder.pruning_seconds(tmp_path) == 12.5
    for text in ('{"seconds": 12.5, "seam": ""}', "[]", '[["seconds", 12.5]]', "{}"):
        path.write_text(text)
        with pytest.raises(ValueError, match=WORDS):
            run_folder.pruning_seconds(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "3", "[1]", "[" * 100_000, '[["lr", 0.1], [1, 2]]']
)
def test_damaged_flags_are_refused(run, text):
    run_folder.keep_flags(run, {"lr": 0.1})
    run_folder.check_flags(run, {"lr": 0.1})
    (run / "flags.json").write_text(text)
    with pytest.raises(ValueError, match=WORDS):
        run_folder.check_flags(run, {"lr": 0.1})

"""What all programs do with flags, before they load a library."""

import fcntl
import json
import os
import re

import pytest

from snip_tf import criteria, datasets, models
from snip_tf.experiments import recipes, sweep
from snip_tf.experiments.models import initializers
from snip_tf.experiments.training import (
    augmentation,
    optimizers,
    schedules,
    strategies,
)
from snip_tf.savings import export
from snip_tf.selecting import allocation
from tests.programs import REQUIRED, ROOT, loaded, run_program

SCRIPTS = ROOT / "scripts"
GROUPS = {
    "train.py": [
        "Data",
        "Network",
        "Pruning",
        "Pruning while training",
        "Training",
        "Files",
        "Several processors",
    ],
    "sweep.py": ["What is compared", "How each is trained", "Files", "Running"],
    "reproduce.py": ["What is run", "Files", "Running"],
    "report.py": ["Files"],
    "export.py": ["Files", "How"],
}


@pytest.fixture(scope="module")
def command_line():
    with loaded("scripts/export.py") as program:
        yield program.command_line


@pytest.fixture
def without_libraries(tmp_path):
    """A folder in which those that take long to import cannot be imported."""
    folder = tmp_path / "first"
    folder.mkdir()
    for name in ("keras", "numpy", "tensorflow"):
        (folder / f"{name}.py").write_text("raise ImportError('it is too early')")
    return folder


@pytest.fixture
def run(tmp_path, without_libraries):
    """Runs a program that must end before it imports them."""
    cwd = tmp_path / "cwd"
    cwd.mkdir()

    def run_it(name, *arguments, code=1):
        done = run_program(name, *arguments, cwd=cwd, first=[without_libraries])
        assert done.returncode == code, done.stderr
        assert not os.listdir(cwd), "it has written something"
        assert "Traceback" not in done.stderr
        return done.stdout or done.stderr

    return run_it


@pytest.mark.parametrize(
    ("path", "variable", "values"),
    [
        ("selecting/allocation.py", "SCOPES", allocation.SCOPES),
        ("criteria/__init__.py", "CRITERIA", criteria.CRITERIA),
        ("experiments/datasets/__init__.py", "DATASETS", datasets.DATASETS),
        ("savings/export.py", "FORMATS", export.FORMATS),
        ("experiments/models/__init__.py", "MODELS", models.MODELS),
        (
            "experiments/models/initializers.py",
            "INITIALIZERS",
            initializers.INITIALIZERS,
        ),
        ("experiments/recipes.py", "EXPERIMENTS", recipes.EXPERIMENTS),
        ("experiments/recipes.py", "BUDGETS", recipes.BUDGETS),
        ("experiments/sweep.py", "CONTROLS", sweep.CONTROLS),
        (
            "experiments/training/strategies.py",
            "STRATEGIES",
            strategies.STRATEGIES,
        ),
        (
            "experiments/training/augmentation.py",
            "AUGMENTATIONS",
            augmentation.AUGMENTATIONS,
        ),
        ("experiments/sweep.py", "METHODS", sweep.METHODS),
        (
            "experiments/training/schedules.py",
            "SCHEDULES",
            schedules.SCHEDULES,
        ),
        (
            "experiments/training/optimizers.py",
            "DECAY_TYPES",
            optimizers.DECAY_TYPES,
        ),
        (
            "experiments/training/optimizers.py",
            "OPTIMIZERS",
            optimizers.OPTIMIZERS,
        ),
    ],
)
def test_names_are_read_without_an_import(command_line, path, variable, values):
    assert command_line.names(path, variable) == list(values)


def test_names_that_the_library_lacks(command_line):
    with pytest.raises(LookupError, match=r"allocation\.py has no literal NAMES"):
        command_line.names("selecting/allocation.py", "NAMES")


@pytest.mark.parametrize("name", GROUPS)
def test_help_shows_the_programs_own_flags_in_groups(run, name):
    text = run(name, "--help", code=0)
    titles = re.findall(r"^(\w[^\n]*):$", text, re.MULTILINE)
    for title, expected in zip(titles, GROUPS[name], strict=True):
        assert title.startswith(expected)
    script = "".join(path.read_text() for path in SCRIPTS.glob(f"{name[:-3]}*.py"))
    defined = re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', script)
    shown = re.findall(r"^  --(?:\[no\])?(\w+)", text, re.MULTILINE)
    assert shown == defined


@pytest.mark.parametrize(
    ("name", "argument", "words"),
    [
        ("train.py", "--sparsity=0.9", "Did you mean --target_sparsity?"),
        ("train.py", "--data-dir=a", "Did you mean --data_dir"),
        ("train.py", "--learning_rate=0.1", "Did you mean --lr?"),
        ("train.py", "--epochs=3", "Did you mean --train_iterations?"),
        ("train.py", "--dataset=mnist", "--datasource"),
        ("train.py", "--criteria=snip", "Did you mean --criterion"),
        ("train.py", "--abracadabra", "Unknown flag --abracadabra. --help shows"),
        ("train.py", "0.95", "flags only, as --name=value. Received: 0.95"),
        ("train.py", "--target_sparsity=95", "for 95 % write 0.95"),
        ("train.py", "--decay_values=0.1,abc", "expected positive numbers"),
        ("train.py", "--data_dir=mistyped", r"\(mkdir\)"),
        ("train.py", "--logdir=", "expected the name of a folder"),
        ("train.py", f"--logdir={__file__}", "expected the name of a folder"),
        ("train.py", f"--logdir={__file__}/a", "expected the name of a folder"),
        ("train.py", f"--logdir={'a' * 300}", "expected the name of a folder"),
        ("train.py", "--logdir=\udcff", "expected the name of a folder"),
        ("train.py", "--logdir=gs://bucket/a", "expected the name of a folder"),
        ("sweep.py", "--outdir=gs://bucket/a", "expected the name of a folder"),
        ("sweep.py", f"--logdir={__file__}", "expected the name of a folder"),
        ("reproduce.py", f"--outdir={__file__}", "expected the name of a folder"),
        ("reproduce.py", "--dtype_policy=float16", "float32|mixed_float16"),
        ("sweep.py", "--sparsity=0.9", "Did you mean --sparsities?"),
        ("sweep.py", "--data_dir=mistyped", r"\(mkdir\)"),
        ("sweep.py", "--criteria=sinp", "iterative_snip"),
        ("sweep.py", "--criteria=snip:turn", ":shuffle"),
        ("sweep.py", "--sparsities=90", "between 0 and 1"),
        ("sweep.py", "--archs=lenet", "lenet300"),
        ("sweep.py", "--flag=min_kept", "NAME=VALUE"),
        ("sweep.py", "--flag=criterion=snip", "sets itself"),
        ("sweep.py", "--flag=path_data=a", "sets itself"),
        ("sweep.py", "--flag=foo=3", "train.py --help"),
        ("sweep.py", "--seeds=99999999999999", "below 2"),
        ("sweep.py", f"--seeds={'9' * 5000}", "below 2"),
        ("reproduce.py", "--seed=1", "Did you mean --seeds?"),
        ("reproduce.py", "--experiment=table4", "table1.*retained"),
        ("reproduce.py", "--seeds=one", "expected whole numbers"),
        ("reproduce.py", "--seeds=4294967296", "below 2"),
        ("reproduce.py", "--seeds=\N{SUPERSCRIPT TWO}", "expected whole numbers"),
        ("train.py", "--min_kept=nan", "expected a whole number, or a fraction"),
        ("train.py", "--structure=2", "expected weights, units, N:M"),
        ("train.py", "--pattern=2:4", "Did you mean --structure?"),
        ("reproduce.py", "--data_dir=mistyped", r"\(mkdir\)"),
        ("report.py", "--format=html", "Unknown flag --format"),
        ("report.py", "--model=none.keras", "existing file"),
        ("report.py", "--csv=none/r.csv", "a file in an existing folder"),
        ("export.py", "--model=none.keras", "existing file"),
        ("export.py", "--path=none/a.keras", "a file in an existing folder"),
        ("export.py", "--format=tflite", "keras|litert|saved_model|sparse"),
        ("export.py", "--output=a.keras", "Did you mean --path?"),
    ],
)
def test_refuses_at_once_in_a_line(run, name, argument, words):
    text = run(name, *REQUIRED.get(name, ()), argument)
    assert re.search(words, text)
    assert text.count("\n") == 1


def test_a_file_of_flags_that_is_no_text_is_refused_in_a_line(run, tmp_path):
    (tmp_path / "flags").write_bytes(b"\xff")
    text = run("train.py", f"--flagfile={tmp_path / 'flags'}")
    assert "can't decode" in text
    assert text.count("\n") == 1


@pytest.mark.parametrize("name", REQUIRED)
def test_names_the_flags_that_must_be_given(run, name):
    for given, missing in zip([None, *REQUIRED[name]], REQUIRED[name], strict=False):
        form = missing.partition("=")[0]
        text = run(name, *filter(None, [given]))
        assert re.search(rf"^Expected {form}=[A-Z]+, .*Received: none", text)
        assert text.count("\n") == 1


def test_a_folder_that_another_run_has_is_refused_at_once(run, tmp_path):
    logdir = tmp_path / "logs"
    logdir.mkdir()
    folder = os.open(logdir, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        assert "another process is training now" in run(
            "train.py", f"--logdir={logdir}"
        )
    finally:
        os.close(folder)
    assert not os.listdir(logdir)


def test_a_folder_with_a_run_of_other_flags_is_refused_at_once(run, tmp_path):
    (tmp_path / "checkpoint.keras").touch()
    (tmp_path / "flags.json").write_text(json.dumps({"seed": 3}))
    text = run("train.py", f"--logdir={tmp_path}")
    assert "--seed was 3 there and is 0 now" in text


@pytest.mark.parametrize(
    "text", ["[[1, 2]]", '[["seed", 3]]', "3", "null", "[" * 10**5]
)
def test_damaged_flags_are_left_to_the_run(command_line, tmp_path, text):
    """Which says what is wrong with them: see run_folder_test."""
    (tmp_path / "checkpoint.keras").touch()
    (tmp_path / "flags.json").write_text(json.dumps({"seed": 3}))
    with pytest.raises(SystemExit):
        command_line.refuse_taken(tmp_path, {"seed": 0})
    (tmp_path / "flags.json").write_text(text)
    assert command_line.refuse_taken(tmp_path, {"seed": 0}) is None


def test_a_pipe_instead_of_flags_is_left_to_the_run(command_line, tmp_path):
    """A pipe would be waited for without end."""
    os.mkfifo(tmp_path / "flags.json")
    assert command_line.refuse_taken(tmp_path, {"seed": 0}) is None


def test_differing_flags_are_shown_in_one_line(command_line, tmp_path):
    (tmp_path / "checkpoint.keras").touch()
    (tmp_path / "flags.json").write_text(json.dumps({"\x1b[1ma\nb": "\x1b[2J"}))
    with pytest.raises(SystemExit, match="--a b was") as refusal:
        command_line.refuse_taken(tmp_path, {})
    assert refusal.value.code.isprintable()


def test_flags_of_another_program_are_read_without_an_import(command_line):
    found = command_line.default_flags(SCRIPTS / "train_flags.py")
    assert {"arch", "min_kept", "path_data", "worker_timeout"} <= found.keys()
    assert not {"outdir", "jobs"} & found.keys()
    assert (found["lr"], found["aug_kinds"], found["initializer_w_ap"]) == (
        0.1,
        [],
        None,
    )


def test_words_of_others_are_made_plain(command_line):
    text = "\x1b[1mred\x1b[0m \x1b]0;title\x07is\n\x9b2J \x08bad\x7f"
    assert command_line.one_line(text) == "red is 2J bad"

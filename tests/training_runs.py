"""Flags of short runs of scripts/train.py, and what runs leave."""

import json

import keras
from absl import flags
from absl.testing import flagsaver

LENET300 = ("--arch=lenet300", "--optimizer=momentum", "--check_interval=20")
SHORT = (*LENET300, "--train_iterations=20", "--save_interval=20")
# Only as long as must be, where what is trained does not matter.
ONE_STEP = (
    "--arch=lenet300",
    "--train_iterations=1",
    "--max_examples=200",
    "--batch_size=20",
)
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


def parsed(program, kind, *arguments):
    """The flags of a program that is `loaded`, as a dataclass."""
    with flagsaver.flagsaver():
        flags.FLAGS(["program", *arguments])
        return program.command_line.read(kind)


def read(path):
    return json.loads(path.read_text())


def load(logdir):
    return keras.models.load_model(logdir / "model.keras")


def names(logdir):
    return {path.name for path in logdir.iterdir()}

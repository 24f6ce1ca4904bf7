"""Checkpoints of a run: the model with its optimizer, and the checks up to it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from snip_tf.experiments.training import seals
from snip_tf.files import named_damage, read_json, whole_file, write_json

_CHECKPOINT = "checkpoint.keras"
_HISTORY = "history.json"


@dataclasses.dataclass(frozen=True)
class Check:
    """What was measured after an iteration. Errors are in percent.

    `steps` counts the optimizer's steps: in half precision it skips those whose
    gradients are not finite. `loss` is the mean training loss, regularization included,
    since the last check; `learning_rate` is that of the next iteration; `test_error` is
    measured where a checkpoint is saved; `seconds` is the time spent in training steps
    so far.
    """

    iteration: int
    steps: int
    loss: float
    learning_rate: float
    validation_error: float
    test_error: float | None
    seconds: float


def iterations_done(history: list[Check]) -> int:
    """Returns how many iterations a run has made."""
    return history[-1].iteration if history else 0


def steps_of(model: keras.Model) -> int:
    """Returns how many steps the optimizer has made."""
    return int(number(model.optimizer.iterations))


def number(value: keras.Variable | tf.Tensor) -> float:
    """Returns a scalar variable or tensor as a number."""
    # Under a strategy `float` fails: the variable is mirrored.
    return float(keras.ops.convert_to_numpy(value))


def save_checkpoint(logdir: Path, model: keras.Model, history: list[Check]) -> None:
    """Writes the model with its optimizer, and the history up to it.

    The model comes last: a run that is killed at any point finds a complete checkpoint,
    and a history that reaches at least up to it.
    """
    rows = [dataclasses.asdict(check) for check in history]
    write_json(logdir / _HISTORY, rows)
    with whole_file(logdir / _CHECKPOINT) as partial:
        model.save(partial)
        seals.seal(partial, {"rows": len(rows), "history": seals.digest_of(rows)})


def has_checkpoint(logdir: Path) -> bool:
    """Returns whether there is a run to continue."""
    return (logdir / _CHECKPOINT).exists()


def saved_iteration(logdir: Path) -> int:
    """Returns the last iteration in the history in `logdir`; 0 without one."""
    try:
        return iterations_done(_history(logdir, _rows(logdir)))
    except (FileNotFoundError, ValueError):
        return 0  # `load_checkpoint` reports a damaged one


def load_checkpoint(logdir: Path) -> tuple[keras.Model, list[Check]] | None:
    """Returns the model and the history that were saved; None if there are none.

    Raises:
        FileNotFoundError: if there is no history.
        ValueError: if a file is damaged, or the history belongs to another model.
    """
    if not has_checkpoint(logdir):
        return None
    path, kind = logdir / _CHECKPOINT, "a checkpoint as the training loop wrote it"
    seal = seals.check_seal(path, kind)
    rows = _rows(logdir)
    if seal:
        # A run that was killed while saving has checks after the checkpoint.
        rows = rows[: seal["rows"]]
        if seals.digest_of(rows) != seal["history"]:
            raise _other_history(logdir, "other checks")
    history = _history(logdir, rows)
    with named_damage(path, kind):
        model = keras.models.load_model(path)
        steps = steps_of(model)
    if not seal:
        history = _history_without_seal(logdir, history, model)
    if not history or history[-1].steps != steps:
        raise _other_history(logdir, f"no check after the model's {steps} steps")
    return model, history


def _history_without_seal(
    logdir: Path, history: list[Check], model: keras.Model
) -> list[Check]:
    """Returns the checks up to a checkpoint of an earlier version."""
    history = [check for check in history if check.steps <= steps_of(model)]
    leaves_out_steps = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    if not leaves_out_steps and any(c.iteration != c.steps for c in history):
        raise _other_history(logdir, "more iterations than steps")
    return history


def _rows(logdir: Path) -> list[Any]:
    rows = read_json(logdir / _HISTORY)
    if not isinstance(rows, list):
        raise _other_history(logdir, "no list of checks")
    return rows


def _history(logdir: Path, rows: Any) -> list[Check]:
    """Returns the checks; raises a ValueError if they are not those of a run."""
    with named_damage(logdir / _HISTORY, "the history of a run"):
        history = [Check(**row) for row in rows]
        iteration = steps = 0
        for check in history:
            _check_numbers(check)
            if not iteration < check.iteration >= check.steps >= steps:
                raise ValueError(f"{check} comes after iteration {iteration}")
            iteration, steps = check.iteration, check.steps
    return history


def _check_numbers(check: Check) -> None:
    kinds = {*map(type, dataclasses.astuple(check))} - {type(None)}
    counts = {type(check.iteration), type(check.steps)}
    if not kinds <= {int, float} or counts != {int}:
        raise ValueError(f"{check} has values that are not numbers")


def _other_history(logdir: Path, found: str) -> ValueError:
    return ValueError(
        f"Expected the history up to {_CHECKPOINT}. Received: "
        f"{str(logdir / _HISTORY)!r}, which has {found}"
    )

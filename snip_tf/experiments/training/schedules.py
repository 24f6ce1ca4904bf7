"""Schedules, which change masks while training, by their names."""

from __future__ import annotations

from collections.abc import Callable

from snip_tf.criteria import Criterion
from snip_tf.experiments import controls
from snip_tf.experiments.datasets import Dataset
from snip_tf.experiments.training.settings import Settings
from snip_tf.schedules.base import Schedule
from snip_tf.schedules.gradual import GradualPruning
from snip_tf.schedules.rigl import RigL
from snip_tf.schedules.set import SET

SCHEDULES = ("none", "gradual", "set", "rigl")


def make_schedule(settings: Settings, data: Dataset) -> Schedule | None:
    """Returns the schedule that the flags ask for, or None.

    Raises:
        ValueError: if they are not valid together.
    """
    if settings.schedule == "none":
        return None
    try:
        return _MADE[settings.schedule](settings, data)
    except ValueError as error:
        raise ValueError(f"--schedule={settings.schedule}: {error}") from error


def criterion_of(settings: Settings) -> str | Criterion:
    """Returns the criterion, inverted if that is the control."""
    name = settings.criterion
    return controls.invert(name) if settings.control == "invert" else name


def _gradual(settings: Settings, data: Dataset) -> Schedule:
    images, labels = data.train
    return GradualPruning(
        settings.target_sparsity,
        begin_step=settings.begin_step,
        end_step=settings.last_update,
        frequency=settings.frequency,
        initial_sparsity=settings.initial_sparsity,
        power=settings.power,
        criterion=criterion_of(settings),
        scope=settings.scope,
        structure=settings.structure,
        min_kept=settings.least_kept,
        x=images,
        y=labels,
        batch_size=settings.scoring_batch_size or settings.batch_size,
        seed=settings.seed,
    )


def _set(settings: Settings, data: Dataset) -> Schedule:
    del data
    return SET(
        settings.frequency, settings.last_update, settings.fraction, settings.seed
    )


def _rigl(settings: Settings, data: Dataset) -> Schedule:
    return RigL(
        *data.train,
        settings.frequency,
        settings.last_update,
        settings.fraction,
        settings.batch_size,
        seed=settings.seed,
    )


_MADE: dict[str, Callable[[Settings, Dataset], Schedule]] = {
    "gradual": _gradual,
    "set": _set,
    "rigl": _rigl,
}

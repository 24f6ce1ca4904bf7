"""The training loop: iterations under a tf.distribute strategy, with checkpoints."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from snip_tf.experiments.datasets import Dataset
from snip_tf.experiments.training.checkpoint import (
    Check,
    iterations_done,
    number,
    save_checkpoint,
    steps_of,
)
from snip_tf.experiments.training.evaluation import evaluation_function
from snip_tf.experiments.training.input_pipeline import training_batches
from snip_tf.network import Network
from snip_tf.schedules.base import Schedule

# The most iterations in one call of the compiled function; progress is shown in
# between.
_CHUNK = 100


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to train; counts are in iterations (mini-batches)."""

    iterations: int
    batch_size: int
    check_interval: int
    save_interval: int
    seed: int = 0
    aug_kinds: Sequence[str] = ()
    jit_compile: bool = False


def train(
    model: keras.Model,
    data: Dataset,
    settings: Settings,
    logdir: Path,
    strategy: tf.distribute.Strategy,
    on_progress: Callable[[int, float, Check | None], None],
    history: list[Check],
    schedule: Schedule | None = None,
) -> list[Check]:
    """Trains a model and keeps in `logdir` all that is needed to continue.

    The loss is the softmax cross-entropy of the logits, averaged over the global batch,
    plus the model's regularization losses.

    Args:
        model: a `keras.Model` made in the strategy's scope and compiled with the
            optimizer.
        data: the model trains on its training split, and is evaluated on the others.
        settings: how long and how to train.
        logdir: folder for the checkpoint, the history and the summaries.
        strategy: where to run.
        on_progress: called with (iteration, loss, the check made there or None).
        history: the checks of an interrupted run up to the checkpoint, else empty;
            training continues at the iteration of the last one.
        schedule: updates the model's masks.

    Returns:
        The checks, one for each `check_interval`, each `save_interval` and the last
        iteration.

    Raises:
        FloatingPointError: if the loss is NaN or infinite.
    """
    done = iterations_done(history)
    batches = _batches(data, settings, strategy, start=done)
    run = _training_function(model, strategy, settings)
    checks = _Checks(model, data, settings, logdir, history)
    if schedule:
        schedule.set_model(model)
    while done < settings.iterations:
        count = _until_next_stop(done, steps_of(model), settings, schedule)
        begin = time.perf_counter()
        loss = float(run(batches, count))
        if schedule:
            schedule.step()
        seconds = time.perf_counter() - begin
        done += count
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"Expected a finite training loss. Received: {loss} in iterations "
                f"{done - count} to {done}. Lower the learning rate (--lr)."
            )
        check = checks.after(done, count, loss, seconds)
        on_progress(done, loss, check)
    checks.close()
    return checks.history


class _Checks:
    """Checks the model at intervals, and saves it.

    Args:
        model, data, settings, logdir, history: as `train` takes them.
    """

    def __init__(
        self,
        model: keras.Model,
        data: Dataset,
        settings: Settings,
        logdir: Path,
        history: list[Check],
    ):
        self.history = list(history)
        self._model, self._data, self._logdir = model, data, logdir
        self._settings = settings
        self._error_percent = evaluation_function(model)
        self._writer = _summary_writer(logdir / "summary")
        self._seconds = history[-1].seconds if history else 0.0
        self._loss_since_check, self._since_check = 0.0, 0

    def after(
        self, iteration: int, count: int, loss: float, seconds: float
    ) -> Check | None:
        """Returns the check after some iterations, if one is due.

        Args:
            iteration: the number of iterations done.
            count: the number of iterations since the last call.
            loss: their mean loss.
            seconds: the time they took.
        """
        self._seconds += seconds
        self._loss_since_check += count * loss
        self._since_check += count
        saves = self._is_due(iteration, self._settings.save_interval)
        if not saves and not self._is_due(iteration, self._settings.check_interval):
            return None
        check = self._check(iteration, saves)
        self._loss_since_check, self._since_check = 0.0, 0
        self.history.append(check)
        _write_summary(self._writer, check, self._model)
        if saves:
            save_checkpoint(self._logdir, self._model, self.history)
        return check

    def _is_due(self, iteration: int, interval: int) -> bool:
        return iteration % interval == 0 or iteration == self._settings.iterations

    def _check(self, iteration: int, saves: bool) -> Check:
        return Check(
            iteration=iteration,
            steps=steps_of(self._model),
            loss=self._loss_since_check / self._since_check,
            learning_rate=number(self._model.optimizer.learning_rate),
            validation_error=self._error_percent(self._data.validation),
            test_error=self._error_percent(self._data.test) if saves else None,
            seconds=self._seconds,
        )

    def close(self) -> None:
        """Ends the summaries."""
        self._writer.close()


def _batches(
    data: Dataset, settings: Settings, strategy: tf.distribute.Strategy, start: int
) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    batches = training_batches(
        *data.train,
        settings.batch_size,
        seed=settings.seed,
        start=start,
        aug_kinds=settings.aug_kinds,
    )
    # Each replica gets a share of every batch, not separate batches.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    return iter(strategy.experimental_distribute_dataset(batches.with_options(options)))


def _until_next_stop(
    done: int, steps: int, settings: Settings, schedule: Schedule | None
) -> int:
    """Returns how many iterations to run until the next check or update of masks.

    Args:
        done: the number of iterations done.
        steps: the number of steps of the optimizer, which may skip some.
        settings: how to train.
        schedule: updates the masks, or None.
    """
    stops = [settings.iterations - done, _CHUNK]
    for interval in (settings.check_interval, settings.save_interval):
        stops.append(interval - done % interval)
    update = schedule.next_step(steps) if schedule else None
    if update is not None:
        stops.append(update - steps)
    return min(stops)


def _training_function(
    model: keras.Model, strategy: tf.distribute.Strategy, settings: Settings
) -> Callable[[Iterator[tuple[tf.Tensor, tf.Tensor]], int], tf.Tensor]:
    """Returns a compiled function that runs iterations, and returns their mean loss.

    A loop inside one `tf.function` rather than `Model.fit`: it can stop and continue at
    any iteration, and runs under MultiWorkerMirroredStrategy, where `fit` of Keras 3.15
    fails before the first step, since it calls `strategy.reduce` on a nested batch to
    build the model. Once Keras can do both, this may become a `fit` with callbacks.
    """
    step = _step_function(model, strategy, settings)
    if settings.jit_compile:
        step = tf.function(step, jit_compile=True)

    @tf.function
    def run(iterator, count):
        total = tf.constant(0.0)
        for _ in tf.range(count):
            loss = strategy.run(step, args=next(iterator))
            total += strategy.reduce(tf.distribute.ReduceOp.SUM, loss, axis=None)
        return total / tf.cast(count, tf.float32)

    return lambda iterator, count: run(iterator, tf.constant(count))


def _step_function(
    model: keras.Model, strategy: tf.distribute.Strategy, settings: Settings
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns a function that takes one step on a replica, and returns its loss."""
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="sum"
    )
    optimizer, variables = model.optimizer, model.trainable_variables
    replicas = strategy.num_replicas_in_sync
    with strategy.scope():
        optimizer.build(variables)

    def step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = tf.cast(model(images, training=True), tf.float32)
            # Replicas add up their gradients, so each has its share of the mean.
            loss = cross_entropy(labels, logits) / settings.batch_size
            if model.losses:
                loss += tf.add_n(model.losses) / replicas
            # Scaled up, so that gradients in half precision do not vanish; `apply`
            # scales them back.
            scaled = optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, variables)
        optimizer.apply(gradients, variables)
        return loss

    return step


def _summary_writer(folder: Path) -> tf.summary.SummaryWriter:
    """Returns a writer; turns TensorFlow's errors into an OSError."""
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
    return tf.summary.create_file_writer(str(folder))


def _write_summary(
    writer: tf.summary.SummaryWriter, check: Check, model: keras.Model
) -> None:
    with writer.as_default(step=check.iteration):
        for name, value in dataclasses.asdict(check).items():
            if name != "iteration" and value is not None:
                tf.summary.scalar(name, value)
        masks = Network(model).masks
        for path, mask in masks.items():
            tf.summary.scalar(f"sparsity/{path}", 1 - mask.mean())
        if masks:
            kept = sum(int(mask.sum()) for mask in masks.values())
            total = sum(mask.size for mask in masks.values())
            tf.summary.scalar("sparsity", 1 - kept / total)
    writer.flush()

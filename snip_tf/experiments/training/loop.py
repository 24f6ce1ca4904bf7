"""The training loop: iterations under a tf.distribute strategy, checked and saved."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from snip_tf.experiments.datasets import Dataset, Examples
from snip_tf.experiments.training import seals
from snip_tf.experiments.training.input_pipeline import training_batches
from snip_tf.files import named_damage, read_json, whole_file, write_json

_EVALUATION_BATCH = 1000
_CHECKPOINT = "checkpoint.keras"
_HISTORY = "history.json"
# Iterations in one call of the compiled function, at most: progress is shown in
# between.
_CHUNK = 100


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to train: counts are in iterations (mini-batches)."""

    iterations: int
    batch_size: int
    check_interval: int
    save_interval: int
    seed: int = 0
    aug_kinds: Sequence[str] = ()
    jit_compile: bool = False


@dataclasses.dataclass(frozen=True)
class Check:
    """What was measured after an iteration. Errors are in percent.

    `steps` are those that the optimizer made: in half precision it leaves out those
    whose gradients are not finite. `loss` is the mean training loss, regularization
    included, since the last check; `learning_rate` is that of the next iteration;
    `test_error` is measured where a checkpoint is saved; `seconds` is the time spent in
    training steps so far.
    """

    iteration: int
    steps: int
    loss: float
    learning_rate: float
    validation_error: float
    test_error: float | None
    seconds: float


def train(
    model: keras.Model,
    data: Dataset,
    settings: Settings,
    logdir: Path,
    strategy: tf.distribute.Strategy,
    on_progress: Callable[[int, float, Check | None], None],
    history: list[Check],
) -> list[Check]:
    """Trains a model and keeps in `logdir` all that is needed to continue.

    The loss is the softmax cross-entropy of the logits, averaged over the global batch,
    plus the model's regularization losses.

    Args:
        model: a `keras.Model` made in the strategy's scope and compiled with the
            optimizer.
        data: its training split is trained on, the others are evaluated.
        settings: how long and how.
        logdir: folder for the checkpoint, the history and the summaries.
        strategy: where to run.
        on_progress: called with (iteration, loss, the check made there or None).
        history: the checks of an interrupted run up to the checkpoint, else empty; it
            continues at the iteration of the last one.

    Returns:
        The checks, one for each `check_interval`, each `save_interval` and the last
        iteration.

    Raises:
        FloatingPointError: if the loss is NaN or infinite.
    """
    history = list(history)
    iteration = iterations_done(history)
    batches = _batches(data, settings, strategy, start=iteration)
    run = _training_function(model, strategy, settings)
    error_percent = _evaluation_function(model)
    writer = _summary_writer(logdir / "summary")
    seconds = history[-1].seconds if history else 0.0
    loss_since_check, since_check = 0.0, 0
    while iteration < settings.iterations:
        count = _until_next_stop(iteration, settings)
        begin = time.perf_counter()
        loss = float(run(batches, count))
        seconds += time.perf_counter() - begin
        iteration += count
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"Expected a finite training loss. Received: {loss} in iterations "
                f"{iteration - count} to {iteration}. Lower the learning rate (--lr)."
            )
        loss_since_check += count * loss
        since_check += count
        check = None
        saves = _is_due(iteration, settings.save_interval, settings)
        if saves or _is_due(iteration, settings.check_interval, settings):
            check = Check(
                iteration=iteration,
                steps=_steps(model),
                loss=loss_since_check / since_check,
                learning_rate=_number(model.optimizer.learning_rate),
                validation_error=error_percent(data.validation),
                test_error=error_percent(data.test) if saves else None,
                seconds=seconds,
            )
            loss_since_check, since_check = 0.0, 0
            history.append(check)
            _write_summary(writer, check)
        if saves:
            save_checkpoint(logdir, model, history)
        on_progress(iteration, loss, check)
    writer.close()
    return history


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
    # Each replica gets its share of every batch, not batches of its own.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    return iter(strategy.experimental_distribute_dataset(batches.with_options(options)))


def _is_due(iteration: int, interval: int, settings: Settings) -> bool:
    return iteration % interval == 0 or iteration == settings.iterations


def iterations_done(history: list[Check]) -> int:
    """How many iterations a run has made."""
    return history[-1].iteration if history else 0


def _steps(model: keras.Model) -> int:
    return int(_number(model.optimizer.iterations))


def _number(value: keras.Variable | tf.Tensor) -> float:
    # Under a strategy `float` fails: the variable is mirrored.
    return float(keras.ops.convert_to_numpy(value))


def _until_next_stop(iteration: int, settings: Settings) -> int:
    stops = [settings.iterations - iteration, _CHUNK]
    for interval in (settings.check_interval, settings.save_interval):
        stops.append(interval - iteration % interval)
    return min(stops)


def _training_function(
    model: keras.Model, strategy: tf.distribute.Strategy, settings: Settings
) -> Callable:
    """A compiled function that runs some iterations and returns their mean loss.

    A loop inside one `tf.function` rather than `Model.fit`: it stops and continues at
    any iteration, and runs under MultiWorkerMirroredStrategy, where Keras 3.15's `fit`
    fails before the first step: it builds the model by `strategy.reduce` of a nested
    batch. With a Keras that can do both, this may become a `fit` with callbacks.
    """
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="sum"
    )
    optimizer = model.optimizer
    replicas = strategy.num_replicas_in_sync
    variables = model.trainable_variables
    with strategy.scope():
        optimizer.build(variables)

    def step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = tf.cast(model(images, training=True), tf.float32)
            # Replicas add up their gradients, so each has its share of the mean.
            loss = cross_entropy(labels, logits) / settings.batch_size
            if model.losses:
                loss += tf.add_n(model.losses) / replicas
            # Up, so that gradients in half precision do not vanish; `apply` scales
            # them back.
            scaled = optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, variables)
        optimizer.apply(gradients, variables)
        return loss

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


def _evaluation_function(model: keras.Model) -> Callable[[Examples], float]:
    """A function that gives the share of examples, in percent, that are misclassified.

    Every worker looks at all of them by itself: `Model.predict` would split them, and
    does not run under MultiWorkerMirroredStrategy.
    """

    @tf.function(reduce_retracing=True)
    def wrong(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        chosen = tf.argmax(model(images, training=False), axis=-1)
        return tf.math.count_nonzero(chosen != tf.cast(labels, chosen.dtype))

    def error_percent(examples: Examples) -> float:
        count, total = len(examples[0]), 0
        for start in range(0, count, _EVALUATION_BATCH):
            end = start + _EVALUATION_BATCH
            total += int(wrong(*(tf.constant(array[start:end]) for array in examples)))
        return 100 * total / count

    return error_percent


def _summary_writer(folder: Path) -> tf.summary.SummaryWriter:
    """One that can write: TensorFlow's error of what it cannot is no OSError."""
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
    return tf.summary.create_file_writer(str(folder))


def _write_summary(writer: tf.summary.SummaryWriter, check: Check) -> None:
    with writer.as_default(step=check.iteration):
        for name, value in dataclasses.asdict(check).items():
            if name != "iteration" and value is not None:
                tf.summary.scalar(name, value)
    writer.flush()


def save_checkpoint(logdir: Path, model: keras.Model, history: list[Check]) -> None:
    """Writes the model with its optimizer, and the history up to it.

    The model comes last: a run that is killed at any point finds a whole checkpoint,
    and history at least up to it.
    """
    rows = [dataclasses.asdict(check) for check in history]
    write_json(logdir / _HISTORY, rows)
    with whole_file(logdir / _CHECKPOINT) as partial:
        model.save(partial)
        seals.seal(partial, {"rows": len(rows), "history": seals.digest_of(rows)})


def has_checkpoint(logdir: Path) -> bool:
    """Whether there is a run to continue."""
    return (logdir / _CHECKPOINT).exists()


def saved_iteration(logdir: Path) -> int:
    """The last iteration in the history that is kept in `logdir`; 0 without one."""
    try:
        return iterations_done(_history(logdir, _rows(logdir)))
    except (FileNotFoundError, ValueError):
        return 0  # of a damaged one `load_checkpoint` tells


def load_checkpoint(logdir: Path) -> tuple[keras.Model, list[Check]] | None:
    """The model and the history that `save_checkpoint` wrote; None if there is none.

    Raises:
        FileNotFoundError: if there is no history.
        ValueError: if a file is damaged, or the history is not that of the model.
    """
    if not has_checkpoint(logdir):
        return None
    path, kind = logdir / _CHECKPOINT, "a checkpoint as the training loop wrote it"
    seal = seals.check_seal(path, kind)
    rows = _rows(logdir)
    if seal:
        # A run that was killed while it saved has checks after the checkpoint.
        rows = rows[: seal["rows"]]
        if seals.digest_of(rows) != seal["history"]:
            raise _other_history(logdir, "other checks")
    history = _history(logdir, rows)
    with named_damage(path, kind):
        model = keras.models.load_model(path)
        steps = _steps(model)
    if not seal:
        history = _history_without_seal(logdir, history, model)
    if not history or history[-1].steps != steps:
        raise _other_history(logdir, f"no check after the model's {steps} steps")
    return model, history


def _history_without_seal(
    logdir: Path, history: list[Check], model: keras.Model
) -> list[Check]:
    """The checks up to a checkpoint of an earlier version."""
    history = [check for check in history if check.steps <= _steps(model)]
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
    """The checks; a ValueError if they are not those of a run."""
    with named_damage(logdir / _HISTORY, "the history of a run"):
        history = [Check(**row) for row in rows]
        iteration = steps = 0
        for check in history:
            kinds = {*map(type, dataclasses.astuple(check))} - {type(None)}
            counts = {type(check.iteration), type(check.steps)}
            if not kinds <= {int, float} or counts != {int}:
                raise ValueError(f"{check} has values that are not numbers")
            if not iteration < check.iteration >= check.steps >= steps:
                raise ValueError(f"{check} comes after iteration {iteration}")
            iteration, steps = check.iteration, check.steps
    return history


def _other_history(logdir: Path, found: str) -> ValueError:
    return ValueError(
        f"Expected the history up to {_CHECKPOINT}. Received: "
        f"{str(logdir / _HISTORY)!r}, which has {found}"
    )

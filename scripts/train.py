"""Prunes a network at initialization, then trains it in the standard way.

    python scripts/train.py                               # digits, about a minute
    python scripts/train.py --datasource=mnist --arch=lenet300 --target_sparsity=0.95

Writes to --logdir: flags.json, pruning.json, history.json, summary/ (TensorBoard),
checkpoint.keras; at the end model.keras, stripped.keras and masks.npz (if pruned), and
result.json, or diverged.json if the loss becomes infinite or NaN. After an interruption
the same command continues the run.
"""

import command_line  # isort: split

import train_flags  # isort: split

import contextlib
import dataclasses
import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from absl import flags

if __name__ == "__main__":  # before the imports that take seconds
    command_line.start("The same command continues.")
    train_flags.settle()
    command_line.refuse_taken(Path(flags.FLAGS.logdir), train_flags.recorded())
with command_line.silent():
    import keras
    import numpy as np
    import tensorflow as tf

    import snip_tf
    from snip_tf.experiments.training import (
        checkpoint,
        cluster,
        initial_model,
        loop,
        outcome,
        run_folder,
        schedules,
        strategies,
    )
    from snip_tf.experiments.training.progress import Progress
    from snip_tf.experiments.training.settings import Settings
    from snip_tf.schedules.base import Schedule

    VERSIONS = {
        "snip_tf": snip_tf.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }


def main() -> None:
    """Reads the data, prunes, trains, and writes the result."""
    train_flags.settle()
    settings = command_line.read(Settings)
    # Overrides ~/.keras/keras.json, which would change the run.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy(settings.dtype_policy)
    with command_line.exit_on(f"--strategy={settings.strategy}: "):
        workers = strategies.find_workers(settings.strategy)
    try:
        _run(settings, workers)
    except OSError as error:
        if error.errno is None:
            raise  # not an error of the operating system
        _end_by_disk(error, settings, workers)
    except cluster.LOST_WORKER as error:
        if not workers:
            raise
        cluster.start_again(error, checkpoint.saved_iteration(Path(settings.logdir)))


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What is checked and made before a run writes anything."""

    strategy: tf.distribute.Strategy
    data: snip_tf.datasets.Dataset
    network: keras.Model
    optimizer: keras.optimizers.Optimizer
    schedule: Schedule | None


def _run(settings: Settings, workers: cluster.Cluster | None) -> None:
    logdir, recorded = Path(settings.logdir), train_flags.recorded()
    prepared = _prepare(settings, workers)
    logdir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with command_line.exit_on():
            is_chief = not workers or workers.is_chief
            own = stack.enter_context(run_folder.own_folder(logdir, is_chief))
            # Another run may have started while data was loaded.
            run_folder.check_flags(logdir, recorded)
        run_folder.keep_flags(own, recorded)
        model, history = _start_or_continue(settings, prepared, own)
        snip_tf.summary(model) if settings.is_pruned else model.summary()
        commit = outcome.commit_of(Path(__file__).parent)
        written = outcome.Outcome(logdir, recorded, VERSIONS, commit)
        history = _train(settings, prepared, model, history, own, written)
        # By all workers: creating variables, as of a smaller model, waits for the
        # others.
        outcome.write_models(model, own, is_pruned=settings.is_pruned)
        totals = outcome.totals_of(model)
        if is_chief:
            _show(written.write_result(model, history, totals), logdir)


def _prepare(settings: Settings, workers: cluster.Cluster | None) -> Prepared:
    """Reads the data and builds the network; ends the program if flags are wrong."""
    logdir = Path(settings.logdir)
    with command_line.exit_on(f"--strategy={settings.strategy}: ", (OSError,)):
        strategy = strategies.make_strategy(
            settings.strategy, workers, settings.worker_timeout
        )
    with command_line.exit_on():
        if workers:  # before one of them could end alone
            facts = strategies.facts(train_flags.recorded(), VERSIONS)
            cluster.check_agreement(strategy, facts)
        strategies.check_divisible(strategy, settings.batch_size)
        with strategy.scope():
            optimizer = initial_model.make_optimizer(settings)
        run_folder.check_flags(logdir, train_flags.recorded())
    keras.utils.set_random_seed(settings.seed)
    data = _load_data(settings)
    with command_line.exit_on():
        if workers:
            cluster.check_agreement(strategy, {"the training data": data.digest()})
        schedule = schedules.make_schedule(settings, data)
        with strategy.scope():
            network = initial_model.build_network(settings, data)
        if workers:
            cluster.check_shared_folder(strategy, workers, logdir, "--logdir")
    return Prepared(strategy, data, network, optimizer, schedule)


def _load_data(settings: Settings) -> snip_tf.datasets.Dataset:
    about = f"--datasource={settings.datasource}: "
    with (
        command_line.exit_on(about, (OSError, ImportError)),
        _out_of_memory(settings, "max_examples"),
    ):
        data = snip_tf.datasets.load(
            settings.datasource, settings.data_dir, settings.seed, settings.max_examples
        )
    images, labels = data.train
    fewest = int(np.bincount(labels, minlength=data.classes).min())
    for name, most, what in (
        ("batch_size", len(images), "training examples"),
        ("scoring_batch_size", len(images), "training examples"),
        ("examples_per_class", fewest, "training examples of the smallest class"),
    ):
        if (value := getattr(settings, name) or 0) > most:
            sys.exit(
                f"Expected --{name} to be at most the {most} {what}. "
                f"Received: --{name}={value}"
            )
    if settings.aug_kinds and images.ndim < 4:
        sys.exit(
            f"Expected no --aug_kinds with --datasource={settings.datasource}, whose "
            f"examples are sequences. "
            f"Received: --aug_kinds={','.join(settings.aug_kinds)}"
        )
    return data


def _start_or_continue(
    settings: Settings, prepared: Prepared, own: Path
) -> tuple[keras.Model, list[checkpoint.Check]]:
    """Returns a checkpoint's model and history, or a newly pruned model without one."""
    logdir = Path(settings.logdir)
    with command_line.exit_on(), prepared.strategy.scope():
        saved = run_folder.load_checkpoint(logdir)
        if saved:
            expected = settings.target_sparsity
            if settings.schedule == "gradual":
                expected = prepared.schedule.sparsity_at(saved[1][-1].steps)
            run_folder.check_model(logdir, saved[0], prepared.network, expected)
            done = checkpoint.iterations_done(saved[1])
            print(f"Continuing at iteration {done}.")
            return saved
        with _out_of_memory(settings, "scoring_batch_size", "batch_size"):
            model, seconds = initial_model.make_model(
                settings, prepared.data, prepared.network, prepared.optimizer
            )
    run_folder.keep_pruning_seconds(own, seconds)
    return model, []


def _train(
    settings: Settings,
    prepared: Prepared,
    model: keras.Model,
    history: list[checkpoint.Check],
    own: Path,
    written: outcome.Outcome,
) -> list[checkpoint.Check]:
    """Trains to the end; returns the checks."""
    data = prepared.data
    if settings.random_labels:
        data = _with_random_labels(data, settings.seed)
    (own / "diverged.json").unlink(missing_ok=True)  # from an earlier run
    done = checkpoint.iterations_done(history)
    with (
        _out_of_memory(settings, "batch_size"),
        Progress(settings.train_iterations, done) as progress,
    ):
        try:
            return loop.train(
                model,
                data,
                settings.of_loop(),
                own,
                prepared.strategy,
                progress.update,
                history,
                prepared.schedule,
            )
        except FloatingPointError as error:
            if own == written.logdir:  # the chief
                written.write_diverged(model, str(error))
            sys.exit(str(error))


def _with_random_labels(
    data: snip_tf.datasets.Dataset, seed: int
) -> snip_tf.datasets.Dataset:
    images, labels = data.train
    shuffled = np.random.default_rng(seed).permutation(labels)
    return dataclasses.replace(data, train=(images, shuffled))


def _show(result: dict, logdir: Path) -> None:
    print(
        f"Test error {result['final_error']:.2f} % (of the best of the last "
        f"{outcome.BEST_OF} checkpoints {result['best_checkpoint_error']:.2f} %) at "
        f"sparsity {result['sparsity']:.4g}. Pruning took "
        f"{result['pruning_seconds']:.2f} s, training "
        f"{result['training_seconds']:.0f} s. Results are in {logdir}/"
    )


@contextlib.contextmanager
def _out_of_memory(settings: Settings, *names: str) -> Iterator[None]:
    """Ends the program if memory runs out, naming the flags to lower."""
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        if os.strerror(errno.ENOSPC) in str(error):  # one class for both
            raise OSError(errno.ENOSPC, str(error)) from error
        values = {name: getattr(settings, name) for name in names}
        chosen = " or ".join(
            f"--{name} (now {value or 'all'})"
            for name, value in values.items()
            if value or len(values) == 1
        )
        reason = str(error).partition("\n")[0]
        sys.exit(f"Out of memory: {reason} Lower {chosen}.")


def _end_by_disk(
    error: OSError, settings: Settings, workers: cluster.Cluster | None
) -> NoReturn:
    place = f"--logdir={settings.logdir}"
    if workers and not workers.is_chief:
        place = f"the folder for temporary files, {tempfile.gettempdir()} (TMPDIR)"
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        sys.exit(f"Expected to be able to write to {place}. Received: {error}")
    sys.exit(
        f"No space in {place}: {error}. Earlier files are intact: free some space, and "
        "the same command continues at the last checkpoint."
    )


if __name__ == "__main__":
    main()

"""Prunes a network at initialization, then trains it in the standard way.

    python scripts/train.py                               # digits, about a minute
    python scripts/train.py --datasource=mnist --arch=lenet300 --target_sparsity=0.95

Writes to --logdir: flags.json, pruning.json, history.json, summary/ (TensorBoard),
checkpoint.keras; at the end model.keras, stripped.keras and masks.npz (if pruned), and
result.json; diverged.json in its place, if the loss is no longer finite. The same
command again continues after an interruption.
"""

import command_line  # isort: split

import contextlib
import dataclasses
import errno
import hashlib
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from absl import flags

AUGMENTATIONS = command_line.names(
    "experiments/training/augmentation.py", "AUGMENTATIONS"
)
CRITERIA = command_line.names("criteria/__init__.py", "CRITERIA")
DATASETS = command_line.names("experiments/datasets/__init__.py", "DATASETS")
DECAY_TYPES = command_line.names("experiments/training/schedules.py", "DECAY_TYPES")
INITIALIZERS = command_line.names("experiments/models/initializers.py", "INITIALIZERS")
MODELS = command_line.names("experiments/models/__init__.py", "MODELS")
OPTIMIZERS = command_line.names("experiments/training/schedules.py", "OPTIMIZERS")
SCOPES = command_line.names("selecting/allocation.py", "SCOPES")

FLAGS = flags.FLAGS

# As far as the authors' release has a flag, its name is that of the release.
command_line.group("Data")
flags.DEFINE_enum("datasource", "digits", DATASETS, "Data set.")
flags.DEFINE_string(
    "data_dir",
    None,
    "Existing folder of prepared tensorflow-datasets, read offline; what is not there "
    "is downloaded into it.",
)
flags.DEFINE_alias("path_data", "data_dir")
flags.DEFINE_list(
    "aug_kinds", [], f"Augmentations, comma-separated: {', '.join(AUGMENTATIONS)}."
)
flags.DEFINE_integer(
    "max_examples",
    None,
    "Takes only so many training and test examples, to try something out.",
    lower_bound=20,
)
flags.DEFINE_bool(
    "random_labels",
    False,
    "Trains on the labels in another order, which says nothing of the images; those "
    "that the network is scored on, validation and test keep theirs.",
)

command_line.group("Network")
flags.DEFINE_enum("arch", "lenet5", MODELS, "Network.")
flags.DEFINE_enum(
    "initializer_w_bp", "vs", INITIALIZERS, "Initializer of w before pruning."
)
flags.DEFINE_enum(
    "initializer_b_bp", "zeros", INITIALIZERS, "Initializer of b before pruning."
)
flags.DEFINE_enum(
    "initializer_w_ap",
    None,
    INITIALIZERS,
    "Initializer of w after pruning: draws the weights anew, as the release does. "
    "Default: the weights that were scored are trained.",
)
flags.DEFINE_enum(
    "initializer_b_ap",
    "zeros",
    INITIALIZERS,
    "Initializer of b after pruning, where initializer_w_ap is given.",
)

command_line.group("Pruning")
flags.DEFINE_float(
    "target_sparsity",
    0.9,
    "Fraction of the prunable weights that is removed; 0 trains the dense network.",
)
flags.DEFINE_enum("criterion", "snip", CRITERIA, "Criterion.")
flags.DEFINE_enum(
    "control",
    "none",
    ["none", "shuffle", "reinitialize", "invert"],
    "What a criterion should beat: shuffle moves the kept connections of each weight "
    "to places drawn at random, reinitialize draws the weights anew, invert keeps the "
    "lowest scores.",
)
flags.DEFINE_enum("scope", "global", SCOPES, "What is ranked together.")
flags.DEFINE_float(
    "min_kept",
    0,
    "Connections that each weight keeps at least; below 1 a fraction of them.",
    lower_bound=0,
)
flags.DEFINE_enum(
    "on_collapse",
    "warn",
    ["warn", "raise", "keep"],
    "If nothing is kept of a weight: keep leaves its best connection.",
)
flags.DEFINE_integer(
    "examples_per_class",
    None,
    "Scores on so many examples of each class, instead of scoring_batch_size.",
    lower_bound=1,
)
flags.DEFINE_integer(
    "scoring_batch_size",
    None,
    "Examples that the network is scored on; default batch_size.",
    lower_bound=1,
)
flags.DEFINE_bool(
    "prune_biases", False, "Prunes biases with the weights, as the release does."
)

command_line.group("Training")
flags.DEFINE_integer("batch_size", 100, "Examples in a mini-batch.", lower_bound=1)
flags.DEFINE_integer("train_iterations", 2000, "Training iterations.", lower_bound=1)
flags.DEFINE_enum("optimizer", "sgd", OPTIMIZERS, "Optimizer.")
flags.DEFINE_enum("lr_decay_type", "constant", DECAY_TYPES, "Learning rate schedule.")
flags.DEFINE_float("lr", 0.1, "Learning rate, if constant.")
flags.DEFINE_list(
    "decay_boundaries", [], "Iterations at which a piecewise rate changes."
)
flags.DEFINE_list("decay_values", [], "Learning rates, one more than boundaries.")
flags.DEFINE_float("weight_decay", 5e-4, "Of all kernels and biases.", lower_bound=0)
flags.DEFINE_enum(
    "weight_decay_form",
    "l2",
    ["l2", "decoupled"],
    "l2 adds weight_decay / 2 * sum(w^2) to the loss, as the paper does; decoupled "
    "takes rate * weight_decay * w off in each step.",
)
flags.DEFINE_enum(
    "dtype_policy",
    "float32",
    ["float32", "mixed_float16", "mixed_bfloat16"],
    "Precision of training; pruning scores in float32.",
)
flags.DEFINE_bool("jit_compile", False, "Compiles training steps with XLA.")
flags.DEFINE_integer(
    "seed", 0, "Seed of all that is random.", lower_bound=0, upper_bound=2**32 - 1
)

command_line.group("Files")
flags.DEFINE_string("logdir", "logs", "Folder for all that is written.")
flags.DEFINE_integer(
    "check_interval", 100, "Iterations between validations.", lower_bound=1
)
flags.DEFINE_integer(
    "save_interval", 500, "Iterations between checkpoints.", lower_bound=1
)

command_line.group("Several processors or machines")
flags.DEFINE_enum(
    "strategy",
    "auto",
    ["auto", "none", "mirrored", "multi_worker"],
    "tf.distribute strategy; auto is multi_worker where TF_CONFIG is set, and else "
    "mirrors where there are several GPUs.",
)
flags.DEFINE_float(
    "worker_timeout",
    300,
    "Seconds that a worker waits for the others to start.",
    lower_bound=1,
)


def _are(kind: type, values: list[str]) -> bool:
    try:
        return all(0 < kind(value) < math.inf for value in values)
    except ValueError:
        return False


command_line.check_paths()
flags.register_validator(
    "target_sparsity",
    lambda value: 0 <= value < 1,
    "expected 0 <= target_sparsity < 1; for 95 % write 0.95",
)
flags.register_validator(
    "min_kept",
    lambda value: math.isfinite(value) and (value < 1 or value == int(value)),
    "expected a whole number, or a fraction below 1",
)
flags.register_validator(
    "aug_kinds",
    lambda kinds: set(kinds) <= set(AUGMENTATIONS),
    f"expected some of {', '.join(AUGMENTATIONS)}",
)
flags.register_validator(
    "lr", lambda value: 0 < value < math.inf, "expected a positive number"
)
flags.register_validator(
    "decay_boundaries",
    lambda values: _are(int, values),
    "expected whole numbers, comma-separated",
)
flags.register_validator(
    "decay_values",
    lambda values: _are(float, values),
    "expected positive numbers, comma-separated",
)
flags.register_validator(
    "weight_decay", lambda value: 0 <= value < math.inf, "expected 0 or more"
)
flags.register_validator(
    "worker_timeout", lambda value: 1 <= value < math.inf, "expected 1 or more"
)

# Where a run reads and writes; no part of what it does, nor of its result.
_PLACES = ("data_dir", "path_data", "logdir", "worker_timeout")
# The error that the authors' release reports is the best of this many last checkpoints.
_BEST_OF = 5


def _chosen_flags() -> dict[str, object]:
    own = FLAGS.get_key_flags_for_module(__name__)
    return {flag.name: flag.value for flag in own if flag.name not in _PLACES}


if __name__ == "__main__":  # before the imports that take seconds
    command_line.start("The same command continues.")
    command_line.refuse_taken(Path(FLAGS.logdir), _chosen_flags())
with command_line.silent():
    import keras
    import numpy as np
    import tensorflow as tf

    import snip_tf
    from snip_tf import controls
    from snip_tf.experiments.training import cluster, loop, run_folder, schedules
    from snip_tf.experiments.training.progress import Progress
    from snip_tf.files import whole_file, write_json
    from snip_tf.network import Network
    from snip_tf.reports.sparsity import weight_rows
    from snip_tf.selecting.kernels import kernels_of
    from snip_tf.selecting.selection import Selection


def main() -> None:
    """Reads the data, prunes, trains, and writes what came out."""
    logdir = Path(FLAGS.logdir)
    # Whatever ~/.keras/keras.json says, which would be a part of the run.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy(FLAGS.dtype_policy)
    workers = _find_workers()
    try:
        strategy = _make_strategy(workers)
        if workers:  # before one of them could end alone
            with _told():
                cluster.check_agreement(strategy, _facts())
        _check_divisible(strategy)
        with strategy.scope():
            optimizer = _make_optimizer()
        with _told():
            run_folder.check_flags(logdir, _chosen_flags())
        keras.utils.set_random_seed(FLAGS.seed)
        data = _load_data()
        if workers:
            with _told():
                digest = {"the training data": _digest(data)}
                cluster.check_agreement(strategy, digest)
        with strategy.scope():
            network = _network(data, FLAGS.initializer_w_bp, FLAGS.initializer_b_bp)
        _check_kept(network)
        if workers:
            with _told():
                cluster.check_shared_folder(strategy, workers, logdir, "--logdir")
        logdir.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            with _told():
                is_chief = not workers or workers.is_chief
                own = stack.enter_context(run_folder.own_folder(logdir, is_chief))
                # A run may have come while data was loaded.
                run_folder.check_flags(logdir, _chosen_flags())
            run_folder.keep_flags(own, _chosen_flags())
            _run(data, network, optimizer, strategy, logdir, own)
    except OSError as error:
        if error.errno is None:
            raise  # not of the operating system
        place = f"--logdir={logdir}"
        if workers and not workers.is_chief:
            place = f"the folder for temporary files, {tempfile.gettempdir()} (TMPDIR)"
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            sys.exit(f"Expected to be able to write to {place}. Received: {error}")
        sys.exit(
            f"No room in {place}: {error}. What was there before is whole: make room, "
            f"and the same command continues at the last checkpoint."
        )
    except cluster.LOST_WORKER as error:
        if not workers:
            raise
        cluster.start_again(error, loop.saved_iteration(logdir))


def _run(
    data: snip_tf.datasets.Dataset,
    network: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    strategy: tf.distribute.Strategy,
    logdir: Path,
    own: Path,
) -> None:
    """Prunes and trains `network`, or continues, and writes the results.

    What there is to continue is in `logdir`; `own` is where this worker writes.
    """
    with _told(), strategy.scope():
        saved = run_folder.load_checkpoint(logdir)
    if saved:
        model, history = saved
        with _told():
            run_folder.check_model(logdir, model, network, FLAGS.target_sparsity)
        print(f"Continuing at iteration {loop.iterations_done(history)}.")
    else:
        with _out_of_memory("scoring_batch_size", "batch_size"):
            model = _make_model(data, network, optimizer, strategy, own)
        history = []
    if FLAGS.random_labels:
        data = _with_random_labels(data)
    if FLAGS.target_sparsity:
        snip_tf.summary(model)
    else:
        model.summary()

    (own / "diverged.json").unlink(missing_ok=True)  # of a run before this
    settings = loop.Settings(
        iterations=FLAGS.train_iterations,
        batch_size=FLAGS.batch_size,
        check_interval=FLAGS.check_interval,
        save_interval=FLAGS.save_interval,
        seed=FLAGS.seed,
        aug_kinds=FLAGS.aug_kinds,
        jit_compile=FLAGS.jit_compile,
    )
    with (
        _out_of_memory("batch_size"),
        Progress(settings.iterations, loop.iterations_done(history)) as progress,
    ):
        try:
            history = loop.train(
                model, data, settings, own, strategy, progress.update, history
            )
        except FloatingPointError as error:
            if own == logdir:  # the chief
                found = {"diverged": str(error), **_about(model, logdir)}
                write_json(logdir / "diverged.json", found)
            sys.exit(str(error))
    # By all workers: making variables, as of a smaller model, waits for the others.
    _write_models(model, own)
    totals = snip_tf.report(model).totals()
    if own != logdir:
        return  # not the chief
    result = {**_result(model, history, logdir), "totals": totals}
    write_json(logdir / "result.json", result)
    print(
        f"Test error {result['final_error']:.2f} % (of the best of the last {_BEST_OF} "
        f"checkpoints {result['best_checkpoint_error']:.2f} %) at sparsity "
        f"{result['sparsity']:.4g}. Pruning took {result['pruning_seconds']:.2f} s, "
        f"training {result['training_seconds']:.0f} s. All is in {logdir}/"
    )


@contextlib.contextmanager
def _told(about: str = "") -> Iterator[None]:
    """Ends the program with what a ValueError says, and no traceback."""
    try:
        yield
    except (ValueError, snip_tf.CollapseWarning) as error:
        sys.exit(command_line.one_line(f"{about}{error}"))


def _make_optimizer() -> keras.optimizers.Optimizer:
    with _told("--lr_decay_type, --decay_boundaries, --decay_values: "):
        return schedules.make_optimizer(
            FLAGS.optimizer,
            FLAGS.lr,
            FLAGS.lr_decay_type,
            [int(boundary) for boundary in FLAGS.decay_boundaries],
            [float(value) for value in FLAGS.decay_values],
            FLAGS.weight_decay if FLAGS.weight_decay_form == "decoupled" else 0,
        )


def _load_data() -> snip_tf.datasets.Dataset:
    try:
        with _out_of_memory("max_examples"):
            data = snip_tf.datasets.load(
                FLAGS.datasource, FLAGS.data_dir, FLAGS.seed, FLAGS.max_examples
            )
    except (OSError, ImportError) as error:
        sys.exit(command_line.one_line(f"--datasource={FLAGS.datasource}: {error}"))
    images, labels = data.train
    for name in ("batch_size", "scoring_batch_size"):
        if (FLAGS[name].value or 0) > len(images):
            sys.exit(
                f"Expected --{name} to be at most the {len(images)} training examples. "
                f"Received: --{name}={FLAGS[name].value}"
            )
    fewest = np.bincount(labels, minlength=data.classes).min()
    if (FLAGS.examples_per_class or 0) > fewest:
        sys.exit(
            f"Expected --examples_per_class to be at most {fewest}, the training "
            f"examples of the smallest class. "
            f"Received: --examples_per_class={FLAGS.examples_per_class}"
        )
    if FLAGS.aug_kinds and images.ndim < 4:
        sys.exit(
            f"Expected no --aug_kinds with --datasource={FLAGS.datasource}, whose "
            f"examples are sequences. Received: --aug_kinds={','.join(FLAGS.aug_kinds)}"
        )
    return data


def _check_kept(network: keras.Model) -> None:
    """Ends the program, before it writes, if the sparsity does not allow --min_kept."""
    read = Network(network)
    weights = read.prunable(_include())
    kernels = kernels_of(read.owners, weights)
    if FLAGS.target_sparsity:
        with _told():
            Selection(kernels, FLAGS.target_sparsity, FLAGS.scope, _min_kept())


def _with_random_labels(data: snip_tf.datasets.Dataset) -> snip_tf.datasets.Dataset:
    images, labels = data.train
    shuffled = np.random.default_rng(FLAGS.seed).permutation(labels)
    return dataclasses.replace(data, train=(images, shuffled))


@contextlib.contextmanager
def _out_of_memory(*names: str) -> Iterator[None]:
    """Ends the program, where memory runs out, with the flags that ask for less."""
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        if os.strerror(errno.ENOSPC) in str(error):  # TensorFlow's word for both
            raise OSError(errno.ENOSPC, str(error)) from error
        values = {name: FLAGS[name].value for name in names}
        chosen = " or ".join(
            f"--{name} (now {value or 'all'})"
            for name, value in values.items()
            if value or len(values) == 1
        )
        reason = str(error).partition("\n")[0]
        sys.exit(f"Out of memory: {reason} Lower {chosen}.")


def _find_workers() -> cluster.Cluster | None:
    """The workers that train together; None where this process trains alone."""
    if FLAGS.strategy not in ("auto", "multi_worker"):
        return None
    with _told(f"--strategy={FLAGS.strategy}: "):
        workers = cluster.from_environment()
    if FLAGS.strategy == "multi_worker" and not workers:
        sys.exit(
            "--strategy=multi_worker: expected the environment variable TF_CONFIG, "
            "which names the workers. Received: none. The README shows one."
        )
    return workers


def _make_strategy(workers: cluster.Cluster | None) -> tf.distribute.Strategy:
    several = len(tf.config.list_physical_devices("GPU")) > 1
    if workers:
        try:
            strategy = cluster.connect(workers, FLAGS.worker_timeout)
        except OSError as error:
            sys.exit(f"--strategy={FLAGS.strategy}: {error}")
    elif FLAGS.strategy == "mirrored" or (FLAGS.strategy == "auto" and several):
        strategy = tf.distribute.MirroredStrategy()
    else:
        strategy = tf.distribute.get_strategy()
    return strategy


def _check_divisible(strategy: tf.distribute.Strategy) -> None:
    replicas = strategy.num_replicas_in_sync
    if FLAGS.batch_size % replicas:
        sys.exit(
            f"Expected --batch_size to be a multiple of the {replicas} replicas. "
            f"Received: --batch_size={FLAGS.batch_size}"
        )


def _facts() -> dict[str, object]:
    """What must be the same on all workers, beside the data."""
    return {
        **{f"--{name}": value for name, value in _chosen_flags().items()},
        "the version of tensorflow": tf.__version__,
        "the version of keras": keras.__version__,
        "the version of snip_tf": snip_tf.__version__,
    }


def _digest(data: snip_tf.datasets.Dataset) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for array in data.train:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def _network(
    data: snip_tf.datasets.Dataset, initializer_w: str, initializer_b: str
) -> keras.Model:
    decay = None
    if FLAGS.weight_decay and FLAGS.weight_decay_form == "l2":
        decay = keras.regularizers.L2(FLAGS.weight_decay / 2)
    with _told(f"--arch={FLAGS.arch} --datasource={FLAGS.datasource}: "):
        return snip_tf.models.build(
            FLAGS.arch,
            input_shape=data.input_shape,
            classes=data.classes,
            kernel_initializer=initializer_w,
            bias_initializer=initializer_b,
            kernel_regularizer=decay,
            bias_regularizer=decay,
        )


def _make_model(
    data: snip_tf.datasets.Dataset,
    dense: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    strategy: tf.distribute.Strategy,
    own: Path,
) -> keras.Model:
    """The network, pruned at initialization, in the strategy's scope and compiled."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    criterion = FLAGS.criterion
    if FLAGS.control == "invert":
        criterion = controls.invert(criterion)
    seconds, masks, model = 0.0, {}, dense
    with strategy.scope(), _told(), warnings.catch_warnings():
        if FLAGS.on_collapse == "raise":
            warnings.simplefilter("error", snip_tf.CollapseWarning)
        if FLAGS.target_sparsity:
            start = time.perf_counter()
            scored = data.train
            if FLAGS.examples_per_class:
                scored = snip_tf.sample_per_class(
                    *scored, FLAGS.examples_per_class, FLAGS.seed
                )
            model = snip_tf.prune_model(
                dense,
                *scored,
                sparsity=FLAGS.target_sparsity,
                batch_size=_scoring_batch_size() or len(scored[1]),
                loss=loss,
                criterion=criterion,
                scope=FLAGS.scope,
                min_kept=_min_kept(),
                include=_include(),
                seed=FLAGS.seed,
            )
            seconds = time.perf_counter() - start
            masks = snip_tf.get_masks(model)
            if FLAGS.control == "shuffle":
                masks = controls.shuffle(masks, FLAGS.seed)
                model = snip_tf.apply_masks(dense, masks)
            elif FLAGS.control == "reinitialize":
                model = controls.reinitialize(model)
        if FLAGS.initializer_w_ap:
            model = _network(data, FLAGS.initializer_w_ap, FLAGS.initializer_b_ap)
            model = snip_tf.apply_masks(model, masks) if masks else model
        model.compile(optimizer, loss, jit_compile=FLAGS.jit_compile)
    run_folder.keep_pruning_seconds(own, seconds)
    return model


def _scoring_batch_size() -> int | None:
    if FLAGS.examples_per_class:
        return None
    return FLAGS.scoring_batch_size or FLAGS.batch_size


def _include() -> str | None:
    return "*bias" if FLAGS.prune_biases else None


def _min_kept() -> float:
    if FLAGS.on_collapse == "keep" and not FLAGS.min_kept:
        return 1
    return FLAGS.min_kept if FLAGS.min_kept < 1 else int(FLAGS.min_kept)


def _write_models(model: keras.Model, own: Path) -> None:
    with whole_file(own / "model.keras") as partial:
        model.save(partial)
    if FLAGS.target_sparsity:
        with whole_file(own / "stripped.keras") as partial:
            snip_tf.strip_pruning(model).save(partial)
        snip_tf.save_masks(own / "masks.npz", snip_tf.get_masks(model))


def _result(
    model: keras.Model, history: list[loop.Check], logdir: Path
) -> dict[str, object]:
    saved = [check.test_error for check in history if check.test_error is not None]
    return {
        "final_error": saved[-1],
        "best_checkpoint_error": min(saved[-_BEST_OF:]),
        "validation_error": history[-1].validation_error,
        "training_seconds": history[-1].seconds,
        **_about(model, logdir),
    }


def _about(model: keras.Model, logdir: Path) -> dict[str, object]:
    """What is known of a run before it is trained."""
    layers = []
    if FLAGS.target_sparsity:
        rows = map(dataclasses.asdict, weight_rows(Network(model)))
        # The files of results call what is dead idle.
        layers = [
            {name.replace("dead", "idle"): value for name, value in row.items()}
            for row in rows
        ]
    return {
        "sparsity": snip_tf.sparsity(model),
        "layers": layers,
        "pruning_seconds": run_folder.pruning_seconds(logdir),
        "flags": _chosen_flags(),
        "versions": {
            "python": platform.python_version(),
            "snip_tf": snip_tf.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The commit of the checkout that this file is part of, if it is one."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(
            command,
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


if __name__ == "__main__":
    main()

"""The flags of train.py, named as in the authors' release where it has them."""

import math
import re

import command_line
from absl import flags

AUGMENTATIONS = command_line.names(
    "experiments/training/augmentation.py", "AUGMENTATIONS"
)
CRITERIA = command_line.names("criteria/__init__.py", "CRITERIA")
DATASETS = command_line.names("experiments/datasets/__init__.py", "DATASETS")
DECAY_TYPES = command_line.names("experiments/training/optimizers.py", "DECAY_TYPES")
INITIALIZERS = command_line.names("experiments/models/initializers.py", "INITIALIZERS")
MODELS = command_line.names("experiments/models/__init__.py", "MODELS")
SCHEDULES = command_line.names("experiments/training/schedules.py", "SCHEDULES")
OPTIMIZERS = command_line.names("experiments/training/optimizers.py", "OPTIMIZERS")
SCOPES = command_line.names("selecting/allocation.py", "SCOPES")
CONTROLS = command_line.names("experiments/sweep.py", "CONTROLS")
STRATEGIES = command_line.names("experiments/training/strategies.py", "STRATEGIES")

FLAGS = flags.FLAGS

command_line.group("Data")
flags.DEFINE_enum("datasource", "digits", DATASETS, "Data set.")
flags.DEFINE_string(
    "data_dir",
    None,
    "Existing folder of prepared tensorflow-datasets, read offline; what it lacks is "
    "downloaded into it.",
)
flags.DEFINE_alias("path_data", "data_dir")
flags.DEFINE_list(
    "aug_kinds", [], f"Augmentations, comma-separated: {', '.join(AUGMENTATIONS)}."
)
flags.DEFINE_integer(
    "max_examples",
    None,
    "Uses only this many training and test examples, for quick trials.",
    lower_bound=20,
)
flags.DEFINE_bool(
    "random_labels",
    False,
    "Trains on shuffled labels; the examples for scoring, validation and test keep "
    "their own.",
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
    ["none", *CONTROLS],
    "A baseline for the criterion: shuffle moves the kept connections of each weight "
    "to random places, reinitialize draws the weights anew, invert keeps the lowest "
    "scores.",
)
flags.DEFINE_string(
    "structure",
    "weights",
    "What is removed: weights (single connections), N:M (like 2:4, N of M in a row "
    "are kept), IxO (like 4x4, blocks), units (with all their connections).",
)
flags.DEFINE_enum("scope", "global", SCOPES, "What is ranked together.")
flags.DEFINE_float(
    "min_kept",
    0,
    "Connections that each weight tensor keeps at least; below 1 a fraction of them.",
    lower_bound=0,
)
flags.DEFINE_integer(
    "examples_per_class",
    None,
    "Scores on this many examples of each class, instead of scoring_batch_size.",
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

command_line.group("Pruning while training")
flags.DEFINE_enum(
    "schedule",
    "none",
    SCHEDULES,
    "gradual prunes more and more, by the criterion, which is then magnitude unless "
    "given; set and rigl replace the smallest connections by random ones, or by those "
    "with the largest gradients.",
)
flags.DEFINE_integer(
    "begin_step", 0, "Step of the first update, with gradual.", lower_bound=0
)
flags.DEFINE_integer(
    "end_step",
    None,
    "Step of the last update; default: three quarters of train_iterations.",
    lower_bound=1,
)
flags.DEFINE_integer("frequency", 100, "Steps between updates.", lower_bound=1)
flags.DEFINE_float("initial_sparsity", 0, "At begin_step, with gradual.")
flags.DEFINE_float("power", 3, "Exponent of the sparsity's course, with gradual.")
flags.DEFINE_float(
    "fraction", 0.3, "Fraction that is replaced at first, with set and rigl."
)

command_line.group("Training")
flags.DEFINE_integer("batch_size", 100, "Examples in a mini-batch.", lower_bound=1)
flags.DEFINE_integer("train_iterations", 2000, "Training iterations.", lower_bound=1)
flags.DEFINE_enum("optimizer", "sgd", OPTIMIZERS, "Optimizer.")
flags.DEFINE_enum(
    "lr_decay_type",
    "constant",
    DECAY_TYPES,
    "Learning rate schedule; cosine falls to zero in train_iterations.",
)
flags.DEFINE_float(
    "lr", 0.1, "Learning rate, if constant, or the first one, if cosine."
)
flags.DEFINE_list(
    "decay_boundaries", [], "Iterations at which a piecewise rate changes."
)
flags.DEFINE_list("decay_values", [], "Learning rates, one more than boundaries.")
flags.DEFINE_float("weight_decay", 5e-4, "For all kernels and biases.", lower_bound=0)
flags.DEFINE_enum(
    "weight_decay_form",
    "l2",
    ["l2", "decoupled"],
    "l2 adds weight_decay / 2 * sum(w^2) to the loss, as the paper does; decoupled "
    "subtracts rate * weight_decay * w in each step.",
)
flags.DEFINE_enum(
    "dtype_policy",
    "float32",
    ["float32", "mixed_float16", "mixed_bfloat16"],
    "Precision of training; pruning scores in float32.",
)
flags.DEFINE_bool("jit_compile", False, "Compiles training steps with XLA.")
flags.DEFINE_integer(
    "seed", 0, "Seed of all randomness.", lower_bound=0, upper_bound=2**32 - 1
)

command_line.group("Files")
flags.DEFINE_string("logdir", "logs", "Folder for all output.")
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
    STRATEGIES,
    "tf.distribute strategy; auto is multi_worker if TF_CONFIG is set, else mirrored "
    "if there are several GPUs.",
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
    "structure",
    lambda value: re.fullmatch(r"weights|units|[1-9]\d*[:x][1-9]\d*", value),
    "expected weights, units, N:M (like 2:4) or IxO (like 4x4)",
)
flags.register_multi_flags_validator(
    ["control", "structure"],
    lambda given: given["control"] != "shuffle" or given["structure"] == "weights",
    "expected --structure=weights with --control=shuffle, which keeps no structure",
)
flags.register_multi_flags_validator(
    ["criterion", "control", "structure"],
    lambda given: (
        given["structure"] != "units"
        or (given["criterion"] == "snip" and given["control"] != "invert")
    ),
    "expected --criterion=snip, not inverted, with --structure=units",
)
flags.register_multi_flags_validator(
    ["schedule", "target_sparsity"],
    lambda given: given["schedule"] == "none" or given["target_sparsity"] > 0,
    "expected a --target_sparsity above 0 with a --schedule",
)
flags.register_multi_flags_validator(
    ["schedule", "control"],
    lambda given: (
        given["schedule"] != "gradual" or given["control"] in ("none", "invert")
    ),
    "expected no --control but invert with --schedule=gradual, which begins dense",
)
flags.register_multi_flags_validator(
    ["schedule", "structure"],
    lambda given: (
        given["structure"] == "weights"
        or given["schedule"] == "none"
        or (given["schedule"] == "gradual" and given["structure"] != "units")
    ),
    "expected --structure=weights with --schedule=set or rigl, which keep no "
    "structure, and not units with gradual",
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


def settle() -> None:
    """Sets the flags whose default depends on others, once they are read."""
    if FLAGS.schedule == "gradual" and FLAGS["criterion"].using_default_value:
        FLAGS.criterion = "magnitude"


# Where a run reads and writes: irrelevant to what it does and to its result.
_PLACES = ("data_dir", "path_data", "logdir", "worker_timeout")


def recorded() -> dict[str, object]:
    """Returns the flags that a run records, and must be continued with."""
    own = FLAGS.get_key_flags_for_module(__name__)
    return {flag.name: flag.value for flag in own if flag.name not in _PLACES}

"""Prunes and trains on an NVIDIA GPU, with JAX or PyTorch; needs no TensorFlow.

    pip install . jax[cuda12]                        # or: torch
    KERAS_BACKEND=jax python benchmarks/gpu.py --minutes=60 \
        --result=benchmarks/results/gpu.json

Three tasks: `masks` compares the masks that it selects with those of the processor,
from the same weights; `times` measures `prune_model` relative to a plain pass (see
backends.py); `training` trains pruned and dense networks on CIFAR-10, saves after each
epoch, and stops after some minutes: the same call goes on. A finished row is written to
the result at once. Where there is no GPU, everything runs on the processor.
"""

import itertools
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import passes
from absl import app, flags
from processes import measured_alone

import snip_tf

# The scored examples of each network.
EXAMPLES = {"vgg_d": 128, "resnet_50": 64, "transformer_100m": 32}
SPARSITIES = (0.0, 0.95)
BATCH_SIZE = 128

FLAGS = flags.FLAGS
flags.DEFINE_list("tasks", ["masks", "times", "training"], "What to do.")
flags.DEFINE_list("networks", list(EXAMPLES), "The networks to prune.")
flags.DEFINE_list("trained", ["vgg_like", "resnet_20"], "The networks to train.")
flags.DEFINE_integer("examples", None, "The scored examples, else as many as usual.")
flags.DEFINE_integer("rounds", 11, "Rounds of each timing.", lower_bound=1)
flags.DEFINE_integer("epochs", 160, "Epochs of each training.", lower_bound=1)
flags.DEFINE_float("minutes", 60, "Minutes after which training stops, to go on later.")
flags.DEFINE_string("data", None, "An .npz file of CIFAR-10; else Keras downloads it.")
flags.DEFINE_string("checkpoints", "checkpoints", "A folder for unfinished trainings.")
flags.DEFINE_string("result", None, "A JSON file to add rows to.")
flags.DEFINE_string("on_the_processor", None, "A folder for its masks; internal.")


def device() -> str:
    """The name of the GPU that Keras uses, or of the processor's kind."""
    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    import jax

    return jax.devices()[0].device_kind


def made(name: str) -> passes.Network:
    return passes.network(name, FLAGS.examples or EXAMPLES.get(name, BATCH_SIZE))


def pruned_on_the_processor(name: str, folder: str) -> None:
    """Writes the weights and the masks of a network, for `masks` to compare."""
    network = made(name)
    np.savez(f"{folder}/weights.npz", *network.model.get_weights())
    found = snip_tf.get_masks(passes.prune(network)())
    snip_tf.save_masks(f"{folder}/masks.npz", found)


def masks(name: str) -> dict[str, Any]:
    """Counts the masks that differ from those of the processor."""
    with tempfile.TemporaryDirectory() as folder:
        examples = [f"--examples={FLAGS.examples}"] if FLAGS.examples else []
        measured_alone(
            __file__,
            f"--networks={name}",
            f"--on_the_processor={folder}",
            *examples,
            cores=os.cpu_count() or 1,
            environment={"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"},
        )
        network = made(name)
        with np.load(f"{folder}/weights.npz") as file:
            network.model.set_weights([file[key] for key in file.files])
        expected = snip_tf.load_masks(f"{folder}/masks.npz")
    found = snip_tf.get_masks(passes.prune(network)())
    differ = sum(int((found[path] != mask).sum()) for path, mask in expected.items())
    return {"connections": sum(m.size for m in found.values()), "differ": differ}


def times(name: str) -> dict[str, Any]:
    """Measures a plain pass and pruning in turn, in seconds, and their ratio."""
    network = made(name)
    calls = {"plain": passes.plain_pass(network), "prune": passes.prune(network)}
    return passes.in_turn(calls, FLAGS.rounds)


def cifar10() -> list[np.ndarray]:
    """Returns images of mean 0 and deviation 1, and labels, to train and to test on."""
    if FLAGS.data:
        with np.load(FLAGS.data) as file:
            train, test = ((file[f"x_{n}"], file[f"y_{n}"]) for n in ("train", "test"))
    else:
        train, test = keras.datasets.cifar10.load_data()
    mean, deviation = train[0].mean((0, 1, 2)), train[0].std((0, 1, 2))
    arrays: list[np.ndarray] = []
    for x, y in (train, test):
        arrays += [((x - mean) / deviation).astype("float32"), y.ravel()]
    return arrays


class Until(keras.callbacks.Callback):
    """Stops training at a time."""

    def __init__(self, end: float):
        super().__init__()
        self.end = end

    def on_epoch_end(self, epoch, logs=None):
        """Stops after this epoch, which is saved."""
        del epoch, logs
        if time.monotonic() > self.end:
            self.model.stop_training = True


def train(name: str, sparsity: float, data: list[np.ndarray], end: float):
    """Trains a network, and returns its row, or None if time ended before."""
    x_train, y_train, x_test, y_test = data
    keras.utils.set_random_seed(0)
    model = snip_tf.models.build(
        name,
        input_shape=x_train.shape[1:],
        kernel_regularizer=keras.regularizers.L2(5e-4),
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if sparsity:
        batch = x_train[:BATCH_SIZE], y_train[:BATCH_SIZE]
        model = snip_tf.prune_model(model, *batch, sparsity=sparsity, loss=loss)
    augmented = keras.Sequential(
        [
            keras.Input(x_train.shape[1:]),
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomTranslation(0.125, 0.125, fill_mode="constant"),
            model,
        ]
    )
    steps = FLAGS.epochs * -(-len(x_train) // BATCH_SIZE)
    rate = keras.optimizers.schedules.CosineDecay(0.1, steps)
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    augmented.compile(optimizer, loss, metrics=["accuracy"])
    optimizer.build(augmented.trainable_variables)
    row = f"{keras.backend.backend()}-{name}-{sparsity:g}-{FLAGS.epochs}"
    backup = keras.callbacks.BackupAndRestore(
        f"{FLAGS.checkpoints}/{row}", delete_checkpoint=False
    )
    history = augmented.fit(
        x_train,
        y_train,
        batch_size=BATCH_SIZE,
        epochs=FLAGS.epochs,
        verbose=2,
        callbacks=[backup, Until(end)],
    )
    if history.epoch[-1] + 1 < FLAGS.epochs:
        return None
    accuracy = augmented.evaluate(x_test, y_test, verbose=0)[1]
    return {
        "error, %": round(100 * (1 - accuracy), 2),
        "sparsity": snip_tf.sparsity(model) if sparsity else 0.0,
    }


class Result:
    """Rows of one device and backend, each written as soon as it is added."""

    def __init__(self, path: str | None):
        self.path = Path(path) if path else None
        known = self.path and self.path.exists()
        self.rows: dict[str, Any] = json.loads(self.path.read_text()) if known else {}
        key = f"{device()}, {keras.backend.backend()}, Keras {keras.__version__}"
        self.own = self.rows.setdefault(key, {})

    def add(self, name: str, row: dict[str, Any]) -> None:
        """Adds a row, and writes the file anew."""
        self.own[name] = row
        print(name, json.dumps(row), flush=True)
        if self.path:
            self.path.write_text(json.dumps(self.rows, indent=1) + "\n")


def train_all(result: Result, end: float) -> None:
    """Trains what has no row yet, for an epoch at least, until time ends."""
    data = cifar10()
    for name, sparsity in itertools.product(FLAGS.trained, SPARSITIES):
        title = f"{name}, sparsity {sparsity:g}, {FLAGS.epochs} epochs"
        if title in result.own:
            continue
        row = train(name, sparsity, data, end)
        if row is None:
            print(f"{title}: time ended; the same call goes on.")
            return
        result.add(title, row)


def main(argv: list[str]) -> None:
    del argv
    if FLAGS.on_the_processor:
        pruned_on_the_processor(FLAGS.networks[0], FLAGS.on_the_processor)
        print("{}")
        return
    result = Result(FLAGS.result)
    print(f"{device()}, {keras.backend.backend()}", flush=True)
    for task in (masks, times):
        for name in FLAGS.networks if task.__name__ in FLAGS.tasks else ():
            result.add(f"{task.__name__} of {name}", task(name))
    if "training" in FLAGS.tasks:
        train_all(result, time.monotonic() + 60 * FLAGS.minutes)


if __name__ == "__main__":
    app.run(main)

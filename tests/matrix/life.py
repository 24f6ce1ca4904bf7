"""What a user does with a pruned model, step by step, with whatever Keras is here.

    python tests/matrix/life.py

prints a line for each kind of step: how many of its steps passed, and what the others
said; and as the last line the same as JSON. It needs Keras and snip_tf alone.
"""

import collections
import importlib
import json
import platform
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

import snip_tf

layers = keras.layers
RNG = np.random.default_rng(0)
LABELS = RNG.integers(3, size=32)
FOLDER = Path(tempfile.mkdtemp())
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"


@keras.saving.register_keras_serializable("life")
class Subclassed(keras.Model):
    """A model with code of its own."""

    def __init__(self, **options):
        super().__init__(**options)
        self.hidden = layers.Dense(8, "relu", name="hidden")
        self.normalized = layers.BatchNormalization(name="normalized")
        self.out = layers.Dense(3, name="out")

    def call(self, x, training=False):
        """Returns the logits."""
        return self.out(self.normalized(self.hidden(x), training=training))


def sequential():
    dense = [layers.Dense(16, "relu", name="first"), layers.Dense(3, name="out")]
    return keras.Sequential([keras.Input((8,)), *dense])


def convolutional():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(6, 3, name="first"),
            layers.BatchNormalization(name="normalized"),
            layers.ReLU(),
            layers.Conv2D(6, 3, name="second"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(3, name="out"),
        ]
    )


def residual():
    x = keras.Input((8,))
    first = layers.Dense(8, "relu", name="first")(x)
    second = layers.Dense(8, "relu", name="second")(first)
    return keras.Model(x, layers.Dense(3, name="out")(layers.Add()([first, second])))


def recurrent():
    first = layers.LSTM(8, return_sequences=True, name="first")
    second = layers.GRU(6, name="second")
    return keras.Sequential(
        [keras.Input((6, 4)), first, second, layers.Dense(3, name="out")]
    )


def attention():
    x = keras.Input((6, 8))
    mixed = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    normalized = layers.LayerNormalization(name="normalized")(mixed + x)
    pooled = layers.GlobalAveragePooling1D()(normalized)
    return keras.Model(x, layers.Dense(3, name="out")(pooled))


KINDS = {
    "Sequential": (sequential, (8,)),
    "convolutional": (convolutional, (8, 8, 1)),
    "residual": (residual, (8,)),
    "recurrent": (recurrent, (6, 4)),
    "attention": (attention, (6, 8)),
    "subclassed": (Subclassed, (8,)),
}


def compiled(kind, **options):
    """A model of a kind, built and compiled, and data for it."""
    make, shape = KINDS[kind]
    keras.utils.set_random_seed(0)
    model, x = make(), RNG.normal(size=(32, *shape)).astype(np.float32)
    model(x[:1])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], **options)
    return model, x


def outputs(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def assert_pruned(pruned, sparsity=0.7):
    assert abs(snip_tf.sparsity(pruned) - sparsity) < 0.02
    weights = snip_tf.prunable_weights(pruned)
    for path, mask in snip_tf.get_masks(pruned).items():
        value = keras.ops.convert_to_numpy(weights[path])
        assert not value[~mask].any(), path


class Life:
    """The life of one pruned model; each method is a step, in this order."""

    def __init__(self, kind):
        self.kind = kind
        self.model, self.x = compiled(kind)
        self.file = FOLDER / f"{kind}.keras"

    def scores(self):
        scores = snip_tf.connection_sensitivity(self.model, self.x, LABELS)
        assert abs(sum(float(score.sum()) for score in scores.values()) - 1) < 1e-5

    def prune(self):
        before = self.model.get_weights()
        self.pruned = snip_tf.prune_model(self.model, self.x, LABELS, sparsity=0.7)
        assert_pruned(self.pruned)
        for old, new in zip(before, self.model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)

    def fit(self):
        self.pruned.fit(self.x, LABELS, epochs=2, batch_size=16, verbose=0)
        self.pruned.evaluate(self.x, LABELS, verbose=0)
        self.pruned.predict(self.x, verbose=0)
        assert_pruned(self.pruned)

    def save_and_load(self):
        self.pruned.save(self.file)
        loaded = keras.models.load_model(self.file)
        expected = outputs(self.pruned, self.x)
        np.testing.assert_allclose(outputs(loaded, self.x), expected, atol=1e-5)
        loaded.fit(self.x, LABELS, verbose=0)
        assert_pruned(loaded)
        weights = self.file.with_suffix(".weights.h5")
        self.pruned.save_weights(weights)
        loaded.load_weights(weights)
        np.testing.assert_allclose(outputs(loaded, self.x), expected, atol=1e-5)

    def masks_in_a_file(self):
        path, masks = FOLDER / "masks.npz", snip_tf.get_masks(self.pruned)
        snip_tf.save_masks(path, masks)
        again = snip_tf.apply_masks(self.model, snip_tf.load_masks(path))
        np.testing.assert_equal(snip_tf.get_masks(again), masks)
        again.fit(self.x, LABELS, verbose=0)
        outputs(self.model, self.x)

    def strip(self):
        plain = snip_tf.strip_pruning(self.pruned)
        expected = outputs(self.pruned, self.x)
        np.testing.assert_allclose(outputs(plain, self.x), expected, atol=1e-5)
        plain.save(self.file)
        keras.models.load_model(self.file)

    def compact(self):
        if self.kind != "subclassed":  # which has no graph
            smaller = snip_tf.compact(self.pruned)
            expected = outputs(self.pruned, self.x)
            np.testing.assert_allclose(outputs(smaller, self.x), expected, atol=1e-4)

    def report(self):
        assert "parameters" in str(snip_tf.report(self.pruned))
        snip_tf.summary(self.pruned, print_fn=lambda line: None)

    def export(self):
        formats = {"keras": ".keras", "sparse": ".snip"}
        if ON_TENSORFLOW:
            formats |= {"litert": ".tflite", "saved_model": ""}
        for name, ending in formats.items():
            path = FOLDER / f"{self.kind}-exported{ending}"
            snip_tf.export(self.pruned, path, name, print_fn=lambda line: None)
        loaded = snip_tf.load_sparse(FOLDER / f"{self.kind}-exported.snip")
        expected = outputs(self.pruned, self.x)
        np.testing.assert_allclose(outputs(loaded, self.x), expected, atol=1e-5)

    def runtime(self):
        if self.kind != "subclassed":
            found = snip_tf.sparse_runtime(self.pruned)(self.x)
            np.testing.assert_allclose(found, outputs(self.pruned, self.x), atol=1e-4)


def criterion(name):
    for kind in ("Sequential", "attention"):
        model, x = compiled(kind)
        chosen = snip_tf.criteria.SynFlow(3) if name == "synflow" else name
        assert_pruned(
            snip_tf.prune_model(model, x, LABELS, sparsity=0.7, criterion=chosen)
        )


def structure(name):
    model, x = compiled("convolutional" if name == "units" else "Sequential")
    snip_tf.prune_model(model, x, LABELS, sparsity=0.5, structure=name)


def half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model, x = compiled("convolutional")
    finally:
        keras.config.set_dtype_policy("float32")
    pruned = snip_tf.prune_model(model, x, LABELS, sparsity=0.7)
    pruned.fit(x, LABELS, verbose=0)
    assert_pruned(pruned)


def compiled_by_xla():
    model, x = compiled("Sequential", jit_compile=True)
    pruned = snip_tf.prune_model(model, x, LABELS, sparsity=0.7)
    pruned.fit(x, LABELS, verbose=0)
    assert_pruned(pruned)


def new_masks_while_training():
    """A callback gives the weights other masks, which `fit` respects at once."""
    model, x = compiled("Sequential")
    pruned = snip_tf.prune_model(model, x, LABELS, sparsity=0.7)
    masks = {path: ~mask for path, mask in snip_tf.get_masks(pruned).items()}

    class Exchange(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 0:
                snip_tf.set_masks(self.model, masks)

    pruned.fit(x, LABELS, batch_size=8, verbose=0, callbacks=[Exchange()])
    assert_pruned(pruned, 0.3)
    weights = snip_tf.prunable_weights(pruned)
    for path, mask in masks.items():
        assert keras.ops.convert_to_numpy(weights[path])[mask].any(), path


def steps() -> list[tuple[str, str, Callable[[], None]]]:
    """The kind of each step, its name, and what it does."""
    found = []
    kinds = [name for name in vars(Life) if not name.startswith("_")]
    for kind in KINDS:
        life = Life(kind)
        found += [(name, kind, getattr(life, name)) for name in kinds]
    for name in ("snip", "iterative_snip", "force", "grasp", "synflow", "magnitude"):
        found.append(("criteria", name, lambda name=name: criterion(name)))
    for name in ("units", "2:4"):
        found.append(("structures", name, lambda name=name: structure(name)))
    found.append(("half precision", "", half_precision))
    if keras.backend.backend() != "torch":
        found.append(("XLA", "", compiled_by_xla))
    found.append(("new masks while training", "", new_masks_while_training))
    return found


def versions() -> str:
    backend = keras.backend.backend()
    module = importlib.import_module(backend)
    numbers = [f"Keras {keras.__version__}", f"{backend} {module.__version__}"]
    numbers += [f"NumPy {np.__version__}", f"Python {platform.python_version()}"]
    return ", ".join(numbers)


def main() -> None:
    warnings.simplefilter("ignore")
    keras.utils.disable_interactive_logging()
    results: dict[str, dict[str, str]] = collections.defaultdict(dict)
    for kind, name, run in steps():
        try:
            run()
            results[kind][name] = "passed"
        except Exception as error:  # whatever goes wrong is the result
            traceback.print_exc()
            results[kind][name] = f"{type(error).__name__}: {str(error)[:300]}"
    print(versions())
    for kind, found in results.items():
        failed = {n: said for n, said in found.items() if said != "passed"}
        print(f"{kind}: {len(found) - len(failed)} of {len(found)} {failed or ''}")
    print(json.dumps({"versions": versions(), "steps": results}))
    sys.exit(any(set(found.values()) != {"passed"} for found in results.values()))


if __name__ == "__main__":
    main()

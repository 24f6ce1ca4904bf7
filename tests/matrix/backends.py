"""Compares the backends of Keras: scores, masks and lives of every kind of model.

    python -m tests.matrix.backends [--folder=FOLDER] [--write]

runs itself once on each backend that is installed, TensorFlow first, whose initial
weights the others take; what each finds of a kind goes into a file of its own, so that
a run which stopped goes on. At the end it prints a table in Markdown, and writes it
into docs/supported_models.md if told to.
"""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np

import snip_tf
from snip_tf import criteria
from snip_tf.criteria.base import take_attributes
from tests import battery
from tests.matrix import pages
from tests.network_kinds import ALL_KINDS

BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
# In few steps, for the sake of time.
CHANGED = {
    "iterative_snip": criteria.IterativeSnip(3),
    "force": criteria.Force(3),
    "synflow": criteria.SynFlow(3),
}
OPTIMIZERS = "sgd", "adam", "rmsprop", "lion"


def file_of(folder: Path, title: str, backend: str) -> Path:
    return folder / f"{re.sub('[^A-Za-z0-9]+', '_', title)}.{backend}.npz"


# --- On one backend -------------------------------------------------------------------


def run_one(folder: Path) -> None:
    """Writes what the backend of this process finds of each kind."""
    warnings.simplefilter("ignore")
    keras.utils.disable_interactive_logging()
    backend = keras.backend.backend()
    for title in ALL_KINDS:
        path = file_of(folder, title, backend)
        if not path.exists():
            found = findings(title, file_of(folder, title, "tensorflow"))
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                np.savez_compressed(file, **found)
            partial.rename(path)
            print(backend, title, found["life"], flush=True)
        keras.utils.clear_session()


def findings(title: str, of_tensorflow: Path) -> dict[str, np.ndarray]:
    """The weights, scores and masks of a kind of model, and what its life said."""
    keras.utils.set_random_seed(0)
    model, x, y = ALL_KINDS[title]()
    weights = weights_of(model, of_tensorflow)
    found = {f"weight|{index}": value for index, value in enumerate(weights)}
    life = {"life": outcome(title)}
    for name in criteria.CRITERIA:
        battery.restart(model)
        steps = Steps(CHANGED.get(name, name))
        options = {"sparsity": 0.6, "criterion": steps, "batch_size": battery.EXAMPLES}
        try:
            pruned = snip_tf.prune_model(model, x, y, **options)
        except Exception as error:
            life[name] = f"{type(error).__name__}: {error}"[:300]
            continue
        for step, masks in enumerate([*steps.masks[1:], snip_tf.get_masks(pruned)]):
            for path, mask in masks.items():
                found[f"mask|{name}|{step}|{path}"] = mask
                found[f"score|{name}|{step}|{path}"] = steps.scores[step][path]
    return found | {"life": np.array(json.dumps(life))}


class Steps(criteria.Criterion):
    """A criterion that remembers its scores, and the masks that it is given."""

    def __init__(self, criterion):
        self.criterion = criteria.get(criterion)
        take_attributes(self, of=self.criterion)
        self.scores, self.masks = [], []

    def __call__(self, context):
        self.masks.append(dict(context.masks))
        scores = {p: np.array(s) for p, s in self.criterion(context).items()}
        self.scores.append(scores)
        return scores


def weights_of(model, of_tensorflow: Path) -> list[np.ndarray]:
    """Sets the weights that TensorFlow began with, if it did; returns the values."""
    if of_tensorflow.exists():
        with np.load(of_tensorflow) as file:
            for index, weight in enumerate(model.weights):
                weight.assign(file[f"weight|{index}"])
    return battery.values(model.weights)


def outcome(title: str) -> str:
    """`yes`, or `not in Keras`, or what was raised first in the model's life."""
    try:
        live(*ALL_KINDS[title]())
    except Exception as error:
        model, x, y = ALL_KINDS[title]()
        try:
            model.fit(x, y, batch_size=battery.EXAMPLES, epochs=2, verbose=0)
        except Exception:
            return "not in Keras"
        return f"{type(error).__name__}: {error}"[:300]
    return "yes"


def live(model, x, y) -> None:
    """Prunes, fits with each optimizer, strips, saves, loads and compacts."""
    pruned = battery.pruned_and_left_alone(model, x, y)
    battery.assert_pruned_exactly(pruned, model)
    masks = snip_tf.get_masks(pruned)
    for optimizer in OPTIMIZERS:
        model.compile(optimizer, loss=model.loss, loss_weights=loss_weights(model))
        pruned = snip_tf.apply_masks(model, masks)
        pruned.fit(x, y, batch_size=battery.EXAMPLES, epochs=2, verbose=0)
        battery.assert_zero_where_masked(pruned, masks)
    stripped = snip_tf.strip_pruning(pruned)
    battery.assert_same_outputs(stripped, pruned, x)
    with tempfile.TemporaryDirectory() as folder:
        loaded = battery.saved_and_loaded(pruned, Path(folder))
        np.testing.assert_equal(snip_tf.get_masks(loaded), masks)
        if not any(getattr(layer, "lora_enabled", False) for layer in model.layers):
            battery.assert_same_outputs(loaded, pruned, x)
    if type(model) in (keras.Sequential, keras.Model):
        smaller, expected = snip_tf.compact(pruned), battery.outputs(pruned, x)
        keras.tree.map_structure(
            lambda one, other: np.testing.assert_allclose(one, other, atol=1e-4),
            battery.outputs(smaller, x),
            expected,
        )


def loss_weights(model):
    return {"y": 1.0, "z": 0.5} if isinstance(model.loss, dict) else None


# --- All of them ----------------------------------------------------------------------


def compared(one: Path, other: Path) -> tuple[str, str, str]:
    """Three cells: of the scores, of the masks, of the life."""
    with np.load(one) as first, np.load(other) as second:
        reference, found = dict(first), dict(second)
    lives = [json.loads(str(file.pop("life"))) for file in (reference, found)]
    [of_reference, of_other] = lives
    life = of_other["life"] if of_reference == {"life": "yes"} else f"{lives}"
    if len(of_other) > 1:  # what criteria raised
        life = f"{of_other}"
    error = max(
        difference(found[key], score)
        for key, score in reference.items()
        if key.startswith("score|snip|")
    )
    names = dict.fromkeys(k.split("|")[1] for k in reference if k.startswith("mask|"))
    cells = [cell_of_masks(name, reference, found) for name in names]
    return f"{error:.0e}", "; ".join(filter(None, cells)) or "none", life


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest difference, relative to the largest score."""
    largest = np.abs(expected).max()
    return float(np.abs(found - expected).max() / (largest or 1))


def cell_of_masks(name: str, reference, found) -> str:
    """How many masks of a criterion differ at the end, and where that began."""
    if name == "random":  # draws with each backend's own generator
        return ""
    steps = range(
        len({k.split("|")[2] for k in reference if k.startswith(f"mask|{name}|")})
    )
    for step in steps:
        expected, masks, scores = (
            joined(file, f"{kind}|{name}|{step}|")
            for file, kind in (
                (reference, "mask"),
                (found, "mask"),
                (reference, "score"),
            )
        )
        differs = expected != masks
        if differs.any():
            break
    else:
        return ""
    threshold = scores[expected].min()
    distance = np.abs(scores - threshold)[differs]
    last = f"mask|{name}|{steps[-1]}|"
    of_all = joined(reference, last) != joined(found, last)
    largest = np.abs(scores).max()
    if (distance <= 1e-5 * np.abs(threshold)).all():
        why = "at the threshold"
    elif (distance <= 1e-5 * largest).all():
        why = "within rounding of the threshold"
    elif largest < 1e-12:
        why = "all scores are rounding"
    else:
        why = f"up to {distance.max() / np.abs(threshold):.0e} of the threshold away"
    where = f" in step {int(step) + 1}" if len(steps) > 1 else ""
    return f"{name}: {of_all.sum()} of {of_all.size} ({differs.sum()}{where}: {why})"


def joined(file, start: str) -> np.ndarray:
    """Returns all arrays whose key begins so, as one."""
    return np.concatenate(
        [file[k].ravel() for k in sorted(file) if k.startswith(start)]
    )


def table(folder: Path, backends: list[str]) -> str:
    head = [
        f"{BACKENDS[backend]}: {column}"
        for backend in backends
        for column in ("scores", "masks that differ", "life")
    ]
    lines = [["model", *head]]
    for title in ALL_KINDS:
        paths = [file_of(folder, title, name) for name in ("tensorflow", *backends)]
        if all(path.exists() for path in paths):
            cells = [cell for path in paths[1:] for cell in compared(paths[0], path)]
            lines.append([title, *cells])
    return pages.table(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where results are kept")
    parser.add_argument("--write", action="store_true", help="into the page")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    folder = flags.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    if flags.one:
        run_one(folder)
        return
    backends = [name for name in BACKENDS if importlib.util.find_spec(name)]
    for backend in backends:
        command = [sys.executable, "-m", "tests.matrix.backends", "--one"]
        subprocess.run(
            [*command, f"--folder={folder}"],
            env={**os.environ, "KERAS_BACKEND": backend},
            check=True,
        )
    found = table(folder, [name for name in backends if name != "tensorflow"])
    print(found)
    if flags.write:
        pages.write_part("backends", found)


if __name__ == "__main__":
    main()

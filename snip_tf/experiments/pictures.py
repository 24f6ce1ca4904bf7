"""Draws the pictures of the experiments, each a PNG with its data beside it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from snip_tf.criteria.score import connection_sensitivity
from snip_tf.experiments import datasets, models, recipes
from snip_tf.files import whole_file
from snip_tf.reports import plots
from snip_tf.scoring.batches import make_batches
from snip_tf.selecting.selection import select_masks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# {row: {cell: results of its seeds}}
Results = dict[str, dict[str, list[dict]]]

_RETAINED_SPARSITIES = [round(tenth / 10, 1) for tenth in range(1, 10)]
_EXAMPLES_OF_A_CLASS = 100


def draw(experiment: str, folder: Path, found: Results, data_dir: str | None) -> None:
    """Draws the pictures of an experiment from its results."""
    if experiment == "figure1":
        _error_against_sparsity(folder, found)
    if experiment in ("table1", "table2"):
        rows = recipes.EXPERIMENTS[experiment]
        _layer_sparsity(
            folder, {name: found[name] for name in found if rows[name].budgets}
        )
    if experiment == "random_labels":
        _loss_curves(folder, found)
    if experiment == "batch_size":
        _mean_images(folder, found, data_dir)


def _error_against_sparsity(folder: Path, found: Results) -> None:
    curves = {
        name: {
            results[0]["flags"]["target_sparsity"]: [
                result["final_error"] for result in results
            ]
            for results in cells.values()
        }
        for name, cells in found.items()
    }
    _keep(
        folder / "error_against_sparsity", plots.error_against_sparsity(curves), curves
    )


def _layer_sparsity(folder: Path, found: Results) -> None:
    kept = {
        f"{name} {cell}": {
            layer["path"]: layer["kept"] / layer["total"]
            for layer in results[0]["layers"]
        }
        for name, cells in found.items()
        for cell, results in cells.items()
        if results[0]["layers"]
    }
    if kept:
        _keep(folder / "layer_sparsity", plots.layer_sparsity(kept), kept)


def _loss_curves(folder: Path, found: Results) -> None:
    curves = {
        f"{name} {cell}": (
            [check["iteration"] for check in results[0]["history"]],
            [check["loss"] for check in results[0]["history"]],
        )
        for name, cells in found.items()
        for cell, results in cells.items()
    }
    _keep(folder / "loss", plots.loss_curves(curves), curves)


def _mean_images(folder: Path, found: Results, data_dir: str | None) -> None:
    """Draws the mean of the images that each network was scored on."""
    runs = [
        results[0]["flags"] for cells in found.values() for results in cells.values()
    ]
    batches = {}
    for flags in runs:
        data = datasets.load(
            flags["datasource"], data_dir, flags["seed"], flags.get("max_examples")
        )
        size = flags["scoring_batch_size"]
        scored = make_batches(*data.train, batch_size=size, seed=flags["seed"])
        batches[f"{size:,}"] = np.asarray(next(scored)[0])
    means = {label: images.mean(axis=0).tolist() for label, images in batches.items()}
    _keep(folder / "mean_images", plots.mean_images(batches), means)


def retained(folder: Path, datasource: str, data_dir: str | None, seed: int) -> None:
    """Draws figure 2: what LeNet-300-100 keeps of its first layer, scored on a class.

    A network at initialization is scored on 100 examples of each class in turn; the
    pictures show the mean of the first layer's mask over its 300 units, at nine
    sparsities.
    """
    data = datasets.load(datasource, data_dir, seed)
    images, labels = data.train
    keras.utils.set_random_seed(seed)
    model = models.build("lenet300", input_shape=data.input_shape)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    masks = {}
    for digit in range(data.classes):
        chosen = np.flatnonzero(labels == digit)[:_EXAMPLES_OF_A_CLASS]
        scores = connection_sensitivity(
            model, images[chosen], labels[chosen], batch_size=len(chosen), loss=loss
        )
        masks[f"{digit}"] = _at_each_sparsity(scores)
    values = {
        digit: {
            sparsity: plots.retained_image(mask, data.input_shape).tolist()
            for sparsity, mask in line.items()
        }
        for digit, line in masks.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    figure = plots.retained_connections(masks, data.input_shape)
    _keep(folder / "retained", figure, values)


def _at_each_sparsity(scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the first layer's mask at each sparsity."""
    with warnings.catch_warnings():
        # Pixels at the edge are zero in all images of a digit, and so are the scores of
        # their connections. At low sparsities some must be kept, here as in the paper,
        # which would cause a warning for each sparsity and digit.
        warnings.filterwarnings("ignore", ".* of the kept connections have a score of")
        return {
            f"{sparsity:.0%}": select_masks(scores, sparsity)["dense1/kernel"]
            for sparsity in _RETAINED_SPARSITIES
        }


def _keep(path: Path, figure: Figure, data: object) -> None:
    """Writes the picture and, beside it, its data."""
    with whole_file(path.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(_rounded(data)) + "\n")
    with whole_file(path.with_suffix(".png")) as partial:
        figure.savefig(partial, dpi=150, format="png")
    print(f"Wrote {path.with_suffix('.png')}")


def _rounded(data: object) -> object:
    if isinstance(data, dict):
        return {str(key): _rounded(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_rounded(value) for value in data]
    return round(data, 4) if isinstance(data, float) else data

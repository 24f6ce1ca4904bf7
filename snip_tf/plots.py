"""Pictures of pruned networks, with matplotlib; each function returns a figure.

figure = snip_tf.plots.layer_sparsity({"my model": pruned})
figure.savefig("layers.png")
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from snip_tf.rows import LayerRow, weight_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Weights of a network whose paths there is room for below a panel.
_NAMED = 10


def error_against_sparsity(
    curves: Mapping[str, Mapping[float, Sequence[float]]],
) -> Figure:
    """Test error against sparsity: means over seeds, with standard deviations.

    Args:
        curves: `{label: {sparsity: errors in percent, one for each seed}}`.

    Example:

    >>> import snip_tf.plots
    >>> figure = snip_tf.plots.error_against_sparsity(
    ...     {"LeNet-300-100": {0.0: [1.4, 1.5], 0.5: [1.5, 1.5], 0.9: [1.6, 1.7]}}
    ... )
    >>> figure.axes[0].get_xlabel()
    'sparsity, %'

    Source: figure 1 of https://arxiv.org/abs/1810.02340.
    """
    figure, axes = _axes("sparsity, %", "test error, %")
    for label, points in _not_empty(curves).items():
        sparsities = sorted(points)
        errors = [points[sparsity] for sparsity in sparsities]
        axes.errorbar(
            [100 * sparsity for sparsity in sparsities],
            [np.mean(values) for values in errors],
            [_spread(values) for values in errors],
            label=label,
            marker="o",
            markersize=4,
            capsize=3,
        )
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def error_by_criterion(
    curves: Mapping[str, Mapping[float, Sequence[float]]],
    dense: Sequence[float] = (),
) -> Figure:
    """Test error of several criteria: means over seeds, from the lowest to the highest.

    Args:
        curves: `{label: {sparsity: errors in percent, one for each seed}}`; sparsities
            are drawn at even distances.
        dense: errors of the dense network, drawn as a band.

    Example:

    >>> import snip_tf.plots
    >>> figure = snip_tf.plots.error_by_criterion(
    ...     {"snip": {0.9: [1.6, 1.7], 0.99: [3.1, 3.3]}, "random": {0.9: [2.0, 2.1]}},
    ...     dense=[1.4, 1.5],
    ... )
    >>> [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    ['90', '99']
    """
    from matplotlib.ticker import LogLocator

    figure, axes = _axes("sparsity, %", "test error, %")
    sparsities = sorted({s for points in _not_empty(curves).values() for s in points})
    axes.set_xticks(range(len(sparsities)), [f"{100 * s:g}" for s in sparsities])
    if dense:
        axes.axhspan(min(dense), max(dense), color="0.8", label="dense")
        axes.axhline(np.mean(dense), color="0.5", linewidth=1)
    shift = 0.3 / max(1, len(curves) - 1)
    for number, (label, points) in enumerate(curves.items()):
        own = sorted(points)
        means = np.array([np.mean(points[s]) for s in own])
        lowest = [min(points[s]) for s in own]
        highest = [max(points[s]) for s in own]
        axes.errorbar(
            [sparsities.index(s) - 0.15 + shift * number for s in own],
            means,
            np.abs([means - lowest, highest - means]),  # of the same, off by rounding
            label=label,
            marker="osD^vP*X<>"[number % 10],
            markersize=4,
            linewidth=1,
            capsize=2,
        )
    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="y", which="minor", labelsize="x-small")
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _spread(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def layer_sparsity(
    networks: Mapping[str, keras.Model | Mapping[str, float]],
) -> Figure:
    """What is kept of each weight tensor: a panel for each network, on a log scale.

    Args:
        networks: `{label: network}`; a network is a pruned `keras.Model`, or
            `{weight path: kept fraction}`.

    Raises:
        TypeError, ValueError: if a model is not a Keras model, or not pruned.
    """
    from matplotlib.figure import Figure

    count = len(_not_empty(networks))
    columns = min(count, 4)
    rows = math.ceil(count / columns)
    size = (3.2 * columns, 3 * rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes in panels[count:]:
        axes.remove()
    least = 1.0
    for axes, (label, network) in zip(panels, networks.items(), strict=False):
        kept = network
        if not isinstance(network, Mapping):
            kept = {row.path: row.kept / row.total for row in weight_rows(network)}
        axes.bar(range(len(kept)), [100 * part for part in kept.values()], log=True)
        axes.set_title(label, fontsize="medium")
        least = min([least, *filter(None, kept.values())])
        axes.yaxis.set_major_formatter("{x:g}")
        if len(kept) <= _NAMED:
            names = [path.replace("/", "\n") for path in kept]
            axes.set_xticks(range(len(kept)), names, rotation=90, size="small")
        else:
            axes.set_xticks([])
            axes.set_xlabel("weights, from input to output")
    panels[0].set_ylim(50 * least, 100)
    panels[0].set_ylabel("kept, %")
    return figure


def loss_curves(curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> Figure:
    """Training loss against iterations.

    Args:
        curves: `{label: (iterations, losses)}`.

    Source: figure 5 of https://arxiv.org/abs/1810.02340.
    """
    figure, axes = _axes("iterations", "training loss")
    for label, (iterations, losses) in _not_empty(curves).items():
        axes.plot(iterations, losses, label=label)
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def retained_image(mask: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """How much of what reads each pixel is kept, as a picture.

    Args:
        mask: bool array, the mask of the kernel of a network's first layer: of a dense
            layer behind a flattened image, (pixels, units), or of a convolution,
            (height, width, channels, filters).
        image_shape: of one example: (height, width) or (height, width, channels).

    Returns:
        float32 array from 0 to 1, the mean over units and channels: of the image's
        height and width for a dense layer, of the filter's for a convolution.

    Raises:
        ValueError: if the mask is of no layer that sees such images.

    Example:

    >>> import numpy as np, snip_tf.plots
    >>> mask = np.array([[True, True], [False, True], [False, False], [True, True]])
    >>> snip_tf.plots.retained_image(mask, (2, 2))
    array([[1. , 0.5],
           [0. , 1. ]], dtype=float32)
    """
    mask = np.asarray(mask)
    height, width, *channels = image_shape
    if mask.ndim == 4 and [mask.shape[2]] == (channels or [1]):
        return mask.mean(axis=(2, 3), dtype=np.float32)
    if mask.ndim == 2 and len(mask) == math.prod(image_shape):
        pixels = mask.reshape(height, width, -1)
        return pixels.mean(axis=-1, dtype=np.float32)
    raise ValueError(
        f"Expected the mask of a first layer that sees images of shape "
        f"{tuple(image_shape)}: (pixels, units) of a dense layer, or (height, width, "
        f"channels, filters) of a convolution. Received: a mask of shape {mask.shape}"
    )


def retained_connections(
    masks: Mapping[str, Mapping[str, np.ndarray]], image_shape: Sequence[int]
) -> Figure:
    """A grid of pictures of the first layer's kept connections; bright is kept.

    Args:
        masks: `{row label: {column label: mask}}`, as for instance `{"digit 3":
            {"90 %": mask}}`; each mask as in `retained_image`.
        image_shape: of one example.

    Source: figure 2 of https://arxiv.org/abs/1810.02340.
    """
    pictures = {
        row: {
            column: retained_image(mask, image_shape) for column, mask in line.items()
        }
        for row, line in masks.items()
    }
    return image_grid(pictures)


def mean_images(batches: Mapping[str, np.ndarray]) -> Figure:
    """The mean image of each of several batches, as of those that are scored on.

    Args:
        batches: `{label: images}`, each an array (examples, height, width) or
            (examples, height, width, channels).

    Source: appendix of https://arxiv.org/abs/1810.02340.
    """
    means = {label: np.mean(images, axis=0) for label, images in batches.items()}
    return image_grid({"mean": means})


def image_grid(pictures: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Pictures in rows and columns, each from its darkest to its brightest pixel.

    Args:
        pictures: `{row label: {column label: array}}`; an array is (height, width) or
            (height, width, channels).
    """
    from matplotlib.figure import Figure

    rows = len(_not_empty(pictures))
    columns = max(len(_not_empty(line)) for line in pictures.values())
    figure = Figure(figsize=(0.9 * columns + 0.6, 0.9 * rows + 0.3))
    figure.set_layout_engine("constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for number, (row, found) in enumerate(pictures.items()):
        line = grid[number]
        line[0].set_ylabel(row, fontsize="small")
        for axes, (column, picture) in zip(line, found.items(), strict=False):
            axes.imshow(_scaled(picture), cmap="gray", interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            if number == 0:
                axes.set_title(column, fontsize="small")
    return figure


def _not_empty(things: Mapping) -> Mapping:
    if not things:
        raise ValueError(f"Expected something to draw. Received: {things!r}")
    return things


def _scaled(picture: np.ndarray) -> np.ndarray:
    """From 0 to 1, without an axis for a single channel."""
    if picture.ndim == 3 and picture.shape[-1] == 1:
        picture = picture[..., 0]
    low, high = picture.min(), picture.max()
    return (picture - low) / (high - low) if high > low else np.zeros_like(picture)


def layer_costs(rows: Sequence[LayerRow]) -> Figure:
    """Parameters and multiply-adds of each layer: all, not zero, and compacted.

    Args:
        rows: the `layers` of a `snip_tf.report`.

    Example:

    >>> import keras, snip_tf, snip_tf.plots
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    >>> figure = snip_tf.plots.layer_costs(snip_tf.report(model).layers)
    >>> [axes.get_title() for axes in figure.axes]
    ['parameters', 'multiply-adds']
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(11, 1.2 + 0.35 * len(rows)), layout="constrained")
    panels = {
        "parameters": ("parameters", "non_zero", "compacted_parameters"),
        "multiply-adds": ("multiply_adds", "effective", "compacted_multiply_adds"),
    }
    labels = ("all", "not zero", "compacted")
    places = np.arange(len(rows))
    for axes, (title, names) in zip(
        figure.subplots(1, 2, sharey=True), panels.items(), strict=True
    ):
        for shift, (name, label) in enumerate(zip(names, labels, strict=True)):
            lengths = [getattr(row, name) or 0 for row in rows]
            axes.barh(places + 0.27 * (shift - 1), lengths, height=0.25, label=label)
        axes.set_title(title)
        # A dollar would begin a formula.
        axes.set_yticks(places, [row.layer.replace("$", r"\$") for row in rows])
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(axis="x", alpha=0.3)
    figure.axes[0].invert_yaxis()
    handles = figure.axes[1].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper right", ncols=len(labels))
    return figure


def _axes(x_label: str, y_label: str) -> tuple[Figure, Any]:
    # Not through pyplot, which would keep every figure until it is closed.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    return figure, axes

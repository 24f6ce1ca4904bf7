"""Pictures of pruned networks, with matplotlib; each function returns a figure.

figure = snip_tf.plots.layer_sparsity(pruned)
figure.savefig("layers.png")

A notebook shows a figure that is the last line of a cell. Without matplotlib, all that
draw raise an ImportError.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from snip_tf.checks import check_built, visible
from snip_tf.masking.pruned_model import get_masks
from snip_tf.reports.costs import LayerRow, layer_rows, weight_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Report = Any  # of snip_tf.reporting, which imports this module

# Weights of a network whose paths there is room for below a panel.
_NAMED = 10
# Letters of a layer's name that there is room for beside a panel.
_LETTERS = 40
# Bars of more layers are thinner.
_CLOSER = 30


def error_against_sparsity(
    curves: Mapping[str, Mapping[float, Sequence[float]]],
) -> Figure:
    """Test error against sparsity: means over seeds, with standard deviations.

    Args:
        curves: `{label: {sparsity: errors in percent, one for each seed}}`.

    Example:

    >>> import snip_tf.reports.plots
    >>> figure = snip_tf.plots.error_against_sparsity(
    ...     {"LeNet-300-100": {0.0: [1.4, 1.5], 0.5: [1.5, 1.5], 0.9: [1.6, 1.7]}}
    ... )
    >>> figure.axes[0].get_xlabel()
    'sparsity, %'

    Source: figure 1 of https://arxiv.org/abs/1810.02340.
    """
    _check_nested("curves", curves, _ERRORS)
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

    >>> import snip_tf.reports.plots
    >>> figure = snip_tf.plots.error_by_criterion(
    ...     {"snip": {0.9: [1.6, 1.7], 0.99: [3.1, 3.3]}, "random": {0.9: [2.0, 2.1]}},
    ...     dense=[1.4, 1.5],
    ... )
    >>> [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    ['90', '99']
    """
    _check_nested("curves", curves, _ERRORS)
    figure, axes = _axes("sparsity, %", "test error, %")
    # After what says in plain words that there is no matplotlib.
    from matplotlib.ticker import LogLocator

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


_ERRORS = "{label: {sparsity: errors in percent, one for each seed}}"


def _spread(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def layer_sparsity(
    networks: keras.Model
    | Report
    | Mapping[str, float]
    | Mapping[str, keras.Model | Report | Mapping[str, float]],
) -> Figure:
    """What is kept of each weight tensor: a panel for each network, on a log scale.

    Args:
        networks: a network, or several as `{label: network}`. A network is a pruned
            `keras.Model`, a `snip_tf.report` of one, or `{weight path: kept fraction}`,
            in which a mask may stand for its fraction.

    Raises:
        TypeError, ValueError: if a model is not a Keras model, or not pruned.

    Example:

    >>> import keras, snip_tf, snip_tf.plots
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    >>> pruned = snip_tf.prune_model(model, sparsity=0.5, criterion="random", seed=0)
    >>> figure = snip_tf.plots.layer_sparsity(pruned)
    >>> figure.axes[0].get_ylabel()
    'kept, %'
    """
    panels_of = {label: _kept(network) for label, network in _labeled(networks).items()}
    count = len(panels_of)
    columns = min(count, 4)
    rows = math.ceil(count / columns)
    figure = _figure(figsize=(3.2 * columns, 3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes in panels[count:]:
        axes.remove()
    least = 1.0
    for axes, (label, kept) in zip(panels, panels_of.items(), strict=False):
        axes.bar(range(len(kept)), [100 * part for part in kept.values()], log=True)
        axes.set_title(label, fontsize="medium")
        least = min([least, *filter(None, kept.values())])
        axes.yaxis.set_major_formatter("{x:g}")
        if len(kept) <= _NAMED:
            names = [_name(path).replace("/", "\n") for path in kept]
            axes.set_xticks(range(len(kept)), names, rotation=90, size="small")
        else:
            axes.set_xticks([])
            axes.set_xlabel("weights, from input to output")
    panels[0].set_ylim(50 * least, 100)
    panels[0].set_ylabel("kept, %")
    return figure


def _labeled(networks: Any) -> Mapping[str, Any]:
    """Several networks by their labels, or one by its name."""
    if isinstance(networks, keras.Model):
        return {_name(networks.name): networks}
    if _is_report(networks):
        return {_name(networks.model): networks}
    if not isinstance(networks, Mapping):
        raise TypeError(
            f"Expected a pruned keras.Model, a snip_tf.report of one, "
            f"{{weight path: kept fraction}}, or several of these by label. "
            f"Received: networks={networks!r} of type {type(networks).__name__}"
        )
    if all(isinstance(part, (int, float, np.ndarray)) for part in networks.values()):
        return {"": _not_empty(networks)}
    return networks


def _is_report(thing: Any) -> bool:
    return hasattr(thing, "totals")


def _kept(network: Any) -> dict[str, float]:
    """The kept fraction of each weight."""
    if isinstance(network, Mapping):
        return {path: float(np.mean(part)) for path, part in network.items()}
    rows = network.weights if _is_report(network) else weight_rows(network)
    if not rows:
        raise ValueError(
            f"Expected the report of a pruned model. Received: the report of "
            f"{network.model!r}, which has no masks"
        )
    return {row.path: row.kept / row.total for row in rows}


_LOSSES = (
    "{label: (iterations, losses)}, such as {'fit': (history.epoch, "
    "history.history['loss'])} of what `fit` returns"
)


def loss_curves(curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> Figure:
    """Training loss against iterations.

    Args:
        curves: `{label: (iterations, losses)}`.

    Source: figure 5 of https://arxiv.org/abs/1810.02340.
    """
    _check_mapping("curves", curves, _LOSSES)
    for pair in curves.values():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise _of_another_form("curves", curves, _LOSSES)
    figure, axes = _axes("iterations", "training loss")
    for label, (iterations, losses) in _not_empty(curves).items():
        axes.plot(iterations, losses, label=label)
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def retained_image(
    mask: np.ndarray | keras.Model, image_shape: Sequence[int]
) -> np.ndarray:
    """How much of what reads each pixel is kept, as a picture.

    Args:
        mask: bool array, the mask of the kernel of a network's first layer: of a dense
            layer behind a flattened image, (pixels, units), or of a convolution,
            (height, width, channels, filters). Or a pruned model, whose first mask is
            taken.
        image_shape: of one example: (height, width) or (height, width, channels).

    Returns:
        float32 array from 0 to 1, the mean over units and channels: of the image's
        height and width for a dense layer, of the filter's for a convolution.

    Raises:
        ValueError: if the mask is of no layer that sees such images, or the model is
            not pruned.

    Example:

    >>> import numpy as np, snip_tf.plots
    >>> mask = np.array([[True, True], [False, True], [False, False], [True, True]])
    >>> snip_tf.plots.retained_image(mask, (2, 2))
    array([[1. , 0.5],
           [0. , 1. ]], dtype=float32)
    """
    if isinstance(mask, keras.Model):
        mask = next(iter(get_masks(mask).values()))
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
    masks: keras.Model | Mapping[str, Mapping[str, np.ndarray | keras.Model]],
    image_shape: Sequence[int],
) -> Figure:
    """A grid of pictures of the first layer's kept connections; bright is kept.

    Args:
        masks: `{row label: {column label: mask}}`, as for instance `{"digit 3":
            {"90 %": mask}}`; each mask as in `retained_image`, that is also a pruned
            model. Or one pruned model.
        image_shape: of one example.

    Source: figure 2 of https://arxiv.org/abs/1810.02340.
    """
    if isinstance(masks, keras.Model):
        masks = {"": {_name(masks.name): masks}}
    form = "a pruned keras.Model or {row label: {column label: mask}}"
    _check_nested("masks", masks, form)
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
    _check_mapping("batches", batches, "{label: images}")
    means = {label: np.mean(images, axis=0) for label, images in batches.items()}
    return image_grid({"mean": means})


def image_grid(pictures: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Pictures in rows and columns, each from its darkest to its brightest pixel.

    Args:
        pictures: `{row label: {column label: array}}`; an array is (height, width) or
            (height, width, channels).
    """
    _check_nested("pictures", pictures, "{row label: {column label: array}}")
    rows = len(_not_empty(pictures))
    columns = max(len(_not_empty(line)) for line in pictures.values())
    figure = _figure(figsize=(0.9 * columns + 0.6, 0.9 * rows + 0.3))
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


def _check_mapping(name: str, value: Any, form: str) -> None:
    if not isinstance(value, Mapping):
        raise _of_another_form(name, value, form)


def _check_nested(name: str, value: Any, form: str) -> None:
    """Raises a TypeError unless it is a dict of dicts."""
    _check_mapping(name, value, form)
    if not all(isinstance(part, Mapping) for part in value.values()):
        raise _of_another_form(name, value, form)


def _of_another_form(name: str, value: Any, form: str) -> TypeError:
    kind = type(value).__name__
    if isinstance(value, Mapping) and value:
        kind += f" of {type(next(iter(value.values()))).__name__}"
    return TypeError(f"Expected `{name}` to be {form}. Received: a {kind}")


def _not_empty(things: Any) -> Any:
    if not things:
        raise ValueError(f"Expected something to draw. Received: {things!r}")
    return things


def _scaled(picture: np.ndarray) -> np.ndarray:
    """From 0 to 1, without an axis for a single channel."""
    if picture.ndim == 3 and picture.shape[-1] == 1:
        picture = picture[..., 0]
    low, high = picture.min(), picture.max()
    return (picture - low) / (high - low) if high > low else np.zeros_like(picture)


def layer_costs(layers: keras.Model | Report | Sequence[LayerRow]) -> Figure:
    """Parameters and multiply-adds of each layer: all, not zero, and compacted.

    Of the layers that multiply. Of a model that runs its layers in code of its own,
    whose multiply-adds are not known, the parameters of all.

    Args:
        layers: a built `keras.Model`, a `snip_tf.report`, or the `layers` of one.

    Raises:
        TypeError, ValueError: if they are none of these, or there are no layers.

    Example:

    >>> import keras, snip_tf, snip_tf.plots
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    >>> figure = snip_tf.plots.layer_costs(model)
    >>> [axes.get_title() for axes in figure.axes]
    ['parameters', 'multiply-adds']
    """
    rows = _layers(layers)
    panels = dict(_COSTS)
    drawn = [row for row in rows if row.multiply_adds]
    if not drawn:
        drawn = [row for row in rows if row.parameters]
        del panels["multiply-adds"]
    _not_empty(drawn)
    pitch = 0.3 if len(drawn) <= _CLOSER else 0.2
    figure = _figure(figsize=(11, 1.2 + pitch * len(drawn)), layout="constrained")
    sides = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, names) in zip(sides, panels.items(), strict=True):
        _bars(axes, drawn, names)
        axes.set_title(title)
    sides[0].set_yticks(range(len(drawn)), [_name(row.layer) for row in drawn])
    sides[0].set_ylim(len(drawn) - 0.5, -0.5)  # from the top, without margins
    handles = sides[-1].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper right", ncols=len(_LENGTHS))
    return figure


_COSTS = {
    "parameters": ("parameters", "non_zero", "compacted_parameters"),
    "multiply-adds": ("multiply_adds", "effective", "compacted_multiply_adds"),
}
_LENGTHS = ("all", "not zero", "compacted")


def _layers(layers: Any) -> Sequence[LayerRow]:
    if isinstance(layers, keras.Model):
        check_built(layers)
        return layer_rows(layers)
    rows = layers.layers if _is_report(layers) else layers
    if isinstance(rows, Sequence) and all(isinstance(row, LayerRow) for row in rows):
        return rows
    raise TypeError(
        f"Expected a keras.Model, a snip_tf.report or its `layers`. "
        f"Received: layers={layers!r} of type {type(layers).__name__}"
    )


def _bars(axes: Any, rows: Sequence[LayerRow], names: Sequence[str]) -> None:
    from matplotlib.ticker import EngFormatter

    for shift, (name, label) in enumerate(zip(names, _LENGTHS, strict=True)):
        lengths = [getattr(row, name) for row in rows]
        if None in lengths:
            continue  # of a model that cannot be compacted
        places = np.arange(len(rows)) + 0.27 * (shift - 1)
        axes.barh(places, lengths, height=0.25, label=label)
    axes.xaxis.tick_top()
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(axis="x", alpha=0.3)


def _name(name: str) -> str:
    """A layer's name as matplotlib shows it, without its middle if it is long."""
    name = visible(name)
    if len(name) > _LETTERS:
        name = f"{name[: _LETTERS // 2]}\N{HORIZONTAL ELLIPSIS}{name[-_LETTERS // 2 :]}"
    return name.replace("$", r"\$")  # which would begin a formula


def _axes(x_label: str, y_label: str) -> tuple[Figure, Any]:
    figure = _figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    return figure, axes


def _figure(**settings: Any) -> Figure:
    try:
        # Each by itself, as `figures` may have been imported when they were there.
        importlib.import_module("matplotlib")
        importlib.import_module("matplotlib.figure")
        from snip_tf.reports.figures import Figure
    except ImportError as error:
        raise ImportError(
            "Expected matplotlib, to draw with. Received: no such package. "
            "`pip install matplotlib` brings it."
        ) from error
    return Figure(**settings)

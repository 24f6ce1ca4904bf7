"""Draws a network's layers: what is kept of them, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import keras
import numpy as np

from snip_tf.masking.pruned_model import get_masks
from snip_tf.network import Network
from snip_tf.reports.cost_chart import cost_chart
from snip_tf.reports.costs import LayerRow, layer_rows
from snip_tf.reports.figures import new_figure, not_empty, shown_name
from snip_tf.reports.report import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A network, or a dict of its weights: what is kept of each, a fraction or a mask.
_Pruned: TypeAlias = keras.Model | Report | Mapping[str, float | np.ndarray]

# The number of weights whose paths fit below a panel.
_NAMED = 10


def layer_sparsity(networks: _Pruned | Mapping[str, _Pruned]) -> Figure:
    """Draws what is kept of each weight: a panel for each network, on a log scale.

    Args:
        networks: a network, or several as `{label: network}`. A network is a pruned
            `keras.Model`, a `snip_tf.report` of one, or `{weight path: kept fraction}`,
            in which a mask may stand for its fraction.

    Raises:
        TypeError, ValueError: if a model is not a Keras model, or not pruned.

    Example:

    >>> import keras, snip_tf
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
    figure = new_figure(figsize=(3.2 * columns, 3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes in panels[count:]:
        axes.remove()
    for axes, (label, kept) in zip(panels, panels_of.items(), strict=False):
        axes.set_title(label, fontsize="medium")
        _draw_kept(axes, kept)
    parts = [part for kept in panels_of.values() for part in kept.values() if part]
    panels[0].set_ylim(50 * min([1.0, *parts]), 100)
    panels[0].set_ylabel("kept, %")
    return figure


def _draw_kept(axes: Any, kept: Mapping[str, float]) -> None:
    axes.bar(range(len(kept)), [100 * part for part in kept.values()], log=True)
    axes.yaxis.set_major_formatter("{x:g}")
    if len(kept) <= _NAMED:
        names = [shown_name(path).replace("/", "\n") for path in kept]
        axes.set_xticks(range(len(kept)), names, rotation=90, size="small")
    else:
        axes.set_xticks([])
        axes.set_xlabel("weights, from input to output")


def _labeled(networks: Any) -> Mapping[str, Any]:
    """Returns several networks by their labels, or one by its name."""
    if isinstance(networks, keras.Model):
        return {shown_name(networks.name): networks}
    if isinstance(networks, Report):
        return {shown_name(networks.model): networks}
    if not isinstance(networks, Mapping):
        raise TypeError(
            f"Expected a pruned keras.Model, a snip_tf.report of one, "
            f"{{weight path: kept fraction}}, or several of these by label. "
            f"Received: networks={networks!r} of type {type(networks).__name__}"
        )
    if all(isinstance(part, (int, float, np.ndarray)) for part in networks.values()):
        return {"": not_empty(networks)}
    return networks


def _kept(network: _Pruned) -> dict[str, float]:
    """Returns the kept fraction of each weight."""
    if isinstance(network, Mapping):
        return {path: float(np.mean(part)) for path, part in network.items()}
    if not isinstance(network, Report):
        masks = get_masks(network)
        return {path: mask.sum() / mask.size for path, mask in masks.items()}
    if not network.weights:
        raise ValueError(
            f"Expected the report of a pruned model. Received: the report of "
            f"{network.model!r}, which has no masks"
        )
    return {row.path: row.kept / row.total for row in network.weights}


def layer_costs(layers: keras.Model | Report | Sequence[LayerRow]) -> Figure:
    """Draws parameters and multiply-adds of layers: all, non-zero, and compacted.

    Shows the layers that multiply. For a model that runs its layers in its own code,
    whose multiply-adds are not known, it shows the parameters of all layers.

    Args:
        layers: a built `keras.Model`, a `snip_tf.report`, or the `layers` of one.

    Raises:
        TypeError, ValueError: if the argument is of another kind, or there are no
            layers.

    Example:

    >>> import keras, snip_tf
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    >>> figure = snip_tf.plots.layer_costs(model)
    >>> [axes.get_title() for axes in figure.axes]
    ['parameters', 'multiply-adds']
    """
    return cost_chart(_rows(layers))


def _rows(layers: Any) -> Sequence[LayerRow]:
    if isinstance(layers, keras.Model):
        return layer_rows(Network(layers))
    rows = layers.layers if isinstance(layers, Report) else layers
    if isinstance(rows, Sequence) and all(isinstance(row, LayerRow) for row in rows):
        return rows
    raise TypeError(
        f"Expected a keras.Model, a snip_tf.report or its `layers`. "
        f"Received: layers={layers!r} of type {type(layers).__name__}"
    )

"""Draws grids of images: kept connections of pixels, means of batches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np

from snip_tf.masking.pruned_model import get_masks
from snip_tf.reports.figures import new_figure, not_empty, shown_name
from snip_tf.reports.plots.arguments import check_mapping, check_nested

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def retained_image(
    mask: np.ndarray | keras.Model, image_shape: Sequence[int]
) -> np.ndarray:
    """Returns the fraction of each pixel's connections that is kept, as a picture.

    Args:
        mask: bool array, the mask of the kernel of a network's first layer: (pixels,
            units) for a dense layer on a flattened image, (height, width, channels,
            filters) for a convolution. Or a pruned model, whose first mask is used.
        image_shape: the shape of an example: (height, width) or (height, width,
            channels).

    Returns:
        float32 array from 0 to 1, the mean over units and channels. It has the height
        and width of the image for a dense layer, of the filter for a convolution.

    Raises:
        ValueError: if the mask does not belong to a layer that sees such images, or the
            model is not pruned.

    Example:

    >>> import numpy as np, snip_tf
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
    """Draws the first layer's kept connections, as a grid; bright is kept.

    Args:
        masks: `{row label: {column label: mask}}`, for instance `{"digit 3":
            {"90 %": mask}}`; each mask, or pruned model, as in `retained_image`. Or
            one pruned model.
        image_shape: the shape of an example.

    Source: figure 2 of https://arxiv.org/abs/1810.02340.
    """
    if isinstance(masks, keras.Model):
        masks = {"": {shown_name(masks.name): masks}}
    form = "a pruned keras.Model or {row label: {column label: mask}}"
    check_nested("masks", masks, form)
    pictures = {
        row: {
            column: retained_image(mask, image_shape) for column, mask in line.items()
        }
        for row, line in masks.items()
    }
    return image_grid(pictures)


def mean_images(batches: Mapping[str, np.ndarray]) -> Figure:
    """Draws the mean image of each of several batches, such as those scored on.

    Args:
        batches: `{label: images}`, each an array (examples, height, width) or
            (examples, height, width, channels).

    Source: appendix of https://arxiv.org/abs/1810.02340.
    """
    check_mapping("batches", batches, "{label: images}")
    means = {label: np.mean(images, axis=0) for label, images in batches.items()}
    return image_grid({"mean": means})


def image_grid(pictures: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Draws pictures in rows and columns, each scaled from its minimum to its maximum.

    Args:
        pictures: `{row label: {column label: array}}`; an array is (height, width) or
            (height, width, channels).
    """
    check_nested("pictures", pictures, "{row label: {column label: array}}")
    rows = len(not_empty(pictures))
    columns = max(len(not_empty(line)) for line in pictures.values())
    figure = new_figure(figsize=(0.9 * columns + 0.6, 0.9 * rows + 0.3))
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


def _scaled(picture: np.ndarray) -> np.ndarray:
    """Scales a picture to 0 to 1, and drops the axis of a single channel."""
    if picture.ndim == 3 and picture.shape[-1] == 1:
        picture = picture[..., 0]
    low, high = picture.min(), picture.max()
    return (picture - low) / (high - low) if high > low else np.zeros_like(picture)

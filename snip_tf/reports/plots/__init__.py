"""Pictures of pruned networks, with matplotlib; each function returns a figure.

A notebook shows a figure that is the last line of a cell. Without matplotlib, the
drawing functions raise an ImportError.

Example:

>>> import keras, snip_tf, tempfile
>>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
>>> figure = snip_tf.plots.layer_costs(model)
>>> figure.savefig(tempfile.mkdtemp() + "/layers.png")
"""

from snip_tf.reports.plots.curves import (
    error_against_sparsity,
    error_by_criterion,
    loss_curves,
)
from snip_tf.reports.plots.images import (
    image_grid,
    mean_images,
    retained_connections,
    retained_image,
)
from snip_tf.reports.plots.layers import layer_costs, layer_sparsity

__all__ = [
    "error_against_sparsity",
    "error_by_criterion",
    "image_grid",
    "layer_costs",
    "layer_sparsity",
    "loss_curves",
    "mean_images",
    "retained_connections",
    "retained_image",
]

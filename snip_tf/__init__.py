"""Single-shot network pruning before training, for Keras 3."""

from snip_tf import controls, criteria
from snip_tf.compaction import compact
from snip_tf.exporting import export
from snip_tf.masked_layer import MaskedLayer
from snip_tf.masks import load_masks, save_masks
from snip_tf.pruning import connection_sensitivity, prune_model
from snip_tf.reporting import report
from snip_tf.runtime import sparse_runtime
from snip_tf.selection import select_masks
from snip_tf.sparse_files import load_sparse
from snip_tf.summarizing import sparsity, summary
from snip_tf.weights import prunable_weights
from snip_tf.wrapping import apply_masks, get_masks, set_masks, strip_pruning

__all__ = [
    "MaskedLayer",
    "apply_masks",
    "compact",
    "connection_sensitivity",
    "controls",
    "criteria",
    "export",
    "get_masks",
    "load_masks",
    "load_sparse",
    "prunable_weights",
    "prune_model",
    "report",
    "save_masks",
    "select_masks",
    "set_masks",
    "sparse_runtime",
    "sparsity",
    "strip_pruning",
    "summary",
]

__version__ = "0.1.0"

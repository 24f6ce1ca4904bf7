"""Single-shot network pruning before training, for Keras 3."""

import importlib
from typing import Any

from snip_tf import _backend, criteria  # noqa: F401 - `_backend` says what is absent
from snip_tf.criteria.score import connection_sensitivity, score
from snip_tf.masking.mask_files import load_masks, save_masks
from snip_tf.masking.masked_layer import MaskedLayer
from snip_tf.masking.pruned_model import (
    apply_masks,
    get_masks,
    set_masks,
    strip_pruning,
)
from snip_tf.network import prunable_weights
from snip_tf.pruning import prune_model
from snip_tf.reports.costs import LayerRow
from snip_tf.reports.dead_units import DeadUnits
from snip_tf.reports.report import Report, report
from snip_tf.reports.sensitivity import SensitivityCurves, sensitivity_curves
from snip_tf.reports.sparsity import WeightRow, sparsity
from snip_tf.reports.summary import summary
from snip_tf.savings.export import ExportSizes, export
from snip_tf.savings.runtime import SparseRuntime, sparse_runtime
from snip_tf.savings.sparse_format import load_sparse
from snip_tf.schedules.gradual import GradualPruning
from snip_tf.schedules.rigl import RigL
from snip_tf.schedules.set import SET
from snip_tf.scoring.sampling import sample_per_class
from snip_tf.selecting.selection import CollapseWarning, select_masks
from snip_tf.selecting.structures.blocks import Blocks
from snip_tf.selecting.structures.n_of_m import NOfM
from snip_tf.selecting.structures.units import Units
from snip_tf.structured.compaction import compact

__all__ = [
    "SET",
    "Blocks",
    "CollapseWarning",
    "DeadUnits",
    "ExportSizes",
    "GradualPruning",
    "LayerRow",
    "MaskedLayer",
    "NOfM",
    "Report",
    "RigL",
    "SensitivityCurves",
    "SparseRuntime",
    "Units",
    "WeightRow",
    "apply_masks",
    "compact",
    "connection_sensitivity",
    "controls",
    "criteria",
    "datasets",
    "export",
    "get_masks",
    "load_masks",
    "load_sparse",
    "models",
    "plots",
    "prunable_weights",
    "prune_model",
    "report",
    "sample_per_class",
    "save_masks",
    "score",
    "select_masks",
    "sensitivity_curves",
    "set_masks",
    "sparse_runtime",
    "sparsity",
    "strip_pruning",
    "summary",
]

__version__ = "0.1.0"

# Loaded when first used, since only some programs need them, and they load slowly.
_MODULES = {
    "controls": "snip_tf.experiments.controls",
    "datasets": "snip_tf.experiments.datasets",
    "models": "snip_tf.experiments.models",
    "plots": "snip_tf.reports.plots",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

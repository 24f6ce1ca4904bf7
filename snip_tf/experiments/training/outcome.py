"""Writes what a run leaves: its models, and its result, a JSON file."""

from __future__ import annotations

import dataclasses
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from snip_tf.experiments.training import checkpoint, run_folder
from snip_tf.files import whole_file, write_json
from snip_tf.masking.mask_files import save_masks
from snip_tf.masking.pruned_model import get_masks, strip_pruning
from snip_tf.network import Network
from snip_tf.reports.report import report
from snip_tf.reports.sparsity import WeightRow, sparsity, weight_rows

# The authors' release reports the lowest error of this many last checkpoints.
BEST_OF = 5


def write_models(model: keras.Model, folder: Path, *, is_pruned: bool) -> None:
    """Writes the model; if it is pruned, also the plain one and the masks."""
    with whole_file(folder / "model.keras") as partial:
        model.save(partial)
    if is_pruned:
        with whole_file(folder / "stripped.keras") as partial:
            strip_pruning(model).save(partial)
        save_masks(folder / "masks.npz", get_masks(model))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Writes the results of a run.

    Attributes:
        logdir: its folder.
        flags: the flags it was started with.
        versions: the versions of its libraries, by name.
        commit: the commit of the checkout, or None.
    """

    logdir: Path
    flags: Mapping[str, object]
    versions: Mapping[str, str]
    commit: str | None

    def write_diverged(self, model: keras.Model, message: str) -> None:
        """Writes diverged.json instead of a result."""
        found = {"diverged": message, **self._about(model)}
        write_json(self.logdir / "diverged.json", found)

    def write_result(
        self,
        model: keras.Model,
        history: list[checkpoint.Check],
        totals: dict[str, Any],
    ) -> dict[str, Any]:
        """Writes result.json, and returns its contents."""
        saved = [check.test_error for check in history if check.test_error is not None]
        result = {
            "final_error": saved[-1],
            "best_checkpoint_error": min(saved[-BEST_OF:]),
            "validation_error": history[-1].validation_error,
            "training_seconds": history[-1].seconds,
            **self._about(model),
            "totals": totals,
        }
        write_json(self.logdir / "result.json", result)
        return result

    def _about(self, model: keras.Model) -> dict[str, Any]:
        """Returns what is known of a run before it is trained."""
        rows = weight_rows(Network(model)) if self.flags["target_sparsity"] else []
        return {
            "sparsity": sparsity(model),
            "layers": list(map(_layer, rows)),
            "pruning_seconds": run_folder.pruning_seconds(self.logdir),
            "flags": dict(self.flags),
            "versions": {"python": platform.python_version(), **self.versions},
            "commit": self.commit,
        }


def _layer(row: WeightRow) -> dict[str, Any]:
    # In the files of results, dead units are called idle.
    found = dataclasses.asdict(row)
    return {name.replace("dead", "idle"): value for name, value in found.items()}


def totals_of(model: keras.Model) -> dict[str, Any]:
    """Returns the totals of a model's report.

    All workers must call it, since creating the variables of a smaller model waits for
    the others.
    """
    return report(model).totals()


def commit_of(folder: Path) -> str | None:
    """Returns the commit of the checkout that a folder is part of, if it is one."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    options: dict[str, Any] = {"capture_output": True, "text": True, "check": True}
    try:
        done = subprocess.run(command, cwd=folder, **options)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()

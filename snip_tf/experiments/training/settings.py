"""The settings of a run: the flags of `scripts/train.py`, read once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from snip_tf.experiments.training import loop
from snip_tf.selecting.allocation import Scope


@dataclasses.dataclass(frozen=True)
class Settings:
    """The flags of `scripts/train.py`, by name; its --help describes them."""

    # Data
    datasource: str
    data_dir: str | None
    aug_kinds: Sequence[str]
    max_examples: int | None
    random_labels: bool
    # Network
    arch: str
    initializer_w_bp: str
    initializer_b_bp: str
    initializer_w_ap: str | None
    initializer_b_ap: str
    # Pruning
    target_sparsity: float
    criterion: str
    control: Literal["none", "shuffle", "reinitialize", "invert"]
    structure: str
    scope: Scope
    min_kept: float
    examples_per_class: int | None
    scoring_batch_size: int | None
    prune_biases: bool
    # Pruning while training
    schedule: Literal["none", "gradual", "set", "rigl"]
    begin_step: int
    end_step: int | None
    frequency: int
    initial_sparsity: float
    power: float
    fraction: float
    # Training
    batch_size: int
    train_iterations: int
    optimizer: str
    lr_decay_type: Literal["constant", "piecewise", "cosine"]
    lr: float
    decay_boundaries: Sequence[str]
    decay_values: Sequence[str]
    weight_decay: float
    weight_decay_form: Literal["l2", "decoupled"]
    dtype_policy: str
    jit_compile: bool
    seed: int
    # Files
    logdir: str
    check_interval: int
    save_interval: int
    # Several processors or machines
    strategy: Literal["auto", "none", "mirrored", "multi_worker"]
    worker_timeout: float

    @property
    def is_pruned(self) -> bool:
        """Whether the network is pruned rather than trained dense."""
        return self.target_sparsity > 0

    @property
    def least_kept(self) -> float:
        """What each weight keeps at least: a whole number, or a fraction below 1."""
        return self.min_kept if self.min_kept < 1 else int(self.min_kept)

    @property
    def last_update(self) -> int:
        """The step of the schedule's last update: by default, after three quarters."""
        if self.end_step is not None:
            return self.end_step
        return max(3 * self.train_iterations // 4, 1)

    @property
    def l2_decay(self) -> float:
        """The weight decay that is part of the loss."""
        return self.weight_decay if self.weight_decay_form == "l2" else 0

    @property
    def decoupled_decay(self) -> float:
        """The weight decay that the optimizer applies."""
        return self.weight_decay if self.weight_decay_form == "decoupled" else 0

    def of_loop(self) -> loop.Settings:
        """Returns the settings of the training loop."""
        return loop.Settings(
            iterations=self.train_iterations,
            batch_size=self.batch_size,
            check_interval=self.check_interval,
            save_interval=self.save_interval,
            seed=self.seed,
            aug_kinds=self.aug_kinds,
            jit_compile=self.jit_compile,
        )

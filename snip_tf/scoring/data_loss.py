"""A loss on outputs, as `Model.compile` takes it."""

from __future__ import annotations

import functools
from typing import Any, Protocol

import keras

from snip_tf._keras import mask_on
from snip_tf.scoring.losses import built_in, chosen_by_shapes, mixes_examples, name_of
from snip_tf.scoring.reductions import NotDivisible, Sum, as_part, left_out
from snip_tf.scoring.targets import PAIRS, check_labels, check_targets


class Adjustment(Protocol):
    """Changes the model's output before it is passed to the loss."""

    def __call__(self, loss: Any, y_pred: Any) -> Any:
        """Returns the output to pass to the loss instead."""

    def is_not_used(self, why: str) -> None:
        """Called where there is not a single output with a known loss."""


class DataLoss:
    """The loss of outputs against targets, with no other term.

    Args:
        model: what computes the outputs.
        loss: what `Model.compile` takes as `loss`.
        loss_weights: what it takes as `loss_weights`.
        adjust: changes the output first, if the model has a single one.

    Attributes:
        sums: whether any part of it is a sum over the examples, not a mean.
    """

    def __init__(
        self,
        model: keras.Model,
        loss: Any,
        loss_weights: Any,
        adjust: Adjustment | None = None,
    ):
        self._model, self._adjust = model, adjust
        self._given, self._only = loss, _only(loss)
        self._plain = loss_weights is None
        self._leaves = keras.tree.flatten(loss)
        self._loss = keras.tree.map_structure(as_part, loss)
        self._loss_weights = loss_weights
        self._parts = keras.tree.flatten(self._loss)
        self._sums = [part for part in self._parts if isinstance(part, Sum)]
        self.sums = bool(self._sums)

    def __call__(
        self, y: Any, y_pred: Any, sample_weight: Any, factor: float = 1.0
    ) -> Any:
        """Returns the loss of a mini-batch, with sums multiplied by `factor`."""
        if y is None:
            raise ValueError(
                f"Expected targets to compute the loss with. Received: y=None. {PAIRS}"
            )
        for part in self._sums:
            part.factor = factor
        names = getattr(self._model, "output_names", None)
        targets, outputs = keras.tree.flatten(y), keras.tree.flatten(y_pred)
        check_targets(self._given, y, y_pred, names)
        if len(targets) == len(outputs) == 1:
            y_pred = self._of_one_output(targets[0], y_pred, outputs[0])
        elif self._adjust is not None:
            self._adjust.is_not_used(f"{self._model.name!r} has several outputs")
        nested = any(map(keras.tree.is_nested, (y, y_pred, sample_weight)))
        if isinstance(self._loss, keras.losses.Loss) and self._plain and not nested:
            return self._loss(y, y_pred, sample_weight)
        return self._judge.compute_loss(None, y, y_pred, sample_weight)

    def _of_one_output(self, y: Any, y_pred: Any, output: Any) -> Any:
        """Returns `y_pred`, the output or a nest of it alone, adjusted."""
        self._only = chosen_by_shapes(self._only, y, output)
        check_labels(self._only, y, output)
        if self._adjust is None:
            return y_pred
        return keras.tree.pack_sequence_as(y_pred, [self._adjust(self._only, output)])

    @functools.cached_property
    def _judge(self) -> keras.Model:
        # Understands all that `compile` does: names, functions, several outputs. It has
        # no layers, so no regularizers: its `compute_loss` is that of the data alone.
        judge = keras.Model(name="data_loss")
        judge.output_names = getattr(self._model, "output_names", None)
        judge.compile(optimizer=None, loss=self._loss, loss_weights=self._loss_weights)
        return judge

    def weight_of_piece(self, y_pred: Any, sample_weight: Any, alone: bool) -> Any:
        """Returns the factor that turns the mean of a piece into one over its examples.

        Args:
            y_pred: the outputs for the piece, whose loss was just computed.
            sample_weight: its weights.
            alone: whether the loss has no other terms.

        Returns:
            A number to multiply the loss by; 1 if it already divides by the examples.

        Raises:
            NotDivisible: if there is none.
        """
        outputs = keras.tree.flatten(y_pred)
        timesteps = [m for m in map(mask_on, outputs) if m is not None]
        targets = [m for m in map(left_out, self._parts) if m is not None]
        masks = timesteps + targets
        self._check_divisible(bool(masks) or sample_weight is not None)
        if not masks or getattr(self._only, "reduction", None) == "sum":
            return 1.0
        if len(outputs) > 1 or not alone or built_in(self._only) is None:
            raise NotDivisible(
                "timesteps are masked" if timesteps else "the loss leaves out targets"
            )
        counted = functools.reduce(keras.ops.logical_and, masks)
        valid = keras.ops.cast(keras.ops.count_nonzero(counted), "float32")
        return valid / keras.ops.cast(keras.ops.shape(counted)[0], "float32")

    def _check_divisible(self, weighed: bool) -> None:
        for part in self._leaves:
            if (
                weighed
                and getattr(part, "reduction", None) == "mean_with_sample_weight"
            ):
                raise NotDivisible(
                    "the reduction 'mean_with_sample_weight' divides by the weights"
                )
            found = built_in(part)
            if found is not None and mixes_examples(*found):
                raise NotDivisible(f"{name_of(part)!r} compares examples")


def _only(loss: Any) -> Any:
    """Unwraps the loss of a single output; leaves losses for several unchanged."""
    leaves = keras.tree.flatten(loss)
    return leaves[0] if len(leaves) == 1 else loss

"""Inputs made up for a model, for criteria that need no data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras

from snip_tf.network import has_call
from snip_tf.scoring.examples import Batch


def made_up_inputs(
    model: keras.Model,
    batches: Iterable[Batch],
    examples: int | None,
    make: Callable[[list[int], str], Any],
) -> Any:
    """Returns inputs of the right form.

    Args:
        model: what they are for.
        batches: if there is one, its inputs show the form.
        examples: int, how many; None for a whole batch of a stateful model, or 1.
        make: called with a shape and a dtype, returns a tensor.

    Raises:
        ValueError: if the form is not known.
    """
    inputs = next((x for x, _, _ in batches), None)
    if inputs is None:
        inputs = _inputs_of(model)

    def made(tensor: Any) -> Any:
        shape = tuple(tensor.shape)
        if None in shape[1:]:
            raise ValueError(
                f"Expected inputs of a known shape where no data is given. Received: "
                f"{model.name!r}, which takes inputs of shape {shape}. Pass a "
                f"mini-batch as `x`."
            )
        return make([examples or shape[0] or 1, *shape[1:]], tensor.dtype)

    return keras.tree.map_structure(made, inputs)


def _inputs_of(model: keras.Model) -> Any:
    """Returns the symbolic inputs of a model."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise ValueError(
            f"Expected a Sequential or Functional model where no data is given, since "
            f"the shape of an input is not known otherwise. Received: "
            f"{model.name!r} of class {type(model).__name__}. Pass a mini-batch as `x`."
        )
    return inputs[0] if isinstance(model, keras.Sequential) else model.input


def check_has_call(model: keras.Model, criterion: str) -> None:
    """Raises a ValueError if the model has no `call`, so that nothing flows."""
    if has_call(model):
        return
    raise ValueError(
        f"Expected a model with a `call` with criterion={criterion!r}, which scores by "
        f"what flows from inputs to outputs. Received: model={model.name!r} of class "
        f"{type(model).__name__}, which has no `call`. Prune its parts, each by "
        f"itself, or use 'magnitude' or 'random', or another criterion with data and "
        f"an `objective`."
    )

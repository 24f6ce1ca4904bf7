"""Private names of variables, losses, optimizers and `compile`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras


def variable_settings(variable: keras.Variable) -> dict[str, Any]:
    """Returns the arguments of `keras.Variable`, but for the value, for a copy.

    `autocast` is a public argument, but not a public attribute. How replicas
    synchronize a variable is known since Keras 3.10.
    """
    settings = {
        "dtype": variable.dtype,
        "trainable": variable.trainable,
        "autocast": variable._autocast,
        "name": variable.name,
    }
    for name in ("aggregation", "synchronization"):
        if hasattr(variable, name):
            settings[name] = getattr(variable, name)
    return settings


def has_value(variable: keras.Variable) -> bool:
    """Returns whether a variable has its value, which is not public.

    On JAX `fit` takes it away; an error in the first step leaves it so, and would be
    hidden by that of reading it.
    """
    return variable._value is not None


def set_path(variable: keras.Variable, path: str) -> None:
    """Sets the path of a variable, which Keras derives from its scopes."""
    variable._path = path


def compile_config(model: keras.Model) -> dict[str, Any]:
    """Returns the arguments of `compile`, as the very objects that were passed.

    `get_compile_config` returns them serialized, which fails for a function or class
    that is not registered, and for many schedules.
    """
    return model._compile_config.config


def loss_settings(loss: keras.losses.Loss) -> dict[str, Any]:
    """Returns what a Keras loss passes to its function, besides targets and outputs.

    `get_config` returns it serialized.
    """
    return loss._fn_kwargs


def trained_by(optimizer: Any) -> list[keras.Variable]:
    """Returns the weights that an optimizer trains, which are not public."""
    return vars(optimizer).get("_trainable_variables", [])


def first_value(optimizer: keras.Optimizer, slots: str) -> float:
    """Returns the initial value of a list of slots, such as `_momentums`."""
    if slots == "_accumulators":
        return getattr(optimizer, "initial_accumulator_value", 0.0)
    return 0.0


def averages_of(
    optimizer: keras.Optimizer,
) -> Iterator[tuple[keras.Variable, keras.Variable]]:
    """Yields each weight with the moving average that the optimizer keeps of it.

    These exist with `use_ema`, once it is built; they are public only as variables.
    """
    averages = getattr(optimizer, "_model_variables_moving_average", None)
    if getattr(optimizer, "use_ema", False) and averages:
        for weight, average in zip(trained_by(optimizer), averages, strict=True):
            if average is not None:
                yield weight, average


def position_in(optimizer: keras.Optimizer, variable: Any) -> int:
    """Returns the index of a variable among the weights that an optimizer trains."""
    return optimizer._get_variable_index(variable)

"""PyTorch, with `plain`; see `tensorflow` for what each name is."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import torch
import torch.utils.checkpoint

from snip_tf._backend.plain import dense_constant

Tensors = dict[str, Any]

OPERATION_ERRORS: tuple[type[Exception], ...] = (
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
)
OUT_OF_MEMORY: tuple[type[Exception], ...] = (MemoryError, torch.OutOfMemoryError)
NO_DERIVATIVE: tuple[type[Exception], ...] = (NotImplementedError,)
STATE: tuple[type, ...] = (torch.Tensor, torch.Generator)
HOLDERS: tuple[type, ...] = (torch.nn.Module,)
ENGINES = ("torch",)


def differentiate(
    function: Callable[[Tensors], tuple[Any, Any]], values: Tensors
) -> tuple[Any, Any, Tensors]:
    """Returns the value of a function and its derivatives."""
    inside = any(value.requires_grad for value in values.values())
    if not inside:
        values = {path: v.detach().requires_grad_() for path, v in values.items()}
    with torch.enable_grad():  # whatever the caller has set
        value, more = function(values)
    if not value.requires_grad:
        return value, more, dict.fromkeys(values)
    try:
        gradients = torch.autograd.grad(
            value, list(values.values()), create_graph=inside, allow_unused=True
        )
    except RuntimeError as error:  # PyTorch has no class of its own for this one
        if "is not implemented" in str(error):
            raise NotImplementedError(str(error)) from error
        raise
    found = dict(zip(values, gradients, strict=True))
    return (value if inside else value.detach()), more, found


@contextlib.contextmanager
def second_derivatives() -> Iterator[None]:
    """Has operations be differentiated twice: fused attention cannot."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        yield


def in_float64() -> contextlib.AbstractContextManager:
    """Does nothing: float64 is that."""
    return contextlib.nullcontext()


def value_of(variable: keras.Variable) -> Any:
    """Returns the value as a tensor, which stays when the variable changes."""
    return keras.ops.convert_to_tensor(variable).detach().clone()


def constant(array: Any, dtype: str | None = None) -> Any:
    """Returns an array as a tensor; SciPy's sparse matrices as in `fit`, dense."""
    dense = array.toarray() if hasattr(array, "tocoo") else array
    return dense_constant(dense, dtype)


def new_mask(values: Any, name: str) -> keras.Variable:
    """Returns a mask as a variable."""
    return keras.Variable(values, dtype="bool", trainable=False, name=name)


def sync(model: Any) -> None:
    """Does nothing: variables have their values while `fit` runs, too."""


def state_of_fit(model: keras.Model) -> contextlib.AbstractContextManager:
    """Does nothing: an optimizer has its values while `fit` runs, too."""
    del model
    return contextlib.nullcontext()


def as_array(tensor: Any) -> np.ndarray:
    """Returns a tensor, or the value of a variable, as an array that may share it."""
    tensor = keras.ops.convert_to_tensor(tensor).detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return keras.ops.convert_to_numpy(tensor)
    return tensor.numpy()


def compiled_calls(model: keras.Model) -> dict[str, Callable[[Any], Any]]:
    """Returns inference with a model as a function of arrays; nothing compiles it."""

    def call(x: Any) -> Any:
        with torch.no_grad():
            outputs = model(
                keras.tree.map_structure(keras.ops.convert_to_tensor, x), training=False
            )
        return keras.tree.map_structure(as_array, outputs)

    return {"torch": call}


def recompute_unless(plainly: Callable[[], bool]) -> None:
    """Has nothing be recomputed for its gradients where `plainly()`, from now on."""
    # `keras.remat` calls it.
    checkpoint = torch.utils.checkpoint.checkpoint

    @functools.wraps(checkpoint)
    def not_where_asked(function, *args, use_reentrant=None, **kwargs):
        if plainly():
            return function(*args, **kwargs)
        return checkpoint(function, *args, use_reentrant=use_reentrant, **kwargs)

    torch.utils.checkpoint.checkpoint = not_where_asked


def copy_state(value: Any) -> Any:
    """Returns a copy of one of `STATE`."""
    if isinstance(value, torch.Generator):
        new = torch.Generator(device=value.device)
        new.set_state(value.get_state())
        return new
    return value.detach().clone().requires_grad_(value.requires_grad)

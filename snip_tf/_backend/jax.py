"""JAX, with `plain`; see `tensorflow` for what each name is."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.experimental.sparse
import keras
import numpy as np

from snip_tf._backend.plain import dense_constant
from snip_tf._backend.switch import Switch

Tensors = dict[str, Any]

OPERATION_ERRORS: tuple[type[Exception], ...] = (KeyError, TypeError, ValueError)
OUT_OF_MEMORY: tuple[type[Exception], ...] = (MemoryError,)
NO_DERIVATIVE: tuple[type[Exception], ...] = (NotImplementedError,)
STATE: tuple[type, ...] = ()
HOLDERS: tuple[type, ...] = ()
ENGINES = ("jax",)


def differentiate(
    function: Callable[[Tensors], tuple[Any, Any]], values: Tensors
) -> tuple[Any, Any, Tensors]:
    """Returns the value of a function and its derivatives."""
    found = jax.value_and_grad(function, has_aux=True)(values)
    (value, more), gradients = found
    return value, more, _without_unreached(function, values, gradients)


def _without_unreached(function: Callable, values: Tensors, gradients: Tensors):
    """Returns None for the zeros of values that the function does not depend on."""
    if any(isinstance(gradient, jax.core.Tracer) for gradient in gradients.values()):
        return gradients  # inside of another derivative, they may have no numbers
    zero = {path for path, gradient in gradients.items() if not gradient.any()}
    if not zero:
        return gradients
    reached = _reached(function, values)
    return {
        path: None if path in zero and path not in reached else gradient
        for path, gradient in gradients.items()
    }


def _reached(function: Callable, values: Tensors) -> set[str]:
    """Returns the names of the values that the function depends on, smoothly.

    Read in what JAX would compile, backwards from the result. What has no derivative,
    such as integers, ends a path; loops are taken to depend on all that enters them.
    """
    paths = sorted(values)
    traced = jax.make_jaxpr(lambda arrays: function(arrays)[0])(values).jaxpr
    wanted = {id(variable) for variable in traced.outvars}
    for step in reversed(traced.eqns):
        smooth = any(
            id(made) in wanted and keras.backend.is_float_dtype(made.aval.dtype.name)
            for made in step.outvars
        )
        if smooth and step.primitive.name != "stop_gradient":
            wanted.update(map(id, step.invars))
    # (JAX flattens a dict in the order of its keys.)
    inputs = zip(paths, traced.invars, strict=True)
    return {path for path, variable in inputs if id(variable) in wanted}


def second_derivatives() -> contextlib.AbstractContextManager:
    """Does nothing: JAX differentiates its derivatives right."""
    return contextlib.nullcontext()


def in_float64() -> contextlib.AbstractContextManager:
    """Has float64 be that, for a while; else JAX takes float32 for it."""
    return jax.enable_x64(True)


def value_of(variable: keras.Variable) -> Any:
    """Returns the value as a tensor, which stays when the variable changes."""
    # Not the array itself: `fit` hands it over to XLA, which deletes it.
    return keras.ops.copy(keras.ops.convert_to_tensor(variable))


def constant(array: Any, dtype: str | None = None) -> Any:
    """Returns an array as a tensor; SciPy's sparse matrices, too."""
    if hasattr(array, "tocoo"):
        return jax.experimental.sparse.BCOO.from_scipy_sparse(array)
    return dense_constant(array, dtype)


class _Mask(keras.Variable):
    """A mask, which in a step of an optimizer has the value that the step is given.

    `fit` takes the values of all variables away, and hands them to a compiled step. In
    it, an optimizer knows only those of its own and of what it trains.
    """

    _snip_given: Any = None

    @property
    def value(self) -> Any:
        """The value, in a step or outside of one."""
        if _in_step and self._snip_given is not None:
            return self._snip_given
        return super().value


_in_step = Switch("in_step")


def new_mask(values: Any, name: str) -> keras.Variable:
    """Returns a mask as a variable."""
    _adapt_steps()
    return _Mask(values, dtype="bool", trainable=False, name=name)


@functools.cache
def _adapt_steps() -> None:
    """Has a step keep the masks that its model is called with for its optimizer."""
    stateless_call = keras.Layer.stateless_call
    stateless_apply = keras.Optimizer.stateless_apply

    @functools.wraps(stateless_call)
    def keeping_masks(self, trainable_variables, non_trainable_variables, *args, **kw):
        variables = self.non_trainable_variables
        for variable, value in zip(variables, non_trainable_variables, strict=False):
            if isinstance(variable, _Mask):
                variable._snip_given = value
        return stateless_call(
            self, trainable_variables, non_trainable_variables, *args, **kw
        )

    @functools.wraps(stateless_apply)
    def with_masks(self, *args, **kwargs):
        with _in_step.on():
            return stateless_apply(self, *args, **kwargs)

    keras.Layer.stateless_call = keeping_masks
    keras.Optimizer.stateless_apply = with_masks


def sync(model: Any) -> None:
    """Gives variables of a model their values, which `fit` has while it runs."""
    if isinstance(model, keras.Model):
        model.jax_state_sync()


def state_of_fit(model: keras.Model) -> contextlib.AbstractContextManager:
    """Has the optimizer of a model be read as it is in `fit`, which holds its values.

    Much quicker than `sync`, after which `fit` gathers all values anew.
    """
    state = getattr(model, "_jax_state", None)
    values = state and state.get("optimizer_variables")
    if not values or model._jax_state_synced:
        return contextlib.nullcontext()
    return keras.StatelessScope(
        list(zip(model.optimizer.variables, values, strict=True))
    )


def as_array(tensor: Any) -> np.ndarray:
    """Returns a tensor, or the value of a variable, as an array that may share it."""
    return np.asarray(keras.ops.convert_to_tensor(tensor))


def compiled_calls(model: keras.Model) -> dict[str, Callable[[Any], Any]]:
    """Returns inference with a model as functions of arrays, by what compiles them."""

    @jax.jit
    def infer(state: Any, x: Any) -> Any:
        return model.stateless_call(*state, x, training=False)[0]

    def call(x: Any) -> Any:
        variables = model.trainable_variables, model.non_trainable_variables
        state = [[variable.value for variable in part] for part in variables]
        return keras.tree.map_structure(np.asarray, infer(state, x))

    return {"jax": call}


def recompute_unless(plainly: Callable[[], bool]) -> None:
    """Changes nothing: what JAX recomputes has the values of the scope, too."""


def copy_state(value: Any) -> Any:
    """Is not called: JAX has no state."""
    raise TypeError(f"Expected no state of JAX. Received: {type(value).__name__}")

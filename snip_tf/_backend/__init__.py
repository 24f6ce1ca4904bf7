"""What TensorFlow, JAX and PyTorch do differently, whichever of them Keras runs on.

Each has a module with the same names, described in that of TensorFlow. No other file
asks which one it is, but for `_keras`, in which private names differ.
"""

from typing import Any

import numpy as np

try:
    import keras
except ModuleNotFoundError as error:
    absent = str(error.name).partition(".")[0]
    if absent not in ("jax", "tensorflow", "torch"):
        raise
    raise ModuleNotFoundError(
        f"Expected the backend that Keras is set to run on. Received: no module "
        f"{absent!r}. Install it, as with pip install 'snip_tf[{absent}]', or set the "
        f"environment variable KERAS_BACKEND to one of tensorflow, jax, torch that is "
        f"installed.",
        name=absent,
    ) from None

NAME = keras.backend.backend()
_module: Any
_others: Any  # what JAX and PyTorch do alike

if NAME == "tensorflow":
    from snip_tf._backend import tensorflow as _module

    _others = _module
elif NAME == "jax":
    from snip_tf._backend import jax as _module
    from snip_tf._backend import plain as _others
elif NAME == "torch":
    from snip_tf._backend import plain as _others
    from snip_tf._backend import torch as _module
else:
    raise ImportError(
        f"Expected Keras on a backend that trains: tensorflow, jax or torch. Received: "
        f"{NAME}. Set the environment variable KERAS_BACKEND before Keras is imported."
    )

DISTRIBUTED: tuple[type, ...] = _others.DISTRIBUTED
EXPORTS: tuple[str, ...] = _others.EXPORTS
FUNCTIONS: tuple[type, ...] = _others.FUNCTIONS
HOLDERS: tuple[type, ...] = _module.HOLDERS
NO_DERIVATIVE: tuple[type[Exception], ...] = _module.NO_DERIVATIVE
OPERATION_ERRORS: tuple[type[Exception], ...] = _module.OPERATION_ERRORS
OUT_OF_MEMORY: Any = _module.OUT_OF_MEMORY
RAGGED: tuple[Any, ...] = _others.RAGGED
SPARSE: tuple[type, ...] = _others.SPARSE
STATE: tuple[type, ...] = _module.STATE
ENGINES: tuple[str, ...] = _module.ENGINES
as_array = _module.as_array
can_run = _others.can_run
compiled_calls = _module.compiled_calls
constant = _module.constant
copy_state = _module.copy_state
differentiate = _module.differentiate
in_float64 = _module.in_float64
name_scope = _others.name_scope
new_mask = _module.new_mask
product_by_rows = _others.product_by_rows
recompute_unless = _module.recompute_unless
replica_count = _others.replica_count
runs_eagerly = _others.runs_eagerly
second_derivatives = _module.second_derivatives
state_of_fit = _module.state_of_fit
sync = _module.sync
value_of = _module.value_of
variables_read = _others.variables_read


def on_host(values: Any) -> np.ndarray:
    """Returns a tensor, also one of a GPU, or what NumPy can read, as an array."""
    return as_array(values) if keras.ops.is_tensor(values) else np.asarray(values)

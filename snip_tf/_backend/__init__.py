"""What TensorFlow, JAX and PyTorch do differently, whichever of them Keras runs on.

Each has a module with the same names, described in that of TensorFlow. No other file
asks which one it is, but for `_keras`, in which private names differ.
"""

from typing import Any

import keras

NAME = keras.backend.backend()
_module: Any

if NAME == "tensorflow":
    from snip_tf._backend import tensorflow as _module
elif NAME == "jax":
    from snip_tf._backend import jax as _module
elif NAME == "torch":
    from snip_tf._backend import torch as _module
else:
    raise ImportError(
        f"Expected Keras on a backend that trains: tensorflow, jax or torch. Received: "
        f"{NAME}. Set the environment variable KERAS_BACKEND before Keras is imported."
    )

DISTRIBUTED: tuple[type, ...] = _module.DISTRIBUTED
FUNCTIONS: tuple[type, ...] = _module.FUNCTIONS
HOLDERS: tuple[type, ...] = _module.HOLDERS
NO_DERIVATIVE: tuple[type[Exception], ...] = _module.NO_DERIVATIVE
OPERATION_ERRORS: tuple[type[Exception], ...] = _module.OPERATION_ERRORS
OUT_OF_MEMORY: Any = _module.OUT_OF_MEMORY
RAGGED: tuple[Any, ...] = _module.RAGGED
SPARSE: tuple[type, ...] = _module.SPARSE
STATE: tuple[type, ...] = _module.STATE
ENGINES: tuple[str, ...] = _module.ENGINES
as_array = _module.as_array
can_run = _module.can_run
compiled_calls = _module.compiled_calls
constant = _module.constant
copy_state = _module.copy_state
differentiate = _module.differentiate
in_float64 = _module.in_float64
name_scope = _module.name_scope
new_mask = _module.new_mask
product_by_rows = _module.product_by_rows
recompute_unless = _module.recompute_unless
replica_count = _module.replica_count
runs_eagerly = _module.runs_eagerly
second_derivatives = _module.second_derivatives
sync = _module.sync
value_of = _module.value_of
variables_read = _module.variables_read

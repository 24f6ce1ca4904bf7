"""The private names of Keras and TensorFlow that this package uses, all of them.

Each is wrapped in a function that says what it is for, and why no public name suffices;
each has a test in tests/_keras that fails when a new version changes it.
"""

from snip_tf._keras.functions import (
    function_like,
    inline_functions_where,
    is_reference,
    is_traced_for_one_call,
    unwrapped,
)
from snip_tf._keras.graphs import (
    calls_in,
    copy_call,
    graph_inside,
    input_signature,
    logits_of,
    mask_on,
    names_not_counted,
    operation_of,
    put_graph_inside,
    put_mask_on,
    set_dtype,
)
from snip_tf._keras.layers import (
    ADDED_BY_TENSORFLOW,
    ADDED_BY_TRAINING,
    AfterBuild,
    adapt_penalties,
    functional_class,
    held_layers,
    settings_of,
    show_to_tensorflow,
    track,
    tracked,
    unpickle,
)
from snip_tf._keras.new_layers import (
    initialize_graph_like,
    initialize_like,
    initialize_sequence_like,
    new_layer,
    set_variable,
)
from snip_tf._keras.saving import SavedPart, converter_error, litert_schema, paths_in
from snip_tf._keras.training import (
    averages_of,
    compile_config,
    first_value,
    loss_settings,
    position_in,
    set_path,
    trained_by,
    variable_settings,
)

__all__ = [
    "ADDED_BY_TENSORFLOW",
    "ADDED_BY_TRAINING",
    "AfterBuild",
    "SavedPart",
    "adapt_penalties",
    "averages_of",
    "calls_in",
    "compile_config",
    "converter_error",
    "copy_call",
    "first_value",
    "function_like",
    "functional_class",
    "graph_inside",
    "held_layers",
    "initialize_graph_like",
    "initialize_like",
    "initialize_sequence_like",
    "inline_functions_where",
    "input_signature",
    "is_reference",
    "is_traced_for_one_call",
    "litert_schema",
    "logits_of",
    "loss_settings",
    "mask_on",
    "names_not_counted",
    "new_layer",
    "operation_of",
    "paths_in",
    "position_in",
    "put_graph_inside",
    "put_mask_on",
    "set_dtype",
    "set_path",
    "set_variable",
    "settings_of",
    "show_to_tensorflow",
    "track",
    "tracked",
    "trained_by",
    "unpickle",
    "unwrapped",
    "variable_settings",
]

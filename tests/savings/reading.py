"""Readers of what `snip_tf.export` writes for others."""

import pytest
import tensorflow as tf


def litert(path, x, *, int8=False):
    """What LiteRT's interpreter computes with a file."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    types = interpreter.OpResolverType
    # As the export says of sparse layers of eight bits.
    plain = types.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    options = {"experimental_op_resolver_type": plain} if int8 else {}
    run = interpreter.Interpreter(str(path), **options)
    [given], [returned] = run.get_input_details(), run.get_output_details()
    run.resize_tensor_input(given["index"], x.shape)
    run.allocate_tensors()
    run.set_tensor(given["index"], x)
    run.invoke()
    return run.get_tensor(returned["index"])


def served(path, *x):
    """What TensorFlow computes with a SavedModel."""
    loaded = tf.saved_model.load(path)  # whose variables go with it
    return loaded.serve(*x)

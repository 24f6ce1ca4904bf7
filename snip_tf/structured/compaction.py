"""compact: a pruned network to a smaller one that computes the same."""

from __future__ import annotations

import itertools
import numbers
import warnings

import keras

from snip_tf.checks import check_built, visible
from snip_tf.graph.graph import trace
from snip_tf.masking.compiling import compile_like, strategy_scope
from snip_tf.masking.copying import Copies, plain_copy
from snip_tf.network import Network
from snip_tf.structured.plan import Plan


def compact(model: keras.Model, *, tolerance: float = 0.0) -> keras.Model:
    """Removes what can no longer matter from a pruned model; the outputs stay.

    A unit (a feature of the input, a unit of a dense or a recurrent layer, a filter)
    goes if all weights out of it are zero, or all into it are. In the second case its
    output is a constant, which the bias of the layer that reads it takes over; where
    that would not be exact, as at the border of a padded convolution, the unit stays.
    What is left for a layer to read of an input that others need as a whole is picked
    from it by a gather (`keras.ops.take`). A branch of a residual network that only
    adds zeros goes as a whole.

    This goes through activations, batch normalization, pooling, padding, dropout,
    flattening and reshaping, sums and products of branches, concatenation, depthwise
    and separable convolutions, embeddings and recurrent layers. Around any other layer,
    one that is used twice, or one of a class of your own, everything stays.

    Args:
        model: a `keras.Sequential` or a Functional model, pruned (`prune_model`,
            `apply_masks`) or stripped; zeros in its weights count, whatever made them.
            Its class may be your own, as long as it has Keras' `call`. It is left as it
            is.
        tolerance: float, weights of this magnitude or less count as zero. At 0 the
            outputs are the same up to rounding, a relative 1e-6 in float32.

    Returns:
        A plain Functional `keras.Model`, compiled as `model` is, whose layers have the
        names of the originals, but fewer units. Models inside it are laid open: their
        layers become its own. No mask holds the zeros that are left in it at zero when
        it is trained on: compact after training. A warning names what your class has
        of its own to train with (`train_step`, `compute_loss`, ...), which is lost.

    Raises:
        TypeError: if `model` is not a Keras model or `tolerance` no number.
        ValueError: if the model is not built or runs its layers in code of its own (a
            `call` of its class), or `tolerance` is negative.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> layers = [keras.layers.Dense(3, name="a"), keras.layers.Dense(1, name="b")]
    >>> model = keras.Sequential([keras.Input((4,)), *layers])
    >>> read = np.array([[True], [False], [True]])
    >>> pruned = snip_tf.apply_masks(model, {"b/kernel": read})
    >>> model.count_params(), snip_tf.compact(pruned).count_params()
    (19, 13)
    """
    check_built(model)
    _check_tolerance(tolerance)
    plain = plain_copy(Network(model))
    with strategy_scope(model):
        plan = Plan(trace(plain), tolerance)
        smaller = _named(
            plan.carry_out(Copies().of), getattr(plain, "output_names", [])
        )
    smaller.name = model.name
    compile_like(smaller, plain)
    if left := _own_training(type(plain)):
        warnings.warn(
            f"The smaller model is a plain Functional one, without the "
            f"{', '.join(left)} of {type(plain).__name__}: it computes the same, but "
            f"`fit`, `evaluate` and `predict` are Keras' own, with what `compile` was "
            f"given. To train it as before, make one of your class of "
            f"`smaller.inputs` and `smaller.outputs`.",
            stacklevel=2,
        )
    if smaller.count_params() == plain.count_params():
        names = [
            f"{visible(b.node.name)} ({type(b.operation).__name__})"
            for b in plan.blockers()
        ]
        names = ", ".join(names)
        beside = f"What cannot be analysed stays with its neighbours: {names}. "
        warnings.warn(
            f"Nothing could be removed from {model.name!r}: each of its units still "
            f"reads something, and something reads it. {beside if names else ''}Single "
            f"zeros do not make a model smaller. Prune more, or remove whole units.",
            stacklevel=2,
        )
    return smaller


def _named(smaller: keras.Model, names: list[str]) -> keras.Model:
    """The same model, whose outputs have these names: losses and labels go by them.

    One that a model inside has made, or a sum of which one summand is left, has lost
    its own.
    """
    taken = {operation.name for operation in smaller.operations}
    lost = {name for name in names if names.count(name) == 1 and name not in taken}
    if not lost:
        return smaller
    outputs = [
        _identity(name, tensor) if name in lost else tensor
        for name, tensor in zip(names, smaller.outputs, strict=True)
    ]
    outputs = keras.tree.pack_sequence_as(smaller.output, outputs)
    return keras.Model(smaller.input, outputs)


def _identity(name: str, tensor: keras.KerasTensor) -> keras.KerasTensor:
    # A layer casts what has a point to its own type.
    dtype = tensor.dtype if "float" in tensor.dtype else None
    return keras.layers.Identity(name=name, dtype=dtype)(tensor)


def _own_training(cls: type[keras.Model]) -> list[str]:
    """What a class of the user's changes of how Keras trains and evaluates a model."""
    own = itertools.takewhile(
        lambda base: not base.__module__.startswith("keras."), cls.__mro__
    )
    names = {name for base in own for name in vars(base)}
    return [name for name in _TRAINING if name in names]


_TRAINING = (
    *("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics"),
    *("compile", "fit", "evaluate", "predict"),
)


def _check_tolerance(tolerance: float) -> None:
    expected = "Expected `tolerance` to be a number, 0 or more. "
    if isinstance(tolerance, bool) or not isinstance(tolerance, numbers.Real):
        raise TypeError(
            f"{expected}Received: tolerance={tolerance!r} of type "
            f"{type(tolerance).__name__}"
        )
    if not tolerance >= 0:
        raise ValueError(f"{expected}Received: tolerance={tolerance!r}")

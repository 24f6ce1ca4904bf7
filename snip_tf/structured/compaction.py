"""compact: turns a pruned network into a smaller one that computes the same."""

from __future__ import annotations

import itertools
import warnings

import keras

from snip_tf.checks import check_number, visible
from snip_tf.graph.graph import trace
from snip_tf.masking.compiling import compile_like, strategy_scope
from snip_tf.masking.copying import Copies, plain_copy
from snip_tf.network import Network, check_built
from snip_tf.structured.plan import Plan


def compact(model: keras.Model, *, tolerance: float = 0.0) -> keras.Model:
    """Removes what has no effect from a pruned model; the outputs stay the same.

    A unit (a feature of the input, a unit of a dense or a recurrent layer, a filter) is
    removed if all its outgoing weights are zero, or all its incoming ones. In the
    second case its output is a constant, which is folded into the bias of the layer
    that reads it; where that would not be exact, as at the border of a padded
    convolution, the unit stays. Where a layer reads only a part of an input that others
    need as a whole, it gets that part by a gather (`keras.ops.take`). A branch of a
    residual network that only adds zeros is removed as a whole.

    This works through activations, batch normalization, pooling, padding, dropout,
    flattening and reshaping, sums and products of branches, concatenation, depthwise
    and separable convolutions, embeddings and recurrent layers. Around any other layer,
    one that is used twice, or one of a custom class, everything stays.

    Args:
        model: a `keras.Sequential` or a Functional model, pruned (`prune_model`,
            `apply_masks`) or stripped; zeros in its weights count, whatever their
            origin. It may be of a custom class with Keras' `call`. It is not changed.
        tolerance: float, weights of this magnitude or less count as zero. At 0 the
            outputs are the same up to rounding, a relative 1e-6 in float32.

    Returns:
        A plain Functional `keras.Model`, compiled as `model` is, whose layers have the
        names of the originals, but fewer units. The layers of nested models become its
        own. No mask holds the remaining zeros at zero in further training: compact
        after training. A warning names what a custom class defines for training
        (`train_step`, `compute_loss`, ...), which is lost.

    Raises:
        TypeError: if `model` is not a Keras model or `tolerance` is not a number.
        ValueError: if the model is not built or runs its layers in its own code (a
            `call` of its class), or `tolerance` is negative or not finite.

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
    check_number("tolerance", tolerance, least=0)
    plain = plain_copy(Network(model))
    with strategy_scope(model):
        plan = Plan(trace(plain), tolerance)
        rebuilt = plan.rebuild(Copies().of).model
        smaller = _with_output_names(rebuilt, getattr(plain, "output_names", []))
    smaller.name = model.name
    compile_like(smaller, plain)
    _warn_of_lost_training(type(plain))
    if smaller.count_params() == plain.count_params():
        _warn_of_nothing_removed(model.name, plan)
    return smaller


def _with_output_names(smaller: keras.Model, names: list[str]) -> keras.Model:
    """Returns the same model with these output names, which losses and labels use.

    An output of a nested model, or of a sum with one summand left, has lost its name.
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
    # A layer casts floating-point numbers to its own dtype.
    dtype = tensor.dtype if "float" in tensor.dtype else None
    return keras.layers.Identity(name=name, dtype=dtype)(tensor)


def _warn_of_lost_training(cls: type[keras.Model]) -> None:
    """Warns if a class changes how Keras trains and evaluates a model."""
    own = itertools.takewhile(
        lambda base: not base.__module__.startswith("keras."), cls.__mro__
    )
    defined = {name for base in own for name in vars(base)}
    lost = [name for name in _TRAINING if name in defined]
    if lost:
        warnings.warn(
            "The smaller model is a plain Functional one, without the "
            f"{', '.join(lost)} of {cls.__name__}: it computes the same, but `fit`, "
            "`evaluate` and `predict` are those of Keras, with the arguments of "
            "`compile`. To train it as before, make a model of your class from "
            "`smaller.inputs` and `smaller.outputs`.",
            stacklevel=3,
        )


_TRAINING = [
    "train_step",
    "test_step",
    "predict_step",
    "compute_loss",
    "compute_metrics",
    "compile",
    "fit",
    "evaluate",
    "predict",
]


def _warn_of_nothing_removed(name: str, plan: Plan) -> None:
    blockers = [
        f"{visible(rule.node.name)} ({type(rule.operation).__name__})"
        for rule in plan.blockers()
    ]
    names = ", ".join(blockers)
    beside = f"What cannot be analysed stays with its neighbours: {names}. "
    warnings.warn(
        f"Nothing could be removed from {name!r}: each of its units still reads "
        f"something, and something reads it. {beside if names else ''}Single zeros do "
        f"not make a model smaller. Prune more, or remove whole units.",
        stacklevel=3,
    )

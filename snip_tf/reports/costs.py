"""What is kept of each weight, and what each layer costs with that and without."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import keras
import numpy as np

from snip_tf.graph.graph import Node, has_graph, tensors, trace
from snip_tf.graph.rules.rule import Rule
from snip_tf.masking.copying import Copies, copy_unmasked
from snip_tf.masking.masked_weights import all_masks
from snip_tf.masking.pruned_model import get_masks, strip_pruning
from snip_tf.structured.plan import Plan
from snip_tf.weights import layer_tree, weights_by_path


@dataclasses.dataclass(frozen=True)
class WeightRow:
    """One pruned weight: how many of its connections are kept, and what is left idle.

    An idle input of a kernel is one that no kept connection reads; an idle unit (or
    filter, or gate of a recurrent cell) is one that no kept connection enters. Both are
    counted for dense, convolutional and recurrent kernels; elsewhere they stay 0.
    """

    path: str
    shape: tuple[int, ...]
    kept: int
    total: int
    inputs: int = 0
    idle_inputs: int = 0
    units: int = 0
    idle_units: int = 0

    @property
    def sparsity(self) -> float:
        """The fraction of the weight's connections that is removed."""
        return 1 - self.kept / self.total


# Layers whose kernel has the inputs on its last axis but one and the units on its last.
# Other kinds lay theirs out in other ways.
_UNITS_LAST = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.SimpleRNNCell,
    keras.layers.GRUCell,
    keras.layers.LSTMCell,
)


def weight_rows(
    pruned: keras.Model, masks: dict[str, np.ndarray] | None = None
) -> list[WeightRow]:
    """A row for each pruned weight, in the model's order.

    Args:
        pruned: a pruned model.
        masks: its masks, where they are known already.
    """
    masks = masks or get_masks(pruned)
    units_last = {
        id(weight)
        for layer in layer_tree(pruned)
        if isinstance(layer, _UNITS_LAST)
        for weight in layer.weights
    }
    weights = weights_by_path(pruned)
    return [
        _weight_row(path, mask, id(weights[path]) in units_last)
        for path, mask in masks.items()
    ]


def _weight_row(path: str, mask: np.ndarray, units_last: bool) -> WeightRow:
    idle = {}
    if units_last and mask.ndim >= 2:
        # Of a convolution, one position of the filter connects an input and a unit.
        connected = mask.any(axis=tuple(range(mask.ndim - 2)))
        idle = {
            "inputs": connected.shape[0],
            "idle_inputs": int((~connected.any(axis=1)).sum()),
            "units": connected.shape[1],
            "idle_units": int((~connected.any(axis=0)).sum()),
        }
    return WeightRow(path, mask.shape, int(mask.sum()), mask.size, **idle)


@dataclasses.dataclass(frozen=True)
class DeadUnits:
    """What is idle in one weight, without what is said of the weight before it.

    Attributes:
        path: of the weight.
        inputs: how many it has.
        unread: those that no kept connection reads, but for the units that no kept
            connection enters: these are counted where they are units.
        units: how many it has.
        idle: those that no kept connection enters.
    """

    path: str
    inputs: int
    unread: int
    units: int
    idle: int

    def __str__(self) -> str:
        inputs = f"{self.unread:,} of {self.inputs:,} inputs that nothing reads"
        units = f"{self.idle:,} of {self.units:,} units that nothing enters"
        some = [text for text, n in ((inputs, self.unread), (units, self.idle)) if n]
        return f"Dead in {self.path}: {', '.join(some)}"


def dead_units(
    rows: list[WeightRow],
    masks: dict[str, np.ndarray],
    constant: dict[str, np.ndarray],
) -> list[DeadUnits]:
    """What is idle in each weight in which something is.

    Args:
        rows: of the weights.
        masks: of the same.
        constant: of some weights, which of their inputs are constant: those from units
            that nothing enters.
    """
    dead = []
    for row in rows:
        unread = row.idle_inputs
        if unread and len(constant.get(row.path, ())) == row.inputs:
            mask = masks[row.path]
            read = mask.any(axis=(*range(mask.ndim - 2), mask.ndim - 1))
            unread = int((~read & ~constant[row.path]).sum())
        if unread or row.idle_units:
            found = DeadUnits(row.path, row.inputs, unread, row.units, row.idle_units)
            dead.append(found)
    return dead


def dead_lines(dead: list[DeadUnits], most: int | None = None) -> list[str]:
    """A line for each, or for the largest, and one for all the others.

    Args:
        dead: what is idle.
        most: so many lines at most; default, all.
    """
    named = dead
    if most is not None and len(dead) > most:
        largest = sorted(dead, key=lambda each: each.unread + each.idle, reverse=True)
        named = [each for each in dead if each in largest[: most - 1]]
    lines = [str(each) for each in named] or ["Dead units: none"]
    rest = [each for each in dead if each not in named]
    if rest:
        unread, idle = sum(r.unread for r in rest), sum(r.idle for r in rest)
        lines.append(
            f"Dead in {len(rest):,} more weights: {unread:,} inputs that nothing "
            f"reads, {idle:,} units that nothing enters"
        )
    return lines


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """One layer with weights, or one without that cannot be analysed.

    Multiply-adds are of its kernels, for one example; an unknown number of places or
    of time steps counts as one.

    Attributes:
        layer: its name, after those of the models that it is in.
        kind: its class.
        parameters: all its numbers.
        non_zero: those that are not zero.
        multiply_adds: with all numbers of its kernels; None in a model that calls its
            layers in code of its own.
        effective: with those that are not zero.
        compacted_parameters, compacted_multiply_adds: what `snip_tf.compact` leaves.
        units, compacted_units: the features that it returns.
        note: why nothing could be removed around it, if so.
    """

    layer: str
    kind: str
    parameters: int
    non_zero: int
    multiply_adds: int | None = None
    effective: int | None = None
    compacted_parameters: int | None = None
    compacted_multiply_adds: int | None = None
    units: int | None = None
    compacted_units: int | None = None
    note: str = ""


def layer_rows(model: keras.Model, compacted: bool = True) -> list[LayerRow]:
    """A row for each layer with weights, or that stands in the way of compaction.

    In the order in which they are called.

    Without `compacted`, what compaction would leave is not worked out: that takes
    seconds for a large model.
    """
    rows, _ = analysed(model, compacted)
    return rows


def analysed(
    model: keras.Model, compacted: bool = True
) -> tuple[list[LayerRow], dict[str, np.ndarray]]:
    """`layer_rows`, and of kernels by path which of their inputs are constant."""
    plain = strip_pruning(model) if all_masks(model) else copy_unmasked(model)
    if not has_graph(plain):
        return [_not_analysed(layer) for layer in plain.layers if layer.weights], {}
    plan = Plan(trace(plain), tolerance=0.0)
    calls: list[Node | None] = [None] * len(plan.rules)
    if compacted:
        calls = plan.rebuild(Copies().of).calls
    return _rows_of(plan, calls), _constant_inputs(plan, weights_by_path(plain))


def _not_analysed(layer: keras.Layer) -> LayerRow:
    return dataclasses.replace(
        _of_weights(layer, layer.name),
        note="called by code of the model's own, which cannot be analysed",
    )


def _rows_of(plan: Plan, calls: Sequence[Node | None]) -> list[LayerRow]:
    rows: dict[int, LayerRow] = {}
    blockers = plan.blockers()
    for rule, made in zip(plan.rules, calls, strict=True):
        layer = rule.operation
        if rule in blockers and not getattr(layer, "weights", None):
            none = dict.fromkeys(_COUNTS, 0)
            rows[id(layer)] = LayerRow(
                rule.node.name, type(layer).__name__, **none, note=_BLOCKS
            )
        elif getattr(layer, "weights", None):
            row, earlier = _row(rule, made), rows.get(id(layer))
            # What is called again is multiplied again.
            rows[id(layer)] = _added(earlier, row) if earlier else row
    return list(rows.values())


def _constant_inputs(
    plan: Plan, weights: dict[str, keras.Variable]
) -> dict[str, np.ndarray]:
    known: dict[int, np.ndarray] = {}
    for rule in plan.rules:
        constants = plan.constants(rule)
        for use in rule.uses():
            side, features = use.axes.get(use.read, ("", None))
            if side == "input":
                constant = ~np.isnan(constants[0][features])
                # Of a layer that is called again, in each call.
                known[id(use.weight)] = constant & known.get(id(use.weight), True)
    return {path: known[id(w)] for path, w in weights.items() if id(w) in known}


_COUNTS = (
    *("parameters", "non_zero", "multiply_adds", "effective"),
    *("compacted_parameters", "compacted_multiply_adds"),
)


def added_up(rows: Sequence[LayerRow]) -> dict[str, int | None]:
    """The sums over layers; None for what is not known of one of them."""
    sums: dict[str, int | None] = {}
    for name in _COUNTS:
        values = [getattr(row, name) for row in rows]
        sums[name] = None if None in values else sum(values)
    return sums


def _added(row: LayerRow, again: LayerRow) -> LayerRow:
    names = ("multiply_adds", "effective", "compacted_multiply_adds")
    sums = {name: getattr(row, name) + getattr(again, name) for name in names}
    return dataclasses.replace(row, **sums)


def _of_weights(layer: keras.Layer, name: str) -> LayerRow:
    return LayerRow(
        name,
        type(layer).__name__,
        # (Keras counts them only of what it has built itself.)
        parameters=sum(map(weight_size, layer.weights)),
        non_zero=sum(_non_zero(weight) for weight in layer.weights),
    )


def _row(rule: Rule, made: Node | None) -> LayerRow:
    layer, uses = rule.operation, rule.uses()
    parameters = products = features = 0
    if made is not None:
        # The layer may have got biases, which multiply nothing.
        old, new = (
            [weight for weight in each.weights if weight.name != "bias"]
            for each in (layer, made.operation)
        )
        new = dict(zip(map(id, old), new, strict=True))
        products = sum(use.positions * weight_size(new[id(use.weight)]) for use in uses)
        parameters = made.operation.count_params()
        features = _features(made)
    note = "" if rule.analysed else _BLOCKS
    return dataclasses.replace(
        _of_weights(layer, rule.node.name),
        multiply_adds=sum(use.positions * weight_size(use.weight) for use in uses),
        effective=sum(use.positions * _non_zero(use.weight) for use in uses),
        compacted_parameters=parameters,
        compacted_multiply_adds=products,
        units=_features(rule.node),
        compacted_units=features,
        note=note,
    )


_BLOCKS = "cannot be analysed: it and its neighbours stay"


def _features(node: Node) -> int | None:
    outputs = tensors(node.outputs)
    return outputs[0].shape[-1] if len(outputs) == 1 else None


def weight_size(weight: keras.Variable) -> int:
    """How many numbers a weight has."""
    return math.prod(weight.shape)


def _non_zero(weight: keras.Variable) -> int:
    return int(np.count_nonzero(keras.ops.convert_to_numpy(weight)))

"""The costs of each layer: of all its numbers, of the non-zero ones, and compacted."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np

from snip_tf.graph.graph import Node, has_graph, tensors, trace
from snip_tf.graph.rules.rule import Rule, Use
from snip_tf.masking.copying import Copies, plain_network
from snip_tf.network import Network
from snip_tf.structured.plan import Plan


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """A layer that has weights, or cannot be analysed.

    Multiply-adds are counted for its kernels and one example; an unknown number of
    positions or time steps counts as one.

    Attributes:
        layer: its name, prefixed by those of the models that it is in.
        kind: its class.
        parameters: the number of its parameters.
        non_zero: the number of non-zero parameters.
        multiply_adds: the multiply-adds of its kernels; None in a model that runs its
            layers in its own code.
        effective: the multiply-adds of the non-zero numbers in its kernels.
        compacted_parameters, compacted_multiply_adds: what `snip_tf.compact` leaves.
        units, compacted_units: the number of features that it returns.
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


@dataclasses.dataclass(frozen=True)
class Costs:
    """The counts of a `LayerRow` that can be summed; None where any is unknown."""

    parameters: int
    non_zero: int
    multiply_adds: int | None
    effective: int | None
    compacted_parameters: int | None
    compacted_multiply_adds: int | None

    @classmethod
    def of(cls, rows: Sequence[LayerRow]) -> Costs:
        """Returns the sums over layers."""
        return cls(
            parameters=sum(row.parameters for row in rows),
            non_zero=sum(row.non_zero for row in rows),
            multiply_adds=_sum(row.multiply_adds for row in rows),
            effective=_sum(row.effective for row in rows),
            compacted_parameters=_sum(row.compacted_parameters for row in rows),
            compacted_multiply_adds=_sum(row.compacted_multiply_adds for row in rows),
        )


def _sum(counts: Iterable[int | None]) -> int | None:
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


def layer_rows(network: Network, compacted: bool = True) -> list[LayerRow]:
    """Returns a row for each layer that has weights, or that `compact` cannot analyse.

    The rows are in the order of the layers' calls.

    Args:
        network: the model.
        compacted: whether to compute what compaction would leave, which takes seconds
            for a large model.
    """
    rows, _ = analysed(network, compacted)
    return rows


def analysed(
    network: Network, compacted: bool = True
) -> tuple[list[LayerRow], dict[str, np.ndarray]]:
    """Returns `layer_rows`, and which inputs of each kernel are constant, by path."""
    plain = plain_network(network)
    model = plain.model
    if not has_graph(model):
        return [_not_analysed(layer) for layer in model.layers if layer.weights], {}
    plan = Plan(trace(model), tolerance=0.0)
    calls: list[Node | None] = [None] * len(plan.rules)
    if compacted:
        calls = plan.rebuild(Copies().of).calls
    return _rows_of(plan, calls), _constant_inputs(plan, plain.weights)


def _not_analysed(layer: keras.Layer) -> LayerRow:
    return dataclasses.replace(
        _of_weights(layer, layer.name),
        note="called by the model's own code, which cannot be analysed",
    )


def _rows_of(plan: Plan, calls: Sequence[Node | None]) -> list[LayerRow]:
    rows: dict[int, LayerRow] = {}
    blockers = plan.blockers()
    for rule, made in zip(plan.rules, calls, strict=True):
        layer = rule.operation
        if getattr(layer, "weights", None):
            row, earlier = _row(rule, made), rows.get(id(layer))
            rows[id(layer)] = _called_again(earlier, row) if earlier else row
        elif rule in blockers:
            name = type(layer).__name__
            rows[id(layer)] = LayerRow(
                rule.node.name, name, **dataclasses.asdict(Costs.of([])), note=_BLOCKS
            )
    return list(rows.values())


_BLOCKS = "cannot be analysed: it and its neighbours stay"


def _called_again(row: LayerRow, again: LayerRow) -> LayerRow:
    """Returns the row of a layer that is called twice, with multiply-adds summed."""
    both = Costs.of([row, again])
    return dataclasses.replace(
        row,
        multiply_adds=both.multiply_adds,
        effective=both.effective,
        compacted_multiply_adds=both.compacted_multiply_adds,
    )


def _row(rule: Rule, made: Node | None) -> LayerRow:
    uses = rule.uses()
    row = dataclasses.replace(
        _of_weights(rule.operation, rule.node.name),
        multiply_adds=sum(use.positions * weight_size(use.weight) for use in uses),
        effective=sum(use.positions * _non_zero(use.weight) for use in uses),
        units=_features(rule.node),
        compacted_parameters=0,
        compacted_multiply_adds=0,
        compacted_units=0,
        note="" if rule.analysed else _BLOCKS,
    )
    if made is None:
        return row
    return dataclasses.replace(
        row,
        compacted_parameters=made.operation.count_params(),
        compacted_multiply_adds=_compacted_products(rule.operation, uses, made),
        compacted_units=_features(made),
    )


def _compacted_products(layer: keras.Layer, uses: Sequence[Use], made: Node) -> int:
    # The layer may have gained biases, which multiply nothing.
    old, new = (
        [weight for weight in each.weights if weight.name != "bias"]
        for each in (layer, made.operation)
    )
    made_of = dict(zip(map(id, old), new, strict=True))
    return sum(use.positions * weight_size(made_of[id(use.weight)]) for use in uses)


def _of_weights(layer: keras.Layer, name: str) -> LayerRow:
    return LayerRow(
        name,
        type(layer).__name__,
        # (Keras counts them only for layers that it has built itself.)
        parameters=sum(map(weight_size, layer.weights)),
        non_zero=sum(_non_zero(weight) for weight in layer.weights),
    )


def _features(node: Node) -> int | None:
    outputs = tensors(node.outputs)
    return outputs[0].shape[-1] if len(outputs) == 1 else None


def _constant_inputs(
    plan: Plan, weights: Mapping[str, keras.Variable]
) -> dict[str, np.ndarray]:
    known: dict[int, np.ndarray] = {}
    for rule in plan.rules:
        constants = plan.constants(rule)
        for use in rule.uses():
            if use.read is None or use.read not in use.axes:
                continue
            side, features = use.axes[use.read]
            if side == "input":
                constant = ~np.isnan(constants[0][features])
                # If a layer is called again, in each call.
                known[id(use.weight)] = constant & known.get(id(use.weight), np.True_)
    return {path: known[id(w)] for path, w in weights.items() if id(w) in known}


def weight_size(weight: keras.Variable) -> int:
    """Returns the number of entries of a weight."""
    return math.prod(weight.shape)


def _non_zero(weight: keras.Variable) -> int:
    return int(np.count_nonzero(keras.ops.convert_to_numpy(weight)))

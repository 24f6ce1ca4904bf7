"""The engines that run a model on arrays, and the choice of the fastest."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any, Literal

import keras

from snip_tf import _backend
from snip_tf.graph.graph import Graph, tensors, trace
from snip_tf.masking.copying import Copies
from snip_tf.savings.layer_by_layer import LayerByLayer, passes_no_masks
from snip_tf.savings.timing import fastest, median_seconds
from snip_tf.structured.plan import Plan

Engine = Literal["scipy", "tensorflow", "xla", "jax", "torch"]
# Those that there are with this backend of Keras.
ENGINES: tuple[str, ...] = ("scipy", *_backend.ENGINES)
# What is run: the name of an engine, or for "scipy" the way of each layer.
Chosen = str | dict[str, str]
Run = Callable[[Any], Any]

# "scipy" has to be this much faster, so that noise does not decide.
_CLEARLY = 0.95


class Engines:
    """A model prepared for several engines.

    Args:
        model: a plain model, a copy that nothing else uses.
        engines: those to choose from.

    Attributes:
        inputs: the nest of `KerasTensor`s that the model takes.

    Raises:
        ValueError: if the model runs its layers in its own code, or none of the engines
            can run it.
    """

    def __init__(self, model: keras.Model, engines: Iterable[str]):
        graph = trace(model)
        self._name, self.inputs = model.name, graph.inputs
        wanted = set(engines)
        if _has_text(graph):
            wanted.discard("xla")
        self._layers: LayerByLayer | None = None
        if "scipy" in wanted and passes_no_masks(graph):
            self._layers = LayerByLayer(graph)
        smaller = Plan(graph, tolerance=0.0).rebuild(Copies().of).model
        compacted = smaller.count_params() < model.count_params()
        self._compiled = _compiled(smaller if compacted else model, wanted)
        # The model before compaction, if that differs.
        self._whole = _compiled(model, wanted) if compacted else {}
        self._check_some()

    def fastest(self, x: Any) -> tuple[Run, Chosen]:
        """Returns the fastest call for batches like `x`, and a description of it."""
        runs: dict[str, Run] = {}
        ways: dict[str, str] = {}
        if self._layers:
            runs["scipy"], ways = self._layers.measured(x)
        self._drop_what_fails(x)
        runs |= self._compiled
        seconds = median_seconds(runs, x)
        if "scipy" in seconds:
            seconds["scipy"] /= _CLEARLY
        best = fastest(seconds)
        if best == "scipy":
            return runs[best], ways
        if best in self._whole:
            # Fewer filters can take longer: some sizes suit processors better.
            runs = {best: runs[best], f"{best}, whole": self._whole[best]}
            best = fastest(median_seconds(runs, x))
        return runs[best], best

    def _drop_what_fails(self, x: Any) -> None:
        for name, call in list(self._compiled.items()):
            if not _backend.can_run(name, call, x):
                del self._compiled[name]
                self._whole.pop(name, None)
        self._check_some()

    def _check_some(self) -> None:
        if not self._layers and not self._compiled:
            raise ValueError(
                "Expected `engines` with one that can run the model. Received: "
                f"model={self._name!r}, which none of them can run. XLA does not "
                "compile text, and layers that pass masks on are not run one by one."
            )


def _compiled(model: keras.Model, wanted: set[str]) -> dict[str, Run]:
    calls = _backend.compiled_calls(model)
    return {name: call for name, call in calls.items() if name in wanted}


def _has_text(graph: Graph) -> bool:
    made = (tensors(node.outputs) for node in graph.nodes)
    known = itertools.chain(tensors(graph.inputs), *made)
    return any(tensor.dtype == "string" for tensor in known)

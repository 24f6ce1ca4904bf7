"""sparse_runtime: inference that skips the zeros where that is faster."""

from __future__ import annotations

import inspect
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import scipy.sparse

from snip_tf.checks import check_built
from snip_tf.graph.graph import (
    Graph,
    Node,
    carry_masks,
    hides_masks,
    is_tensor,
    tensors,
    trace,
)
from snip_tf.masking.compiling import can_compile, compiled_calls
from snip_tf.masking.copying import Copies, copy_unmasked
from snip_tf.masking.masked_weights import all_masks
from snip_tf.masking.pruned_model import strip_pruning
from snip_tf.savings.sparse_steps import Step, ways_of
from snip_tf.structured.plan import Plan
from snip_tf.weights import layer_tree

_COMPILED = ("tensorflow", "xla")
# Each candidate is run so often to choose between them, or less if that takes longer.
_ROUNDS = range(3, 51)
_SECONDS = 3.0
# What is this much slower is not tried any longer.
_FAR = 1.4
# A dense kernel is in the cache while it is measured, and often not in between.
_OUT_OF_CACHE = 1.2
# A way without the compiled model has to be faster by so much, lest noise decides.
_CLEARLY = 0.95


def sparse_runtime(model: keras.Model) -> SparseRuntime:
    """A function for inference with a pruned model, faster where zeros make it so.

    Kernels of dense, convolutional and recurrent layers are multiplied by as sparse
    matrices (SciPy's CSR) or as dense ones, whichever is faster for the shape, the
    sparsity and the batch size; and all of it is compared with the `snip_tf.compact`
    model compiled by TensorFlow, with XLA and without, which is run where it is the
    faster, or the model as it is, should that be faster still. What is fastest is
    measured once for each batch size, at the first call, which takes some seconds, and
    half a minute for large batches through many convolutions.

    A processor multiplies dense matrices many times as fast as sparse ones of as many
    numbers, so that it takes 90 % of zeros or more, and mostly small batches.

    Args:
        model: a built `keras.Sequential` or Functional model, best pruned. It is left
            as it is, and later changes of its weights are not seen.

    Returns:
        A callable of what the model is called on, NumPy arrays or tensors, that returns
        NumPy arrays. Its `predict` takes any number of examples, as `keras.Model`'s
        does. Its `chosen`, and how it prints, tell for each batch size what is run.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if it is not built, runs its layers in code of its own, or keeps a
            state between calls.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> run = snip_tf.sparse_runtime(model)
    >>> run(np.ones((2, 8), np.float32)).shape
    (2, 4)
    >>> run.predict(np.ones((5, 8), np.float32), batch_size=2).shape
    (5, 4)
    """
    check_built(model)
    stateful = [x.name for x in layer_tree(model) if getattr(x, "stateful", False)]
    if stateful:
        raise ValueError(
            f"Expected a model whose outputs depend on its inputs alone, as to measure "
            f"what is fastest takes many calls. Received: model={model.name!r}, in "
            f"which {', '.join(stateful)} keeps a state (stateful=True)"
        )
    plain = strip_pruning(model) if all_masks(model) else copy_unmasked(model)
    return SparseRuntime(plain)


class SparseRuntime:
    """See `sparse_runtime`.

    Attributes:
        chosen: `{batch size: what is run}`: `"tensorflow"`, `"xla"`, the same of the
            model that is not compacted, as `"xla, whole"`, or for each layer that could
            be either, `"sparse"` or `"dense"`.
    """

    def __init__(self, model: keras.Model):
        self._name = model.name
        self._graph = trace(model)
        self._shapes = [tuple(t.shape) for t in tensors(self._graph.inputs)]
        smaller = Plan(self._graph, tolerance=0.0).rebuild(Copies().of).model
        whole = dict(zip(_COMPILED, compiled_calls(model), strict=True))
        self._compiled, self._whole = whole, {}
        if smaller.count_params() < model.count_params():
            self._compiled = dict(zip(_COMPILED, compiled_calls(smaller), strict=True))
            self._whole = whole
        if self._has_text():
            self._leave_out_xla()
        self._ways = [ways_of(node) for node in self._graph.nodes]
        self._by_layer = not hides_masks(self._graph) and not any(
            map(_reads_a_mask, self._graph.nodes)
        )
        self._runs: dict[int, Callable[[Any], Any]] = {}
        self.chosen: dict[int, str | dict[str, str]] = {}

    def __repr__(self) -> str:
        known = [f"batches of {n}: {_in_words(c)}" for n, c in self.chosen.items()]
        text = "; ".join(known) or "measures what is fastest at its first call"
        return f"<SparseRuntime of {self._name!r}: {text}>"

    def __call__(self, x: Any) -> Any:
        """The outputs of the model for one batch, as NumPy arrays."""
        return self._run(self._as_given(x))

    def predict(
        self, x: Any, batch_size: int | None = None, verbose: str | int = "auto"
    ) -> Any:
        """The outputs for any number of examples, computed batch by batch.

        All batches are of one size, for which it is measured once what is fastest: the
        last one is filled up, with its last example, and what that gives is left out.

        Args:
            x: one or more examples, as the model takes them: NumPy arrays or tensors,
                or a nest of these, sparse ones, too; or a `tf.data.Dataset`, a
                `keras.utils.PyDataset` or a generator of batches, which may have labels
                beside them.
            batch_size: int, of arrays; default 32, or all examples if they are fewer. A
                dataset has its own.
            verbose: for the sake of code that gives it to `keras.Model.predict`:
                nothing is printed.

        Returns:
            NumPy arrays, one row for each example, in the nest that the model returns.

        Raises:
            TypeError: if `batch_size` is not an int, or `x` are no numbers.
            ValueError: if it is below 1, or given for a dataset; or if `x` does not fit
                the model or has no examples.

        Example:

        >>> import keras, numpy as np, snip_tf
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> run = snip_tf.sparse_runtime(model)
        >>> run.predict(np.ones((70, 8), np.float32)).shape
        (70, 4)
        """
        del verbose
        if _is_dataset(x):
            batches = self._of_dataset(x, batch_size)
        else:
            batches = self._pieces(self._as_given(x), _checked(batch_size))
        parts: list[Any] = []
        size = None
        for batch in batches:
            count = self._batch_size(batch)
            size = max(count, size or 0)
            outputs = self._run(_filled(batch, size - count))
            parts.append(
                keras.tree.map_structure(lambda y, n=count: np.asarray(y)[:n], outputs)
            )
        if not parts:
            raise ValueError("Expected one or more batches. Received: an empty dataset")
        return keras.tree.map_structure(lambda *ys: np.concatenate(ys), *parts)

    def _of_dataset(self, x: Any, batch_size: int | None) -> Iterator[Any]:
        if batch_size is not None:
            raise ValueError(
                f"Expected no `batch_size` for a dataset, which yields batches. "
                f"Received: batch_size={batch_size!r}"
            )
        batches = map(x.__getitem__, range(len(x))) if _is_sequence(x) else iter(x)
        for batch in batches:
            inputs, *_ = keras.utils.unpack_x_y_sample_weight(batch)
            yield self._as_given(inputs)

    def _pieces(self, x: Any, batch_size: int) -> Iterator[Any]:
        x = keras.tree.map_structure(np.asarray, x)
        for start in range(0, self._batch_size(x), batch_size):
            part = slice(start, start + batch_size)
            yield keras.tree.map_structure(lambda array, part=part: array[part], x)

    def _as_given(self, x: Any) -> Any:
        """Inputs in the nest that the graph has, by name where they are a dict."""
        own = self._graph.inputs
        x = self._by_name(x) if isinstance(x, dict) else x
        if is_tensor(own):
            return _array(x, own)
        given, wanted = keras.tree.flatten(x), tensors(own)
        if len(given) != len(wanted):
            return x  # which `_batch_size` refuses
        return keras.tree.pack_sequence_as(own, list(map(_array, given, wanted)))

    def _by_name(self, x: dict[str, Any]) -> Any:
        own = self._graph.inputs
        if is_tensor(own) and len(x) == 1:
            return next(iter(x.values()))
        names = list(own) if isinstance(own, dict) else [t.name for t in tensors(own)]
        if any(name not in x for name in names):
            raise ValueError(
                f"Expected inputs of the names {', '.join(map(repr, names))}. "
                f"Received: {', '.join(map(repr, x))}"
            )
        if isinstance(own, dict):
            return {name: x[name] for name in names}
        # In the order of the inputs.
        return keras.tree.pack_sequence_as(own, [x[name] for name in names])

    def _run(self, x: Any) -> Any:
        batch_size = self._batch_size(x)
        run = self._runs.get(batch_size)
        if run is None:
            run = self._runs[batch_size] = self._fastest(x, batch_size)
        return run(x)

    def _batch_size(self, x: Any) -> int:
        """How many examples these are; raises unless the model takes them."""
        given = [np.shape(x)] if is_tensor(self._graph.inputs) else _shapes(x)
        if len(given) == len(self._shapes) and all(map(_fits, given, self._shapes)):
            if len({shape[0] for shape in given}) == 1:
                return given[0][0]
            raise ValueError(
                f"Expected the same number of examples of each input. Received: "
                f"inputs of shape {given}"
            )
        raise ValueError(
            f"Expected one or more examples of shape {self._shapes}. Received: inputs "
            f"of shape {given}"
        )

    def _fastest(self, x: Any, batch_size: int) -> Callable[[Any], Any]:
        runs, names = {}, {}
        if self._by_layer:
            steps, names = self._steps(keras.tree.map_structure(np.asarray, x))
            runs["by layer"] = _Program(self._graph, steps)
        if "xla" in self._compiled and not can_compile(self._compiled["xla"], x):
            self._leave_out_xla()
        runs |= self._compiled
        seconds = _seconds(runs, x)
        if self._by_layer:
            seconds["by layer"] /= _CLEARLY
        fastest = min(seconds, key=seconds.get)
        chosen, run = names if fastest == "by layer" else fastest, runs[fastest]
        if fastest in self._whole:
            # A few filters less can take longer: a number may suit processors less.
            pair = {fastest: run, f"{fastest}, whole": self._whole[fastest]}
            seconds = _seconds(pair, x)
            chosen = min(pair, key=seconds.get)
            run = pair[chosen]
        self.chosen[batch_size] = chosen
        return run

    def _has_text(self) -> bool:
        made = (tensors(node.outputs) for node in self._graph.nodes)
        known = itertools.chain(tensors(self._graph.inputs), *made)
        return any(tensor.dtype == "string" for tensor in known)

    def _leave_out_xla(self) -> None:
        for calls in (self._compiled, self._whole):
            calls.pop("xla", None)

    def _steps(self, x: Any) -> tuple[list[Step], dict[str, str]]:
        """For each call the fastest way, on what it is given in this model."""
        inputs = map(id, tensors(self._graph.inputs))
        values = dict(zip(inputs, keras.tree.flatten(x), strict=True))
        steps, names = [], {}
        for node, ways in zip(self._graph.nodes, self._ways, strict=True):
            given = [values[id(tensor)] for tensor in node.inputs()]
            seconds = dict.fromkeys(ways, 0.0)
            if len(ways) > 1:
                seconds = _seconds(ways, *given)
                seconds["dense"] *= _OUT_OF_CACHE
                names[node.name] = min(seconds, key=seconds.get)
            step = ways[min(seconds, key=seconds.get)]
            steps.append(step)
            outputs = tensors(node.outputs)
            made = step(*given)
            made = [made] if len(outputs) == 1 else keras.tree.flatten(made)
            values.update(zip(map(id, outputs), made, strict=True))
        return steps, names


def _reads_a_mask(node: Node) -> bool:
    """Whether a layer may read the mask on what it is given, which arrays have not.

    Most layers have masks as arguments, which are in the graph, and of Keras' own those
    without such an argument read none.
    """
    layer = node.operation
    if not isinstance(layer, keras.Layer) or not carry_masks(tensors(node.args)):
        return False
    if tensors(node.kwargs.get("mask")):
        return False
    return not type(layer).__module__.startswith("keras.") or any(
        name.endswith("mask") for name in inspect.signature(layer.call).parameters
    )


def _in_words(chosen: str | dict[str, str]) -> str:
    """What is run, in a few words, however many layers there are."""
    if isinstance(chosen, str):
        return chosen
    sparse = sum(way == "sparse" for way in chosen.values())
    return f"layer by layer, {sparse} of {len(chosen)} sparse"


def _checked(batch_size: int | None) -> int:
    if batch_size is None:
        return 32
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)):
        raise TypeError(
            f"Expected an int. Received: batch_size={batch_size!r} of type "
            f"{type(batch_size).__name__}"
        )
    if batch_size < 1:
        raise ValueError(f"Expected 1 or more. Received: batch_size={batch_size!r}")
    return int(batch_size)


def _array(x: Any, wanted: keras.KerasTensor) -> np.ndarray:
    """An input as a NumPy array; a sparse one with its zeros."""
    if scipy.sparse.issparse(x):
        x = x.toarray()
    elif keras.ops.is_tensor(x):
        x = keras.ops.convert_to_tensor(x, sparse=False)
    array = np.asarray(x)
    is_text = array.dtype.kind in "OSU"
    if is_text != (wanted.dtype == "string"):
        expected = "numbers" if is_text else "text"
        kind = "text" if array.dtype.kind in "SU" else f"a {type(x).__name__}"
        raise TypeError(
            f"Expected examples that are {expected}, as arrays or tensors. Received: "
            f"{kind if is_text else 'numbers'} for the input {wanted.name!r}"
        )
    return _of_rank(array, wanted.shape)


def _of_rank(array: np.ndarray, wanted: tuple[int | None, ...]) -> np.ndarray:
    """The array; as Keras does, with or without a last axis of one entry."""
    more = array.ndim - len(wanted)
    if more == 1 and array.shape[-1] == 1:
        return array[..., 0]
    if more == -1 and array.ndim and wanted[-1] == 1:
        return array[..., None]
    return array


def _is_dataset(x: Any) -> bool:
    return _is_sequence(x) or isinstance(x, Iterator) or hasattr(x, "element_spec")


def _is_sequence(x: Any) -> bool:
    return isinstance(x, keras.utils.PyDataset)


def _filled(batch: Any, missing: int) -> Any:
    """A batch with its last example so many times more."""
    if not missing:
        return batch
    return keras.tree.map_structure(
        lambda array: np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]),
        keras.tree.map_structure(np.asarray, batch),
    )


def _shapes(nest: Any) -> list[tuple[int, ...]]:
    return [np.shape(array) for array in keras.tree.flatten(nest)]


def _fits(given: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    """Whether an array has the shape of an input, with one example or more."""
    if len(given) != len(wanted) or not given[0]:
        return False
    return all(w in (None, g) for g, w in zip(given[1:], wanted[1:], strict=True))


class _Program:
    """The calls of a graph on NumPy arrays, one after another."""

    def __init__(self, graph: Graph, steps: list[Step]):
        self._outputs = graph.outputs
        place: dict[int, int] = {}
        for tensor in tensors(graph.inputs):
            place[id(tensor)] = len(place)
        self._nested = not is_tensor(graph.inputs)
        # As the model casts what it is given.
        dtypes = [tensor.dtype for tensor in tensors(graph.inputs)]
        self._dtypes = [np.float32 if dtype == "float32" else None for dtype in dtypes]
        self._calls = []
        for node, step in zip(graph.nodes, steps, strict=True):
            given = [place[id(tensor)] for tensor in node.inputs()]
            outputs = tensors(node.outputs)
            for tensor in outputs:
                place.setdefault(id(tensor), len(place))
            made = [place[id(tensor)] for tensor in outputs]
            self._calls.append((step, given, made))
        self._empty = [None] * (len(place) - len(tensors(graph.inputs)))
        self._returned = [place[id(tensor)] for tensor in tensors(graph.outputs)]

    def __call__(self, x: Any) -> Any:
        given = keras.tree.flatten(x) if self._nested else [x]
        values = [*map(np.asarray, given, self._dtypes), *self._empty]
        for step, given, made in self._calls:
            outputs = step(*(values[i] for i in given))
            if len(made) == 1:
                values[made[0]] = outputs
            else:
                for i, output in zip(made, keras.tree.flatten(outputs), strict=True):
                    values[i] = output
        returned = [values[i] for i in self._returned]
        if is_tensor(self._outputs):
            return returned[0]
        return keras.tree.pack_sequence_as(self._outputs, returned)


def _seconds(calls: dict[str, Callable], *arguments: Any) -> dict[str, float]:
    """Medians of what each call takes, in turn, until one is the fastest for sure."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call(*arguments)  # compiles
    left, end = dict(calls), time.perf_counter() + _SECONDS
    for done in range(_ROUNDS.stop):
        if done >= _ROUNDS.start:
            if time.perf_counter() > end:
                break
            # Those that are far behind would take the time that the others need.
            best = min(statistics.median(seconds[name]) for name in left)
            left = {n: c for n, c in left.items() if min(seconds[n]) < _FAR * best}
        for name, call in left.items():
            call(*arguments)  # threads of the call before may still be in the way
            start = time.perf_counter()
            call(*arguments)
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}

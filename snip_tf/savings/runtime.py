"""sparse_runtime: inference that skips the zeros where that is faster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from snip_tf.checks import check_count
from snip_tf.masking.copying import plain_copy
from snip_tf.network import Network
from snip_tf.savings.engines import ENGINES, Chosen, Engine, Engines, Run
from snip_tf.savings.inputs import Inputs, filled_up


def sparse_runtime(
    model: keras.Model,
    batch_size: int | None = None,
    engines: Sequence[Engine] | None = None,
) -> SparseRuntime:
    """Returns a function for inference with a pruned model, faster where zeros help.

    Layer by layer, kernels of dense, convolutional and recurrent layers are sparse
    matrices (SciPy's CSR) or dense ones, whichever is faster for the shape, the
    sparsity and the batch size. This is compared with the `snip_tf.compact` model, and
    with the model itself, compiled by TensorFlow with and without XLA; the fastest is
    used. This is measured once for each batch size, at the first call, which takes some
    seconds, or half a minute for large batches through many convolutions.

    For the same number of non-zeros, processors are many times faster on dense matrices
    than on sparse ones, so sparse ones win at sparsities of 90 % or more, and mostly
    for small batches.

    Args:
        model: a built `keras.Sequential` or Functional model, pruned or not. It is left
            unchanged, and later changes of its weights have no effect.
        batch_size: int, a batch size for which to measure immediately.
        engines: list of the engines to choose from: `"scipy"` (layer by layer, sparse
            or dense), `"tensorflow"`, `"xla"`; default: all.

    Returns:
        A callable that takes the model's inputs, NumPy arrays or tensors, and returns
        NumPy arrays. Its `predict` takes any number of examples, as `keras.Model`'s
        does. Its `chosen`, and its `repr`, show for each batch size what is run.

    Raises:
        TypeError: if `model` is not a Keras model, `batch_size` is not an int, or
            `engines` is not a list of names.
        ValueError: if the model is not built, runs its layers in its own code, or keeps
            a state between calls; or if none of the engines can run it.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> run = snip_tf.sparse_runtime(model)
    >>> run(np.ones((2, 8), np.float32)).shape
    (2, 4)
    >>> run.predict(np.ones((5, 8), np.float32), batch_size=2).shape
    (5, 4)
    """
    network = Network(model)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    _check_engines(engines)
    _check_stateless(network)
    plain = plain_copy(network)
    runtime = SparseRuntime(plain, ENGINES if engines is None else engines)
    if batch_size is not None:
        runtime.measure(batch_size)
    return runtime


class SparseRuntime:
    """See `sparse_runtime`.

    Attributes:
        chosen: `{batch size: what is run}`: `"tensorflow"` or `"xla"`, with `", whole"`
            where the model is not compacted; or for `"scipy"`, `{layer: "sparse" or
            "dense"}` of the layers that can be either.
    """

    def __init__(self, model: keras.Model, engines: Sequence[str] = ENGINES):
        self._name = model.name
        self._engines = Engines(model, engines)
        self._inputs = Inputs(self._engines.inputs)
        self._runs: dict[int, Run] = {}
        self.chosen: dict[int, Chosen] = {}

    def __repr__(self) -> str:
        known = [f"batches of {n}: {_in_words(c)}" for n, c in self.chosen.items()]
        text = "; ".join(known) or "measures what is fastest at its first call"
        return f"<SparseRuntime of {self._name!r}: {text}>"

    def __call__(self, x: Any) -> Any:
        """Returns the outputs of the model for one batch, as NumPy arrays."""
        return self._run(self._inputs.read(x))

    def predict(
        self, x: Any, batch_size: int | None = None, verbose: str | int = "auto"
    ) -> Any:
        """Returns the outputs for any number of examples, computed batch by batch.

        All batches have the same size, for which the fastest engine is found once: the
        last batch is padded with its last example, and the extra outputs are dropped.

        Args:
            x: one or more examples, as the model takes them: NumPy arrays or tensors,
                dense or sparse, or a nest of these; or a `tf.data.Dataset`, a
                `keras.utils.PyDataset` or a generator of batches, which may include
                labels.
            batch_size: int, for arrays; default 32, or all examples if they are fewer.
                A dataset has its own.
            verbose: ignored; accepted for compatibility with `keras.Model.predict`.

        Returns:
            NumPy arrays, one row for each example, in the nest that the model returns.

        Raises:
            TypeError: if `batch_size` is not an int, or `x` is not numbers.
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
        if batch_size is not None:
            check_count("batch_size", batch_size)
        parts: list[Any] = []
        size = 0
        for batch in self._inputs.batches(x, batch_size):
            count = self._inputs.count(batch)
            size = max(count, size)
            outputs = self._run(filled_up(batch, size - count))
            parts.append(
                keras.tree.map_structure(lambda y, n=count: np.asarray(y)[:n], outputs)
            )
        if not parts:
            raise ValueError("Expected one or more batches. Received: an empty dataset")
        return keras.tree.map_structure(lambda *ys: np.concatenate(ys), *parts)

    def measure(self, batch_size: int) -> None:
        """Measures what is fastest for a batch size, on inputs of zeros.

        Raises:
            ValueError: if the size of the model's inputs is not known.
        """
        self._run(self._inputs.zeros(batch_size))

    def _run(self, x: Any) -> Any:
        batch_size = self._inputs.count(x)
        run = self._runs.get(batch_size)
        if run is None:
            run, self.chosen[batch_size] = self._engines.fastest(x)
            self._runs[batch_size] = run
        return run(x)


def _in_words(chosen: Chosen) -> str:
    """Describes what is run in a few words, for any number of layers."""
    if isinstance(chosen, str):
        return chosen
    sparse = sum(way == "sparse" for way in chosen.values())
    return f"layer by layer, {sparse} of {len(chosen)} sparse"


def _check_engines(engines: Sequence[Engine] | None) -> None:
    if engines is None:
        return
    expected = f"Expected `engines` to be a list of {', '.join(map(repr, ENGINES))}. "
    if isinstance(engines, str) or not isinstance(engines, Sequence):
        raise TypeError(f"{expected}Received: engines={engines!r}")
    if not engines or any(engine not in ENGINES for engine in engines):
        raise ValueError(f"{expected}Received: engines={engines!r}")


def _check_stateless(network: Network) -> None:
    stateful = [x.name for x in network.layers if getattr(x, "stateful", False)]
    if stateful:
        raise ValueError(
            f"Expected a model whose outputs depend on its inputs alone, because "
            f"timing calls the model many times. Received: "
            f"model={network.model.name!r}, in which {', '.join(stateful)} keeps a "
            f"state (stateful=True)"
        )

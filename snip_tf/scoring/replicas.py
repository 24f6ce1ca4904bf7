"""Runs a mini-batch on all replicas of a `tf.distribute.Strategy`."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
from typing import Any

import keras

from snip_tf.masking.compiling import strategy_of
from snip_tf.scoring.examples import Batch, example_count, fed, take
from snip_tf.scoring.forward import Pass, Tensors
from snip_tf.scoring.objective import Part
from snip_tf.scoring.reductions import NotDivisible
from snip_tf.weights import is_stateful


def run_on_devices(run: Pass, batch: Batch, part: Part) -> tuple[Any, Tensors]:
    """Runs on a mini-batch, split over replicas where that gives the same result."""
    strategy = strategy_of(run.model)
    if strategy is None or strategy.num_replicas_in_sync == 1:
        return run(batch, part)
    if not run.scored.whole and not is_stateful(run.model):
        with contextlib.suppress(NotDivisible):
            return _over_replicas(strategy, run, batch, part)
    # In a new thread, outside of any strategy's scope, in which Keras would divide its
    # own losses, but not custom ones, by the number of replicas.
    with concurrent.futures.ThreadPoolExecutor(1) as alone:
        return alone.submit(run, batch, part).result()


def _over_replicas(
    strategy: Any,
    run: Pass,
    batch: Batch,
    part: Part,
) -> tuple[Any, Tensors]:
    """Runs on a mini-batch that is split over the replicas of a strategy.

    The gradients are summed with their signs over all machines, so that each selects by
    the same scores; absolute values could not be summed.
    """
    import tensorflow as tf

    count, replicas = example_count(batch), strategy.num_replicas_in_sync
    _check_enough(count, replicas)
    leaves = keras.tree.flatten(batch)
    given = [position for position, leaf in enumerate(leaves) if leaf is not None]

    def share(context: tf.distribute.ValueContext) -> list[tf.Tensor]:
        replica = context.replica_id_in_sync_group
        first, last = (r * count // replicas for r in (replica, replica + 1))
        parts = fed([take(leaves[i], slice(first, last)) for i in given])
        arrays = [p if tf.is_tensor(p) else tf.convert_to_tensor(p) for p in parts]
        # With equal shares, dividing each replica's mean by the number of replicas
        # makes their sum the mean over all; otherwise each is weighted by its size.
        return [tf.constant((last - first) * replicas / count), *arrays]

    def on_replica(weight: tf.Tensor, *arrays: tf.Tensor) -> tuple[tf.Tensor, ...]:
        own: list[Any] = [None] * len(leaves)
        for position, array in zip(given, arrays, strict=True):
            own[position] = array
        shared = dataclasses.replace(part, shared=True)
        loss, gradients = run(keras.tree.pack_sequence_as(batch, own), shared)
        weighed = {p: g * tf.cast(weight, g.dtype) for p, g in gradients.items()}
        return loss * tf.cast(weight, loss.dtype), weighed

    shares = strategy.experimental_distribute_values_from_function(share)
    loss, gradients = strategy.run(on_replica, args=tuple(shares))

    add_up = functools.partial(strategy.reduce, tf.distribute.ReduceOp.SUM, axis=None)
    return add_up(loss), {path: add_up(gradients.pop(path)) for path in list(gradients)}


def _check_enough(count: int, replicas: int) -> None:
    if count < replicas:
        raise ValueError(
            f"Expected a mini-batch of at least one example for each of the "
            f"{replicas} replicas. Received: {count} examples. Raise batch_size or "
            f"prune outside the strategy a model that was built outside it."
        )

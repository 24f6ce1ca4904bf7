"""The tf.distribute strategy of a run, by the name of a flag."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from snip_tf.experiments.training import cluster

STRATEGIES = ("auto", "none", "mirrored", "multi_worker")


def find_workers(name: str) -> cluster.Cluster | None:
    """Returns the workers that train together; None if this process trains alone.

    Args:
        name: one of `STRATEGIES`.

    Raises:
        ValueError: if TF_CONFIG is wrong, or needed and missing.
    """
    if name not in ("auto", "multi_worker"):
        return None
    workers = cluster.from_environment()
    if name == "multi_worker" and not workers:
        raise ValueError(
            "Expected the environment variable TF_CONFIG, which names the workers. "
            "Received: none. See docs/several_machines.md for an example."
        )
    return workers


def make_strategy(
    name: str, workers: cluster.Cluster | None, timeout: float
) -> tf.distribute.Strategy:
    """Returns the strategy, once all workers have joined.

    Args:
        name: one of `STRATEGIES`; `"auto"` mirrors where there are several GPUs.
        workers: as `find_workers` returns them.
        timeout: seconds to wait for them.

    Raises:
        OSError: if the port of this worker is in use, or a worker does not join.
    """
    if workers:
        return cluster.connect(workers, timeout)
    several = len(tf.config.list_physical_devices("GPU")) > 1
    if name == "mirrored" or (name == "auto" and several):
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def check_divisible(strategy: tf.distribute.Strategy, batch_size: int) -> None:
    """Raises a ValueError unless all replicas get equally many examples of a batch."""
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise ValueError(
            f"Expected --batch_size to be a multiple of the {replicas} replicas. "
            f"Received: --batch_size={batch_size}"
        )


def facts(
    flags: Mapping[str, object], versions: Mapping[str, str]
) -> dict[str, object]:
    """Returns what must be the same on all workers, apart from the data."""
    return {
        **{f"--{name}": value for name, value in flags.items()},
        **{f"the version of {name}": version for name, version in versions.items()},
    }

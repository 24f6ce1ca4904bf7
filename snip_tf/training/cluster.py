"""Several machines as one: who they are, whether all are there and run the same."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow as tf

# What TensorFlow raises when a worker is lost: in the middle of adding up, or between.
LOST_WORKER = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a run.

    Attributes:
        workers: `host:port` of each; the first is the chief, which writes the results.
        index: which of them this process is.
    """

    workers: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the results."""
        return self.index == 0


def from_environment() -> Cluster | None:
    """The cluster of the environment variable `TF_CONFIG`; None if it is not set.

    Raises:
        ValueError: if it is not what TensorFlow's multi-worker training takes.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    expected = (
        'Expected TF_CONFIG to be like {"cluster": {"worker": ["host1:12345", '
        '"host2:12345"]}, "task": {"type": "worker", "index": 0}}. Received: '
    )
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        addresses = {name: list(hosts) for name, hosts in cluster.items()}
        kind, index = task["type"], int(task["index"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        problem = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{expected}{text} ({problem})") from error
    unknown = addresses.keys() - {"chief", "worker"}
    if unknown or kind not in addresses:
        raise ValueError(
            f"{expected}{text} (workers, and at most one chief, are all that trains "
            f"here; {', '.join(sorted(unknown)) or kind} is not)"
        )
    # As TensorFlow has it, the chief comes first.
    ranks = [
        (name, i) for name in sorted(addresses) for i in range(len(addresses[name]))
    ]
    if (kind, index) not in ranks or len(addresses.get("chief", "1")) != 1:
        raise ValueError(
            f"{expected}{text} (there is no {kind} of index {index}, or not one chief)"
        )
    workers = tuple(addresses[name][i] for name, i in ranks)
    for worker in workers:
        if not isinstance(worker, str) or not worker.rpartition(":")[2].isdigit():
            raise ValueError(f"{expected}{text} ({worker!r} is not host:port)")
    if len(set(workers)) < len(workers):
        raise ValueError(f"{expected}{text} (two workers have the same address)")
    return Cluster(workers, ranks.index((kind, index)))


def connect(
    cluster: Cluster, timeout: float, give_up: Callable[[str], None]
) -> tf.distribute.Strategy:
    """The strategy that trains on all workers, once all of them are there.

    Args:
        cluster: as TF_CONFIG has it, which TensorFlow reads itself.
        timeout: seconds to wait for the others.
        give_up: called, from another thread, with a message that names the workers that
            have not come in time. TensorFlow waits for ever, so that all that helps is
            to end the process.

    Raises:
        OSError: if the port of this worker is in use.
    """
    host, _, port = cluster.workers[cluster.index].rpartition(":")
    try:
        with socket.socket() as probe:
            # As TensorFlow's server does, which may follow one that has just ended.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", int(port)))
    except (OSError, OverflowError) as error:
        raise OSError(
            f"Expected the port of this worker, {host}:{port}, to be free. Received: "
            f"{error}. End the process that has it, or name another in TF_CONFIG."
        ) from error
    with _watched(cluster, timeout, give_up):
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        _gather(strategy, b"here")
    return strategy


@contextlib.contextmanager
def _watched(
    cluster: Cluster, timeout: float, give_up: Callable[[str], None]
) -> Iterator[None]:
    """Gives up if the body has not ended in time."""
    connected = threading.Event()

    def watch() -> None:
        deadline = time.monotonic() + timeout
        missing = [
            (index, worker)
            for index, worker in enumerate(cluster.workers)
            if index != cluster.index
        ]
        while not connected.wait(0.2):
            missing = [(i, worker) for i, worker in missing if not _answers(worker)]
            if time.monotonic() > deadline:
                names = ", ".join(f"{i} ({worker})" for i, worker in missing)
                give_up(
                    f"Expected all {len(cluster.workers)} workers within {timeout:g} s."
                    f" Received: no answer from worker "
                    f"{names or 'whose port another program has'}."
                )
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        connected.set()
        thread.join()


def _answers(worker: str) -> bool:
    host, _, port = worker.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1):
            return True
    except OSError:
        return False


def check_agreement(
    strategy: tf.distribute.Strategy, facts: Mapping[str, object]
) -> None:
    """Raises a ValueError, on every worker, that names what is not the same on all.

    Args:
        strategy: that of all workers.
        facts: `{name: value}`, the same names everywhere; values that JSON knows.
    """
    received = _gather(strategy, json.dumps(facts, default=str).encode())
    # Every replica of a worker sends the same.
    everyone = list(dict.fromkeys(received))
    if len(everyone) == 1:
        return
    all_facts = [json.loads(text) for text in everyone]
    different = [
        f"{name} is {' and '.join(sorted({str(f.get(name)) for f in all_facts}))}"
        for name in dict.fromkeys(name for facts in all_facts for name in facts)
        if len({json.dumps(facts.get(name)) for facts in all_facts}) > 1
    ]
    raise ValueError(
        f"Expected all workers to be started with the same flags, data and files. "
        f"Received: {'; '.join(different)}."
    )


def _gather(strategy: tf.distribute.Strategy, text: bytes) -> list[bytes]:
    """What each replica sends, in their order."""

    def gathered(values: np.ndarray) -> np.ndarray:
        tensor = tf.constant(values, tf.int32)
        shared = strategy.experimental_distribute_values_from_function(lambda _: tensor)
        return strategy.gather(shared, axis=0).numpy()

    ends = np.cumsum(gathered(np.array([len(text)])))
    everything = gathered(np.frombuffer(text, np.uint8)).astype(np.uint8).tobytes()
    return [
        everything[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)
    ]

"""Several machines as one: who they are, whether all are there and run the same."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import socket
import threading
import time
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

# Seconds in which a worker that is there answers.
_PATIENCE = 1.0
# What TensorFlow raises when a worker is lost: in the middle of adding up, or between.
LOST_WORKER = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
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


def connect(cluster: Cluster, timeout: float) -> tf.distribute.Strategy:
    """The strategy that trains on all workers, once all of them are there.

    Args:
        cluster: as TF_CONFIG has it, which TensorFlow reads itself.
        timeout: seconds to wait for the others.

    Raises:
        OSError: if the port of this worker is in use.
        TimeoutError: if workers do not come in time; they are named.
    """
    # TensorFlow would wait for ever, and in a way in which no thread of ours runs.
    _meet(cluster, timeout)
    return tf.distribute.MultiWorkerMirroredStrategy()


def _meet(cluster: Cluster, timeout: float) -> None:
    """Returns once this worker has heard from all others, and they from this one."""
    own = cluster.workers[cluster.index]
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        listener = socket.create_server(
            ("", _split(own)[1]), family=family, dualstack_ipv6=both
        )
    except (OSError, OverflowError) as error:
        raise OSError(
            f"Expected the port of this worker, {own}, to be free. Received: {error}. "
            f"End the process that has it, or name another in TF_CONFIG."
        ) from error
    others = set(range(len(cluster.workers))) - {cluster.index}
    unheard, unanswered = set(others), set(others)
    deadline = time.monotonic() + timeout

    def listen() -> None:
        while unheard and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(_PATIENCE)
                    worker = _read_greeting(connection)
                    if worker in others:
                        connection.sendall(_greeting(cluster.index))
                        unheard.discard(worker)

    with listener:
        listener.settimeout(_PATIENCE)
        thread = threading.Thread(target=listen)
        thread.start()
        while unanswered and time.monotonic() < deadline:
            for worker in sorted(unanswered):
                if _greet(cluster, worker):
                    unanswered.discard(worker)
            time.sleep(0.1)
        thread.join()
    missing = sorted(unheard | unanswered)
    if missing:
        names = ", ".join(f"{worker} ({cluster.workers[worker]})" for worker in missing)
        raise TimeoutError(
            f"Expected all {len(cluster.workers)} workers within {timeout:g} s. "
            f"Received: nothing from worker {names}."
        )


def _greet(cluster: Cluster, worker: int) -> bool:
    """Whether that very worker answers; not what else may have its port."""
    with contextlib.suppress(OSError):
        address = _split(cluster.workers[worker])
        with socket.create_connection(address, timeout=_PATIENCE) as connection:
            connection.sendall(_greeting(cluster.index))
            return _read_greeting(connection) == worker
    return False


def _greeting(worker: int) -> bytes:
    return b"snip_tf worker %d\n" % worker


def _read_greeting(connection: socket.socket) -> int | None:
    with connection.makefile("rb") as stream:
        match = re.fullmatch(rb"snip_tf worker (\d+)\n", stream.readline(64))
    return int(match[1]) if match else None


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


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

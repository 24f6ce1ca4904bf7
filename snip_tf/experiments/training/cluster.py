"""Joins several machines: who they are, and whether all run the same program."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import tensorflow as tf

from snip_tf.files import write_json

# Seconds in which a connected worker must send its greeting.
_PATIENCE = 1.0
# The most seconds that a socket waits at once; longer waits are repeated.
_LONGEST_WAIT = 1e6
# What the chief says to the others, which identifies it.
_GO = "snip_tf: all workers are there"
_MISSING = "snip_tf: expected"
# A host name or address (IPv6 in brackets), and a port.
_ADDRESS = re.compile(r"([\w-][\w.-]*|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})", re.ASCII)
# What TensorFlow raises when a worker is lost, during a reduction or between two.
LOST_WORKER = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)
# Where a process that replaces itself counts this, and how often it may at one
# checkpoint.
_RESTARTS = "SNIP_TF_RESTARTS"
_MOST_RESTARTS = 5


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a run.

    Attributes:
        workers: `host:port` of each; the first is the chief, which writes the results.
        index: the index of this process among them.
    """

    workers: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the results."""
        return self.index == 0


_EXPECTED = (
    'Expected TF_CONFIG to be like {"cluster": {"worker": ["host1:12345", '
    '"host2:12345"]}, "task": {"type": "worker", "index": 0}}. Received: '
)


def from_environment() -> Cluster | None:
    """Returns the cluster of the environment variable `TF_CONFIG`; None if not set.

    Raises:
        ValueError: if TensorFlow's multi-worker training would not accept it.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        config = json.loads(text)
        if isinstance(config, dict) and not config.get("cluster"):
            return None  # one machine, as in TensorFlow
        return _cluster(config["cluster"], config["task"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        problem = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{_EXPECTED}{text} ({problem})") from error


def _cluster(hosts: Mapping[str, Any], task: Mapping[str, Any]) -> Cluster:
    """Returns a cluster; raises one of several errors if it cannot be one."""
    kind, index = str(task["type"]), task["index"]
    addresses = {name: tuple(some) for name, some in hosts.items()}
    if type(index) is not int or any(isinstance(some, dict) for some in hosts.values()):
        raise ValueError("the index must be a whole number, the hosts lists")
    unknown = addresses.keys() - {"chief", "worker"}
    if unknown or kind not in addresses:
        raise ValueError(
            "only workers, and at most one chief, can train; "
            f"{', '.join(sorted(unknown)) or kind} is neither"
        )
    # The chief comes first, as in TensorFlow.
    ranks = [
        (name, i) for name in sorted(addresses) for i in range(len(addresses[name]))
    ]
    if (kind, index) not in ranks or len(addresses.get("chief", "1")) != 1:
        raise ValueError(f"there is no {kind} with index {index}, or not one chief")
    workers = tuple(addresses[name][i] for name, i in ranks)
    _check_addresses(workers)
    return Cluster(workers, ranks.index((kind, index)))


def _check_addresses(workers: tuple[Any, ...]) -> None:
    for worker in workers:
        address = _ADDRESS.fullmatch(str(worker))
        if not (address and 0 < int(address[2]) < 1 << 16):
            raise ValueError(f"{worker!r} is not host:port")
    if len(set(workers)) < len(workers):
        raise ValueError("two workers have the same address")


def connect(cluster: Cluster, timeout: float) -> tf.distribute.Strategy:
    """Returns the strategy that trains on all workers, once all have joined.

    Args:
        cluster: as TF_CONFIG has it, which TensorFlow reads itself.
        timeout: seconds to wait for the others.

    Raises:
        OSError: if the port of this worker is in use.
        TimeoutError: if workers do not join in time; names them.
    """
    # TensorFlow would wait forever, and block all Python threads meanwhile.
    _meet(cluster, timeout)
    return tf.distribute.MultiWorkerMirroredStrategy()


def _meet(cluster: Cluster, timeout: float) -> None:
    """Waits until all workers have joined.

    Each keeps a connection to the chief, which tells it when all have joined.
    """
    deadline = time.monotonic() + timeout
    with _listener(cluster) as listener:
        if cluster.is_chief:
            _await_workers(cluster, listener, deadline)
    if not cluster.is_chief:
        _await_chief(cluster, deadline)


def _listener(cluster: Cluster) -> socket.socket:
    own = cluster.workers[cluster.index]
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(
            ("", _split(own)[1]), family=family, dualstack_ipv6=both
        )
    except OSError as error:
        raise OSError(
            f"Expected the port of this worker, {own}, to be free. Received: {error}. "
            f"End the process that uses it, or name another in TF_CONFIG."
        ) from error


def _await_workers(cluster: Cluster, listener: socket.socket, deadline: float) -> None:
    """Tells all workers to start once all have joined, or who is missing."""
    greetings = {_greeting(cluster, i): i for i in range(1, len(cluster.workers))}
    present: dict[int, socket.socket] = {}
    listener.settimeout(0.1)
    while len(present) < len(greetings) and time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            connection, _ = listener.accept()
            # In a thread, since any program may connect and send nothing.
            arguments = (connection, greetings, present)
            threading.Thread(target=_hear, args=arguments, daemon=True).start()
    missing = sorted(greetings.values() - present.keys())
    message = _missing(cluster, missing) if missing else _GO
    for connection in present.values():
        with connection, contextlib.suppress(OSError):
            connection.sendall(message.encode())
    if missing:
        raise TimeoutError(message)


def _hear(
    connection: socket.socket,
    greetings: Mapping[bytes, int],
    present: dict[int, socket.socket],
) -> None:
    """Keeps the connection of a worker, and closes any other."""
    connection.settimeout(_PATIENCE)
    with contextlib.suppress(OSError):
        greeting = connection.recv(64)
        if greeting in greetings:
            present[greetings[greeting]] = connection
            return
    connection.close()


def _await_chief(cluster: Cluster, deadline: float) -> None:
    while (left := deadline - time.monotonic()) > 0:
        answer = _ask_chief(cluster, min(left, _LONGEST_WAIT))
        if answer == _GO:
            return
        if answer.startswith(_MISSING):
            raise TimeoutError(answer)
        time.sleep(0.1)  # not started yet, or not the chief
    raise TimeoutError(_missing(cluster, [0]))


def _ask_chief(cluster: Cluster, left: float) -> str:
    """Greets the chief, and returns its answer."""
    address = _split(cluster.workers[0])
    with (
        contextlib.suppress(OSError),
        socket.create_connection(address, timeout=left) as chief,
    ):
        chief.sendall(_greeting(cluster, cluster.index))
        chief.settimeout(left + _PATIENCE)  # the chief gives up first
        return b"".join(iter(lambda: chief.recv(4096), b"")).decode(errors="replace")
    return ""


def _greeting(cluster: Cluster, worker: int) -> bytes:
    return f"worker {worker} of {', '.join(cluster.workers)}"[:64].encode()


def _missing(cluster: Cluster, workers: list[int]) -> str:
    names = ", ".join(f"{worker} ({cluster.workers[worker]})" for worker in workers)
    return (
        f"{_MISSING} all {len(cluster.workers)} workers in time. Received: nothing "
        f"from worker {names}."
    )


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def check_agreement(
    strategy: tf.distribute.Strategy, facts: Mapping[str, object]
) -> None:
    """Raises a ValueError, on every worker, that names any differences among them.

    Args:
        strategy: the strategy of all workers.
        facts: `{name: value}`, with the same names everywhere and JSON values.
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


def check_shared_folder(
    strategy: tf.distribute.Strategy, cluster: Cluster, folder: Path, name: str
) -> None:
    """Raises a ValueError, on every worker, unless all see the same folder.

    Args:
        strategy: the strategy of all workers.
        cluster: the workers.
        folder: the folder, which is made if it does not exist; a file is left in it.
        name: its name in errors.
    """
    token = folder / "workers.json"
    if cluster.is_chief:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(token, {"workers": cluster.workers, "started": time.time_ns()})
    check_agreement(strategy, {})  # waits until it is written
    found = token.read_text() if token.exists() else None
    what = f"{token}, which all workers must find in one {name},"
    check_agreement(strategy, {what: found})


def start_again(error: Exception, reached: int) -> NoReturn:
    """Replaces the process by a new one that runs the same command.

    TensorFlow cannot repair a cluster within a process. In a new one, this worker waits
    for the others, and all continue from the checkpoint.

    Args:
        error: the error about the lost worker; raised if the last few starts saved
            nothing.
        reached: the iteration of the last checkpoint.
    """
    at, _, times = os.environ.get(_RESTARTS, "").partition(":")
    starts = int(times) + 1 if at == str(reached) else 1
    if starts > _MOST_RESTARTS:
        raise error
    os.environ[_RESTARTS] = f"{reached}:{starts}"
    print(f"Lost a worker ({type(error).__name__}). Starting again.", flush=True)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _gather(strategy: tf.distribute.Strategy, text: bytes) -> list[bytes]:
    """Returns what each replica sends, in their order."""

    def gathered(values: np.ndarray) -> np.ndarray:
        tensor = tf.constant(values, tf.int32)
        shared = strategy.experimental_distribute_values_from_function(lambda _: tensor)
        return strategy.gather(shared, axis=0).numpy()

    ends = np.cumsum(gathered(np.array([len(text)])))
    everything = gathered(np.frombuffer(text, np.uint8)).astype(np.uint8).tobytes()
    return [
        everything[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)
    ]

"""Runs of the main program, each in a process of its own."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from snip_tf.files import locked, read_json

Outcome = TypeVar("Outcome")

# What may be counted, and the seconds of thirty years: beyond is no result.
_MOST, _LONGEST = 2**63, 1e9
_RANGES = {
    "final_error": (0, 100),
    "best_checkpoint_error": (0, 100),
    "validation_error": (0, 100),
    "pruning_seconds": (0, _LONGEST),
    "training_seconds": (0, _LONGEST),
}
# Seconds in which a run ends by itself once it is asked to.
_GRACE = 6.0
# In the environment of a run: the process without which it goes on for nobody.
_PARENT = "SNIP_TF_PARENT"


class Runner:
    """Runs a program several times, some at a time.

    Where an exception leaves the `with` block of one, as that of an interruption, the
    runs under way are ended, with all processes that they started.

    Args:
        program: `scripts/train.py`.
        jobs: runs at a time.
    """

    def __init__(self, program: Path, jobs: int):
        self._program = program
        self._pool = concurrent.futures.ThreadPoolExecutor(jobs)
        self._children: set[subprocess.Popen] = set()
        self._lock = threading.Lock()  # of the children
        self._ended = threading.Event()

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._end()
        self._pool.shutdown()

    def each(
        self, tasks: Sequence[Callable[[], Outcome]]
    ) -> Iterator[tuple[Outcome, float]]:
        """What each task returns, as soon as it does, and the seconds it took."""

        def timed(task: Callable[[], Outcome]) -> tuple[Outcome, float]:
            start = time.monotonic()
            return task(), time.monotonic() - start

        started = [self._pool.submit(timed, task) for task in tasks]
        for done in concurrent.futures.as_completed(started):
            yield done.result()

    def run(self, flags: Mapping[str, Any], logdir: Path) -> dict[str, Any] | str:
        """Runs the program to its end; started again, it continues.

        Args:
            flags: `{name: value}`, without the dashes; None is left out.
            logdir: its folder, where what it says goes to output.txt.

        Returns:
            Its result, with the history of its checks; of a run whose loss was no
            longer finite, what is known of it, with `"diverged"`, the words that say
            so; or words that say how it failed.
        """
        chosen = {**flags, "logdir": logdir}
        command = [sys.executable, str(self._program)]
        command += [f"--{name}={v}" for name, v in chosen.items() if v is not None]
        logdir.mkdir(parents=True, exist_ok=True)
        log, diverged = logdir / "output.txt", logdir / "diverged.json"
        self._await_free(logdir)
        diverged.unlink(missing_ok=True)  # of a run before this
        status = self._status(command, log)
        try:
            if status and diverged.exists():
                return dict(read_json(diverged))
            if status:
                last = log.read_text(errors="replace").strip().rpartition("\n")[2]
                return f"failed with status {status}: {last} (all it said is in {log})"
            history = read_json(logdir / "history.json")
            return {**dict(read_json(logdir / "result.json")), "history": history}
        except (OSError, TypeError, ValueError) as error:
            return f"failed: it left no whole result in {logdir}: {error}"

    def _await_free(self, logdir: Path) -> None:
        """Returns once nothing trains there, as a run that was started by hand."""
        while not self._ended.is_set():
            try:
                with locked(logdir):
                    return
            except BlockingIOError:
                self._ended.wait(1)

    def _status(self, command: list[str], log: Path) -> int:
        # One thread each: two runs side by side finish sooner than one after the other.
        environment = {
            **os.environ,
            "TF_NUM_INTRAOP_THREADS": "1",
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # else the first takes all memory
            _PARENT: str(os.getpid()),
        }
        environment.pop("TF_CONFIG", None)  # each run trains alone
        with open(log, "w") as output:
            with self._lock:
                if self._ended.is_set():
                    return -signal.SIGTERM
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    process_group=0,  # so that all it starts can be ended with it
                )
                self._children.add(child)
            status = child.wait()
        self._children.discard(child)
        return status

    def _end(self) -> None:
        """Asks the runs under way to end, and kills those that do not."""
        with self._lock:
            self._ended.set()
            children = list(self._children)
        for child in children:
            _signal(child, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0, deadline - time.monotonic()))
        for child in children:
            _signal(child, signal.SIGKILL)


def _signal(child: subprocess.Popen, number: int) -> None:
    """To the process and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def check_result(result: Mapping[str, Any], needed: Collection[str]) -> None:
    """Raises one of several errors where numbers are not those of a run.

    Args:
        result: what `Runner.run` returned, as it was read from a file.
        needed: which of its numbers must be there; of a run that diverged most are not.
    """
    for name, (lowest, highest) in _RANGES.items():
        value = result.get(name)
        if (value is not None or name in needed) and not is_number(
            value, lowest, highest
        ):
            raise ValueError(f"{name} is {value!r}")
    if not isinstance(result["layers"], list):
        raise TypeError("layers are a list")
    for layer in result["layers"]:
        _check_layer(layer)


def _check_layer(layer: Mapping[str, Any]) -> None:
    counts = [layer[name] for name in ("total", "kept", "units", "idle_units")]
    total, kept, units, idle = counts
    if (
        not isinstance(layer["path"], str)
        or any(isinstance(count, float) for count in counts)
        or not is_number(total, 1, _MOST)
        or not is_number(kept, 0, total)
        or not is_number(units, 0, _MOST)
        or not is_number(idle, 0, units)
    ):
        raise ValueError(
            f"{layer['path']!r} has {kept!r} of {total!r} connections, and "
            f"{idle!r} of {units!r} units are idle"
        )


def is_number(value: object, lowest: float, highest: float) -> bool:
    """Whether it is one within a range; True and NaN are none."""
    return type(value) in (int, float) and lowest <= value <= highest


def differences(flags: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What differs between flags and those that a result was made with, in words."""
    return [
        f"--{name}={found[name]}, now --{name}={value}"
        for name, value in flags.items()
        if name in found and _text(found[name]) != _text(value)
    ]


def _text(value: object) -> str:
    """The value of a flag as it is given, whichever way it was written down."""
    if isinstance(value, list):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)

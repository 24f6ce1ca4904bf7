"""Executes runs of the main program that have no result yet, several at a time."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from snip_tf.experiments import datasets
from snip_tf.experiments.results import (
    ExperimentError,
    Result,
    Results,
    Run,
    read_object,
)
from snip_tf.files import locked, read_json

Outcome = TypeVar("Outcome")

# Seconds in which a run ends by itself after it is asked to.
_GRACE = 6.0
# In the environment of a run: the process for which it runs, and with which it ends.
_PARENT = "SNIP_TF_PARENT"


def run_missing(
    runs: Sequence[Run],
    results: Results,
    runner: Runner,
    *,
    logdir: Path,
    data_dir: str | None,
    say: Callable[[object], None] = print,
    on_result: Callable[[], None] = lambda: None,
) -> list[str]:
    """Executes the runs that have no result yet, and keeps their results.

    Args:
        runs: all runs.
        results: where their results are kept. One process at a time may use it.
        runner: executes them.
        logdir: the folder that holds a folder for each run.
        data_dir: folder of data sets, for all runs.
        say: called with each line of progress.
        on_result: called after each run.

    Returns:
        A line for each run that failed.

    Raises:
        ExperimentError: if another process uses the folder of results, a result is
            damaged or was made with other flags, or a data set cannot be loaded.
        OSError: if a folder cannot be written to.
    """
    with sole_user(results.folder):
        missing = [run for run in runs if not results.is_done(run)]
        count = RunCount(len(runs), len(runs) - len(missing), runner.jobs)
        say(count.overview())
        download({run.flags["datasource"] for run in missing}, data_dir)
        failed = []
        with runner:
            tasks = [
                functools.partial(_execute, runner, run, results, logdir, data_dir)
                for run in missing
            ]
            for (text, succeeded), seconds in runner.each(tasks):
                say(count.line(text, seconds))
                failed += [] if succeeded else [text]
                on_result()
    return failed


@contextlib.contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Makes a folder of results, and keeps other processes out of it."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
        except BlockingIOError as error:
            raise ExperimentError(
                f"Expected an --outdir that no other process writes to. "
                f"Received: {folder}, in use by another process. Wait for it, or name "
                f"another --outdir."
            ) from error
        yield


def download(names: Iterable[str], data_dir: str | None) -> None:
    """Downloads missing data sets, before several processes try it at once."""
    for name in sorted(names):
        try:
            datasets.load(name, data_dir, max_examples=20)
        except (OSError, ImportError) as error:
            raise ExperimentError(f"The data set {name!r}: {error}") from error


def _execute(
    runner: Runner, run: Run, results: Results, logdir: Path, data_dir: str | None
) -> tuple[str, bool]:
    """Executes a run, keeps its result, and says how and whether it succeeded."""
    try:
        result = runner.run({**run.flags, "data_dir": data_dir}, logdir / run.name)
        results.keep(run, result)
    except (RunFailedError, OSError) as error:
        return f"{run.name} failed: {error}", False
    if "diverged" in result:
        return f"{run.name} diverged: {result['diverged']}", True
    percent, seconds = result["final_error"], result["training_seconds"]
    return f"{run.name}: error {percent:.2f} % after {seconds:.0f} s of training", True


class RunFailedError(Exception):
    """Raised when a run left no result; says why."""


class Runner:
    """Runs a program several times, a few at a time.

    If an exception such as an interruption leaves its `with` block, the active runs are
    ended, with all processes that they started.

    Args:
        program: `scripts/train.py`.
        jobs: runs at a time.
    """

    def __init__(self, program: Path, jobs: int):
        self.jobs = jobs
        self._program = program
        self._pool = concurrent.futures.ThreadPoolExecutor(jobs)
        self._children: set[subprocess.Popen] = set()
        self._lock = threading.Lock()  # protects the children
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
        """Yields the result of each task when it is done, and the seconds it took."""

        def timed(task: Callable[[], Outcome]) -> tuple[Outcome, float]:
            start = time.monotonic()
            return task(), time.monotonic() - start

        started = [self._pool.submit(timed, task) for task in tasks]
        for done in concurrent.futures.as_completed(started):
            yield done.result()

    def run(self, flags: Mapping[str, Any], logdir: Path) -> Result:
        """Runs the program to its end; an interrupted run continues.

        Args:
            flags: `{name: value}`, without the dashes; None is left out.
            logdir: the run's folder, which also gets its output, output.txt.

        Returns:
            Its result, with the history of its checks. If its loss became infinite or
            NaN: what is known of the run, with a message under `"diverged"`.

        Raises:
            RunFailedError: if it left no complete result.
        """
        logdir.mkdir(parents=True, exist_ok=True)
        log, diverged = logdir / "output.txt", logdir / "diverged.json"
        self._await_free(logdir)
        diverged.unlink(missing_ok=True)  # from an earlier run
        status = self._status(self._command({**flags, "logdir": logdir}), log)
        try:
            if status and diverged.exists():
                return read_object(diverged)
            if status:
                last = log.read_text(errors="replace").strip().rpartition("\n")[2]
                raise RunFailedError(f"status {status}: {last} (all output: {log})")
            history = read_json(logdir / "history.json")
            return {**read_object(logdir / "result.json"), "history": history}
        except (OSError, TypeError, ValueError) as error:
            raise RunFailedError(f"no complete result in {logdir}: {error}") from error

    def _command(self, flags: Mapping[str, Any]) -> list[str]:
        given = [f"--{name}={v}" for name, v in flags.items() if v is not None]
        return [sys.executable, str(self._program), *given]

    def _await_free(self, logdir: Path) -> None:
        """Waits for a run that somebody else started in the same folder."""
        while not self._ended.is_set():
            try:
                with locked(logdir):
                    return
            except BlockingIOError:
                self._ended.wait(1)

    def _status(self, command: list[str], log: Path) -> int:
        # One thread each: two runs in parallel finish sooner than one after the other.
        environment = {
            **os.environ,
            "TF_NUM_INTRAOP_THREADS": "1",
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # else the first run takes all memory
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
                    process_group=0,  # so that all its processes can be ended with it
                )
                self._children.add(child)
            status = child.wait()
        self._children.discard(child)
        return status

    def _end(self) -> None:
        """Asks the active runs to end, and kills those that do not."""
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
    """Sends a signal to a process and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


class RunCount:
    """Counts finished runs, and estimates the time left.

    Args:
        total: the number of all runs.
        done: the number of runs that have a result already.
        jobs: the number of runs at a time.

    Example:

    >>> count = RunCount(total=5, done=1, jobs=2)
    >>> count.overview()
    '5 runs: 1 done already, 4 to do, 2 at a time.'
    >>> count.line("snip: error 1.70 %", seconds=60)
    '[2 of 5] snip: error 1.70 % (about 2 min left)'
    """

    def __init__(self, total: int, done: int, jobs: int):
        self._total, self._done, self._jobs = total, done, jobs
        self._seconds: list[float] = []

    def overview(self) -> str:
        """Returns the line before the first run."""
        left = self._total - self._done
        jobs = f", {min(self._jobs, left)} at a time" if left > 1 else ""
        return (
            f"{self._total} run{'s' * (self._total != 1)}: {self._done} done already, "
            f"{left} to do{jobs}."
        )

    def line(self, text: str, seconds: float) -> str:
        """Returns the line after a run that took `seconds`."""
        self._seconds.append(seconds)
        self._done += 1
        left = self._total - self._done
        rounds = math.ceil(left / self._jobs)
        time_left = rounds * sum(self._seconds) / len(self._seconds)
        about = f" (about {_duration(time_left)} left)" if left else ""
        return f"[{self._done} of {self._total}] {text}{about}"


def _duration(seconds: float) -> str:
    """Returns a duration in the largest unit that gives more than one or two.

    >>> [_duration(seconds) for seconds in (0.4, 90, 150, 9000)]
    ['1 s', '90 s', '2 min', '150 min']
    """
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"{round(minutes)} min" if minutes < 180 else f"{minutes / 60:.1f} h"

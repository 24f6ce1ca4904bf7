"""What training shows of itself while it runs, and several runs of themselves."""

from __future__ import annotations

import math

import rich.console
import rich.progress

from snip_tf.experiments.training.loop import Check


class Progress:
    """A bar on a terminal; elsewhere a line for each checkpoint.

    Args:
        iterations: all that there are.
        done: those before this process began.
    """

    def __init__(self, iterations: int, done: int):
        self._console = rich.console.Console(highlight=False)
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=iterations, completed=done)
        self._iterations = iterations
        self._validation_error = ""

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, iteration: int, loss: float, check: Check | None) -> None:
        """Shows how far training is; as `loop.train` calls it."""
        if check:
            self._validation_error = f"validation error {check.validation_error:.2f} %"
        text = f"loss {loss:.4f}  {self._validation_error}"
        self._bar.update(self._task, completed=iteration, description=text)
        if check and check.test_error is not None and self._bar.disable:
            rate = check.iteration / check.seconds
            print(
                f"{iteration}/{self._iterations}  loss {check.loss:.4f}  "
                f"{self._validation_error}  {rate:.0f} iterations/s",
                flush=True,
            )


class RunCount:
    """Says of several runs how many are done, and how long the rest takes.

    Args:
        total: all runs.
        done: those that have a result already.
        jobs: runs at a time.

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
        """Before the first run."""
        left = self._total - self._done
        jobs = f", {min(self._jobs, left)} at a time" if left > 1 else ""
        return (
            f"{self._total} run{'s' * (self._total != 1)}: {self._done} done already, "
            f"{left} to do{jobs}."
        )

    def line(self, text: str, seconds: float) -> str:
        """After a run that took so many seconds."""
        self._seconds.append(seconds)
        self._done += 1
        left = self._total - self._done
        rounds = math.ceil(left / self._jobs)
        time_left = rounds * sum(self._seconds) / len(self._seconds)
        about = f" (about {_duration(time_left)} left)" if left else ""
        return f"[{self._done} of {self._total}] {text}{about}"


def _duration(seconds: float) -> str:
    """In the largest unit of which there are a few.

    >>> [_duration(seconds) for seconds in (0.4, 90, 150, 9000)]
    ['1 s', '90 s', '2 min', '150 min']
    """
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"{round(minutes)} min" if minutes < 180 else f"{minutes / 60:.1f} h"

"""Shows the progress of training."""

from __future__ import annotations

import rich.console
import rich.progress

from snip_tf.experiments.training.checkpoint import Check


class Progress:
    """A bar on a terminal; elsewhere a line for each checkpoint.

    Args:
        iterations: the number of iterations of the run.
        done: the number made before this process began.
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
        """Shows how far training is; `loop.train` calls it."""
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

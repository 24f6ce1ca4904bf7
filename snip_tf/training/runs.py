"""Runs of the main program, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snip_tf.files import locked, read_json


def run(program: Path, flags: Mapping[str, Any], logdir: Path) -> dict[str, Any] | str:
    """Runs `scripts/train.py` to its end; started again, it continues.

    Args:
        program: where that is.
        flags: `{name: value}`, without the dashes; None is left out.
        logdir: its folder, where what it says goes to output.txt.

    Returns:
        Its result, with the history of its checks; of a run whose loss was no longer
        finite, what is known of it, with `"diverged"`, the words that say so; or words
        that say how it failed.
    """
    chosen = {**flags, "logdir": logdir}
    command = [sys.executable, str(program)]
    command += [f"--{name}={v}" for name, v in chosen.items() if v is not None]
    logdir.mkdir(parents=True, exist_ok=True)
    log, diverged = logdir / "output.txt", logdir / "diverged.json"
    _await_free(logdir)
    diverged.unlink(missing_ok=True)  # of a run before this
    with open(log, "w") as output:
        # One thread each: two runs side by side finish sooner than one after the other.
        environment = {
            **os.environ,
            "TF_NUM_INTRAOP_THREADS": "1",
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # else the first takes all memory
        }
        done = subprocess.run(command, stdout=output, stderr=output, env=environment)
    if done.returncode and not diverged.exists():
        last = log.read_text(errors="replace").strip().rpartition("\n")[2]
        return f"failed with status {done.returncode}: {last} (all it said is in {log})"
    try:
        if done.returncode:
            return dict(read_json(diverged))
        history = read_json(logdir / "history.json")
        return {**dict(read_json(logdir / "result.json")), "history": history}
    except (OSError, TypeError, ValueError) as error:
        return f"left no whole result in {logdir}: {error}"


def _await_free(logdir: Path) -> None:
    """Returns once nothing trains there: a run outlives the program that started it."""
    while True:
        try:
            with locked(logdir):
                return
        except BlockingIOError:
            time.sleep(1)


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

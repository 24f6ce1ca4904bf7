"""Runs the programs of the repository as a user does."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_program(name, *arguments, cwd):
    """Runs `scripts/name` in a folder of its own, on this checkout."""
    options = {"text": True, "capture_output": True}
    return subprocess.run(**_process(name, arguments, cwd), **options)


def run_smoke(name, cwd, *arguments, code=0):
    """Runs it in its `smoke` budget with one seed, and returns what it says."""
    done = run_program(name, *_SMOKE, *arguments, cwd=cwd)
    assert done.returncode == code, done.stderr[-3000:] + done.stdout[-3000:]
    return done.stdout + done.stderr


def start_smoke(name, cwd, *arguments):
    """Starts it, and returns its process."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(**_process(name, (*_SMOKE, *arguments), cwd), **quiet)


_SMOKE = ("--budget=smoke", "--seeds=0")


def _process(name, arguments, cwd):
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    return {
        "args": [sys.executable, str(ROOT / "scripts" / name), *arguments],
        "cwd": cwd,
        "env": {**os.environ, "PYTHONPATH": path},
    }

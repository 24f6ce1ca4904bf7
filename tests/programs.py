"""Runs the programs of the repository as a user does."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

from absl import flags

ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def loaded(path):
    """A program as a module, in this process; its flags go with it."""
    path = ROOT / path
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    before = set(flags.FLAGS)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent))  # as for a program
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(path.parent))
        flags.FLAGS.remove_flag_values(set(flags.FLAGS) - before)
        del sys.modules[spec.name]


def run_program(name, *arguments, cwd, first=()):
    """Runs `scripts/name` in a folder of its own, on this checkout.

    Modules in the folders `first` are found before all others.
    """
    options = {"text": True, "capture_output": True}
    return subprocess.run(**_process(name, arguments, cwd, first), **options)


def start_program(name, *arguments, cwd, first=()):
    """Starts it, and returns its process; SIGINT reaches it, as in the foreground."""
    options = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    # A shell has its background processes, and so theirs, ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(**_process(name, arguments, cwd, first), **options)
    finally:
        signal.signal(signal.SIGINT, before)


def run_smoke(name, cwd, *arguments, code=0):
    """Runs it in its `smoke` budget with one seed, and returns what it says."""
    done = run_program(name, *_SMOKE, *arguments, cwd=cwd)
    assert done.returncode == code, done.stderr[-3000:] + done.stdout[-3000:]
    return done.stdout + done.stderr


def start_smoke(name, cwd, *arguments):
    """Starts it in this budget."""
    return start_program(name, *_SMOKE, *arguments, cwd=cwd)


_SMOKE = ("--budget=smoke", "--seeds=0")


def _process(name, arguments, cwd, first=()):
    path = os.pathsep.join([*map(str, first), str(ROOT), *filter(None, sys.path)])
    return {
        "args": [sys.executable, str(ROOT / "scripts" / name), *arguments],
        "cwd": cwd,
        "env": {**os.environ, "PYTHONPATH": path},
    }

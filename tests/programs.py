"""Runs the programs of the repository as a user does."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

from absl import flags
from absl.testing import flagsaver

ROOT = Path(__file__).parents[1]
# Flags that must be given.
REQUIRED = {
    "reproduce.py": ["--experiment=table1"],
    "report.py": [f"--model={__file__}"],
    "export.py": [f"--model={__file__}", "--path=b.keras"],
}


@contextlib.contextmanager
def loaded(path):
    """A program as a module, in this process; its flags go with it."""
    path = ROOT / path
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    before, modules = set(flags.FLAGS), set(sys.modules)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent))  # as for a program
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(path.parent))
        flags.FLAGS.remove_flag_values(set(flags.FLAGS) - before)
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if file.startswith(str(path.parent)):
                del sys.modules[name]


def run_main(program, *arguments):
    """Runs a program that is `loaded`, with these flags."""
    with flagsaver.flagsaver():
        flags.FLAGS(["program", *arguments])
        program.main()


def run_program(name, *arguments, cwd, first=()):
    """Runs `scripts/name` in a folder of its own, on this checkout.

    Modules in the folders `first` are found before all others.
    """
    options = {"text": True, "capture_output": True}
    return subprocess.run(**process(name, arguments, cwd, first), **options)


def start_program(name, *arguments, cwd, first=()):
    """Starts it, and returns its process; SIGINT reaches it, as in the foreground."""
    options = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    # A shell has its background processes, and so theirs, ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(**process(name, arguments, cwd, first), **options)
    finally:
        signal.signal(signal.SIGINT, before)


def process(name, arguments, cwd, first=(), **environment):
    """The arguments of `subprocess.Popen` for a program."""
    path = os.pathsep.join([*map(str, first), str(ROOT), *filter(None, sys.path)])
    return {
        "args": [sys.executable, str(ROOT / "scripts" / name), *arguments],
        "cwd": cwd,
        "env": {**os.environ, "PYTHONPATH": path, **environment},
    }

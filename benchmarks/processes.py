"""Runs measurements in separate processes, and measures their memory."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType


def measured_alone(
    script: str,
    *arguments: str,
    cores: int = 1,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, float]:
    """Runs a script alone on `cores` cores; returns the JSON that it prints last."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(cores))
    done = subprocess.run(
        ["taskset", "--cpu-list", f"0-{cores - 1}", sys.executable, script, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **threads, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
    )
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


class PeakMemory:
    """The peak memory of a process since `restart`, above a base.

    TensorFlow keeps the memory that it frees. The base is therefore measured before a
    model is made, after all code has run once on a small one, and the model's own bytes
    are added to it, so that leftovers from drawing the weights count.

    Args:
        own_bytes: bytes that are allocated later but belong to the base.
    """

    def __init__(self, own_bytes: int = 0):
        self._base = _status("VmRSS") + own_bytes

    def restart(self) -> None:
        """Resets the peak."""
        Path("/proc/self/clear_refs").write_text("5")

    def above_base(self) -> int:
        """Returns the peak since then, in bytes."""
        return _status("VmHWM") - self._base


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    raise ValueError(f"Expected a line of /proc/self/status. Received: {name}")

"""benchmarks/gpu.py runs, on the processor where there is no GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.versions import on

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
# A minute on JAX, which compiles each step of the program.
is_slow = [pytest.mark.slow] if keras.backend.backend() == "jax" else []
pytestmark = [on("jax", "torch"), *is_slow]


def run(folder, *arguments):
    command = [sys.executable, PROGRAM, "--result=rows.json", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[1])}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    written = folder / "rows.json"
    [rows] = json.loads(written.read_text()).values() if written.exists() else [{}]
    return rows, done.stdout


def test_all_tasks_and_a_training_that_goes_on(tmp_path):
    rng = np.random.default_rng(0)
    data = {}
    for part, count in (("train", 64), ("test", 16)):
        data[f"x_{part}"] = rng.integers(256, size=(count, 28, 28, 3), dtype=np.uint8)
        data[f"y_{part}"] = np.arange(count) % 10
    np.savez(tmp_path / "data.npz", **data)
    small = ["--networks=lenet5", "--examples=8", "--rounds=1", "--trained=lenet5"]
    small += ["--epochs=2", "--data=data.npz"]
    rows, said = run(tmp_path, *small, "--minutes=0")
    assert rows.pop("masks of lenet5") == {"connections": 430_500, "differ": 0}
    assert rows.pop("times of lenet5")["ratio"] > 0
    assert rows == {} and "time ended" in said
    rows, said = run(tmp_path, *small, "--tasks=training")
    assert said.count("Epoch 1/2") == 1 and said.count("Epoch 2/2") == 2
    assert rows["lenet5, sparsity 0, 2 epochs"]["sparsity"] == 0
    assert rows["lenet5, sparsity 0.95, 2 epochs"]["sparsity"] == pytest.approx(0.95)

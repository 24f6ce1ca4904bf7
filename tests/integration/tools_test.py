"""scripts/export.py and scripts/report.py, as a user starts them."""

import json
import os

import keras
import numpy as np
import pytest

from snip_tf import models
from tests.programs import run_program
from tests.random_networks import prune_at_random


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pruned = prune_at_random(models.build("lenet300"), 0.98, np.random.default_rng(0))
    path = tmp_path_factory.mktemp("model") / "model.keras"
    pruned.save(path)
    return path


def test_export_compacts_and_writes(model, tmp_path):
    done = run_program(
        "export.py", f"--model={model}", "--path=small.keras", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "small.keras: " in done.stdout
    assert keras.models.load_model(tmp_path / "small.keras").count_params() < 120_000
    assert os.listdir(tmp_path) == ["small.keras"]


def test_export_says_no_more_than_the_size(model, tmp_path):
    pytest.importorskip("ai_edge_litert")
    flags = (f"--model={model}", "--path=small.tflite", "--format=litert")
    done = run_program("export.py", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert done.stdout.startswith("small.tflite: ")
    assert done.stdout.count("\n") == 1


def test_report_writes_all_its_forms(model, tmp_path):
    forms = {"html": "r.html", "csv": "r.csv", "markdown": "r.md", "json": "r.json"}
    flags = [f"--{form}={name}" for form, name in forms.items()]
    done = run_program("report.py", f"--model={model}", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "dense1" in done.stdout
    assert sorted(os.listdir(tmp_path)) == sorted(forms.values())
    kept = json.loads((tmp_path / "r.json").read_text())
    assert kept["totals"]["multiply_adds"] == 266_200


def test_says_in_a_line_what_is_wrong(model, tmp_path):
    done = run_program("export.py", f"--model={model}", "--path=a.h5", cwd=tmp_path)
    assert done.returncode == 1
    assert "ends in '.keras'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not os.listdir(tmp_path)

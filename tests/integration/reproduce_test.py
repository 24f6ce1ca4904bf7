"""scripts/reproduce.py: every experiment in its `smoke` budget, on digits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from snip_tf.paper import experiments

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "reproduce.py"
PICTURES = {
    "table1": "layer_sparsity",
    "figure1": "error_against_sparsity",
    "table2": "layer_sparsity",
    "batch_size": "mean_images",
    "random_labels": "loss",
}


def run(folder, *arguments, code=0):
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--budget=smoke", "--seeds=0", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
        capture_output=True,
    )
    assert done.returncode == code, done.stderr[-3000:] + done.stdout[-3000:]
    return done.stdout + done.stderr


def check_picture(path):
    from matplotlib.image import imread

    assert imread(path).std() > 0.01
    assert json.loads(path.with_suffix(".json").read_text())


@pytest.mark.parametrize("experiment", experiments.EXPERIMENTS)
def test_smoke(experiment, tmp_path):
    output = run(tmp_path, f"--experiment={experiment}")
    folder = tmp_path / "results" / experiment / "smoke"
    page = (folder / "table.md").read_text()
    assert f"--experiment={experiment} --budget=smoke" in page
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert "\n".join(table) in output
    rows = {
        name: row
        for name, row in experiments.EXPERIMENTS[experiment].items()
        if row.by_default
    }
    assert len(table) == 2 + len(rows)
    for name, row in rows.items():
        cell = row.cells[-1]
        paper = "" if cell.paper is None else cell.paper
        assert f"| {name} | {cell.name} | {paper} | " in page
        [path] = (folder / name).glob("*-seed0.json")
        result = json.loads(path.read_text())
        expected = {**row.flags, **cell.flags}["target_sparsity"]
        np.testing.assert_allclose(result["sparsity"], expected, atol=1e-4)
        assert result["history"][-1]["iteration"] == 4
    if experiment in PICTURES:
        check_picture(folder / f"{PICTURES[experiment]}.png")


def test_retained_connections(tmp_path):
    run(tmp_path, "--experiment=retained")
    path = tmp_path / "results" / "retained" / "smoke" / "retained.png"
    check_picture(path)
    values = json.loads(path.with_suffix(".json").read_text())
    assert list(values) == [f"{digit}" for digit in range(10)]
    for line in values.values():
        means = [np.mean(line[f"{10 * tenth}%"]) for tenth in range(1, 10)]
        assert means == sorted(means, reverse=True)


def test_runs_only_what_is_missing_and_shows_what_there_is(tmp_path):
    arguments = ("--experiment=table1", "--rows=lenet300")
    first = run(tmp_path, *arguments)
    assert "lenet300/98-seed0: error" in first
    [path] = (tmp_path / "results/table1/smoke/lenet300").iterdir()
    changed = json.loads(path.read_text()) | {"final_error": 12.34}
    path.write_text(json.dumps(changed))
    second = run(tmp_path, *arguments, "--seeds=0,1")
    assert "98-seed0: error" not in second
    assert "98-seed1: error" in second
    shown = run(tmp_path, "--experiment=table1", "--table_only")
    assert "error" not in shown.partition("| network")[0]
    [line] = [line for line in shown.splitlines() if line.startswith("| lenet300")]
    errors = [
        12.34,
        json.loads((path.parent / "98-seed1.json").read_text())["final_error"],
    ]
    assert f"| 2.4 | {np.mean(errors):.2f} ± {np.std(errors, ddof=1):.2f} |" in line


def test_a_run_that_fails_is_named_and_the_others_are_kept(tmp_path):
    (tmp_path / "logs/reproduce/table1/smoke/lenet5/99-seed0").mkdir(parents=True)
    blocked = tmp_path / "logs/reproduce/table1/smoke/lenet5/99-seed0/flags.json"
    blocked.write_text("{}")  # of a run with other flags
    output = run(tmp_path, "--experiment=table1", code=1)
    assert "lenet5/99-seed0 failed: Expected --logdir to be new" in output
    assert "| lenet300 | 98% |" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--experiment=table4"], "table1.*retained"),
        (["--experiment=table1", "--rows=vgg"], "lenet300, lenet5.*Received: vgg"),
        (["--experiment=table1", "--seeds=one"], "expected numbers"),
        (["--experiment=table1", "--table_only"], "Received: none"),
        ([], "experiment"),
    ],
)
def test_refuses(tmp_path, arguments, message):
    import re

    assert re.search(message, run(tmp_path, *arguments, code=1))
    assert not (tmp_path / "logs").exists()

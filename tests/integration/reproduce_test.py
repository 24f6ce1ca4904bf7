"""scripts/reproduce.py: every experiment in its `smoke` budget, on digits."""

import functools
import json
import re

import numpy as np
import pytest

from snip_tf.paper import experiments
from tests.programs import run_smoke

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

PICTURES = {
    "table1": "layer_sparsity",
    "figure1": "error_against_sparsity",
    "table2": "layer_sparsity",
    "batch_size": "mean_images",
    "random_labels": "loss",
}

# Where an experiment has many networks: the smallest of each kind.
SMALL = {
    "table2": ["alexnet_s", "resnet_20", "wrn_16_1", "gru_s"],
    "table3": ["lenet300", "gru_s"],
}

run = functools.partial(run_smoke, "reproduce.py")


def check_picture(path):
    from matplotlib.image import imread

    assert imread(path).std() > 0.01
    return json.loads(path.with_suffix(".json").read_text())


@pytest.mark.parametrize("experiment", experiments.EXPERIMENTS)
def test_smoke(experiment, tmp_path):
    chosen = SMALL.get(experiment, [])
    output = run(tmp_path, f"--experiment={experiment}", f"--rows={','.join(chosen)}")
    folder = tmp_path / "results" / experiment / "smoke"
    page = (folder / "table.md").read_text()
    assert f"--experiment={experiment} --budget=smoke" in page
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert "\n".join(table) in output
    rows = {
        name: row
        for name, row in experiments.EXPERIMENTS[experiment].items()
        if "smoke" in row.budgets and (not chosen or name in chosen)
    }
    assert len(table) == 2 + 2 * len(rows)
    for name, row in rows.items():
        assert len(list((folder / name).iterdir())) == 2
        for cell in (row.cells[0], row.cells[-1]):
            paper = "" if cell.paper is None else cell.paper
            assert f"| {name} | {cell.name} | {paper} | " in page
            slug = re.sub(r"[^\w.]+", "-", cell.name).strip("-")
            result = json.loads((folder / name / f"{slug}-seed0.json").read_text())
            expected = {**row.flags, **cell.flags}["target_sparsity"]
            np.testing.assert_allclose(result["sparsity"], expected, atol=1e-4)
            assert result["history"][-1]["iteration"] == 4
    if experiment in PICTURES:
        data = check_picture(folder / f"{PICTURES[experiment]}.png")
        if experiment != "batch_size":
            assert {key.partition(" ")[0] for key in data} == set(rows)
        else:
            assert list(data) == ["1", "8"]


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
    path = tmp_path / "results/table1/smoke/lenet300/98-seed0.json"
    changed = json.loads(path.read_text()) | {"final_error": 12.34}
    path.write_text(json.dumps(changed))
    second = run(tmp_path, *arguments, "--seeds=0,1")
    assert "98-seed0: error" not in second
    assert "98-seed1: error" in second
    shown = run(tmp_path, "--experiment=table1", "--table_only")
    assert "error" not in shown.partition("| network")[0]
    [line] = [
        line for line in shown.splitlines() if line.startswith("| lenet300 | 98%")
    ]
    errors = [
        12.34,
        json.loads((path.parent / "98-seed1.json").read_text())["final_error"],
    ]
    assert f"| 2.4 | {np.mean(errors):.2f} ± {np.std(errors, ddof=1):.2f} |" in line


def test_a_run_that_fails_is_named_and_the_others_are_kept(tmp_path):
    blocked = tmp_path / "logs/reproduce/random_labels/smoke/lenet5/99-seed0"
    blocked.mkdir(parents=True)
    for name in ("flags.json", "checkpoint.keras"):  # of a run with other flags
        (blocked / name).write_text("{}")
    output = run(tmp_path, "--experiment=random_labels", code=1)
    assert "lenet5/99-seed0 failed with status 1: Expected --logdir to be" in output
    assert "| lenet5 | 0% |" in output
    assert "| lenet5 | 99% |" not in output


def test_results_of_other_flags_are_not_taken_for_the_same(tmp_path):
    folder = tmp_path / "results/table1/smoke/lenet300"
    folder.mkdir(parents=True)
    (folder / "98-seed0.json").write_text('{"flags": {"batch_size": 100, "lr": 0.01}}')
    arguments = ("--experiment=table1", "--rows=lenet300")
    output = run(tmp_path, *arguments, code=1)
    assert "made with --batch_size=100, now --batch_size=8." in output
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--experiment=table4"], "table1.*retained"),
        (["--experiment=table1", "--rows=vgg"], "lenet300, lenet5.*Received: vgg"),
        (["--experiment=table1", "--seeds=one"], "expected numbers"),
        (["--experiment=table1", "--table_only"], "Received: none"),
    ],
)
def test_refuses(tmp_path, arguments, message):
    assert re.search(message, run(tmp_path, *arguments, code=1))
    assert not (tmp_path / "logs").exists()

"""scripts/sweep.py, in its `smoke` budget, on digits."""

import csv
import functools
import json
import signal
import time

import pytest

from snip_tf.files import PARTIAL
from tests.programs import run_smoke, start_smoke

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

CRITERIA = ["snip", "force", "snip:shuffle", "snip:reinitialize", "snip:invert"]

run = functools.partial(run_smoke, "sweep.py")


def rows(folder):
    with open(folder / "results" / "sweep" / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_criteria_and_controls(tmp_path):
    output = run(tmp_path, f"--criteria={','.join(CRITERIA)}", "--sparsities=0.9")
    found = {row["criterion"]: row for row in rows(tmp_path)}
    assert list(found) == ["dense", "force", *sorted(CRITERIA)[1:]]
    results = {
        name: json.loads(
            (
                tmp_path
                / f"results/sweep/runs/lenet300-digits/{name.replace(':', '-')}"
                f"-{90 if name != 'dense' else 0}-seed0.json"
            ).read_text()
        )
        for name in found
    }
    kept = {
        name: [layer["kept"] for layer in result["layers"]]
        for name, result in results.items()
    }
    assert kept["snip"] == kept["snip:shuffle"] == kept["snip:reinitialize"]
    assert len({tuple(kept[name]) for name in ("snip", "force", "snip:invert")}) == 3
    for name, row in found.items():
        result = results[name]
        assert float(row["final_error"]) == result["final_error"]
        assert float(row["sparsity"]) == pytest.approx(result["sparsity"], abs=1e-4)
        assert row["sparsity"] == ("0.0" if name == "dense" else "0.9")
        dead = sum(layer["idle_units"] for layer in result["layers"])
        assert int(row["dead_units"]) == dead
    page = (tmp_path / "results/sweep/table.md").read_text()
    for name, row in found.items():
        error = f"{float(row['final_error']):.2f}"
        line = f"Dense: {error} %" if name == "dense" else f"| {name} | {error} |"
        assert line in page
    assert page.strip() in output
    from matplotlib.image import imread

    assert imread(tmp_path / "results/sweep/lenet300-digits.png").std() > 0.01


def test_what_is_there_is_not_run_again(tmp_path):
    own = "--flag=weight_decay=5e-4"
    arguments = ("--criteria=random,random", "--sparsities=0.9", "--jobs=1", own)
    path = tmp_path / "results/sweep/runs/lenet300-digits/random-90-seed0.json"
    path.parent.mkdir(parents=True)
    # What a sweep that was killed while it wrote has left behind.
    path.with_name(f"{PARTIAL}{path.name}").write_text("{")
    killed = start_smoke("sweep.py", tmp_path, *arguments)
    while not list(tmp_path.glob("logs/sweep/*/*/flags.json")):
        assert killed.poll() is None
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    run(tmp_path, *arguments)  # while the run that was under way still ends
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "final_error": 12.25}))
    output = run(tmp_path, "--criteria=random,magnitude", *arguments[1:])
    assert "magnitude-90-seed0: error" in output
    assert "random-90-seed0: error" not in output
    assert "| random | 12.25 |" in output
    again = run(tmp_path, "--table_only")
    assert "| random | 12.25 |" in again
    refused = run(tmp_path, *arguments, "--flag=min_kept=3", code=1)
    assert "--min_kept=None, now --min_kept=3" in refused
    refused = run(tmp_path, *arguments[:-1], code=1)
    assert "--weight_decay=5e-4, now --weight_decay=None" in refused


def test_a_run_that_diverges_is_a_result(tmp_path):
    arguments = ("--criteria=magnitude", "--sparsities=0.9", "--flag=lr=1e30")
    output = run(tmp_path, *arguments)
    assert "magnitude-90-seed0 diverged: Expected a finite training loss" in output
    assert "| magnitude | 1 diverged |" in output
    [dense, pruned] = rows(tmp_path)
    assert dense["final_error"] == pruned["final_error"] == ""
    assert "finite" in pruned["diverged"]
    assert pruned["dead_units"] == "0"
    assert float(pruned["least_kept"]) < 0.1
    assert "diverged:" not in run(tmp_path, *arguments)


def test_an_interrupted_sweep_starts_nothing_more(tmp_path):
    arguments = ("--criteria=random,magnitude,snip", "--sparsities=0.9", "--jobs=1")
    # A shell has its background processes, and so theirs, ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    sweep = start_smoke("sweep.py", tmp_path, *arguments)
    signal.signal(signal.SIGINT, before)
    while not list(tmp_path.glob("logs/sweep/*/*/flags.json")):
        assert sweep.poll() is None
        time.sleep(0.05)
    sweep.send_signal(signal.SIGINT)
    assert sweep.wait() == 1
    assert len(list(tmp_path.glob("logs/sweep/*/*"))) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--criteria=sinp",), "iterative_snip"),
        (("--criteria=snip:turn",), ":shuffle"),
        (("--sparsities=90",), "between 0 and 1"),
        (("--archs=lenet",), "lenet300"),
        (("--flag=min_kept",), "NAME=VALUE"),
        (("--flag=criterion=snip",), "sets itself"),
        (("--table_only",), "Received: none"),
    ],
)
def test_refuses(tmp_path, arguments, words):
    assert words in run(tmp_path, *arguments, code=1)

"""scripts/sweep.py, in its `smoke` budget, on digits."""

import csv
import functools
import json
import math
import re
import shutil
import signal
import time

import pytest
from absl import flags
from absl.testing import flagsaver

from snip_tf.files import PARTIAL
from tests.programs import ROOT, loaded, run_smoke, start_smoke

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

CRITERIA = ["snip", "force", "snip:shuffle", "snip:reinitialize", "snip:invert"]

run = functools.partial(run_smoke, "sweep.py")


def start_until_it_trains(folder, *arguments):
    sweep = start_smoke("sweep.py", folder, *arguments)
    while not list(folder.glob("logs/sweep/*/*/flags.json")):
        assert sweep.poll() is None, sweep.stdout.read()
        time.sleep(0.05)
    return sweep


@pytest.fixture(scope="module")
def sweep():
    with loaded("scripts/sweep.py") as module:
        yield module


@pytest.fixture
def main(sweep):
    """The program in this process, in its `smoke` budget with one seed."""

    def run_main(folder, *arguments):
        outdir = f"--outdir={folder / 'results/sweep'}"
        with flagsaver.flagsaver():
            flags.FLAGS(["sweep.py", "--budget=smoke", "--seeds=0", outdir, *arguments])
            sweep.main()

    return run_main


@pytest.fixture
def show(main, tmp_path, capsys):
    """What `--table_only` says of the results in tmp_path."""

    def show_it():
        main(tmp_path, "--table_only")
        return capsys.readouterr().out

    return show_it


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
    assert "6 runs: 0 done already, 6 to do, 2 at a time." in output
    for number in range(1, 7):
        left = r" \(about \d+ \w+ left\)" if number < 6 else ""
        assert re.search(
            rf"\[{number} of 6\] lenet300-digits/[^ ]+: .*s{left}\n", output
        )
    assert not re.search(r"^[IWEF]\d{4} |absl::InitializeLog", output, re.MULTILINE)
    from matplotlib.image import imread

    assert imread(tmp_path / "results/sweep/lenet300-digits.png").std() > 0.01


def test_what_is_there_is_not_run_again(main, tmp_path):
    own = "--flag=weight_decay=5e-4"
    arguments = ("--criteria=random,random", "--sparsities=0.9", "--jobs=1", own)
    path = tmp_path / "results/sweep/runs/lenet300-digits/random-90-seed0.json"
    path.parent.mkdir(parents=True)
    # What a sweep that was killed while it wrote has left behind.
    path.with_name(f"{PARTIAL}{path.name}").write_text("{")
    long = ("--flag=train_iterations=100000",)
    killed = start_until_it_trains(tmp_path, *arguments, *long)
    [log] = tmp_path.glob("logs/sweep/*/*/output.txt")
    killed.kill()
    killed.communicate()
    end = time.monotonic() + 60
    while not log.read_text().endswith("The same command continues.\n"):
        assert time.monotonic() < end, "the run goes on for nobody"
        time.sleep(0.1)
    run(tmp_path, *arguments)
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "final_error": 12.25}))
    output = run(tmp_path, "--criteria=random,magnitude", *arguments[1:])
    assert "magnitude-90-seed0: error" in output
    assert "random-90-seed0: error" not in output
    assert "| random | 12.25 |" in output
    with pytest.raises(SystemExit, match="--min_kept=None, now --min_kept=3"):
        main(tmp_path, *arguments, "--flag=min_kept=3")
    with pytest.raises(
        SystemExit, match="--weight_decay=5e-4, now --weight_decay=None"
    ):
        main(tmp_path, *arguments[:-1])


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


def test_an_interrupted_sweep_ends_its_runs(tmp_path):
    arguments = ("--criteria=random,magnitude,snip", "--sparsities=0.9", "--jobs=1")
    sweep = start_until_it_trains(
        tmp_path, *arguments, "--flag=train_iterations=100000"
    )
    sweep.send_signal(signal.SIGINT)  # to it alone
    said, _ = sweep.communicate()
    assert sweep.returncode == 130
    assert said.endswith(
        "\nInterrupted (SIGINT). Its runs are ended, too. The same command continues.\n"
    )
    assert "Traceback" not in said
    assert "failed" not in said
    [log] = tmp_path.glob("logs/sweep/*/*/output.txt")
    assert "Interrupted (SIGTERM)." in log.read_text()


LAYER = {"path": "a/kernel", "kept": 1, "total": 2, "idle_units": 0, "units": 3}
RUN = {
    "arch": "lenet300",
    "datasource": "digits",
    "criterion": "snip",
    "sparsity": 0.5,
    "seed": 0,
}


def write_result(folder, **changes):
    result = {
        "run": RUN,
        "budget": "smoke",
        "given": {},
        "final_error": 1.5,
        "best_checkpoint_error": 1.5,
        "validation_error": 1.5,
        "pruning_seconds": 0.1,
        "training_seconds": 2.0,
        "layers": [LAYER],
    }
    path = folder / "results/sweep/runs/lenet300-digits/snip-50-seed0.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**result, **changes}))
    return path


def test_the_table_kept_is_that_of_the_results_kept(show, tmp_path):
    """They are of versions before this one."""
    kept, folder = ROOT / "benchmarks/results/sweep", tmp_path / "results/sweep"
    shutil.copytree(kept, folder)
    (folder / "table.md").unlink()
    (folder / "results.csv").unlink()
    show()
    for name in ("table.md", "results.csv"):
        assert (folder / name).read_text() == (kept / name).read_text()


def test_results_are_shown(show, tmp_path):
    write_result(tmp_path)
    assert "| snip | 1.50 |" in show()


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": [{}]},
        {"layers": None},
        {"final_error": None},
        {"final_error": "=1+1"},
        {"run": {"arch": "lenet300"}},
        {"given": 3},
        {"budget": None},
        {"totals": 1},
        {"final_error": math.nan},
        {"final_error": math.inf},
        {"final_error": 10**400},
        {"final_error": -1},
        {"final_error": 100.5},
        {"final_error": True},
        {"validation_error": math.nan},
        {"training_seconds": -1},
        {"pruning_seconds": 10**400},
        {"layers": {}},
        {"layers": [{**LAYER, "path": []}]},
        {"layers": [{**LAYER, "total": 0}]},
        {"layers": [{**LAYER, "total": True}]},
        {"layers": [{**LAYER, "total": 10**400}]},
        {"layers": [{**LAYER, "kept": 3}]},
        {"layers": [{**LAYER, "kept": 0.5}]},
        {"layers": [{**LAYER, "idle_units": 4}]},
        {"run": {**RUN, "sparsity": 5}},
        {"run": {**RUN, "sparsity": 1}},
        {"run": {**RUN, "sparsity": math.nan}},
        {"run": {**RUN, "sparsity": 0.0}},
        {"run": {**RUN, "criterion": "dense"}},
        {"run": {**RUN, "seed": 0.5}},
        {"run": {**RUN, "seed": True}},
        {"run": {**RUN, "seed": 2**32}},
        {"run": [1]},
        {"totals": {"multiply_adds": 0, "compacted_multiply_adds": 0}},
        {"totals": {"multiply_adds": 1, "compacted_multiply_adds": math.nan}},
        {"totals": {"multiply_adds": 1, "effective": -1}},
        {"budget": "\x1b[2Jshort\n| a |"},
        {"budget": []},
        {"given": [[1, 2]]},
        {"diverged": 3},
    ],
)
def test_a_result_that_is_none_is_named(show, tmp_path, changes):
    path = write_result(tmp_path, **changes)
    with pytest.raises(SystemExit, match=re.escape(str(path))) as refusal:
        show()
    assert refusal.value.code.isprintable()


def test_flags_in_a_result_are_shown_in_a_line(main, tmp_path):
    write_result(tmp_path, given={"\x1b[2Ja\nb": "\x1b[1mc\n"})
    with pytest.raises(SystemExit, match="--a b=c , now --a b=None") as refusal:
        main(tmp_path, "--criteria=snip", "--sparsities=0.5")
    assert refusal.value.code.isprintable()


@pytest.mark.parametrize("name", ["../../a", "a | b", "=cmd()"])
def test_a_result_of_no_network_is_named(show, tmp_path, name):
    run = {"arch": name, "datasource": "digits", "criterion": "snip"}
    path = write_result(tmp_path, run={**run, "sparsity": 0.5, "seed": 0})
    with pytest.raises(SystemExit, match=re.escape(str(path))):
        show()


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "[" * 100_000, "\xff"])
def test_a_damaged_result_is_named(show, tmp_path, content):
    path = write_result(tmp_path)
    path.write_text(content, encoding="latin-1")
    with pytest.raises(SystemExit, match=re.escape(str(path))) as refusal:
        show()
    assert refusal.value.code.isprintable()


@pytest.mark.parametrize("name", ["snip-50-seed1", "snip-50-seed0 (1)", "snip-5-seed0"])
def test_a_copy_is_no_result_of_another_run(show, tmp_path, name):
    path = write_result(tmp_path)
    copy = path.with_name(f"{name}.json")
    shutil.copy(path, copy)
    with pytest.raises(SystemExit, match=f"{re.escape(str(copy))}.*snip-50-seed0'"):
        show()


def test_what_is_needed_to_draw_is_named(show, sweep, monkeypatch, tmp_path):
    def draw(*args):
        raise ImportError("Expected matplotlib")

    write_result(tmp_path)
    monkeypatch.setattr(sweep.plots, "error_by_criterion", draw)
    with pytest.raises(SystemExit, match="Expected matplotlib"):
        show()
    assert len(rows(tmp_path)) == 1


def test_what_cannot_be_read_or_written_is_named(show, tmp_path):
    path = write_result(tmp_path)
    table = tmp_path / "results/sweep/table.md"
    table.mkdir()
    with pytest.raises(SystemExit, match=rf"able to write to .*{table}"):
        show()
    path.unlink()
    path.mkdir()
    with pytest.raises(SystemExit, match=rf"{path} to be a result"):
        show()


def test_words_in_the_table_of_a_spreadsheet_are_no_formula(show, tmp_path):
    write_result(tmp_path, diverged='=HYPERLINK("a")', final_error=None)
    assert "1 diverged" in show()
    [row] = rows(tmp_path)
    assert row["diverged"] == """'=HYPERLINK("a")"""


def test_nothing_to_show(show, tmp_path):
    with pytest.raises(SystemExit, match="Received: none"):
        show()

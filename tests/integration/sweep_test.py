"""scripts/sweep.py, in its `smoke` budget, on digits."""

import functools
import json
import re
import shutil
import signal
import time

import pytest

from snip_tf.experiments import results
from snip_tf.files import PARTIAL
from tests.canned_runs import CannedRuns, diverged, refuses_in_a_line, result_of, rows
from tests.programs import ROOT, loaded, run_main, run_program, start_program

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

SMOKE = ("--budget=smoke", "--seeds=0")
ONE = ("--criteria=random", "--sparsities=0.9")


@pytest.fixture(scope="module")
def sweep():
    with loaded("scripts/sweep.py") as module:
        yield module


@pytest.fixture
def main(sweep, tmp_path):
    """The program in this process."""
    folders = (f"--outdir={tmp_path / 'out'}", f"--logdir={tmp_path / 'logs'}")
    return functools.partial(run_main, sweep, *SMOKE, *folders)


def result_path(folder, name):
    return folder / f"runs/lenet300-digits/{name}-seed0.json"


@pytest.mark.slow
def test_a_process_with_a_run(main, monkeypatch, tmp_path):
    """The other result is there already."""
    CannedRuns().install(monkeypatch)
    main(*ONE, "--outdir=" + str(tmp_path / "results/sweep"))
    folder = tmp_path / "results/sweep"
    path = result_path(folder, "random-90")
    path.unlink()
    done = run_program("sweep.py", *SMOKE, *ONE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    output = done.stdout + done.stderr
    assert "2 runs: 1 done already, 1 to do." in output
    assert re.search(r"\[2 of 2\] lenet300-digits/random.* of training\n", output)
    assert not re.search(r"^[IWEF]\d{4} |absl::InitializeLog", output, re.MULTILINE)
    [dense, row] = rows(folder / "results.csv")
    assert (dense["criterion"], row["criterion"]) == ("dense", "random")
    result = json.loads(path.read_text())
    assert float(row["final_error"]) == result["final_error"]
    assert float(row["sparsity"]) == pytest.approx(result["sparsity"], abs=1e-4)
    assert result["history"][-1]["iteration"] == 4
    dead = sum(results.dead_units(layer) for layer in result["layers"])
    assert int(row["dead_units"]) == dead
    assert (folder / "table.md").read_text().strip() in output


def test_a_run_for_each_criterion_and_control(main, monkeypatch, tmp_path, capsys):
    criteria = ["snip", "force", "snip:shuffle", "snip:invert"]
    errors = dict(zip(["none", "shuffle", "invert"], [2.0, 3.0, 80.0], strict=True))

    def outcome(flags):
        error = errors[flags["control"]] + (flags["criterion"] == "force")
        return result_of(flags, final_error=error if flags["target_sparsity"] else 1.0)

    canned = CannedRuns(outcome).install(monkeypatch)
    main(f"--criteria={','.join(criteria)}", "--sparsities=0.9", "--jobs=1")
    assert [(f["criterion"], f["control"]) for f in canned.flags[1:]] == [
        ("snip", "none"),
        ("force", "none"),
        ("snip", "shuffle"),
        ("snip", "invert"),
    ]
    assert [f["target_sparsity"] for f in canned.flags] == [0, 0.9, 0.9, 0.9, 0.9]
    page = (tmp_path / "out/table.md").read_text()
    assert page.strip() in capsys.readouterr().out
    for line in (
        "Dense: 1.00 % error.",
        "| snip | 2.00 |",
        "| force | 3.00 |",
        "| snip:shuffle | 3.00 |",
        "| snip:invert | 80.00 |",
    ):
        assert line in page
    from matplotlib.image import imread

    assert imread(tmp_path / "out/lenet300-digits.png").std() > 0.01


def test_what_has_a_result_is_not_run_again(main, monkeypatch, tmp_path, capsys):
    path = result_path(tmp_path / "out", "random-90")
    path.parent.mkdir(parents=True)
    # What a sweep that was killed while it wrote has left behind.
    path.with_name(f"{PARTIAL}{path.name}").write_text("{")
    CannedRuns().install(monkeypatch)
    decay = "--flag=weight_decay=5e-4"
    main("--criteria=random,random", "--sparsities=0.9", decay)
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "final_error": 12.25}))
    again = CannedRuns().install(monkeypatch)
    main("--criteria=random,magnitude", "--sparsities=0.9", decay)
    assert [flags["criterion"] for flags in again.flags] == ["magnitude"]
    assert "| random | 12.25 |" in capsys.readouterr().out
    main(*ONE)  # 5e-4 is the default
    assert len(again.flags) == 1


def test_results_of_other_flags_are_refused(main, monkeypatch, tmp_path):
    def outcome(flags):
        return result_of({"lr": 0.1, "min_kept": 0, **flags})

    canned = CannedRuns(outcome).install(monkeypatch)
    main(*ONE, "--flag=weight_decay=0.25")
    runs = len(canned.flags)
    for flag, words in (
        ("--flag=min_kept=3", "--min_kept=0, now --min_kept=3"),
        ("--flag=weight_decay=0.5", "--weight_decay=0.25, now --weight_decay=0.5"),
        ("--flag=jit_compile=false", "--weight_decay=0.25, now --weight_decay=0.0005"),
    ):
        refuses_in_a_line(words, lambda flag=flag: main(*ONE, flag))
    assert len(canned.flags) == runs


def test_flags_in_a_result_are_shown_in_a_line(main, monkeypatch, tmp_path):
    def outcome(flags):
        return result_of({**flags, "optimizer": "\x1b[2Ja\nb"})

    CannedRuns(outcome).install(monkeypatch)
    main(*ONE)
    words = "--optimizer=a b, now --optimizer=momentum"
    refuses_in_a_line(words, lambda: main(*ONE))


def test_a_run_that_diverges_is_a_result(main, monkeypatch, tmp_path, capsys):
    canned = CannedRuns(diverged).install(monkeypatch)
    main("--criteria=magnitude", "--sparsities=0.9")
    output = capsys.readouterr().out
    assert "magnitude-90-seed0 diverged: the loss is nan" in output
    assert "| magnitude | 1 diverged |" in output
    [dense, pruned] = rows(tmp_path / "out/results.csv")
    assert dense["final_error"] == pruned["final_error"] == ""
    assert pruned["diverged"] == "the loss is nan"
    main("--criteria=magnitude", "--sparsities=0.9")
    assert "diverged:" not in capsys.readouterr().out
    assert len(canned.flags) == 2


def test_runs_that_fail_are_counted_at_the_end(main, sweep, monkeypatch, tmp_path):
    def outcome(flags):
        if flags["target_sparsity"]:
            raise sweep.runner.RunFailedError("status 1: no")
        return result_of(flags)

    CannedRuns(outcome).install(monkeypatch)
    refuses_in_a_line("A run failed, see above", lambda: main(*ONE))
    assert "Dense: 1.50 % error." in (tmp_path / "out/table.md").read_text()
    other = ("--criteria=random,snip", "--sparsities=0.9")
    refuses_in_a_line("2 runs failed", lambda: main(*other))


def test_the_table_kept_is_that_of_the_results_kept(main, tmp_path):
    """They are of versions before this one."""
    kept, folder = ROOT / "benchmarks/results/sweep", tmp_path / "out"
    shutil.copytree(kept, folder)
    (folder / "table.md").unlink()
    (folder / "results.csv").unlink()
    main("--table_only")
    for name in ("table.md", "results.csv"):
        assert (folder / name).read_text() == (kept / name).read_text()


def test_what_is_needed_to_draw_is_named(main, sweep, monkeypatch, tmp_path):
    def draw(*args):
        raise ImportError("Expected matplotlib")

    CannedRuns().install(monkeypatch)
    monkeypatch.setattr(sweep.sweep.plots, "error_by_criterion", draw)
    refuses_in_a_line("Expected matplotlib", lambda: main(*ONE))
    assert len(rows(tmp_path / "out/results.csv")) == 2


def test_what_cannot_be_read_or_written_is_named(main, monkeypatch, tmp_path):
    CannedRuns().install(monkeypatch)
    main(*ONE)
    table = tmp_path / "out/table.md"
    table.unlink()
    table.mkdir()
    refuses_in_a_line(rf"able to write to .*{table}", lambda: main("--table_only"))
    path = result_path(tmp_path / "out", "random-90")
    path.unlink()
    path.mkdir()
    words = rf"{path} to be an unchanged result"
    refuses_in_a_line(words, lambda: main("--table_only"))


def test_nothing_to_show(main):
    refuses_in_a_line("Received: none", lambda: main("--table_only"))


@pytest.fixture
def training(tmp_path):
    """A sweep in a process of its own whose first run trains."""
    arguments = (*SMOKE, "--criteria=random,snip", "--sparsities=0.9", "--jobs=1")
    long = "--flag=train_iterations=100000"
    with start_program("sweep.py", *arguments, long, cwd=tmp_path) as process:
        while not list(tmp_path.glob("logs/sweep/*/*/flags.json")):
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.05)
        yield process


@pytest.mark.slow
def test_an_interrupted_sweep_ends_its_runs(training, tmp_path):
    training.send_signal(signal.SIGINT)  # to it alone
    said, _ = training.communicate()
    assert training.returncode == 130
    words = "Its runs are ended, too. The same command continues."
    assert said.endswith(f"\nInterrupted (SIGINT). {words}\n")
    assert "Traceback" not in said
    assert "failed" not in said
    [log] = tmp_path.glob("logs/sweep/*/*/output.txt")
    assert "Interrupted (SIGTERM)." in log.read_text()


@pytest.mark.slow
def test_the_run_of_a_killed_sweep_ends_by_itself(training, tmp_path):
    [log] = tmp_path.glob("logs/sweep/*/*/output.txt")
    training.kill()
    training.communicate()
    end = time.monotonic() + 60
    while not log.read_text().endswith("The same command continues.\n"):
        assert time.monotonic() < end, "the run goes on for nobody"
        time.sleep(0.1)

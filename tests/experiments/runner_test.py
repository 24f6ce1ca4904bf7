"""Runs of a small program instead of scripts/train.py, which takes seconds to start."""

import json
import os
import subprocess
import sys
import time

import pytest

from snip_tf.experiments.training import runs

TRAIN = """
import json, os, signal, subprocess, sys, time
logdir = sys.argv[-1].removeprefix("--logdir=")
def write(name, text):
    with open(f"{logdir}/{name}", "w") as file:
        file.write(text)
"""
ENDS_WELL = "write('history.json', '[1]')\nwrite('result.json', '{\"error\": 2}')\n"
SLEEPS = "write('pid', str(os.getpid()))\nwrite('begun', '')\ntime.sleep(100)\n"
IGNORES_AND_STARTS_ANOTHER = (
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])\n"
    "write('pid', str(os.getpid()))\n"
    "write('other', str(other.pid))\n"
    "write('begun', '')\n"
    "time.sleep(100)\n"
)


@pytest.fixture
def runner(tmp_path):
    def make(body, jobs=1):
        program = tmp_path / "train.py"
        program.write_text(TRAIN + body)
        return runs.Runner(program, jobs)

    return make


def is_alive(pid):
    """A process that ended, and was adopted by nobody, may stay as a zombie."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True
    ).stdout
    return bool(state) and not state.startswith("Z")


def await_(path):
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_result_with_its_history(runner, tmp_path):
    with runner(ENDS_WELL) as each:
        result = each.run({"lr": 0.1, "data_dir": None}, tmp_path / "logs")
    assert result == {"error": 2, "history": [1]}


def test_a_run_that_diverged(runner, tmp_path):
    (tmp_path / "diverged.json").write_text("{}")  # of a run before this
    with runner("write('diverged.json', '{\"diverged\": \"nan\"}')\nexit(1)") as each:
        assert each.run({}, tmp_path) == {"diverged": "nan"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("sys.exit('no such flag')", "failed with status 1: no such flag (all it said"),
        ("print('first'); os.kill(os.getpid(), 9)", "failed with status -9: first"),
        (ENDS_WELL + "write('result.json', '{')", "result.json"),
        (ENDS_WELL + "write('history.json', '[' * 100000)", "history.json"),
        (ENDS_WELL + "os.remove(f'{logdir}/history.json')", "history.json"),
        (ENDS_WELL + "write('result.json', '3')", "no whole result"),
        ("write('diverged.json', '{')\nexit(1)", "diverged.json"),
    ],
)
def test_how_a_run_failed(runner, tmp_path, body, words):
    with runner(body) as each:
        text = each.run({}, tmp_path)
    assert text.startswith("failed")
    assert words in text


def test_each_as_soon_as_it_is_done(runner):
    def task(seconds):
        time.sleep(seconds)
        return seconds

    with runner("", jobs=2) as each:
        tasks = [lambda s=s: task(s) for s in (0.3, 0.01, 0.02)]
        done = list(each.each(tasks))
    assert [outcome for outcome, _ in done] == [0.01, 0.02, 0.3]
    assert all(outcome <= seconds < 10 for outcome, seconds in done)


@pytest.mark.parametrize(
    ("body", "processes"),
    [(SLEEPS, 2), (IGNORES_AND_STARTS_ANOTHER, 4)],
    ids=["asked", "killed"],
)
def test_an_interruption_ends_the_runs_and_starts_no_more(
    runner, tmp_path, monkeypatch, body, processes
):
    monkeypatch.setattr(runs, "_GRACE", 0.2)
    folders = [tmp_path / f"{number}" for number in range(4)]

    def interrupt():
        for folder in folders[:2]:
            await_(folder / "begun")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), runner(body, jobs=3) as each:
        tasks = [lambda f=folder: each.run({}, f) for folder in folders]
        list(each.each([*tasks[:2], interrupt, *tasks[2:]]))
    written = [path for f in folders[:2] for path in f.glob("[po]*[!t]")]
    pids = [int(path.read_text()) for path in written]
    assert len(pids) == processes
    assert not any(map(is_alive, pids))
    assert not folders[3].exists()


def test_a_run_waits_for_another_in_its_folder(runner, tmp_path):
    holder = (
        "import fcntl, os, sys, time\n"
        "fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "time.sleep(0.5)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path)], stdout=subprocess.PIPE
    )
    other.stdout.readline()
    with runner(ENDS_WELL) as each:
        assert each.run({}, tmp_path)["error"] == 2
    assert other.wait() == 0
    other.stdout.close()


def test_a_run_knows_without_whom_it_goes_on_for_nobody(runner, tmp_path):
    body = ENDS_WELL + (
        "write('result.json', json.dumps({'parent': os.environ['SNIP_TF_PARENT']}))"
    )
    with runner(body) as each:
        assert int(each.run({}, tmp_path)["parent"]) == os.getpid()
    assert json.loads((tmp_path / "result.json").read_text())


def test_a_run_is_no_worker_of_a_cluster(runner, tmp_path, monkeypatch):
    """Two at a time would take one port, or wait for machines that know of neither."""
    monkeypatch.setenv("TF_CONFIG", "{}")
    body = ENDS_WELL + (
        "write('result.json', json.dumps({'config': os.environ.get('TF_CONFIG')}))"
    )
    with runner(body) as each:
        assert each.run({}, tmp_path)["config"] is None


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        *((0, True), (1, True), (0.5, True), (-1, False), (1.5, False)),
        *((float("nan"), False), (float("inf"), False), (10**400, False)),
        *((True, False), ("1", False), (None, False), ([1], False)),
    ],
)
def test_what_is_a_number(value, is_one):
    assert runs.is_number(value, 0, 1) is is_one


def test_numbers_of_a_result():
    layer = {"path": "a/kernel", "kept": 1, "total": 2, "units": 3, "idle_units": 0}
    result = {"final_error": 1.5, "pruning_seconds": 0, "layers": [layer]}
    runs.check_result(result, ["final_error"])
    with pytest.raises(ValueError, match="training_seconds is None"):
        runs.check_result(result, ["training_seconds"])
    with pytest.raises(ValueError, match="final_error is 101"):
        runs.check_result({**result, "final_error": 101}, [])
    with pytest.raises(ValueError, match="'a/kernel' has 3 of 2 connections"):
        runs.check_result({**result, "layers": [{**layer, "kept": 3}]}, [])

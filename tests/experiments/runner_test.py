"""Runs of a small program instead of scripts/train.py, which takes seconds to start."""

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from snip_tf import datasets
from snip_tf.experiments import runner as runs
from snip_tf.experiments.results import Results, Run

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
        ("sys.exit('no such flag')", "status 1: no such flag (all output: "),
        ("print('first'); os.kill(os.getpid(), 9)", "status -9: first"),
        (ENDS_WELL + "write('result.json', '{')", "result.json"),
        (ENDS_WELL + "write('history.json', '[' * 100000)", "history.json"),
        (ENDS_WELL + "os.remove(f'{logdir}/history.json')", "history.json"),
        (ENDS_WELL + "write('result.json', '3')", "no complete result"),
        ("write('diverged.json', '{')\nexit(1)", "diverged.json"),
    ],
)
def test_how_a_run_failed(runner, tmp_path, body, words):
    with runner(body) as each, pytest.raises(runs.RunFailedError) as failure:
        each.run({}, tmp_path)
    assert words in str(failure.value)


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


def test_a_run_ends_with_the_process_that_started_it(runner, tmp_path):
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


LAYER = {"path": "a/kernel", "kept": 1, "total": 2, "idle_units": 0, "units": 3}
RESULT = {
    "final_error": 1.5,
    "training_seconds": 60,
    "flags": {"lr": 0.1, "seed": 0},
    "layers": [LAYER],
}


class Canned(runs.Runner):
    """Runs nothing: gives `outcomes` by name; an exception is raised."""

    def __init__(self, outcomes):
        super().__init__(Path("train.py"), jobs=1)
        self.outcomes, self.started = outcomes, []

    def run(self, flags, logdir):
        self.started.append((logdir, flags))
        outcome = self.outcomes.get(logdir.name, RESULT)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
def complete(tmp_path):
    """Does what is missing; returns the lines it says, and those of what failed."""
    results = Results(tmp_path / "results", {"lr": 0.1}, lambda path, result: None)

    def run(canned, names="abc"):
        said = []
        failed = runs.run_missing(
            [Run(Path(name), {"datasource": "digits", "seed": 0}) for name in names],
            results,
            canned,
            logdir=tmp_path / "logs",
            data_dir=None,
            say=said.append,
        )
        return said, failed

    return run


def kept(tmp_path):
    return sorted(path.name for path in (tmp_path / "results").iterdir())


def test_only_what_is_missing_is_run(complete, tmp_path):
    canned = Canned({})
    said, failed = complete(canned, "ab")
    flags = {"datasource": "digits", "seed": 0, "data_dir": None}
    assert canned.started == [(tmp_path / "logs" / name, flags) for name in "ab"]
    assert failed == []
    assert said == [
        "2 runs: 0 done already, 2 to do, 1 at a time.",
        "[1 of 2] a: error 1.50 % after 60 s of training (about 1 s left)",
        "[2 of 2] b: error 1.50 % after 60 s of training",
    ]
    assert json.loads((tmp_path / "results/a.json").read_text()) == RESULT
    again = Canned({})
    said, _ = complete(again)
    assert [logdir.name for logdir, _ in again.started] == ["c"]
    assert said[0] == "3 runs: 2 done already, 1 to do."
    assert kept(tmp_path) == ["a.json", "b.json", "c.json"]


def test_failures_are_reported_and_tried_again(complete, tmp_path):
    said, failed = complete(Canned({"b": runs.RunFailedError("status 1: no")}))
    assert failed == ["b failed: status 1: no"]
    assert said[2].startswith("[2 of 3] b failed: status 1: no")
    assert kept(tmp_path) == ["a.json", "c.json"]
    again = Canned({"b": OSError("disk full")})
    assert complete(again)[1] == ["b failed: disk full"]
    assert len(again.started) == 1


def test_a_run_that_diverged_is_done(complete, tmp_path):
    """The same flags would diverge again."""
    diverged = {"diverged": "the loss is nan", "flags": {"lr": 0.1, "seed": 0}}
    said, failed = complete(Canned({"a": diverged}), "a")
    assert said[1] == "[1 of 1] a diverged: the loss is nan"
    assert failed == []
    again = Canned({})
    complete(again, "a")
    assert not again.started


def test_results_are_those_of_one_process_at_a_time(complete, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    canned = Canned({})
    try:
        with pytest.raises(ValueError, match=f"no other process.*{folder}"):
            complete(canned)
    finally:
        os.close(descriptor)
    assert not canned.started
    assert kept(tmp_path) == []


def test_data_that_cannot_be_had_is_named_before_a_run(complete, monkeypatch):
    def load(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(datasets, "load", load)
    canned = Canned({})
    with pytest.raises(ValueError, match="data set 'digits': no network"):
        complete(canned)
    assert not canned.started

"""scripts/reproduce.py: every experiment in its `smoke` budget, on digits."""

import fcntl
import functools
import json
import math
import os
import re
import shutil
import signal
import time

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from snip_tf.experiments import recipes
from tests.programs import ROOT, loaded, run_smoke, start_smoke

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


@pytest.mark.parametrize("experiment", recipes.EXPERIMENTS)
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
        for name, row in recipes.EXPERIMENTS[experiment].items()
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
    output = run(tmp_path, "--experiment=retained")
    assert re.fullmatch("Wrote .*retained.png\n", output)
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
    assert "4 runs: 2 done already, 2 to do, 2 at a time." in second
    assert "[4 of 4] lenet300/" in second
    assert second.count("left)") == 1
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
    words = "lenet5/99-seed0 failed with status 1: Expected --logdir to be"
    assert output.count(words) == 1
    assert "A run failed, as said above." in output
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


def test_interrupted_it_ends_its_runs(tmp_path):
    program = start_smoke("reproduce.py", tmp_path, "--experiment=table1", "--jobs=1")
    while not list(tmp_path.glob("logs/reproduce/**/output.txt")):
        assert program.poll() is None, program.stdout.read()
        time.sleep(0.05)
    program.send_signal(signal.SIGTERM)
    said, _ = program.communicate()
    assert program.returncode == 143
    words = "Its runs are ended, too. The same command continues."
    assert said.endswith(f"\nInterrupted (SIGTERM). {words}\n")
    assert not list(tmp_path.glob("results/**/*.json"))


@pytest.fixture(scope="module")
def reproduce():
    with loaded("scripts/reproduce.py") as module:
        yield module


@pytest.fixture
def main(reproduce, tmp_path):
    """In this process."""

    def run_main(*arguments):
        folders = (f"--outdir={tmp_path / 'out'}", f"--logdir={tmp_path / 'logs'}")
        with flagsaver.flagsaver():
            flags.FLAGS(["reproduce.py", "--budget=smoke", *folders, *arguments])
            reproduce.main()

    return run_main


def test_the_table_kept_is_that_of_the_results_kept(main, tmp_path):
    """They are of versions before this one."""
    kept = ROOT / "benchmarks/results/table1/full"
    folder = tmp_path / "out/table1/full"
    shutil.copytree(kept, folder)
    (folder / "table.md").unlink()
    main("--experiment=table1", "--budget=full", "--table_only")
    assert (folder / "table.md").read_text() == (kept / "table.md").read_text()
    (folder / "table.md").unlink()
    (folder / "table.md").mkdir()
    with pytest.raises(SystemExit, match=r"able to write to .*table\.md"):
        main("--experiment=table1", "--budget=full", "--table_only")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--experiment=table1", "--rows=vgg"], "lenet300, lenet5.*Received: vgg"),
        (["--experiment=table1", "--table_only"], "Received: none"),
    ],
)
def test_refuses(main, tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=message):
        main(*arguments)
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("experiment", ["table1", "retained"])
def test_one_folder_is_written_by_one_process(main, tmp_path, experiment):
    folder = tmp_path / "out" / experiment / "smoke"
    folder.mkdir(parents=True)
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(SystemExit, match="where nothing else reproduces"):
            main(f"--experiment={experiment}")
    finally:
        os.close(descriptor)
    assert not os.listdir(folder)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"flags": {}}', '{"flags": 1}', "[" * 100_000]
)
@pytest.mark.parametrize("arguments", [(), ("--table_only",)])
def test_a_damaged_result_is_named(main, tmp_path, content, arguments):
    path = tmp_path / "out/table1/smoke/lenet300/98-seed0.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(SystemExit, match=re.escape(str(path))) as refusal:
        main("--experiment=table1", *arguments)
    assert refusal.value.code.isprintable()
    assert not (tmp_path / "logs").exists()


KEPT = "benchmarks/results/random_labels/full/lenet5/99-seed0.json"


@pytest.mark.parametrize(
    "keys",
    [
        ("final_error",),
        ("best_checkpoint_error",),
        ("pruning_seconds",),
        ("training_seconds",),
        ("flags", "target_sparsity"),
        ("flags", "seed"),
        ("layers", 0, "total"),
        ("layers", 0, "kept"),
        ("layers", 0, "units"),
        ("history", 0, "loss"),
    ],
)
@pytest.mark.parametrize(
    "value", [math.nan, math.inf, 10**400, -1, True, None, "1", []]
)
def test_a_result_of_wrong_numbers_is_named(main, tmp_path, keys, value):
    path = tmp_path / "out/random_labels/smoke/lenet5/99-seed0.json"
    path.parent.mkdir(parents=True)
    result = json.loads((ROOT / KEPT).read_text())
    *outer, last = keys
    functools.reduce(lambda part, key: part[key], outer, result)[last] = value
    path.write_text(json.dumps(result))
    with pytest.raises(SystemExit, match=re.escape(str(path))) as refusal:
        main("--experiment=random_labels", "--table_only")
    assert refusal.value.code.isprintable()


def test_a_copy_is_no_result_of_another_seed(main, tmp_path):
    path = tmp_path / "out/random_labels/smoke/lenet5/99-seed0.json"
    path.parent.mkdir(parents=True)
    shutil.copy(ROOT / KEPT, path)
    for name in ("99-seed1.json", "99-seed0-old.json"):
        copy = path.with_name(name)
        shutil.copy(path, copy)
        with pytest.raises(SystemExit, match=f"{copy} .*it is of seed 0"):
            main("--experiment=random_labels", "--table_only")
        copy.unlink()


@pytest.mark.parametrize("experiment", ["table1", "retained"])
def test_what_is_needed_to_draw_is_named(
    main, reproduce, monkeypatch, tmp_path, experiment
):
    def draw(*args):
        raise ImportError("Expected matplotlib")

    for name in ("draw", "retained"):
        monkeypatch.setattr(reproduce.pictures, name, draw)
    kept = ROOT / "benchmarks/results/table1/full"
    shutil.copytree(kept, tmp_path / "out/table1/smoke")
    with pytest.raises(SystemExit, match="Expected matplotlib"):
        main(f"--experiment={experiment}", *["--table_only"] * (experiment == "table1"))


@pytest.mark.parametrize("experiment", recipes.EXPERIMENTS)
def test_the_results_kept_are_whole(reproduce, experiment):
    """They are of versions before this one."""
    with flagsaver.flagsaver():
        flags.FLAGS(["reproduce.py", f"--experiment={experiment}"])
        kept = ROOT / "benchmarks/results" / experiment
        for budget in ("short", "full"):
            reproduce._found(kept / budget)

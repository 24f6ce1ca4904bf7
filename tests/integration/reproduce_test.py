"""scripts/reproduce.py, in its `smoke` budget, on digits."""

import fcntl
import functools
import json
import os
import re
import shutil
import signal
import time

import numpy as np
import pytest

from snip_tf.experiments import recipes
from snip_tf.files import locked
from tests.canned_runs import (
    CannedRuns,
    diverged,
    picture_data,
    refuses_in_a_line,
    result_of,
)
from tests.programs import ROOT, loaded, run_main, run_program, start_program

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

KEPT = ROOT / "benchmarks/results"
PICTURES = {
    "table1": "layer_sparsity",
    "figure1": "error_against_sparsity",
    "table2": "layer_sparsity",
    "batch_size": "mean_images",
    "random_labels": "loss",
}


@pytest.fixture(scope="module")
def reproduce():
    with loaded("scripts/reproduce.py") as module:
        yield module


@pytest.fixture
def main(reproduce, tmp_path):
    """In this process."""
    folders = (f"--outdir={tmp_path / 'out'}", f"--logdir={tmp_path / 'logs'}")
    smoke = ("--budget=smoke", "--seeds=0")
    return functools.partial(run_main, reproduce, *smoke, *folders)


@pytest.fixture
def canned(monkeypatch):
    return CannedRuns().install(monkeypatch)


@pytest.mark.parametrize("experiment", recipes.EXPERIMENTS)
def test_runs_table_and_picture(main, canned, tmp_path, capsys, experiment):
    chosen = {"table2": ["alexnet_s", "resnet_20", "gru_s"]}.get(experiment, [])
    main(f"--experiment={experiment}", f"--rows={','.join(chosen)}")
    rows = {
        name: row
        for name, row in recipes.EXPERIMENTS[experiment].items()
        if "smoke" in row.budgets and (not chosen or name in chosen)
    }
    cells = [
        (name, row, cell)
        for name, row in rows.items()
        for cell in (row.cells[0], row.cells[-1])
    ]
    assert len(canned.flags) == len(cells)
    folder = tmp_path / "out" / experiment / "smoke"
    page = (folder / "table.md").read_text()
    assert f"--experiment={experiment} --budget=smoke" in page
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert "\n".join(table) in capsys.readouterr().out
    assert len(table) == 2 + len(cells)
    for name, row, cell in cells:
        paper = "" if cell.paper is None else cell.paper
        assert f"| {name} | {cell.name} | {paper} | 1.50 | 1.25 | 1 |" in page
        slug = re.sub(r"[^\w.]+", "-", cell.name).strip("-")
        result = json.loads((folder / name / f"{slug}-seed0.json").read_text())
        expected = {**row.flags, **cell.flags, **recipes.SMOKE}
        recipe = recipes.recipe_of(expected["arch"], expected.get("datasource"))
        expected |= {"datasource": recipe.stand_in}
        expected |= {"scoring_batch_size": result["flags"]["scoring_batch_size"]}
        assert expected.items() <= result["flags"].items()
    if experiment in PICTURES:
        data = picture_data(folder / f"{PICTURES[experiment]}.png")
        if experiment != "batch_size":
            assert {key.partition(" ")[0] for key in data} == set(rows)
        else:
            assert list(data) == ["1", "8"]


@pytest.mark.slow
def test_a_process_of_retained_connections(tmp_path):
    smoke = ("--budget=smoke", "--seeds=0")
    done = run_program("reproduce.py", "--experiment=retained", *smoke, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.fullmatch("Wrote .*retained.png\n", done.stdout + done.stderr)
    values = picture_data(tmp_path / "results" / "retained" / "smoke" / "retained.png")
    assert list(values) == [f"{digit}" for digit in range(10)]
    for line in values.values():
        means = [np.mean(line[f"{10 * tenth}%"]) for tenth in range(1, 10)]
        assert means == sorted(means, reverse=True)


ONE = ("--experiment=table1", "--rows=lenet300")


def test_runs_only_what_is_missing_and_shows_what_exists(
    main, canned, tmp_path, capsys
):
    main(*ONE)
    path = tmp_path / "out/table1/smoke/lenet300/98-seed0.json"
    changed = json.loads(path.read_text()) | {"final_error": 12.34}
    path.write_text(json.dumps(changed))
    main(*ONE, "--seeds=0,1")
    assert [flags["seed"] for flags in canned.flags] == [0, 0, 1, 1]
    output = capsys.readouterr().out
    assert "4 runs: 2 done already, 2 to do, 2 at a time." in output
    main("--experiment=table1", "--table_only")
    [line] = re.findall(r"\| lenet300 \| 98% .*", capsys.readouterr().out)
    errors = [12.34, 1.5]
    assert f"| 2.4 | {np.mean(errors):.2f} ± {np.std(errors, ddof=1):.2f} |" in line
    assert len(canned.flags) == 4


def test_a_run_that_fails_is_named_and_the_others_are_kept(
    main, reproduce, monkeypatch, capsys
):
    def outcome(flags):
        if flags["target_sparsity"]:
            raise reproduce.runner.RunFailedError("status 1: no")
        return result_of(flags)

    CannedRuns(outcome).install(monkeypatch)
    refuses_in_a_line(
        "A run failed, see above.", lambda: main("--experiment=random_labels")
    )
    output = capsys.readouterr().out
    assert output.count("lenet5/99-seed0 failed: status 1: no") == 1
    assert "| lenet5 | 0% |" in output
    assert "| lenet5 | 99% |" not in output


def test_a_run_that_diverges_is_a_result(main, monkeypatch, tmp_path, capsys):
    """It is shown in the table, left out of the picture, and not run again."""

    def outcome(flags):
        return result_of(flags) if flags["target_sparsity"] else diverged(flags)

    again = CannedRuns(outcome).install(monkeypatch)
    for _ in range(2):
        main("--experiment=random_labels")
        assert "| lenet5 | 0% |  | 1 diverged |  | 1 |" in capsys.readouterr().out
    assert len(again.flags) == 2
    data = picture_data(tmp_path / "out/random_labels/smoke/loss.png")
    assert list(data) == ["lenet5 99%"]


def test_results_of_other_flags_are_not_taken_for_the_same(
    main, canned, monkeypatch, tmp_path
):
    main(*ONE)
    words = "made with --dtype_policy=float32, now --dtype_policy=mixed_bfloat16"
    refuses_in_a_line(words, lambda: main(*ONE, "--dtype_policy=mixed_bfloat16"))
    # A flag that the recipe gave then, and does not any longer.
    path = tmp_path / "out/table1/smoke/lenet300/98-seed0.json"
    result = json.loads(path.read_text())
    result["flags"]["jit_compile"] = True
    path.write_text(json.dumps(result))
    refuses_in_a_line("--jit_compile=True, now --jit_compile=False", lambda: main(*ONE))
    assert len(canned.flags) == 2


@pytest.mark.slow
def test_interrupted_it_ends_its_runs(tmp_path):
    arguments = ("--experiment=table1", "--jobs=1", "--budget=smoke", "--seeds=0")
    with start_program("reproduce.py", *arguments, cwd=tmp_path) as program:
        while not list(tmp_path.glob("logs/reproduce/**/output.txt")):
            assert program.poll() is None, program.stdout.read()
            time.sleep(0.05)
        program.send_signal(signal.SIGTERM)
        said, _ = program.communicate()
    assert program.returncode == 143
    words = "Its runs are ended, too. The same command continues."
    assert said.endswith(f"\nInterrupted (SIGTERM). {words}\n")
    logs = list(tmp_path.glob("logs/reproduce/**/output.txt"))
    assert len(logs) < 4  # a run of this length may have ended by itself before
    for log in logs:
        with locked(log.parent):  # no run is left that uses it
            pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "network"),
    [
        ("table2", "wrn_16_1"),
        ("table3", "gru_s"),
        ("random_labels", "lenet5"),
    ],
)
def test_real_runs(tmp_path, experiment, network):
    """A network of each kind, and what only one experiment does."""
    given = (f"--experiment={experiment}", f"--rows={network}")
    smoke = ("--budget=smoke", "--seeds=0")
    done = run_program("reproduce.py", *given, *smoke, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    paths = list(tmp_path.glob(f"results/{experiment}/smoke/{network}/*.json"))
    assert len(paths) == 2
    for path in paths:
        result = json.loads(path.read_text())
        asked = result["flags"]["target_sparsity"]
        np.testing.assert_allclose(result["sparsity"], asked, atol=1e-4)
        assert result["history"][-1]["iteration"] == 4


def test_the_table_kept_is_that_of_the_results_kept(main, tmp_path):
    """They are of versions before this one."""
    folder = tmp_path / "out/table1/full"
    shutil.copytree(KEPT / "table1/full", folder)
    (folder / "table.md").unlink()
    main("--experiment=table1", "--budget=full", "--table_only")
    kept = KEPT / "table1/full/table.md"
    assert (folder / "table.md").read_text() == kept.read_text()
    (folder / "table.md").unlink()
    (folder / "table.md").mkdir()
    refuses_in_a_line(
        r"able to write to .*table\.md",
        lambda: main("--experiment=table1", "--budget=full", "--table_only"),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--experiment=table1", "--rows=vgg"], "lenet300, lenet5.*Received: vgg"),
        (["--experiment=table1", "--table_only"], "Received: none"),
    ],
)
def test_refuses(main, tmp_path, arguments, message):
    refuses_in_a_line(message, lambda: main(*arguments))
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("experiment", ["table1", "retained"])
def test_one_folder_is_written_by_one_process(main, tmp_path, experiment):
    folder = tmp_path / "out" / experiment / "smoke"
    folder.mkdir(parents=True)
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        refuses_in_a_line(
            "no other process writes to", lambda: main(f"--experiment={experiment}")
        )
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
    refuses_in_a_line(
        re.escape(str(path)), lambda: main("--experiment=table1", *arguments)
    )
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("experiment", ["table1", "retained"])
def test_what_is_needed_to_draw_is_named(
    main, reproduce, monkeypatch, tmp_path, experiment
):
    def draw(*args):
        raise ImportError("Expected matplotlib")

    for name in ("draw", "retained"):
        monkeypatch.setattr(reproduce.pictures, name, draw)
    shutil.copytree(KEPT / "table1/full", tmp_path / "out/table1/smoke")
    only = ["--table_only"] * (experiment == "table1")
    refuses_in_a_line(
        "Expected matplotlib", lambda: main(f"--experiment={experiment}", *only)
    )

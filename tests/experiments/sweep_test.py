"""The runs of a sweep, and how its results are checked and shown."""

import math
import re
import shutil

import pytest

from snip_tf.experiments import sweep
from snip_tf.experiments.results import Results, Run
from tests.canned_runs import LAYER, result_of, rows

RUN = {
    "arch": "lenet300",
    "datasource": "digits",
    "criterion": "snip",
    "sparsity": 0.5,
    "seed": 0,
}
ABOUT = {"run": RUN, "budget": "smoke", "given": {}}


@pytest.fixture
def kept(tmp_path):
    return Results(tmp_path, {}, sweep.check)


def keep(kept, **changes):
    """Keeps a result; returns its path."""
    run = Run(sweep.Place(**RUN).name(), {})
    kept.keep(run, {**ABOUT, **result_of({}), **changes})
    return kept.path(run)


def test_each_run_once_in_order():
    given = {"lr": "0.5"}
    runs = sweep.Sweep(
        archs=["lenet300", "gru_s"],
        datasources=[],
        criteria=["snip", "snip:invert", "snip"],
        sparsities=[0.9, 0.99],
        seeds=[1, 0, 1],
        budget="full",
        flags=given,
        has_data=True,
    ).runs()
    assert len(runs) == 2 * 2 * (1 + 2 * 2)
    names = [str(run.name) for run in runs[:5]]
    assert names == [
        "lenet300-mnist/dense-0-seed1",
        "lenet300-mnist/snip-90-seed1",
        "lenet300-mnist/snip-invert-90-seed1",
        "lenet300-mnist/snip-99-seed1",
        "lenet300-mnist/snip-invert-99-seed1",
    ]
    flags = runs[2].flags
    assert (flags["criterion"], flags["control"], flags["lr"]) == (
        "snip",
        "invert",
        "0.5",
    )
    assert (flags["seed"], flags["target_sparsity"]) == (1, 0.9)
    assert runs[2].about["run"]["criterion"] == "snip:invert"
    assert runs[5].name.parts[0] == "gru_s-sequential_mnist"


def test_without_data_smoke_takes_a_stand_in():
    [dense, _] = sweep.Sweep(
        ["lenet300"], ["mnist"], ["snip"], [0.5], [0], "smoke", {}, has_data=False
    ).runs()
    assert dense.name.parts[0] == "lenet300-digits"
    assert dense.flags["datasource"] == "digits"


def test_a_result_is_a_row(kept, tmp_path):
    keep(
        kept, totals={"multiply_adds": 8, "effective": 3, "compacted_multiply_adds": 4}
    )
    found = sweep.found_in(kept)
    sweep.write_csv(found, tmp_path / "results.csv")
    [row] = rows(tmp_path / "results.csv")
    assert row["criterion"] == "snip"
    assert (row["units"], row["dead_units"], row["least_kept"]) == ("3", "0", "0.5")
    assert (row["multiply_adds"], row["effective_multiply_adds"]) == ("8", "3")


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
        {"run": {**RUN, "arch": "../../a"}},
        {"run": {**RUN, "arch": "a | b"}},
        {"run": {**RUN, "datasource": "=cmd()"}},
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
def test_an_invalid_result_is_named(kept, changes):
    path = keep(kept)
    assert kept.read(path)["final_error"] == 1.5
    keep(kept, **changes)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        sweep.found_in(kept)


@pytest.mark.parametrize("name", ["snip-50-seed1", "snip-50-seed0 (1)", "snip-5-seed0"])
def test_a_copy_is_no_result_of_another_run(kept, name):
    path = keep(kept)
    copy = path.with_name(f"{name}.json")
    shutil.copy(path, copy)
    with pytest.raises(ValueError, match=f"{re.escape(str(copy))}.*snip-50-seed0'"):
        sweep.found_in(kept)


def test_words_in_the_table_of_a_spreadsheet_are_no_formula(kept, tmp_path, capsys):
    keep(kept, diverged='=HYPERLINK("a")', final_error=None)
    found = sweep.write_csv(sweep.found_in(kept), tmp_path / "results.csv")
    sweep.write_table(found, ["smoke"], tmp_path / "table.md")
    assert "1 diverged" in capsys.readouterr().out
    [row] = rows(tmp_path / "results.csv")
    assert row["diverged"] == """'=HYPERLINK("a")"""

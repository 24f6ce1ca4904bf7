"""The runs of an experiment, and how their results are checked."""

import functools
import json
import math
import shutil
from pathlib import Path

import pytest

from snip_tf.experiments import recipes, reproduction

KEPT = Path(__file__).parents[2] / "benchmarks/results"
RESULT = KEPT / "random_labels/full/lenet5/99-seed0.json"


@pytest.mark.parametrize("experiment", recipes.EXPERIMENTS)
@pytest.mark.parametrize("budget", ["short", "full"])
def test_the_results_kept_are_whole_and_all_are_read(experiment, budget):
    """They are of versions before this one."""
    folder = KEPT / experiment / budget
    kept = reproduction.results_in(folder, experiment, {})
    found = reproduction.found_in(kept, experiment)
    count = sum(len(some) for cells in found.values() for some in cells.values())
    assert count == len(list(folder.glob("*/*.json")))


def test_all_runs_of_an_experiment():
    reproduce = functools.partial(
        reproduction.Reproduction,
        "table1",
        dtype_policy="float32",
        has_data=True,
    )
    runs = reproduce("full", [], [1, 0, 1]).runs()
    names = [str(run.name) for run in runs]
    assert names[:4] == [
        "lenet300/0-seed1",
        "lenet300/95-seed1",
        "lenet300/98-seed1",
        "lenet5/0-rate-0.03-seed1",
    ]
    assert len(names) == len(set(names)) == 12
    assert [run.flags["seed"] for run in runs] == [1] * 6 + [0] * 6
    assert runs[1].flags["train_iterations"] == 30_000
    [first, last] = reproduce("smoke", ["lenet5"], [0]).runs()
    assert (str(first.name), str(last.name)) == (
        "lenet5/0-rate-0.03-seed0",
        "lenet5/99-seed0",
    )


def test_a_network_of_another_experiment_is_refused():
    with pytest.raises(ValueError, match=r"lenet300, lenet5.*Received: vgg"):
        reproduction.Reproduction("table1", "full", ["vgg"], [0], "float32", True)


@pytest.fixture
def kept(tmp_path):
    return reproduction.results_in(tmp_path, "random_labels", {})


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
def test_a_result_of_wrong_numbers_is_named(kept, keys, value):
    result = json.loads(RESULT.read_text())
    *outer, last = keys
    functools.reduce(lambda part, key: part[key], outer, result)[last] = value
    path = kept.folder / "99-seed0.json"
    path.write_text(json.dumps(result))
    with pytest.raises(ValueError, match=f"Expected {path} to be an unchanged result"):
        kept.read(path)


def test_a_copy_is_no_result_of_another_seed(kept):
    for name in ("99-seed1.json", "99-seed0-old.json"):
        copy = kept.folder / name
        shutil.copy(RESULT, copy)
        with pytest.raises(ValueError, match=f"{copy} .*it is of seed 0"):
            kept.read(copy)

import json
import math
from pathlib import Path

import pytest

from snip_tf.experiments import results

LAYER = {"path": "a/kernel", "kept": 1, "total": 2, "idle_units": 0, "units": 3}
RESULT = {"final_error": 1.5, "pruning_seconds": 0, "layers": [LAYER]}


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        (0, True),
        (1, True),
        (0.5, True),
        (-1, False),
        (1.5, False),
        (math.nan, False),
        (math.inf, False),
        (10**400, False),
        (True, False),
        ("1", False),
        (None, False),
        ([1], False),
    ],
)
def test_what_is_a_number(value, is_one):
    assert results.is_number(value, 0, 1) is is_one


def test_numbers_of_a_result():
    results.check_result(RESULT, ["final_error"])
    with pytest.raises(ValueError, match="training_seconds is None"):
        results.check_result(RESULT, ["training_seconds"])
    with pytest.raises(ValueError, match="final_error is 101"):
        results.check_result({**RESULT, "final_error": 101}, [])
    with pytest.raises(ValueError, match="'a/kernel' has 3 of 2 connections"):
        results.check_result({**RESULT, "layers": [{**LAYER, "kept": 3}]}, [])


def test_dead_units_are_called_idle_in_files():
    layer = {**LAYER, "idle_units": 2}
    recurrent = {**layer, "path": "a/recurrent_kernel"}
    assert results.units([{"layers": [layer, layer, recurrent]}]) == (4, 6)
    with pytest.raises(ValueError, match="4 of 3 units are dead"):
        results.check_result({**RESULT, "layers": [{**layer, "idle_units": 4}]}, [])


DEFAULTS = {"lr": 0.1, "weight_decay": 5e-4, "aug_kinds": [], "jit_compile": False}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, {}),
        ({}, {"on_collapse": "warn"}),  # of another version
        ({"seed": 3}, {"seed": 3}),
        ({"weight_decay": "5e-4"}, {"weight_decay": 0.0005}),
        ({}, {"weight_decay": 0.0005, "aug_kinds": []}),
        ({"aug_kinds": "a,b"}, {"aug_kinds": ["a", "b"]}),
        ({"jit_compile": True}, {"jit_compile": True}),
        ({"jit_compile": "true"}, {"jit_compile": True}),
    ],
)
def test_flags_are_the_same_however_they_are_written(given, found):
    assert results.differences({**DEFAULTS, **given}, found) == []


@pytest.mark.parametrize(
    ("given", "found", "words"),
    [
        ({"seed": 3}, {"seed": 4}, "--seed=4, now --seed=3"),
        ({"seed": 2**32 - 1}, {"seed": 2**32 - 2}, "--seed="),
        # What is no longer given differs, too.
        ({}, {"lr": 0.5}, "--lr=0.5, now --lr=0.1"),
        ({"aug_kinds": "a"}, {"aug_kinds": ["a", "b"]}, "--aug_kinds="),
        ({"jit_compile": True}, {"jit_compile": False}, "--jit_compile=False"),
    ],
)
def test_differing_flags_are_reported(given, found, words):
    [difference] = results.differences({**DEFAULTS, **given}, found)
    assert words in difference


def test_what_is_done(tmp_path):
    kept = results.Results(tmp_path, DEFAULTS, lambda path, result: None)
    run = results.Run(Path("a/b"), {"lr": 0.2}, {"budget": "short"})
    assert not kept.is_done(run)
    kept.keep(run, {"flags": {"lr": 0.2, "weight_decay": 5e-4}})
    assert kept.is_done(run)
    assert json.loads((tmp_path / "a/b.json").read_text())["budget"] == "short"
    for flags in ({}, {"lr": 0.2, "weight_decay": 0}):
        with pytest.raises(ValueError, match=r"same flags.*b\.json, made with --"):
            kept.is_done(run._replace(flags=flags))


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "[" * 100_000, "{}"])
def test_a_damaged_result_is_neither_done_nor_read(tmp_path, content):
    def check(path, result):
        raise KeyError("flags")

    kept = results.Results(tmp_path, DEFAULTS, check)
    path = tmp_path / "a.json"
    path.write_text(content)
    for read in (
        lambda: kept.read(path),
        lambda: kept.is_done(results.Run(Path("a"), {})),
    ):
        with pytest.raises(ValueError, match=f"{path} to be an unchanged result"):
            read()

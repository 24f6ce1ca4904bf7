"""The examples on the pages run, and their tables are those of the results kept."""

import re
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf

ROOT = Path(__file__).parents[2]
PAGES = {page.stem: page.read_text("utf-8") for page in (ROOT / "docs").glob("*.md")}
EXAMPLES = {
    name: re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    for name, text in PAGES.items()
}


def what_pages_start_with():
    """The compiled model and its data, from which the examples go on."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(128, "tanh", name="dense"),
        keras.layers.Dense(64, "tanh", name="conv"),
        keras.layers.Dense(10, name="head"),
    ]
    model = keras.Sequential([keras.Input((64,)), *layers])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = np.random.normal(size=(200, 64)).astype("float32")
    y = np.arange(200) % 10
    pruned = snip_tf.prune_model(model, x, y, sparsity=0.9)
    names = {"keras": keras, "np": np, "tf": tf, "snip_tf": snip_tf}
    return names | {"model": model, "x": x, "y": y, "pruned": pruned}


@pytest.mark.parametrize("page", [name for name, found in EXAMPLES.items() if found])
def test_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = what_pages_start_with()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for number, example in enumerate(EXAMPLES[page]):
            exec(compile(example, f"{page}.md, example {number}", "exec"), names)
    assert snip_tf.sparsity(names["model"]) == 0
    assert snip_tf.sparsity(names["pruned"]) > 0


@pytest.mark.parametrize("page", PAGES)
def test_no_line_is_taken_for_a_comment(page):
    """As one that begins with the sign of percent is, which the site leaves out."""
    assert not re.findall(r"^ *%.*", PAGES[page], re.MULTILINE)


def test_there_are_examples():
    with_examples = {name for name, found in EXAMPLES.items() if found}
    assert {
        "criteria",
        "pruning",
        "savings",
        "several_machines",
        "tfmot",
    } <= with_examples


def test_the_tables_of_criteria_are_those_of_the_results_kept():
    kept = (ROOT / "benchmarks/results/sweep/table.md").read_text("utf-8")
    tables = re.findall(r"\n\| error, %.*?\n\n", kept, flags=re.DOTALL)
    assert [table.count("\n| snip") for table in tables] == [4, 4]
    for table in tables:
        assert table in PAGES["criteria"]


def test_every_criterion_and_structure_is_named():
    for name in snip_tf.criteria.CRITERIA:
        assert f'`"{name}"`' in PAGES["criteria"]

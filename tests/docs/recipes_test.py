"""The recipes run, prune what they say, and learn what they are for."""

import runpy
from pathlib import Path

import numpy as np
import pytest

import snip_tf

# Each is a whole program that trains.
pytestmark = pytest.mark.slow

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"


@pytest.fixture
def recipe(request, tmp_path, monkeypatch):
    """The names that a recipe leaves behind."""
    name = request.node.name.removeprefix("test_")
    monkeypatch.chdir(tmp_path)
    return runpy.run_path(str(RECIPES / f"{name}.py"))


def test_vae(recipe):
    assert snip_tf.sparsity(recipe["pruned"]) == pytest.approx(0.8, abs=1e-4)
    mean_image = np.var(recipe["x"], axis=0).mean()
    assert recipe["after"] < 0.9 * mean_image < recipe["before"]


def test_gan(recipe):
    masks = snip_tf.get_masks(recipe["pruned"])
    assert {path.split("/")[0] for path in masks} == {"generator"}
    assert np.linalg.norm(recipe["mean"] - [3, -3]) < 2


def test_siamese(recipe):
    assert snip_tf.sparsity(recipe["pruned"]) == pytest.approx(0.9, abs=1e-4)
    assert len(snip_tf.get_masks(recipe["pruned"])) == 2
    assert recipe["accuracy"] > 0.8


def test_distillation(recipe):
    assert snip_tf.sparsity(recipe["pruned"]) == pytest.approx(0.9, abs=1e-4)
    assert recipe["accuracy"] > 0.8


def test_reinforcement(recipe):
    assert snip_tf.sparsity(recipe["pruned"]) == pytest.approx(0.8, abs=1e-4)
    assert recipe["policy"].all()


def test_transfer_learning(recipe):
    assert snip_tf.sparsity(recipe["pruned"]) == pytest.approx(0.9, abs=0.005)
    assert "head/kernel" not in snip_tf.get_masks(recipe["pruned"])
    assert recipe["accuracy"] > 0.8


def test_lora(recipe):
    assert recipe["zeros"] == pytest.approx(0.9, abs=1e-4)
    assert recipe["after"] > recipe["before"] + 0.2


def test_k_fold(recipe):
    assert snip_tf.sparsity(recipe["untrained"]) == 0
    assert len(recipe["accuracies"]) == 3
    assert min(recipe["accuracies"]) > 0.8


def test_training_loop(recipe):
    assert snip_tf.sparsity(recipe["pruned"]) == pytest.approx(0.9, abs=1e-4)
    assert recipe["accuracy"] > 0.8


def test_each_recipe_is_shown_and_tested():
    page = (RECIPES.parent / "recipes.md").read_text("utf-8")
    for file in RECIPES.glob("*.py"):
        assert f"recipes/{file.name}" in page
        assert f"test_{file.stem}" in globals()

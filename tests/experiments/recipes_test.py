"""The rows are what the paper ran: its networks, sparsities and figures."""

import pytest

from snip_tf import datasets, models
from snip_tf.experiments import recipes
from snip_tf.experiments.models.initializers import INITIALIZERS
from snip_tf.experiments.training.augmentation import AUGMENTATIONS

ROWS = [
    pytest.param(row, id=f"{name}: {row_name}")
    for name, rows in recipes.EXPERIMENTS.items()
    for row_name, row in rows.items()
]


@pytest.mark.parametrize("row", ROWS)
def test_flags_list_existing_names(row):
    recipe = recipes.recipe_of(row.flags["arch"], row.flags.get("datasource"))
    for cell in row.cells:
        for budget in (recipe.full, recipe.short):
            flags = {**budget, **row.flags, **cell.flags}
            assert flags["arch"] in models.MODELS
            assert {flags["datasource"], recipe.stand_in} <= set(datasets.DATASETS)
            assert 0 <= flags["target_sparsity"] < 1
            for name in ("initializer_w_bp", "initializer_w_ap"):
                assert flags.get(name, "vs") in INITIALIZERS
            if "aug_kinds" in flags:
                assert set(flags["aug_kinds"].split(",")) <= set(AUGMENTATIONS)
            boundaries = flags["decay_boundaries"].split(",")
            rates = flags["decay_values"].split(",")
            if flags["lr_decay_type"] == "piecewise":
                assert len(rates) == len(boundaries) + 1


@pytest.mark.parametrize("row", ROWS)
def test_cells_have_names_of_their_own(row):
    assert len({cell.name for cell in row.cells}) == len(row.cells)


def errors(experiment, row):
    cells = recipes.EXPERIMENTS[experiment][row].cells
    return {cell.flags.get("target_sparsity"): cell.paper for cell in cells}


def test_figures_of_table_1():
    assert errors("table1", "lenet300") == {0: 1.7, 0.95: 1.6, 0.98: 2.4}
    assert errors("table1", "lenet5") == {0: 0.9, 0.98: 0.8, 0.99: 1.1}


def test_table_2_has_the_twelve_networks_and_two_that_are_small():
    table = recipes.EXPERIMENTS["table2"]
    assert len(table) == 14
    assert errors("table2", "vgg_like") == {0: 8.26, 0.97: 8.00}
    assert errors("table2", "gru_s") == {0: 1.87, 0.95: 2.41}
    assert errors("table2", "resnet_20") == {0: None, 0.9: None, 0.95: None}


def test_tiny_imagenet_has_the_papers_five_networks_without_figures():
    rows = recipes.EXPERIMENTS["tiny_imagenet"]
    assert list(rows) == ["alexnet_s", "alexnet_b", "vgg_c", "vgg_d", "vgg_like"]
    for name, row in rows.items():
        sparsity = 0.9 if name.startswith("alexnet") else 0.95
        assert errors("tiny_imagenet", name) == {0: None, sparsity: None}
        flags = recipes.flags_of(name, row.flags, "full", has_data=True)
        assert flags["datasource"] == "tiny_imagenet"


def test_recipes_by_network():
    named = recipes.RECIPES
    assert recipes.recipe_of("lstm_b") is named["lstm"]
    assert recipes.recipe_of("wrn_16_8") is named["cifar"]
    assert recipes.recipe_of("lenet300") is named["lenet300"]
    assert named["lenet300"].full["decay_values"] == "0.1,0.01"

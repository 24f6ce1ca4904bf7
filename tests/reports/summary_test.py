import re

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf.network import Network
from snip_tf.reports.sparsity import weight_rows
from tests.small_network import cut, small_network

layers = keras.layers


@pytest.fixture
def model():
    return small_network()


@pytest.fixture
def pruned(model):
    return cut(model)


def lines_of(pruned, **options):
    lines = []
    snip_tf.summary(pruned, print_fn=lines.append, **options)
    return lines


def test_summary_has_a_line_for_each_pruned_weight(pruned):
    lines = lines_of(pruned, line_length=100)
    assert lines[0].strip() == 'Pruned model: "small"'
    (conv,) = [line for line in lines if line.startswith("│ conv ")]
    assert [cell.strip() for cell in conv.strip("│").split("│")] == [
        "conv",
        "kernel",
        "(2, 2, 1, 3)",
        "8 / 12",
        "33.33%",
    ]


def test_summary_has_totals_reasons_and_dead_units(pruned):
    text = "\n".join(lines_of(pruned))
    kept = sum(row.kept for row in weight_rows(Network(pruned)))
    parameters = 12 + 3 + 12 + 135 + 5 + 10 + 2
    assert f"Prunable parameters: {kept:,} of 147 kept" in text
    assert f"{kept + parameters - 147:,} of {parameters:,} kept" in text
    assert "Not pruned, excluded by the caller: 10 parameters (head/kernel)" in text
    assert "Not pruned, a bias: 10 parameters (conv/bias, fc/bias, head/bias)" in text
    assert "a normalization scale or offset: 6 parameters" in text
    assert "Dead in fc/kernel: 2 of 27 inputs" in text
    assert "1 of 5 units without inputs" in text
    assert "Warning" not in text


def test_summary_warns_of_a_cut_layer(model):
    masks = {"head/kernel": np.zeros((5, 2), bool)}
    text = "\n".join(lines_of(snip_tf.apply_masks(model, masks)))
    assert "Warning: nothing is kept of head/kernel" in text


def chain(count):
    """Layers of which each but the first has an unused input."""
    stack = [layers.Dense(4, name=f"d{n}") for n in range(count)]
    masks = {f"d{n}/kernel": np.ones((4, 4), bool) for n in range(count)}
    for n in range(1, count):
        masks[f"d{n}/kernel"][: 1 + n % 2] = False
    model = keras.Sequential([keras.Input((4,)), *stack])
    return snip_tf.apply_masks(model, masks)


@pytest.mark.parametrize(("count", "said"), [(9, 8), (10, 8), (30, 8)])
def test_summary_has_at_most_eight_lines_of_dead_units(count, said):
    lines = [line for line in lines_of(chain(count)) if "Dead in" in line]
    assert len(lines) == said
    if count == 30:
        # The largest are named, the first of them first.
        assert [line.split()[2] for line in lines[:2]] == ["d1/kernel:", "d3/kernel:"]
        assert "Dead in 22 more weights: 30 unused inputs" in lines[-1]


def test_cut_weights_are_only_in_the_warning():
    stack = [layers.Dense(3, name=f"d{n}") for n in range(12)]
    model = keras.Sequential([keras.Input((3,)), *stack])
    masks = {f"d{n}/kernel": np.zeros((3, 3), bool) for n in range(10)}
    text = "\n".join(lines_of(snip_tf.apply_masks(model, masks)))
    assert "Dead" not in text
    assert text.count("Warning") == 1
    assert "kept of d0/kernel, d1/kernel," in text
    assert "and 2 more; nothing passes through them." in text


def test_removed_units_are_reported_once():
    stack = [layers.Dense(8, "relu", name=name) for name in ("a", "b")]
    head = layers.Dense(2, name="head")
    model = keras.Sequential([keras.Input((5,)), *stack, head])
    kept = np.arange(8) < 3
    masks = {
        "a/kernel": np.ones((5, 1), bool) & kept,
        "b/kernel": kept[:, None] & kept,
        "head/kernel": kept[:, None] & np.ones(2, bool),
    }
    pruned = snip_tf.apply_masks(model, masks)
    assert [row.dead_inputs for row in weight_rows(Network(pruned))] == [0, 5, 5]
    assert [line.strip() for line in lines_of(pruned) if "Dead" in line] == [
        "Dead in a/kernel: 5 of 8 units without inputs",
        "Dead in b/kernel: 5 of 8 units without inputs",
    ]


def test_sparsities_are_not_rounded_to_all():
    model = keras.Sequential([keras.Input((200,)), layers.Dense(200, name="d")])
    mask = np.zeros((200, 200), bool)
    mask[0, 0] = True
    text = "\n".join(lines_of(snip_tf.apply_masks(model, {"d/kernel": mask})))
    assert "100.00%" not in text
    assert "(sparsity >99.99%)" in text


@pytest.mark.parametrize("width", [20, 30, 40, 60, 100])
def test_summary_cuts_no_number_and_folds_no_short_name(pruned, width):
    lines = lines_of(pruned, line_length=width)
    assert any(re.search(r"8 / 12 .*33\.33%", line) for line in lines)
    assert any(re.search(r"^(│ )?conv\b", line) for line in lines)


def test_names_carry_no_escape_sequences():
    names = ["\x1b[31mred", "\u202egnp", "a\nb", "x:bomb:"]
    stack = [layers.Dense(2, name=name) for name in names]
    odd = keras.Sequential([keras.Input((2,)), *stack], name="odd\x1b[2J")
    masks = {f"{name}/kernel": np.eye(2, dtype=bool) for name in names}
    masks["a\nb/kernel"][:] = False
    pruned = snip_tf.apply_masks(odd, masks)
    for width in (100, 30):
        text = "".join(lines_of(pruned, line_length=width))
        assert text.isprintable()
        for shown in (r"\x1b[31mred", r"\u202egnp", r"a\nb", "x:bomb:", r"odd\x1b[2J"):
            assert shown in text


def test_summary_prints_by_default_and_keeps_to_its_width(pruned, capsys):
    snip_tf.summary(pruned, line_length=60)
    table = [line for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert table
    assert max(map(len, table)) <= 60


def test_names_are_not_taken_for_markup(model):
    odd = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="[bold]x[red]")])
    pruned = snip_tf.apply_masks(odd, {"[bold]x[red]/kernel": np.ones((2, 2), bool)})
    assert any("[bold]x[red]" in line for line in lines_of(pruned, line_length=100))


def test_biases_can_be_pruned_and_reported(model):
    pruned = snip_tf.apply_masks(model, {"fc/bias": np.arange(5) < 2})
    (row,) = weight_rows(Network(pruned))
    assert (row.kept, row.total, row.units) == (2, 5, 0)
    assert "2 / 5" in "\n".join(lines_of(pruned))


def test_refuses_what_is_not_pruned(model):
    with pytest.raises(ValueError, match="no masks"):
        snip_tf.summary(model)
    with pytest.raises(TypeError, match="Keras 3 model"):
        snip_tf.summary(None)

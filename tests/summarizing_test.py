import keras
import numpy as np
import pytest

import snip_tf
from snip_tf.rows import weight_rows
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


def test_rows_count_the_stored_weights(pruned):
    plain = snip_tf.strip_pruning(pruned)
    for row in weight_rows(pruned):
        layer, _, weight = row.path.partition("/")
        stored = getattr(plain.get_layer(layer), weight).numpy()
        assert row.kept == np.count_nonzero(stored)
        assert (row.total, row.shape) == (stored.size, stored.shape)
        assert row.sparsity == 1 - np.count_nonzero(stored) / stored.size


def test_rows_count_what_is_idle(pruned):
    conv, fc = weight_rows(pruned)
    assert (conv.inputs, conv.idle_inputs, conv.units, conv.idle_units) == (1, 0, 3, 1)
    assert (fc.inputs, fc.idle_inputs, fc.units, fc.idle_units) == (27, 2, 5, 1)


def test_sparsity_of_pruned_stripped_and_dense_models(model, pruned):
    masks = snip_tf.get_masks(pruned)
    removed = sum((~mask).sum() for mask in masks.values())
    assert snip_tf.sparsity(pruned) == pytest.approx(removed / (12 + 135), abs=1e-12)
    # Of a plain model all kernels count, the dense head too.
    stripped = snip_tf.strip_pruning(pruned)
    assert snip_tf.sparsity(stripped) == pytest.approx(removed / (12 + 135 + 10))
    assert snip_tf.sparsity(model) == 0


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
    kept = sum(row.kept for row in weight_rows(pruned))
    parameters = 12 + 3 + 12 + 135 + 5 + 10 + 2
    assert f"Prunable parameters: {kept:,} of 147 kept" in text
    assert f"{kept + parameters - 147:,} of {parameters:,} kept" in text
    assert "Not pruned, excluded by the caller: 10 parameters (head/kernel)" in text
    assert "Not pruned, a bias: 10 parameters (conv/bias, fc/bias, head/bias)" in text
    assert "a normalization scale or offset: 6 parameters" in text
    assert "Dead in fc/kernel: 2 of 27 inputs" in text
    assert "1 of 5 units that nothing enters" in text
    assert "Warning" not in text


def test_summary_warns_of_a_cut_layer(model):
    masks = {"head/kernel": np.zeros((5, 2), bool)}
    text = "\n".join(lines_of(snip_tf.apply_masks(model, masks)))
    assert "Warning: nothing is kept of head/kernel" in text


def test_summary_prints_by_default_and_keeps_to_its_width(pruned, capsys):
    snip_tf.summary(pruned, line_length=60)
    table = [line for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert table
    assert max(map(len, table)) <= 60


def test_names_are_not_taken_for_markup(model):
    odd = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="[bold]x[red]")])
    pruned = snip_tf.apply_masks(odd, {"[bold]x[red]/kernel": np.ones((2, 2), bool)})
    assert any("[bold]x[red]" in line for line in lines_of(pruned, line_length=100))


def test_idle_units_are_counted_only_where_the_kernel_is_known():
    for layer in (layers.Conv2DTranspose(3, 2), layers.DepthwiseConv2D(2)):
        odd = keras.Sequential([keras.Input((6, 6, 2)), layer])
        (path,) = snip_tf.prunable_weights(odd)
        mask = np.zeros(layer.kernel.shape, bool)
        (row,) = weight_rows(snip_tf.apply_masks(odd, {path: mask}))
        assert (row.inputs, row.units) == (0, 0)


def test_biases_can_be_pruned_and_reported(model):
    pruned = snip_tf.apply_masks(model, {"fc/bias": np.arange(5) < 2})
    (row,) = weight_rows(pruned)
    assert (row.kept, row.total, row.units) == (2, 5, 0)
    assert "2 / 5" in "\n".join(lines_of(pruned))


def test_refuses_what_is_not_pruned(model):
    with pytest.raises(ValueError, match="no masks"):
        snip_tf.summary(model)
    with pytest.raises(TypeError, match="Keras 3 model"):
        snip_tf.sparsity(None)

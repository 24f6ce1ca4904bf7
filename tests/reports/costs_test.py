import keras
import numpy as np
import pytest

import snip_tf
from tests.random_networks import OwnModel
from tests.small_network import cut, small_network

layers = keras.layers


@pytest.fixture
def pruned():
    return cut(small_network())


def test_report_counts_multiply_adds_and_what_compacting_leaves(pruned):
    report = snip_tf.report(pruned)
    conv, norm, fc, head = report.layers
    assert (conv.layer, conv.kind, conv.units) == ("conv", "Conv2D", 3)
    # 3 x 3 places, a filter of 2 x 2 taps; one of three filters is cut.
    assert (conv.multiply_adds, conv.effective) == (9 * 4 * 3, 9 * 4 * 2)
    assert (conv.compacted_units, conv.compacted_multiply_adds) == (2, 9 * 4 * 2)
    assert norm.multiply_adds == 0
    kept = int(snip_tf.get_masks(pruned)["fc/kernel"].sum())
    assert (fc.multiply_adds, fc.effective) == (27 * 5, kept)
    assert fc.compacted_units == 4  # of a unit without inputs the bias is folded
    smaller = snip_tf.compact(pruned)
    for row in report.layers:
        layer = smaller.get_layer(row.layer)
        assert row.compacted_parameters == layer.count_params()
        assert (
            row.parameters
            == snip_tf.strip_pruning(pruned).get_layer(row.layer).count_params()
        )
    totals = report.totals()
    assert totals["compacted_parameters"] == smaller.count_params()
    assert totals["multiply_adds"] == sum(row.multiply_adds for row in report.layers)
    assert report.bytes == 4 * totals["parameters"]
    assert [row.path for row in report.weights] == ["conv/kernel", "fc/kernel"]
    assert head.note == ""


def test_report_of_a_recurrent_layer_counts_each_step():
    inputs = keras.Input((7, 4))
    model = keras.Model(inputs, layers.LSTM(5)(inputs))
    [row] = snip_tf.report(model).layers
    assert row.multiply_adds == row.effective == 7 * (4 + 5) * 4 * 5


class OwnTraining(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


def test_report_of_a_class_that_trains_in_its_own_way():
    inputs = keras.Input((7,))
    model = OwnTraining(inputs, layers.Dense(5)(layers.Dense(3)(inputs)))
    assert [row.multiply_adds for row in snip_tf.report(model).layers] == [21, 15]


TIMES = {
    "returns its state": (lambda: layers.LSTM(5, return_state=True), (7, 4), 7 * 180),
    "a cell": (lambda: layers.RNN(layers.LSTMCell(4)), (10, 3), 10 * 112),
    "each step by itself": (
        lambda: layers.TimeDistributed(layers.LSTM(4)),
        (3, 10, 3),
        30 * 112,
    ),
    "convolutions in time": (
        lambda: layers.ConvLSTM2D(2, 3, padding="same"),
        (7, 6, 6, 3),
        7 * 36 * 9 * (3 + 2) * 8,
    ),
    "einsum": (lambda: layers.EinsumDense("abc,cd->abd", (None, 4)), (10, 8), 320),
    "channels first": (
        lambda: layers.Conv2D(4, 3, data_format="channels_first", padding="same"),
        (3, 6, 5),
        30 * 108,
    ),
}


@pytest.mark.parametrize("kind", TIMES)
def test_report_counts_each_time_that_a_number_is_multiplied(kind):
    make, shape, expected = TIMES[kind]
    inputs = keras.Input(shape)
    outputs = keras.tree.flatten(make()(inputs))
    [row] = snip_tf.report(keras.Model(inputs, outputs[0])).layers
    assert row.multiply_adds == expected


def test_report_counts_what_compact_leaves_of_layers_that_get_a_bias():
    gru = layers.Bidirectional(layers.GRU(4, use_bias=False), name="both")
    stack = [layers.Dense(8, name="in", bias_initializer="ones"), gru]
    model = keras.Sequential([keras.Input((5, 2)), *stack])
    mask = np.ones((2, 8), bool)
    mask[:, :4] = False
    pruned = snip_tf.apply_masks(model, {"in/kernel": mask})
    smaller = snip_tf.compact(pruned)
    assert smaller.count_params() < model.count_params()
    [_, row] = snip_tf.report(pruned).layers
    [_, again] = snip_tf.report(smaller).layers
    assert row.compacted_multiply_adds == again.multiply_adds == 5 * 2 * (4 + 4) * 12


def test_report_counts_a_layer_as_often_as_it_is_called():
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    model = keras.Model(inputs, shared(shared(inputs)))
    [row] = snip_tf.report(model).layers
    assert (row.parameters, row.multiply_adds) == (20, 2 * 16)
    assert (row.compacted_units, row.compacted_multiply_adds) == (4, 2 * 16)


def test_report_says_what_cannot_be_analysed():
    inputs = keras.Input((4,))
    x = layers.LayerNormalization(name="norm")(layers.Dense(5)(inputs))
    report = snip_tf.report(keras.Model(inputs, layers.Dense(2)(x)))
    assert [bool(row.note) for row in report.layers] == [False, True, False]
    softmax = [layers.Dense(5), layers.Softmax(name="soft"), layers.Dense(2)]
    report = snip_tf.report(keras.Sequential([inputs, *softmax, layers.Softmax()]))
    assert [row.layer for row in report.layers if row.note] == ["soft"]
    own = OwnModel()
    own(np.zeros((1, 2)))
    report = snip_tf.report(own)
    [row] = report.layers
    assert "the model's own code" in row.note
    assert row.parameters == 9
    assert report.totals()["multiply_adds"] is None
    table, _, rest = report.to_markdown().partition("\n\n")
    assert table.count("\n") == 3
    assert rest == "- Weights in memory: 36 bytes, zeros included\n"

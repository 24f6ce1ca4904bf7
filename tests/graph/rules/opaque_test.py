import keras
import pytest

from snip_tf.graph.rules.opaque import Opaque
from tests.graph.rules.one_call import rule_for

layers = keras.layers


@pytest.mark.parametrize(
    ("layer", "shape", "times"),
    [
        (layers.TimeDistributed(layers.Conv1D(4, 2)), (5, 7, 3), 5 * 6),
        (layers.ConvLSTM2D(4, 2), (5, 7, 7, 3), 5 * 6 * 6),
        (layers.RNN(layers.StackedRNNCells([layers.GRUCell(4)])), (5, 3), 5),
        (layers.EinsumDense("abc,cd->abd", (None, 4)), (5, 3), 5),
        (layers.Conv2D(6, 2, groups=3), (7, 7, 3), 6 * 6),
        (layers.Bidirectional(layers.ConvLSTM1D(4, 2)), (5, 7, 3), 5 * 6),
        (layers.Conv1D(6, 2, groups=3), (None, 3), 1),
    ],
)
def test_how_many_times_a_kernel_is_multiplied(layer, shape, times):
    rule = rule_for(layer, shape)
    assert type(rule) is Opaque and not rule.analysed
    uses = rule.uses()
    assert uses and {use.positions for use in uses} == {times}
    assert all(not use.axes for use in uses)


def test_a_layer_without_kernels_multiplies_by_none():
    assert rule_for(layers.LayerNormalization(), (5, 3)).uses() == []

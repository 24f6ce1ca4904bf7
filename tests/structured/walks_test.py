"""`compact` walks over the weights of the model once."""

import pytest

import snip_tf
from tests.small_network import cut, small_network


@pytest.mark.parametrize("prepare", [cut, lambda model: model])
@pytest.mark.filterwarnings("ignore:Nothing could be removed")
def test_one_walk(prepare, walks):
    model = prepare(small_network())
    walks.clear()
    snip_tf.compact(model)
    assert walks == ["small"]

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf import weights
from snip_tf.network import Network
from tests.small_network import cut, small_network

layers = keras.layers


class Transposed(layers.Layer):
    """The kernel of another layer, the other way round."""

    def __init__(self, kernel, **kwargs):
        super().__init__(**kwargs)
        self.kernel = kernel

    def call(self, x):
        return x @ keras.ops.transpose(self.kernel)


def test_weights_masks_layers():
    pruned = cut(small_network())
    network = Network(pruned)
    assert network.model is pruned
    assert network.weights == weights.weights_by_path(pruned)
    assert network.layers == list(weights.layer_tree(pruned))
    masks = snip_tf.get_masks(pruned)
    assert list(network.masks) == list(masks) == ["conv/kernel", "fc/kernel"]
    for path, mask in network.masks.items():
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, masks[path])
        np.testing.assert_array_equal(mask, network.mask_variables[path])


def test_no_masks_of_a_model_that_is_not_pruned():
    network = Network(small_network())
    assert network.masks == network.mask_variables == {}


def test_prunable_weights_are_those_of_the_function():
    model = small_network()
    network = Network(model)
    for choice in ({}, {"include": "*/bias"}, {"exclude": model.get_layer("fc")}):
        expected = snip_tf.prunable_weights(model, **choice)
        assert list(network.prunable(**choice).items()) == list(expected.items())


def test_a_shared_weight_has_one_path_and_two_owners():
    first = layers.Dense(3, name="first")
    first.build((None, 4))
    back = Transposed(first.kernel, name="back")
    network = Network(keras.Sequential([keras.Input((4,)), first, back]))
    assert list(network.weights) == ["first/kernel", "first/bias"]
    owners = {owner.layer.name: owner.weights for owner in network.owners}
    assert owners["first"]["kernel"] is owners["back"]["kernel"] is first.kernel


def test_it_walks_once(monkeypatch):
    walks = []
    read = weights.Walk.__init__
    monkeypatch.setattr(
        weights.Walk, "__init__", lambda *args: (walks.append(args), read(*args))[0]
    )
    network = Network(small_network())
    assert network.masks == {} and network.layers and network.prunable(exclude="fc/*")
    assert len(walks) == 1


def test_a_layer_by_itself():
    dense = layers.Dense(2)
    dense.build((None, 3))
    assert list(Network.of_layer(dense).weights) == ["kernel", "bias"]


@pytest.mark.parametrize(
    ("model", "kind", "words"),
    [
        (layers.Dense(2), TypeError, "Make a model of the layer"),
        ("model.keras", TypeError, "load_model"),
        (keras.Sequential([layers.Dense(2)]), ValueError, "a built model"),
    ],
)
def test_anything_but_a_built_model_is_refused(model, kind, words):
    with pytest.raises(kind, match=words):
        Network(model)

import keras
import pytest

from snip_tf.experiments.models.wide_resnet import (
    wrn_16_1,
    wrn_16_8,
    wrn_16_10,
    wrn_22_8,
)
from tests.experiments.models.counting import parameters


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (wrn_16_8, 10_954_170),
        (wrn_16_10, 17_107_642),
        (wrn_22_8, 17_147_322),
        (wrn_16_1, 174_138),
    ],
)
def test_parameters_of_the_paper(make, expected):
    assert parameters(make()) == expected


@pytest.mark.parametrize(("make", "depth"), [(wrn_16_8, 16), (wrn_22_8, 22)])
def test_depth_is_the_number_of_convolutions(make, depth):
    """Those of the three shortcuts counted, as the authors of the network do."""
    kinds = [isinstance(layer, keras.layers.Conv2D) for layer in make().layers]
    assert sum(kinds) == depth


def test_groups_halve_the_image():
    model = wrn_16_8()
    shapes = [model.get_layer(f"group{i}_block2_add").output.shape for i in (1, 2, 3)]
    assert shapes == [
        (None, 32, 32, 128),
        (None, 16, 16, 256),
        (None, 8, 8, 512),
    ]

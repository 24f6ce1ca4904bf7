import keras
import pytest

from snip_tf.experiments.models.alexnet import alexnet_b, alexnet_s
from tests.experiments.models.counting import parameters


@pytest.mark.parametrize(
    ("make", "expected"), [(alexnet_s, 5_070_218), (alexnet_b, 8_490_378)]
)
def test_parameters_of_the_paper(make, expected):
    assert parameters(make()) == expected


def test_halves_the_image_five_times():
    convolutions = [
        layer.output.shape[1:3]
        for layer in alexnet_s().layers
        if isinstance(layer, keras.layers.Conv2D)
    ]
    assert convolutions == [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]


def test_large_images_are_quartered_first():
    model = alexnet_s(input_shape=(64, 64, 3), classes=200)
    assert model.get_layer("conv1").output.shape[1:3] == (16, 16)
    assert model.output_shape == (None, 200)

import keras
import pytest

from snip_tf.experiments.models.vgg import vgg_c, vgg_d, vgg_like
from tests.experiments.models.counting import parameters


@pytest.mark.parametrize(
    ("make", "expected"),
    [(vgg_c, 10_526_538), (vgg_d, 15_245_130), (vgg_like, 14_982_474)],
)
def test_parameters_of_the_paper(make, expected):
    assert parameters(make()) == expected


def sides(model):
    return [
        layer.kernel_size[0]
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    ]


def test_c_has_three_convolutions_of_one_pixel():
    found = sides(vgg_c())
    assert len(found) == 13
    assert [index for index, side in enumerate(found, start=1) if side == 1] == [
        7,
        10,
        13,
    ]
    assert set(sides(vgg_d())) == {3}


def test_large_images_are_halved_first():
    model = vgg_like(input_shape=(64, 64, 3), classes=200)
    assert model.get_layer("conv1_1").output.shape[1:3] == (32, 32)
    assert model.get_layer("flatten").output.shape == (None, 512)

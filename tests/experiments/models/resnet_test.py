import numpy as np

from snip_tf.experiments.models.resnet import resnet_20
from tests.experiments.models.counting import parameters


def test_published_number_of_parameters():
    """0.27 million with normalization, as He et al. say."""
    model = resnet_20()
    assert parameters(model) == 268_346
    trainable = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    assert trainable == 269_722


def test_shortcuts_take_every_second_pixel_and_pad_channels():
    model = resnet_20()
    model.get_layer("group2_block1_conv2").kernel.assign(np.zeros((3, 3, 32, 32)))
    inner = type(model)(
        model.input,
        [
            model.get_layer(f"group{i}").output
            for i in ("1_block3_relu", "2_block1_relu")
        ],
    )
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    before, after = map(np.asarray, inner(x))
    np.testing.assert_allclose(after[..., 8:24], before[:, ::2, ::2], rtol=1e-6)
    assert not after[..., :8].any()
    assert not after[..., 24:].any()

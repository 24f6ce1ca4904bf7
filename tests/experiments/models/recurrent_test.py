import numpy as np
import pytest

from snip_tf import models
from snip_tf.experiments.models.recurrent import gru_b, gru_s, lstm_b, lstm_s


@pytest.mark.parametrize(
    ("make", "expected"),
    [(lstm_s, 136_586), (lstm_b, 535_306), (gru_s, 103_690), (gru_b, 403_978)],
)
def test_parameters_of_the_paper(make, expected):
    assert make().count_params() == expected


def test_reads_an_image_row_by_row():
    rows = models.build("lstm_s", input_shape=(28, 28))
    image = models.build("lstm_s", input_shape=(28, 28, 1))
    image.set_weights(rows.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 28, 28)).astype(np.float32)
    np.testing.assert_array_equal(image(x[..., np.newaxis]), rows(x))


def test_the_recurrent_kernel_is_another_draw_than_the_kernel():
    cell = models.build("lstm_s", kernel_initializer="vs-h").get_layer("recurrent").cell
    assert cell.kernel.shape == cell.recurrent_kernel.shape
    kernels = np.ravel(cell.kernel), np.ravel(cell.recurrent_kernel)
    assert abs(np.corrcoef(*kernels)[0, 1]) < 0.05
    for kernel in (cell.kernel, cell.recurrent_kernel):
        np.testing.assert_allclose(np.var(kernel), 2 / 128, rtol=0.1)


@pytest.mark.parametrize(
    ("name", "expected"), [("gru_s", [1, 1, 0]), ("lstm_s", [0, 1, 0, 0])]
)
def test_gates_that_keep_the_state_start_open(name, expected):
    cell = models.build(name, bias_initializer="zeros").get_layer("recurrent").cell
    np.testing.assert_array_equal(cell.bias, np.repeat(expected, 128))

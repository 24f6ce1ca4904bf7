import keras
import numpy as np
import pytest

import snip_tf
from tests.random_networks import prune_at_random
from tests.savings.reading import litert


@pytest.mark.parametrize("int8", [False, "weights"])
@pytest.mark.parametrize("zeros", [0.5, 0.97])
def test_sizes_that_blocks_do_not_divide(tmp_path, int8, zeros):
    rng, path = np.random.default_rng(0), tmp_path / "m.tflite"
    for sizes in ([30, 101, 50, 3], [31, 66, 127, 7, 15, 3]):
        inside = [keras.layers.Dense(n, "relu", name="same") for n in sizes[1:2]]
        stack = [keras.layers.Dense(n, name=f"d{i}") for i, n in enumerate(sizes[2:])]
        model = keras.Sequential(
            [keras.Input(sizes[:1]), keras.Sequential(inside), *stack], name="m"
        )
        for weight in model.trainable_weights:
            weight.assign(rng.normal(size=weight.shape))
            if "kernel" in weight.path:
                weight.assign(weight * (rng.random(weight.shape) >= zeros))
        lines = []
        snip_tf.export(model, path, "litert", int8=int8, print_fn=lines.append)
        assert len(lines) == 1 + bool(
            int8
        )  # it says nothing of tensors that are not sparse
        x = rng.normal(size=(2, sizes[0])).astype(np.float32)
        expected = model(x).numpy()
        atol = np.abs(expected).max() * (0.05 if int8 else 2e-6)
        np.testing.assert_allclose(litert(path, x, int8=int8), expected, atol=atol)


CUT_LOOPS = {
    "unrolled": (lambda: keras.layers.GRU(34, unroll=True), 35, False, "[102, 35]"),
    "a loop": (lambda: keras.layers.GRU(34), 35, False, "[102, 35]"),
    "of eight bits": (lambda: keras.layers.LSTM(40), 10, "weights", "[160, 10]"),
}


@pytest.mark.parametrize("kind", CUT_LOOPS)
def test_recurrent_layers_that_blocks_do_not_divide(tmp_path, kind):
    make, features, int8, shape = CUT_LOOPS[kind]
    model = keras.Sequential([keras.Input((5, features)), make()])
    pruned = prune_at_random(model, 0.98, np.random.default_rng(0))
    lines, path = [], tmp_path / "m.tflite"
    snip_tf.export(pruned, path, "litert", int8=int8, print_fn=lines.append)
    assert shape in lines[1]
    x = np.random.default_rng(1).normal(size=(1, 5, features)).astype(np.float32)
    expected = pruned(x).numpy()
    atol = np.abs(expected).max() * (0.02 if int8 else 1e-6)
    np.testing.assert_allclose(litert(path, x, int8=int8), expected, atol=atol)


def test_a_shared_layer_that_blocks_do_not_divide(tmp_path):
    a, b = keras.Input((11,)), keras.Input((11,))
    shared = keras.layers.Dense(32, name="shared")
    model = keras.Model([a, b], shared(a) + 2 * shared(b))
    pruned = prune_at_random(model, 0.9, np.random.default_rng(0))
    snip_tf.export(pruned, tmp_path / "m.tflite", "litert", print_fn=lambda line: None)
    assert (tmp_path / "m.tflite").stat().st_size < 4 * 11 * 32 + 3000

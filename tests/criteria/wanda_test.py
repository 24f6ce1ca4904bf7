"""Wanda against its formula, written in NumPy float64 for each kind of layer."""

import keras
import numpy as np
import pytest

import snip_tf

layers = keras.layers
RNG = np.random.default_rng(0)


def array(value):
    return keras.ops.convert_to_numpy(value).astype(np.float64)


def scores(model, x, **options):
    return snip_tf.score(model, x, criterion="wanda", batch_size=len(x), **options)


def assert_scores(found, weight, norms):
    """norms: of the inputs, which broadcast to the weight."""
    np.testing.assert_allclose(
        found, np.abs(array(weight)) * norms, rtol=2e-6, atol=1e-7
    )


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def test_dense():
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(7, "relu", name="a"),
            layers.Dense(3, name="b"),
        ]
    )
    x = normal(20, 5)
    found = scores(model, x)
    first, second = model.layers
    assert_scores(found["a/kernel"], first.kernel, np.linalg.norm(x, axis=0)[:, None])
    hidden = np.maximum(x @ array(first.kernel) + array(first.bias), 0)
    norms = np.linalg.norm(hidden, axis=0)[:, None]
    assert_scores(found["b/kernel"], second.kernel, norms)


def patch_norms(x, size, stride, dilation, padding):
    """The norms of what each entry (u, v, channel) of a kernel meets."""
    x = x.astype(np.float64)
    span = (size - 1) * dilation + 1
    if padding == "same":
        length = x.shape[1]
        missing = max((-(-length // stride) - 1) * stride + span - length, 0)
        sides = (missing // 2, missing - missing // 2)
        x = np.pad(x, ((0, 0), sides, sides, (0, 0)))
    outputs = (x.shape[1] - span) // stride + 1
    norms = np.zeros((size, size, x.shape[-1]))
    for u in range(size):
        for v in range(size):
            rows = slice(u * dilation, u * dilation + outputs * stride, stride)
            columns = slice(v * dilation, v * dilation + outputs * stride, stride)
            norms[u, v] = np.sqrt((x[:, rows, columns] ** 2).sum(axis=(0, 1, 2)))
    return norms


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_convolution(padding, stride, dilation):
    layer = layers.Conv2D(
        4, 3, strides=stride, dilation_rate=dilation, padding=padding, name="conv"
    )
    model = keras.Sequential([keras.Input((9, 9, 2)), layer])
    x = normal(6, 9, 9, 2)
    norms = patch_norms(x, 3, stride, dilation, padding)[..., None]
    assert_scores(scores(model, x)["conv/kernel"], layer.kernel, norms)


def test_convolution_in_groups():
    layer = layers.Conv2D(6, 3, groups=2, name="conv")
    model = keras.Sequential([keras.Input((7, 7, 4)), layer])
    x = normal(5, 7, 7, 4)
    norms = patch_norms(x, 3, 1, 1, "valid")
    of_groups = [norms[..., :2, None]] * 3 + [norms[..., 2:, None]] * 3
    assert_scores(
        scores(model, x)["conv/kernel"], layer.kernel, np.concatenate(of_groups, -1)
    )


def test_depthwise_and_separable_convolution():
    depthwise = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depth")
    separable = layers.SeparableConv2D(5, 3, use_bias=False, name="separable")
    model = keras.Sequential([keras.Input((9, 9, 2)), depthwise, separable])
    x = normal(6, 9, 9, 2)
    found = scores(model, x)
    norms = patch_norms(x, 3, 1, 1, "valid")[..., None]
    assert_scores(found["depth/kernel"], depthwise.kernel, norms)
    hidden = array(depthwise(x))
    norms = patch_norms(hidden, 3, 1, 1, "valid")[..., None]
    path = "separable/depthwise_kernel"
    assert_scores(found[path], separable.depthwise_kernel, norms)
    between = np.zeros((6, 5, 5, 4))
    kernel = array(separable.depthwise_kernel)[..., 0]
    for u in range(3):
        for v in range(3):
            between += hidden[:, u : u + 5, v : v + 5] * kernel[u, v]
    norms = np.sqrt((between**2).sum(axis=(0, 1, 2)))[None, None, :, None]
    path = "separable/pointwise_kernel"
    assert_scores(found[path], separable.pointwise_kernel, norms)


def test_transposed_convolution():
    """Without padding, each entry of the kernel meets each pixel."""
    layer = layers.Conv2DTranspose(3, 2, strides=2, name="up")
    model = keras.Sequential([keras.Input((4, 4, 2)), layer])
    x = normal(5, 4, 4, 2)
    norms = np.sqrt((x.astype(np.float64) ** 2).sum(axis=(0, 1, 2)))
    assert_scores(scores(model, x)["up/kernel"], layer.kernel, norms)


def test_einsum_and_attention():
    inputs = keras.Input((4, 6))
    attention = layers.MultiHeadAttention(2, 3, name="mha")
    mixed = layers.EinsumDense("abc,cd->abd", output_shape=(None, 5), name="mix")
    model = keras.Model(inputs, mixed(attention(inputs, inputs)))
    x = normal(7, 4, 6)
    found = scores(model, x)
    x = x.astype(np.float64)
    norms = np.sqrt((x**2).sum(axis=(0, 1)))[:, None, None]
    parts = {}
    for name in ("query", "key", "value"):
        dense = getattr(attention, f"_{name}_dense")
        assert_scores(found[f"mha/{name}/kernel"], dense.kernel, norms)
        parts[name] = np.einsum("abc,cde->abde", x, array(dense.kernel)) + array(
            dense.bias
        )
    logits = np.einsum("aqhd,akhd->ahqk", parts["query"], parts["key"]) / np.sqrt(3)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    context = np.einsum("ahqk,akhd->aqhd", weights, parts["value"])
    output = attention._output_dense
    norms = np.sqrt((context**2).sum(axis=(0, 1)))[..., None]
    assert_scores(found["mha/attention_output/kernel"], output.kernel, norms)
    mixed_in = np.einsum("aqhd,hde->aqe", context, array(output.kernel))
    mixed_in += array(output.bias)
    norms = np.sqrt((mixed_in**2).sum(axis=(0, 1)))[:, None]
    assert_scores(found["mix/kernel"], mixed.kernel, norms)


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_simple_recurrent_layer(bidirectional):
    layer = layers.SimpleRNN(4, name="rnn")
    wrapped = layers.Bidirectional(layer, name="both") if bidirectional else layer
    model = keras.Sequential([keras.Input((5, 3)), wrapped])
    x = normal(6, 5, 3)
    found = scores(model, x)
    sides = {"rnn": (layer, x)}
    if bidirectional:
        sides = {
            f"both/{part.name}": (part, sequence)
            for part, sequence in (
                (wrapped.forward_layer, x),
                (wrapped.backward_layer, x[:, ::-1]),
            )
        }
    for prefix, (part, sequence) in sides.items():
        kernel, recurrent, bias = (array(w) for w in part.get_weights())
        state, squares = np.zeros((6, 4)), np.zeros(4)
        for step in range(5):
            squares += (state**2).sum(axis=0)
            state = np.tanh(sequence[:, step] @ kernel + state @ recurrent + bias)
        of_inputs = np.sqrt((sequence.astype(np.float64) ** 2).sum(axis=(0, 1)))
        [path] = [p for p in found if p.startswith(prefix) and p.endswith("/kernel")]
        assert_scores(found[path], kernel, of_inputs[:, None])
        [path] = [p for p in found if p.startswith(prefix) and "recurrent" in p]
        assert_scores(found[path], recurrent, np.sqrt(squares)[:, None])


def test_lstm():
    layer = layers.LSTM(4, name="lstm")
    model = keras.Sequential([keras.Input((5, 3)), layer])
    x = normal(6, 5, 3)
    found = scores(model, x)
    kernel, recurrent, bias = (array(w) for w in layer.get_weights())
    state, memory, squares = np.zeros((6, 4)), np.zeros((6, 4)), np.zeros(4)
    for step in range(5):
        squares += (state**2).sum(axis=0)
        z = x[:, step] @ kernel + state @ recurrent + bias
        i, f, c, o = np.split(z, 4, axis=1)
        memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(c)
        state = sigmoid(o) * np.tanh(memory)
    recurrent_path = next(p for p in found if "recurrent" in p)
    assert_scores(found[recurrent_path], recurrent, np.sqrt(squares)[:, None])


def test_gru_whose_gates_see_other_inputs():
    """Without `reset_after`, the last third of the recurrent kernel meets r * h."""
    layer = layers.GRU(4, reset_after=False, name="gru")
    model = keras.Sequential([keras.Input((5, 3)), layer])
    x = normal(6, 5, 3)
    found = scores(model, x)
    kernel, recurrent, bias = (array(w) for w in layer.get_weights())
    state = np.zeros((6, 4))
    squares = np.zeros((4, 12))
    for step in range(5):
        squares[:, :8] += (state**2).sum(axis=0)[:, None]
        of_x = x[:, step] @ kernel + bias
        z = sigmoid(of_x[:, :4] + state @ recurrent[:, :4])
        r = sigmoid(of_x[:, 4:8] + state @ recurrent[:, 4:8])
        squares[:, 8:] += ((r * state) ** 2).sum(axis=0)[:, None]
        h = np.tanh(of_x[:, 8:] + (r * state) @ recurrent[:, 8:])
        state = z * state + (1 - z) * h
    path = next(p for p in found if "recurrent" in p)
    assert_scores(found[path], recurrent, np.sqrt(squares))


def test_convolutional_lstm():
    layer = layers.ConvLSTM1D(2, 3, name="lstm")
    model = keras.Sequential([keras.Input((3, 8, 2)), layer])
    x = normal(4, 3, 8, 2)
    found = scores(model, x)
    squares = np.zeros((3, 2))
    for u in range(3):
        squares[u] = (x[:, :, u : u + 6].astype(np.float64) ** 2).sum(axis=(0, 1, 2))
    path = next(p for p in found if p.endswith("/kernel"))
    kernel = layer.cell.kernel
    assert_scores(found[path], kernel, np.sqrt(squares)[..., None])


class Experts(layers.Layer):
    """Matrices in a stack, an operator, `tensordot`, a matrix on the left, `dot`."""

    def build(self, shape):
        self.stack = self.add_weight(shape=(3, 4, 5), name="stack")
        self.by_operator = self.add_weight(shape=(5, 4), name="by_operator")
        self.left = self.add_weight(shape=(6, 3), name="left")
        self.tensor = self.add_weight(shape=(4, 3, 2), name="tensor")

    def call(self, x):  # (batch, 3, 4)
        ops = keras.ops
        each = ops.swapaxes(ops.matmul(ops.swapaxes(x, 0, 1), self.stack), 0, 1)
        each = ops.tanh(each) @ self.by_operator  # (batch, 3, 4)
        turned = ops.matmul(self.left, each)  # (batch, 6, 4)
        return turned, ops.tensordot(each, self.tensor, axes=[[2, 1], [0, 1]])


def test_layers_of_ones_own():
    inputs = keras.Input((3, 4))
    layer = Experts(name="own")
    model = keras.Model(inputs, layer(inputs))
    x = normal(7, 3, 4).astype(np.float64)
    found = scores(model, x.astype(np.float32))
    norms = np.sqrt((x**2).sum(axis=0))[..., None]
    assert_scores(found["own/stack"], layer.stack, norms)
    hidden = np.tanh(np.einsum("bei,eio->beo", x, array(layer.stack)))
    norms = np.sqrt((hidden**2).sum(axis=(0, 1)))[:, None]
    assert_scores(found["own/by_operator"], layer.by_operator, norms)
    each = hidden @ array(layer.by_operator)
    assert_scores(found["own/left"], layer.left, np.sqrt((each**2).sum(axis=(0, 2))))
    norms = np.sqrt((each**2).sum(axis=0)).T[..., None]
    assert_scores(found["own/tensor"], layer.tensor, norms)


def test_a_layer_that_is_used_twice_adds_up():
    shared = layers.Dense(4, name="shared")
    first, second = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([first, second], shared(first) + shared(second))
    x = [normal(6, 4), normal(6, 4)]
    found = snip_tf.score(model, x, criterion="wanda", batch_size=6)
    norms = np.sqrt(sum((part.astype(np.float64) ** 2).sum(axis=0) for part in x))
    assert_scores(found["shared/kernel"], shared.kernel, norms[:, None])


def test_several_mini_batches_are_one():
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3, name="a")])
    x = normal(24, 5)
    one = snip_tf.score(model, x, criterion="wanda", batch_size=24)
    four = snip_tf.score(model, x, criterion="wanda", batch_size=6, batches=4)
    np.testing.assert_allclose(four["a/kernel"], one["a/kernel"], rtol=1e-6)


def one_layer():
    """A dense layer, inputs of different sizes, and the scores of its weights."""
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6, name="a")])
    x = normal(16, 8) * np.arange(1, 9, dtype=np.float32)
    norms = np.linalg.norm(x, axis=0)[:, None]
    return model, x, np.abs(array(model.layers[0].kernel)) * norms


def test_the_smallest_of_each_output_go():
    model, x, expected = one_layer()
    pruned = snip_tf.prune_model(
        model, x, sparsity=0.5, criterion="wanda", scope="unit", batch_size=16
    )
    mask = snip_tf.get_masks(pruned)["a/kernel"]
    for output in range(6):
        kept = np.argsort(-expected[:, output])[:4]
        assert set(np.flatnonzero(mask[:, output])) == set(kept)


def test_two_of_four():
    model, x, expected = one_layer()
    pruned = snip_tf.prune_model(
        model, x, sparsity=0.5, criterion="wanda", structure="2:4", batch_size=16
    )
    mask = snip_tf.get_masks(pruned)["a/kernel"]
    for output in range(6):
        for group in (slice(0, 4), slice(4, 8)):
            kept = np.argsort(-expected[group, output])[:2]
            assert set(np.flatnonzero(mask[group, output])) == set(kept)


def test_a_model_that_is_pruned_already():
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(7, name="a"), layers.Dense(3, name="b")]
    )
    pruned = snip_tf.prune_model(model, sparsity=0.5, criterion="random", seed=0)
    x = normal(20, 5)
    found = scores(pruned, x)
    hidden = x @ array(pruned.layers[0].kernel) + array(pruned.layers[0].bias)
    norms = np.linalg.norm(hidden, axis=0)[:, None]
    assert_scores(found["b/kernel"], pruned.layers[1].kernel, norms)


def test_half_precision_is_scored_in_full():
    layer = layers.Dense(3, name="a", dtype="mixed_float16")
    model = keras.Sequential([keras.Input((5,)), layer])
    x = normal(20, 5)
    norms = np.linalg.norm(x, axis=0)[:, None]
    assert_scores(scores(model, x)["a/kernel"], layer.kernel, norms)


def test_a_weight_whose_inputs_are_not_seen_is_named():
    class Scaling(layers.Layer):
        def build(self, shape):
            self.scales = self.add_weight(shape=(2, 5), name="scales")

        def call(self, x):
            return x * keras.ops.sum(self.scales, axis=0)

    model = keras.Sequential(
        [keras.Input((5,)), Scaling(name="own"), layers.Dense(3, name="a")]
    )
    x = normal(8, 5)
    with pytest.raises(ValueError, match=r"own/scales.*not seen.*exclude="):
        snip_tf.prune_model(model, x, sparsity=0.5, criterion="wanda")
    pruned = snip_tf.prune_model(
        model, x, sparsity=0.5, criterion="wanda", exclude="own/scales"
    )
    assert list(snip_tf.get_masks(pruned)) == ["a/kernel"]


def test_nothing_of_the_model_changes():
    model = keras.Sequential(
        [
            keras.Input((4, 5)),
            layers.LSTM(4, name="lstm"),
            layers.BatchNormalization(),
            layers.Dense(3, name="a"),
        ]
    )
    before = [np.array(weight) for weight in model.get_weights()]
    scores(model, normal(8, 4, 5))
    assert model.get_layer("lstm").unroll is False
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_it_needs_inputs():
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3, name="a")])
    with pytest.raises(ValueError, match="x=None"):
        snip_tf.prune_model(model, sparsity=0.5, criterion="wanda")

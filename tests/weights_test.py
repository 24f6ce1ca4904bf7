import keras
import numpy as np
import pytest

import snip_tf
from snip_tf.weights import weights_by_path, why_not_prunable

layers = keras.layers


def paths(model, **choice):
    return list(snip_tf.prunable_weights(model, **choice))


@pytest.fixture
def model():
    inner = keras.Sequential(
        [keras.Input((8,)), layers.Dense(8, name="fc"), layers.LayerNormalization()],
        name="inner",
    )
    x = keras.Input((5,), dtype="int32")
    y = layers.Embedding(11, 8, name="embed")(x)
    y = layers.MultiHeadAttention(2, 4, name="att")(y, y)
    y = layers.Bidirectional(layers.GRU(4, name="gru"), name="both")(y)
    y = inner(y)
    return keras.Model(x, layers.Dense(3, name="head")(y), name="outer")


def test_paths_are_the_names_of_the_layers_from_the_model_down(model):
    assert paths(model) == [
        "att/query/kernel",
        "att/key/kernel",
        "att/value/kernel",
        "att/attention_output/kernel",
        "both/forward_gru/gru_cell/kernel",
        "both/forward_gru/gru_cell/recurrent_kernel",
        "both/backward_gru/gru_cell/kernel",
        "both/backward_gru/gru_cell/recurrent_kernel",
        "inner/fc/kernel",
        "head/kernel",
    ]


def test_paths_do_not_depend_on_how_the_model_was_made(model):
    masks = {path: np.ones(w.shape, bool) for path, w in weights_by_path(model).items()}
    pruned = snip_tf.apply_masks(model, {path: masks[path] for path in paths(model)})
    assert paths(pruned) == paths(model)
    assert paths(snip_tf.strip_pruning(pruned)) == paths(model)
    assert paths(keras.models.clone_model(pruned)) == paths(model)
    assert list(weights_by_path(pruned)) == list(weights_by_path(model))


def test_every_weight_has_a_path(model):
    assert len(weights_by_path(model)) == len(model.weights)


def test_convolutions_of_all_kinds():
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.SeparableConv2D(4, 3, name="separable"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Conv2DTranspose(4, 3, name="transposed"),
            layers.LayerNormalization(axis=[1, 2, 3]),
        ]
    )
    assert paths(model) == [
        "separable/depthwise_kernel",
        "separable/pointwise_kernel",
        "depthwise/kernel",
        "transposed/kernel",
    ]


def test_include_adds_and_exclude_takes_away(model):
    assert "embed/embeddings" in paths(model, include="embed/*")
    assert "head/kernel" in paths(model, include="embed/*")
    assert paths(model, exclude=["att/*", "both/*"]) == [
        "inner/fc/kernel",
        "head/kernel",
    ]
    assert "head/bias" in paths(model, include=lambda path, v: v.name == "bias")
    assert "head/kernel" not in paths(model, exclude=lambda path, v: v.shape[-1] == 3)


def test_a_path_matches_itself_whatever_is_in_it():
    names = ("block[0]", "a?*", "[!b]")
    stack = [layers.Dense(3, name=name) for name in names]
    model = keras.Sequential([keras.Input((4,)), *stack])
    for path in paths(model):
        assert paths(model, exclude=path) == [p for p in paths(model) if p != path]
    assert paths(model, exclude=["block[[]0]/*", "[[]*"]) == ["a?*/kernel"]


def test_layers_stand_for_all_their_weights(model):
    inner, head = model.get_layer("inner"), model.get_layer("head")
    both = model.get_layer("both")
    assert "head/kernel" not in paths(model, exclude=head)
    assert "inner/fc/kernel" not in paths(model, exclude=inner)
    assert "inner/fc/kernel" not in paths(model, exclude=inner.layers[0])
    assert paths(model, exclude=["att/*", both, inner]) == ["head/kernel"]
    assert paths(model, exclude=model.layers[:-1]) == ["head/kernel"]
    assert "head/bias" in paths(model, include=(head, "inner/*"))
    assert "inner/fc/bias" in paths(model, include=(head, "inner/*"))
    pruned = snip_tf.prune_model(model, sparsity=0.5, criterion="random", exclude=head)
    assert "head/kernel" not in snip_tf.get_masks(pruned)
    own = pruned.get_layer("inner")
    assert "inner/fc/kernel" not in paths(pruned, exclude=own)


def test_layers_that_are_not_of_the_model_are_named(model):
    other = layers.Dense(2, name="heads")
    with pytest.raises(ValueError, match=r"`exclude` .*'heads' .*mean 'head'"):
        paths(model, exclude=[other])
    copied = snip_tf.apply_masks(model, {"head/kernel": np.ones((8, 3), bool)})
    with pytest.raises(ValueError, match=r"'head' .*another of that name"):
        paths(model, exclude=copied.get_layer("head"))
    with pytest.raises(ValueError, match="`exclude` to choose at least one"):
        paths(model, exclude=model.layers[0])  # the input
    [*_, variable] = model.weights
    with pytest.raises(TypeError, match=r"write its path, 'head/bias'$"):
        paths(model, exclude=variable)
    with pytest.raises(TypeError, match=r"`exclude` to be a glob pattern, a layer"):
        paths(model, exclude=layers.Dense)


def test_frozen_weights_are_not_prunable_even_if_included(model):
    model.get_layer("inner").trainable = False
    assert "inner/fc/kernel" not in paths(model)
    with pytest.raises(ValueError, match="match a trainable weight"):
        paths(model, include="inner/*")


def test_slopes_of_activations_are_not_kernels():
    shape = (4, 4, 2)
    model = keras.Sequential(
        [keras.Input(shape), layers.Conv2D(2, 1, name="conv"), layers.PReLU()]
    )
    assert paths(model) == ["conv/kernel"]


def test_a_shared_layer_counts_once():
    shared = layers.Dense(4, name="shared")
    x, y = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([x, y], layers.Add()([shared(x), shared(shared(y))]))
    assert paths(model) == ["shared/kernel"]


def test_siblings_of_one_name_are_told_apart():
    class Twins(layers.Layer):
        def __init__(self):
            super().__init__(name="twins")
            self.parts = [layers.Dense(2, name="part") for _ in range(3)]

        def build(self, shape):
            for part in self.parts:
                part.build(shape)

        def call(self, x):
            return sum(part(x) for part in self.parts)

    model = keras.Sequential([keras.Input((2,)), Twins()])
    expected = ["twins/part/kernel", "twins/part_1/kernel", "twins/part_2/kernel"]
    assert paths(model) == expected


def test_a_pattern_that_matches_nothing_names_near_misses(model):
    with pytest.raises(ValueError, match="Did you mean 'head/kernel'"):
        paths(model, exclude="haed/kernel")
    with pytest.raises(ValueError, match=r"`include` to match.*'zzz'"):
        paths(model, include=["head/bias", "zzz"])
    with pytest.raises(ValueError, match="returned False for each"):
        paths(model, include=lambda path, variable: False)


def test_patterns_of_the_wrong_kind(model):
    with pytest.raises(TypeError, match="glob pattern"):
        paths(model, include=3)
    with pytest.raises(TypeError, match="pattern of `exclude` to be a string"):
        paths(model, exclude=[3])
    weight = model.get_layer("head").kernel
    for wrong in (weight, [weight]):
        with pytest.raises(TypeError, match="write its path, 'head/kernel'") as raised:
            paths(model, exclude=wrong)
        assert len(str(raised.value)) < 200
    with pytest.raises(
        TypeError, match=r"`include` to be a function of \(path, variable"
    ):
        paths(model, include=lambda path: True)
    for layer in ("head", "inner/"):
        whole = layer.rstrip("/")
        with pytest.raises(ValueError, match=rf"of that name write '{whole}/\*'"):
            paths(model, exclude=layer)
    keys = snip_tf.prunable_weights(model).keys()
    assert "head/bias" in paths(model, include=(path for path in ["head/*"]))
    with pytest.raises(ValueError, match="at least one prunable weight"):
        paths(model, exclude=keys)


def test_nothing_prunable():
    model = keras.Sequential([keras.Input((5,)), layers.Embedding(3, 2, name="e")])
    with pytest.raises(ValueError, match=r"at least one prunable.*\(an embedding\)"):
        paths(model)
    dense = keras.Sequential([keras.Input((5,)), layers.Dense(3)])
    with pytest.raises(ValueError, match="at least one prunable"):
        paths(dense, exclude="*")


def test_refuses_anything_but_a_built_keras_model():
    with pytest.raises(ValueError, match="not built"):
        paths(keras.Sequential([layers.Dense(3)]))
    for model in (None, "model.keras", layers.Dense(3)):
        with pytest.raises(TypeError, match="Keras 3 model"):
            paths(model)


def test_a_weight_without_a_name_goes_by_its_attribute():
    class Unnamed(keras.layers.Layer):
        def build(self, shape):
            self.form = self.add_weight(shape=(shape[-1], 4))
            self.bias = self.add_weight(shape=(1, 4))
            self.parts = [self.add_weight(shape=(4, 4)) for _ in range(2)]

        def call(self, x):
            return (x @ self.form + self.bias) @ self.parts[0] @ self.parts[1]

    model = keras.Sequential([keras.Input((3,)), Unnamed(name="own")])
    paths = ["own/form", "own/bias", "own/variable", "own/variable_1"]
    assert list(weights_by_path(model)) == paths
    assert why_not_prunable("own/bias", weights_by_path(model)["own/bias"]) == "a bias"

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf.graph.graph import carry_masks, has_graph, hides_masks, tensors, trace
from tests.random_networks import (
    OwnModel,
    Words,
    assert_same_outputs,
    compacted,
    prune_at_random,
)

layers = keras.layers


def test_models_inside_are_laid_open_and_names_stay_apart():
    def inside(name):
        stack = [layers.Dense(6, "relu", name="dense"), layers.Dense(6, name="last")]
        return keras.Sequential([keras.Input((6,)), *stack], name=name)

    inputs = keras.Input((6,))
    x = inside("second")(inside("first")(inputs), training=False)
    model = keras.Model(inputs, layers.Dense(2)(x))
    rng = np.random.default_rng(0)
    pruned = prune_at_random(model, 0.8, rng)
    smaller = snip_tf.compact(pruned)
    names = [layer.name for layer in smaller.layers if layer.weights]
    assert names[:4] == ["dense", "last", "second_dense", "second_last"]
    assert_same_outputs(smaller, pruned, rng.random((3, 6)))


def test_a_model_inside_that_is_called_by_name():
    a, b = keras.Input((3,), name="b"), keras.Input((3,), name="a")
    inner = keras.Model([a, b], layers.Dense(2)(a) + 3 * layers.Dense(2)(b))
    x, y = keras.Input((3,)), keras.Input((3,))
    model = keras.Model([x, y], inner({"a": y, "b": x}))
    rng = np.random.default_rng(0)
    pruned = prune_at_random(model, 0.3, rng)
    given = [rng.random((4, 3)), rng.random((4, 3))]
    assert_same_outputs(compacted(pruned), pruned, given)


def test_a_model_inside_that_is_given_more_than_it_takes():
    inputs = {name: keras.Input((3,), name=name) for name in "ba"}
    inner = keras.Model(inputs, layers.Dense(2)(inputs["a"]) + inputs["b"][:, :2])
    given = [keras.Input((3,)) for _ in range(3)]
    model = keras.Model(given, inner(dict(zip("abc", given, strict=True))))
    rng = np.random.default_rng(0)
    pruned = prune_at_random(model, 0.3, rng)
    x = [rng.random((4, 3)) for _ in range(3)]
    assert_same_outputs(compacted(pruned), pruned, x)


def test_a_model_inside_casts_what_it_is_given():
    stack = [layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()]
    base = keras.Sequential([keras.Input((8, 8, 3)), *stack])
    images = keras.Input((8, 8, 3), dtype="uint8")
    model = keras.Model(images, layers.Dense(3)(base(images)))
    rng = np.random.default_rng(0)
    pruned = prune_at_random(model, 0.95, rng)
    smaller = snip_tf.compact(pruned)
    assert smaller.count_params() < model.count_params()
    x = rng.integers(256, size=(2, 8, 8, 3)).astype("uint8")
    assert_same_outputs(smaller, pruned, x)


def test_names_that_are_taken(tmp_path):
    inner = keras.Sequential([keras.Input((40,)), layers.Dense(30, name="image")])
    image = keras.Input((40,), name="image")
    x = layers.Dense(20, name="take")(inner(image))
    branches = [layers.Dense(20)(x), layers.Dense(20)(x)]
    model = keras.Model(image, layers.Dense(2)(layers.Concatenate()(branches)))
    rng = np.random.default_rng(0)
    pruned = prune_at_random(model, 0.95, rng)
    smaller = snip_tf.compact(pruned)
    assert smaller.get_layer("take").units < 20
    assert_same_outputs(smaller, pruned, rng.random((3, 40)))
    smaller.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    again = keras.Model(image, layers.Dense(2)(loaded(image)))
    again = prune_at_random(again, 0.9, rng)
    assert_same_outputs(compacted(again), again, rng.random((3, 40)))


def test_the_calls_of_a_model_and_of_those_inside_it():
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="a")], name="in")
    inputs = {"x": keras.Input((3,), name="x"), "y": keras.Input((3,), name="y")}
    once = inner(inputs["x"])
    again = inner(once)
    outputs = {"z": layers.Add(name="sum")([again, inputs["y"]]), "once": once}
    graph = trace(keras.Model(inputs, outputs))
    assert [node.name for node in graph.nodes] == ["in/a", "in/a", "sum"]
    first, second, total = graph.nodes
    assert first.inputs() == [graph.inputs["x"]]
    assert first.operation is second.operation is inner.layers[0]
    assert second.inputs() == tensors(first.outputs) == [graph.outputs["once"]]
    assert total.inputs() == [*tensors(second.outputs), graph.inputs["y"]]
    assert list(graph.layers()) == [first.operation, total.operation]


def test_arguments_of_a_call():
    x = keras.Input((3,))
    node = trace(keras.Model(x, 2 * layers.Dropout(0.5)(x, training=False))).nodes
    assert node[0].other_arguments() == [False]
    assert node[1].other_arguments() == [2]
    assert node[1].arguments_with(["x"]) == ((2, "x"), {})


def test_tracing_leaves_the_weights_of_a_model_alone():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    before = [np.array(weight) for weight in model.weights]
    graph = trace(model)
    assert graph.nodes[0].operation is model.layers[0]
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_a_mask_that_only_a_call_knows_of_is_hidden():
    for words, hidden in (
        (layers.Embedding(9, 4, mask_zero=True), False),
        (Words(), True),
    ):
        ids = keras.Input((5,), dtype="int32")
        graph = trace(keras.Model(ids, layers.Dense(2)(words(ids))))
        assert hides_masks(graph) == hidden
        assert carry_masks(tensors(graph.nodes[0].outputs)) != hidden


def test_only_models_with_the_call_of_keras_have_a_graph():
    own = OwnModel()
    own(np.zeros((1, 2)))
    plain = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    assert has_graph(plain)
    for layer in (own, plain.layers[0], keras.Sequential([layers.Dense(2)])):
        assert not has_graph(layer)
    with pytest.raises(ValueError, match="runs its layers in its own code"):
        trace(own)

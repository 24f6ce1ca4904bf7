import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf.masking.copying import copy_unmasked
from tests.network_kinds import ALL_KINDS
from tests.versions import since

layers = keras.layers


def built(layer, *shape):
    layer(np.zeros((1, *shape), np.float32))
    return layer


def functional():
    inputs = keras.Input((4,))
    hidden = layers.Dense(3)(inputs)
    row = keras.Sequential([keras.Input((3,)), layers.Dense(3)])
    return keras.Model(inputs, [hidden, layers.Add()([hidden, row(hidden)])])


class Odd(keras.Model):
    """Holds its parts in every way, and has no `get_config`."""

    def __init__(self, units):
        super().__init__(name="odd")
        self.later = []
        self.first = layers.Dense(units, name="first")
        self.later.append(layers.Dense(units, name="second"))
        self.named = {"deep": [layers.Dense(units, name="third")]}
        self.same = self.first
        self.scale = self.add_weight(shape=(units,), initializer="ones", name="scale")
        self.seeds = keras.random.SeedGenerator(3)
        self.seen = keras.metrics.Mean(name="seen")
        self.numbers = np.arange(3)
        self.method = self.twice
        self.partial = functools.partial(self.twice, times=3)
        self.closure = lambda x: self.first(x)

    def twice(self, x, times=2):
        return times * self.first(x)

    def call(self, x):
        y = self.method(x) + self.partial(x) + self.closure(x) + self.same(x)
        return self.scale * self.named["deep"][0](self.later[0](y))


def test_a_copy_shares_nothing_with_the_original():
    model = built(Odd(4), 4)
    copy = copy_unmasked(model)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    before = np.asarray(model(x))
    np.testing.assert_array_equal(copy(x), before)
    assert type(copy) is Odd
    assert not {id(v) for v in model.variables} & {id(v) for v in copy.variables}
    for variable in copy.variables:
        if variable.dtype == "float32":
            variable.assign(0 * variable)
    # Nor does a method, a partial or a closure of the copy run the original's layers.
    np.testing.assert_array_equal(copy(x), np.zeros((3, 4)))
    np.testing.assert_array_equal(model(x), before)


def test_a_copy_has_the_same_structure():
    model = built(Odd(4), 4)
    copy = copy_unmasked(model)
    assert copy.same is copy.first
    assert copy.numbers is model.numbers
    assert [v.path for v in copy.variables] == [v.path for v in model.variables]
    assert [layer.name for layer in copy.layers] == [
        layer.name for layer in model.layers
    ]
    assert copy.built


def test_variables_keep_what_they_were_made_with():
    layer = layers.Dense(
        2, kernel_regularizer="l2", kernel_constraint="non_neg", name="d"
    )
    model = keras.Sequential([keras.Input((3,)), layer])
    masks = {"d/kernel": np.eye(3, 2, dtype=bool)}
    copy = copy_unmasked(snip_tf.apply_masks(model, masks)).get_layer("d")
    assert copy.kernel.regularizer is layer.kernel.regularizer
    assert copy.kernel.constraint is layer.kernel.constraint
    assert copy.get_config() == layer.get_config()


def test_compiled_with_an_optimizer_of_its_own():
    class Adversarial(keras.Model):
        def __init__(self):
            super().__init__()
            self.generator = layers.Dense(2)

        def call(self, x):
            return self.generator(x)

        def compile(self, generator_optimizer, loss_function):
            super().compile()
            self.generator_optimizer = generator_optimizer
            self.loss_function = loss_function

    model = built(Adversarial(), 3)
    model.compile(keras.optimizers.Adam(0.5), keras.losses.MeanSquaredError())
    copy = copy_unmasked(model)
    assert copy.compiled
    assert copy.loss_function is model.loss_function
    assert copy.generator_optimizer is not model.generator_optimizer
    assert float(copy.generator_optimizer.learning_rate) == 0.5


def test_symbolic_attributes_belong_to_the_graph_of_the_copy():
    model, x, _ = ALL_KINDS["a Functional model with a constructor of its own"]()
    copy = copy_unmasked(model)
    assert copy.hidden is copy.layers[1]
    copy.hidden.kernel.assign(0 * copy.hidden.kernel)
    features = keras.Model(copy.inputs, copy.features)(x)
    np.testing.assert_array_equal(features, np.zeros_like(features))


@since("3.9")
def test_a_vocabulary_and_an_optional_input_are_kept():
    lookup = layers.StringLookup(output_mode="one_hot")
    lookup.adapt(np.array([["a"], ["b"]]))
    words = keras.Input((1,), dtype="string", name="words")
    more = keras.Input((3,), name="more", optional=True)

    class Add(layers.Layer):
        def call(self, x, y=None):
            return x if y is None else x + y

    outputs = Add()(layers.Dense(3)(lookup(words)), more)
    model = keras.Model({"words": words, "more": more}, outputs)
    copy = copy_unmasked(model)
    x = {"words": keras.ops.convert_to_tensor([["a"], ["b"], ["c"]]), "more": None}
    np.testing.assert_array_equal(copy(x), model(x))


@pytest.mark.parametrize("title", ALL_KINDS)
def test_computes_the_same_with_the_same_names(title):
    model, x, _ = ALL_KINDS[title]()
    x = keras.tree.map_structure(keras.ops.convert_to_tensor, x)
    copy = copy_unmasked(model)
    assert [(v.path, v.trainable) for v in copy.variables] == [
        (v.path, v.trainable) for v in model.variables
    ]
    keras.tree.map_structure(np.testing.assert_array_equal, copy(x), model(x))


@pytest.mark.parametrize("in_a_row", [False, True])
def test_a_copy_reads_the_checkpoints_of_the_original(in_a_row, tmp_path):
    model = functional()
    if in_a_row:
        model = keras.Sequential([keras.Input((4,)), layers.Dense(4), model])
    copy = copy_unmasked(model)
    for variable in copy.trainable_variables:
        variable.assign(variable + 1)
    saved = [tf.train.Checkpoint(model=m) for m in (model, copy)]
    paths = [c.write(tmp_path / str(i)) for i, c in enumerate(saved)]
    names = [[n for n, _ in tf.train.list_variables(path)] for path in paths]
    assert names[0] == names[1]
    assert len(names[0]) > len(model.trainable_variables)
    saved[1].read(paths[0]).assert_consumed()
    for variable, other in zip(model.variables, copy.variables, strict=True):
        np.testing.assert_array_equal(variable, other)

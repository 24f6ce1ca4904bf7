import collections
import functools
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf.masking.copying import copy_unmasked
from tests.network_kinds import ALL_KINDS

layers = keras.layers


def built(layer, *shape):
    layer(np.zeros((1, *shape), np.float32))
    return layer


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


class Helper:
    """An object of no library that holds a layer, and what refers back to it."""

    def __init__(self, layer):
        self.layer = layer
        self.itself = self

    def __call__(self, x):
        return keras.ops.tanh(self.itself.layer(x))


class Weak(Helper):
    def __init__(self, layer):
        super().__init__(layer)
        del self.layer
        self.reference = weakref.ref(layer)

    def __call__(self, x):
        return self.reference()(x)


Pair = collections.namedtuple("Pair", "one other")

HOLDERS = {
    "an object": Helper,
    "a default of a function": lambda layer: lambda x, layer=layer: layer(x),
    "a list that a function closes over": lambda layer: (
        lambda x, layers=[layer]: layers[0](x)
    ),
    "a function in a function": lambda layer: lambda x: (lambda: layer(x))(),
    "a bound method": lambda layer: Helper(layer).__call__,
    "a weak reference": lambda layer: Weak(layer),
}


class Holds(keras.Model):
    def __init__(self, hold):
        super().__init__()
        self.dense = layers.Dense(4, name="dense")
        self.run = hold(self.dense)

    def call(self, x):
        return self.run(x)


class Holding(layers.Layer):
    """Counts its calls in what holds a variable, such as a regularizer."""

    def __init__(self, holder):
        super().__init__()
        self.holder = holder

    def build(self, shape):
        regularizer = self.holder if callable(self.holder) else None
        self.w = self.add_weight(shape=(), regularizer=regularizer, name="w")

    def call(self, x):
        self.holder.value.assign(self.holder.value + 1)
        return x + self.w


class Fading(keras.regularizers.Regularizer):
    def __init__(self):
        self.value = tf.Variable(1.0)

    def __call__(self, w):
        return self.value * w**2


class Average(tf.train.ExponentialMovingAverage):
    def __init__(self):
        super().__init__(0.5)
        self.counted = tf.Variable(1.0)
        self.apply([self.counted])

    @property
    def value(self):
        return self.average(self.counted)


class Drawing(keras.initializers.RandomNormal):
    def __init__(self):
        super().__init__(seed=keras.random.SeedGenerator(0))

    @property
    def value(self):
        return self.seed.state


@pytest.mark.parametrize("make", [Fading, Average, Drawing])
def test_objects_of_libraries_that_hold_variables(make):
    model = keras.Sequential([Holding(make())])
    built(model, 3)
    copy = copy_unmasked(model)
    old, new = model.layers[0], copy.layers[0]
    before = np.asarray(old.holder.value)
    copy(np.ones((1, 3), np.float32))
    np.testing.assert_array_equal(old.holder.value, before)
    np.testing.assert_array_equal(new.holder.value, before + 1)
    assert type(new.holder) is make
    if make is Fading:
        assert new.w.regularizer is new.holder


@pytest.mark.parametrize("how", HOLDERS)
def test_whatever_holds_a_layer_holds_its_copy(how):
    model = built(Holds(HOLDERS[how]), 4)
    copy = copy_unmasked(model)
    x = np.ones((2, 4), np.float32)
    before = np.asarray(model(x))
    np.testing.assert_array_equal(copy(x), before)
    copy.dense.kernel.assign(0 * copy.dense.kernel)
    np.testing.assert_array_equal(copy(x), np.zeros((2, 4)))
    np.testing.assert_array_equal(model(x), before)


def test_containers_of_every_kind():
    class Holder(layers.Layer):
        def __init__(self):
            super().__init__()
            self.pair = Pair(layers.Dense(2), layers.Dense(2))
            self.queue = collections.deque([self.pair.one])
            self.frozen = frozenset([self.pair.other])
            self.mixed = {1: "one", "two": 2}
            self.weights_of = {self.pair.one: 0.5}
            self.history = 3

        def call(self, x):
            return self.queue[0](x) + next(iter(self.frozen))(x)

    layer = built(Holder(), 3)
    model = keras.Sequential([keras.Input((3,)), layer])
    copy = copy_unmasked(model).layers[0]
    assert copy.queue[0] is copy.pair.one
    assert copy.frozen == {copy.pair.other}
    assert list(copy.weights_of) == [copy.pair.one]
    assert copy.pair.one is not layer.pair.one
    assert (copy.mixed, copy.history) == ({1: "one", "two": 2}, 3)


def test_metrics_and_optimizers_that_have_no_configuration():
    class Own(keras.metrics.Metric):
        def __init__(self, classes):
            super().__init__(name="own")
            self.counts = self.add_weight((classes,), "zeros", name="counts")

        def update_state(self, y):
            self.counts.assign_add(y)

        def result(self):
            return self.counts

    class Falling(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1

    class Holder(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)
            self.own = Own(3)
            self.own_optimizer = keras.optimizers.SGD(Falling())

        def call(self, x):
            return self.dense(x)

    model = built(Holder(), 3)
    with pytest.warns(UserWarning, match="is None in the copy"):
        copy = copy_unmasked(model)
    copy.own.update_state(np.ones(3))
    np.testing.assert_array_equal(copy.own.result(), np.ones(3))
    np.testing.assert_array_equal(model.own.result(), np.zeros(3))
    assert len(copy.metrics_variables) == len(model.metrics_variables) == 1


def test_traced_functions_run_the_layers_of_the_copy():
    """As attributes, in lists, and in modules of TensorFlow's."""

    class Traced(keras.Model):
        def __init__(self):
            super().__init__()
            self.out = keras.layers.Dense(3, name="out")
            self.forward = tf.function(self.out, reduce_retracing=True)
            self.several = [tf.function(lambda x: self.out(x) + 1)]

        def call(self, x):
            return self.forward(x) + self.several[0](x)

    model, x = Traced(), np.ones((2, 4), np.float32)
    before = np.asarray(model(x))
    copy = copy_unmasked(model)
    np.testing.assert_array_equal(copy(x), before)
    copy.out.kernel.assign(0 * copy.out.kernel)
    np.testing.assert_array_equal(copy(x), np.ones((2, 3)))
    np.testing.assert_array_equal(model(x), before)


def test_values_in_slots_are_copied():
    class Slotted(keras.layers.Layer):
        __slots__ = ("factor", "helper")

        def call(self, x):
            return self.factor * self.helper.layer(x)

    class Helper:
        __slots__ = ("layer",)

        def __init__(self, layer):
            self.layer = layer

    layer = Slotted(name="slotted")
    layer.factor, dense = 2.0, keras.layers.Dense(3)
    layer.helper = Helper(dense)
    dense.build((None, 4))
    model, x = keras.Sequential([keras.Input((4,)), layer]), np.ones((2, 4), np.float32)
    before = np.asarray(model(x))
    copy = copy_unmasked(model)
    np.testing.assert_array_equal(copy(x), before)
    copy.layers[0].helper.layer.kernel.assign(np.zeros((4, 3)))
    np.testing.assert_array_equal(model(x), before)
    np.testing.assert_array_equal(copy(x), np.zeros((2, 3)))

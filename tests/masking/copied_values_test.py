import collections
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from snip_tf.masking.copying import copy_unmasked

layers = keras.layers


def built(layer, *shape):
    layer(np.zeros((1, *shape), np.float32))
    return layer


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
        regularizer = self.holder if type(self.holder) is Fading else None
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

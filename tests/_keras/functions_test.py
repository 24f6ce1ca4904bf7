import collections
import functools
import threading

import keras
import numpy as np
import tensorflow as tf

from snip_tf import _keras

layers = keras.layers


def small_model():
    return keras.Sequential([keras.Input((3,)), layers.Dense(2, name="dense")])


def test_functions_are_inlined_where_asked_in_this_thread(monkeypatch):
    cls = type(tf.function(lambda: None))
    theirs = cls._run_functions_eagerly
    monkeypatch.setattr(cls, "_run_functions_eagerly", theirs)
    here = threading.get_ident()
    runs = []
    function = tf.function(lambda: runs.append(1))
    function()
    _keras.inline_functions_where(lambda: threading.get_ident() == here)
    function()
    assert len(runs) == 2
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
    assert len(runs) == 2


def test_function_like():
    function = tf.function(lambda x: x, jit_compile=True, reduce_retracing=True)
    other = _keras.function_like(function, lambda x: x + 1)
    assert isinstance(other, tf.types.experimental.PolymorphicFunction)
    assert other(1) == 2
    assert other._jit_compile is True and other._reduce_retracing is True


def test_reference():
    variable = tf.Variable(1.0)
    assert _keras.is_reference(variable.ref())
    assert variable.ref().deref() is variable
    assert not _keras.is_reference(functools.partial(int))


def test_unwrapped_tuple():
    Pair = collections.namedtuple("Pair", "a b")
    module = tf.Module()
    model = small_model()
    module.pair = model.pair = Pair(1, 2)
    for value in (module.pair, model.pair):
        assert type(_keras.unwrapped(value)) is Pair
        assert _keras.unwrapped(value) == Pair(1, 2)


def test_grouped_convolutions_are_traced_under_their_name():
    seen = []

    class Looks(keras.StatelessScope):
        def get_current_value(self, _):
            seen.append(_keras.is_traced_for_one_call())

    convolution = layers.Conv2D(4, 2, groups=2)
    convolution.build((None, 3, 3, 4))
    images = np.ones((1, 3, 3, 4), np.float32)
    with Looks():
        convolution(images)
    assert not _keras.is_traced_for_one_call()
    assert True in seen

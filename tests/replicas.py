"""The one strategy with two replicas that all tests of a process share."""

import functools

import tensorflow as tf


@functools.cache
def two_replicas():
    """In one process, the collective operations of two strategies mix each other up."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

"""Two logical processors, for two replicas; what a process keeps of its tests."""

import contextlib
import gc
import re

import keras
import pytest

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
if ON_TENSORFLOW:
    import tensorflow as tf
    from tensorflow.python.framework import ops

    # Only possible before TensorFlow starts.
    [_CPU] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        _CPU, [tf.config.LogicalDeviceConfiguration()] * 2
    )

if keras.backend.backend() == "torch":
    import torch

    def _read(tensor, dtype=None, copy=None):
        del copy
        tensor = tensor.detach().cpu()
        half = tensor.dtype == torch.bfloat16  # which NumPy does not know
        array = (tensor.float() if half else tensor).numpy()
        return array if dtype is None else array.astype(dtype)

    # So that NumPy reads outputs, which have a gradient, as it does with the others.
    torch.Tensor.__array__ = _read


def pytest_ignore_collect(collection_path):
    """With another backend of Keras, leaves out the files that import TensorFlow."""
    if ON_TENSORFLOW or collection_path.suffix != ".py":
        return None
    text = collection_path.read_text("utf-8")
    return True if re.search(r"^import tensorflow", text, re.M) else None


def pytest_collection_modifyitems(items):
    """For `pytest -n 2 --dist loadgroup`: a file's tests go to one process.

    Their fixtures train models. Only those of the battery, the longest file, stand
    alone.
    """
    for item in items:
        if item.path.name != "battery_test.py":
            item.add_marker(pytest.mark.xdist_group(item.path.name))


@pytest.fixture
def walks(monkeypatch):
    """The names of the models over whose weights something walks."""
    from snip_tf import weights

    walked, read = [], weights.Walk.__init__

    def recorded(walk, layer):
        walked.append(layer.name)
        read(walk, layer)

    monkeypatch.setattr(weights.Walk, "__init__", recorded)
    return walked


@contextlib.contextmanager
def custom_gradients_freed():
    """Unregisters the custom gradients that TensorFlow registers meanwhile.

    It never does so itself. Keras makes two in each training step that is traced (they
    are those of `all_reduce`), and each holds the graph of that step: 15 MB for a small
    model, gigabytes in a run of all tests.
    """
    registry = ops.gradient_registry._registry if ON_TENSORFLOW else {}
    before = set(registry)
    yield
    for name in registry.keys() - before:
        if name.startswith("CustomGradient-"):
            del registry[name]


@pytest.fixture(autouse=True)
def _free_gradients_of_test():
    with custom_gradients_freed():
        yield


@pytest.fixture(autouse=True, scope="module")
def _free_models_of_file():
    with custom_gradients_freed():
        yield
    gc.collect()

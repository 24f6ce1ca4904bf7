"""Two logical processors, for two replicas; which tests share a process."""

import pytest
import tensorflow as tf

# Only possible before TensorFlow starts.
[_CPU] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(
    _CPU, [tf.config.LogicalDeviceConfiguration()] * 2
)


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

"""Two logical processors, so that tests may have two replicas."""

import tensorflow as tf

# Only possible before TensorFlow starts.
[_CPU] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(
    _CPU, [tf.config.LogicalDeviceConfiguration()] * 2
)

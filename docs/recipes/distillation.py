"""Distillation: a pruned student learns from the soft outputs of a dense teacher."""

import keras
from sklearn.datasets import load_digits

import snip_tf

TEMPERATURE = 3.0


def distance_to_teacher(teacher_logits, logits):
    """Returns the divergence of the softened outputs."""
    soft = keras.ops.softmax(teacher_logits / TEMPERATURE)
    return keras.losses.kl_divergence(soft, keras.ops.softmax(logits / TEMPERATURE))


def network(units):
    """Returns a network with two hidden layers."""
    hidden = [keras.layers.Dense(units, "relu") for _ in range(2)]
    return keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])


keras.utils.set_random_seed(0)
x, labels = load_digits(return_X_y=True)
x = x.astype("float32") / 16
x, labels, x_test, test_labels = x[:1500], labels[:1500], x[1500:], labels[1500:]

teacher = network(300)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
teacher.compile("adam", loss, metrics=["accuracy"])
teacher.fit(x, labels, epochs=8, verbose=0)
logits = teacher.predict(x, verbose=0)

student = network(100)
student.compile(keras.optimizers.Adam(3e-3), distance_to_teacher)
pruned = snip_tf.prune_model(student, x, logits, sparsity=0.9)
pruned.fit(x, logits, epochs=12, verbose=0)

accuracy = float((pruned.predict(x_test, verbose=0).argmax(1) == test_labels).mean())
print(f"teacher: {teacher.evaluate(x_test, test_labels, verbose=0)[1]:.0%} are right")
print(f"student, {snip_tf.sparsity(pruned):.0%} pruned: {accuracy:.0%}")

"""A custom training loop: no callback is needed, and the zeros stay zeros."""

import keras
import tensorflow as tf
from sklearn.datasets import load_digits

import snip_tf

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = x.astype("float32") / 16
data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=0).batch(64)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
optimizer = keras.optimizers.AdamW(1e-3)

hidden = [keras.layers.Dense(128, "relu") for _ in range(2)]
model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])
pruned = snip_tf.prune_model(model, data, sparsity=0.9, loss=loss)


@tf.function
def train_step(x, y):
    """Takes one step."""
    with tf.GradientTape() as tape:
        value = loss(y, pruned(x, training=True))
    gradients = tape.gradient(value, pruned.trainable_variables)
    optimizer.apply_gradients(zip(gradients, pruned.trainable_variables, strict=True))


for _ in range(10):
    for batch in data:
        train_step(*batch)
accuracy = float((pruned.predict(x, verbose=0).argmax(axis=1) == y).mean())
print(f"{snip_tf.sparsity(pruned):.0%} pruned: {accuracy:.0%} are right")

"""A siamese network: one encoder for two inputs, whose shared weights count once."""

import keras
import numpy as np
from sklearn.datasets import load_digits

import snip_tf


def contrastive_loss(same, distance):
    """Pulls pairs of one class together, and pushes others to a distance of one."""
    apart = keras.ops.maximum(1 - distance, 0)
    return keras.ops.mean(same * distance**2 + (1 - same) * apart**2, axis=-1)


keras.utils.set_random_seed(0)
digits, labels = load_digits(return_X_y=True)
digits = digits.astype("float32") / 16
pairs = np.random.randint(len(digits), size=(2, 4000))
pairs[1, :2000] = [
    np.random.choice(np.flatnonzero(labels == c)) for c in labels[pairs[0, :2000]]
]
same = (labels[pairs[0]] == labels[pairs[1]]).astype("float32")[:, None]
x = [digits[pairs[0]], digits[pairs[1]]]

encoder = keras.Sequential(
    [keras.Input((64,)), keras.layers.Dense(128, "relu"), keras.layers.Dense(16)],
    name="encoder",
)
inputs = [keras.Input((64,)), keras.Input((64,))]
difference = keras.layers.Subtract()([encoder(one) for one in inputs])
distance = keras.layers.Lambda(
    lambda d: keras.ops.sqrt(keras.ops.sum(d**2, axis=1, keepdims=True) + 1e-9),
    output_shape=(1,),
)(difference)
model = keras.Model(inputs, distance)
model.compile("adam", contrastive_loss)

pruned = snip_tf.prune_model(model, x, same, sparsity=0.9)
pruned.fit(x, same, epochs=5, verbose=0)
near = pruned.predict(x, verbose=0) < 0.5
accuracy = float(np.mean(near == same))
print(f"{snip_tf.sparsity(pruned):.0%} pruned: {accuracy:.0%} of the pairs are right")

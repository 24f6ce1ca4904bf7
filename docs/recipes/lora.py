"""LoRA: tunes a pruned model with small factors beside its sparse kernels."""

import keras
import numpy as np
from sklearn.datasets import load_digits

import snip_tf

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = x.astype("float32") / 16
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

hidden = [keras.layers.Dense(128, "relu") for _ in range(2)]
model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])
model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
pruned = snip_tf.prune_model(model, x, y, sparsity=0.9)
pruned.fit(x, y, epochs=5, verbose=0)

# Another task: digits upside down. LoRA freezes the kernels, so that no mask is needed.
rotated = x[:, ::-1]
tuned = snip_tf.strip_pruning(pruned)
for layer in tuned.layers:
    layer.enable_lora(4)
tuned.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
before = tuned.evaluate(rotated, y, verbose=0)[1]
tuned.fit(rotated, y, epochs=8, verbose=0)
after = tuned.evaluate(rotated, y, verbose=0)[1]
print(f"upside down: {before:.0%} right before tuning, {after:.0%} after")

# In the model; in files Keras adds the factors to the kernels, which makes them dense.
kernels = [np.asarray(w) for w in tuned.weights if w.name == "kernel"]
zeros = np.mean(np.concatenate([kernel.ravel() for kernel in kernels]) == 0)
print(f"{zeros:.0%} of the kernels are zero")

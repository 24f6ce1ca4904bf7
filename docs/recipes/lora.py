"""LoRA: tunes a pruned model with small factors, and merges them into the zeros."""

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

# Another task: digits upside down. The layers compute with mask * (kernel + A B).
rotated = x[:, ::-1]
for layer in pruned.layers:
    layer.enable_lora(4)
pruned.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
before = pruned.evaluate(rotated, y, verbose=0)[1]
pruned.fit(rotated, y, epochs=8, verbose=0)
after = pruned.evaluate(rotated, y, verbose=0)[1]
print(f"upside down: {before:.0%} right before tuning, {after:.0%} after")

merged = snip_tf.strip_pruning(pruned)  # plain layers, without factors
kernels = [np.asarray(w) for w in merged.weights if w.name == "kernel"]
zeros = np.mean(np.concatenate([kernel.ravel() for kernel in kernels]) == 0)
print(f"{zeros:.0%} of the kernels are zero")

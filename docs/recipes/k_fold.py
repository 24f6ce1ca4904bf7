"""Cross-validation: prunes anew in each fold, on the examples that it trains on."""

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold

import snip_tf

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = x.astype("float32") / 16
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
hidden = keras.layers.Dense(100, "relu")
untrained = keras.Sequential([keras.Input((64,)), hidden, keras.layers.Dense(10)])
untrained.compile(keras.optimizers.Adam(5e-3), loss, metrics=["accuracy"])

# `prune_model` leaves `untrained` unchanged: each fold starts from the same weights.
accuracies = []
for train, test in StratifiedKFold(3, shuffle=True, random_state=0).split(x, y):
    pruned = snip_tf.prune_model(untrained, x[train], y[train], sparsity=0.9)
    pruned.fit(x[train], y[train], epochs=6, verbose=0)
    accuracies.append(pruned.evaluate(x[test], y[test], verbose=0)[1])
print(f"accuracy: {np.mean(accuracies):.3f} ± {np.std(accuracies, ddof=1):.3f}")

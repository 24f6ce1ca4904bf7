"""Transfer learning: prunes a pretrained backbone for the task it is tuned for."""

import keras
from sklearn.datasets import load_digits

import snip_tf

keras.utils.set_random_seed(0)
images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1).astype("float32") / 16
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

# A backbone that has learned the digits 0 to 4.
backbone = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(64, "relu"),
    ],
    name="backbone",
)
first = labels < 5
pretraining = keras.Sequential([backbone, keras.layers.Dense(5)])
pretraining.compile("adam", loss)
pretraining.fit(images[first], labels[first], epochs=5, verbose=0)

# The digits 5 to 9: a new head, and the connections that matter for them.
x, y = images[~first], labels[~first] - 5
x, y, x_test, y_test = x[:700], y[:700], x[700:], y[700:]
model = keras.Sequential([backbone, keras.layers.Dense(5, name="head")])
model.compile("adam", loss, metrics=["accuracy"])
pruned = snip_tf.prune_model(model, x, y, sparsity=0.9, exclude="head/*")
pruned.fit(x, y, epochs=10, verbose=0)
accuracy = pruned.evaluate(x_test, y_test, verbose=0)[1]
print(
    f"{snip_tf.sparsity(pruned):.0%} pruned: {accuracy:.0%} of the new digits are right"
)

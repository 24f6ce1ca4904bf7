"""Q-learning: the objective is the temporal-difference error on transitions."""

import keras
import numpy as np
import tensorflow as tf

import snip_tf

LENGTH, DISCOUNT = 8, 0.9


def transitions(n):
    """Returns random steps in a corridor whose right end gives a reward of one."""
    place, action = np.random.randint(LENGTH, size=n), np.random.randint(2, size=n)
    there = np.clip(place + 2 * action - 1, 0, LENGTH - 1)
    states = np.eye(LENGTH, dtype="float32")
    return {
        "state": states[place],
        "action": action,
        "reward": (there == LENGTH - 1).astype("float32"),
        "next_state": states[there],
    }


def temporal_difference(model, batch, training):
    """Returns the mean squared error of the Bellman equation."""
    best = keras.ops.max(model(batch["next_state"]), axis=1)
    target = keras.ops.stop_gradient(batch["reward"] + DISCOUNT * best)
    chosen = keras.ops.one_hot(batch["action"], 2)
    values = keras.ops.sum(model(batch["state"], training=training) * chosen, axis=1)
    return keras.ops.mean((values - target) ** 2)


keras.utils.set_random_seed(0)
hidden = [keras.layers.Dense(64, "relu") for _ in range(2)]
model = keras.Sequential([keras.Input((LENGTH,)), *hidden, keras.layers.Dense(2)])
pruned = snip_tf.prune_model(
    model, transitions(256), sparsity=0.8, objective=temporal_difference, batch_size=256
)
optimizer = keras.optimizers.Adam(5e-3)


@tf.function
def train_step(batch):
    """Takes one step, and returns the error before it."""
    with tf.GradientTape() as tape:
        loss = temporal_difference(pruned, batch, training=True)
    gradients = tape.gradient(loss, pruned.trainable_variables)
    optimizer.apply_gradients(zip(gradients, pruned.trainable_variables, strict=True))
    return loss


errors = [float(train_step(transitions(256))) for _ in range(600)]
policy = pruned.predict(np.eye(LENGTH, dtype="float32"), verbose=0).argmax(axis=1)
print(
    f"{snip_tf.sparsity(pruned):.0%} pruned: error {errors[0]:.3f} -> {errors[-1]:.5f}"
)
print("policy (1 is right):", policy)

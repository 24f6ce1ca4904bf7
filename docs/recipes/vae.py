"""A variational autoencoder: what its layers add to the loss is scored, too."""

import keras
import numpy as np
from sklearn.datasets import load_digits

import snip_tf


class Sampling(keras.layers.Layer):
    """Draws from the posterior, and adds its divergence from the prior to the loss."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seed = keras.random.SeedGenerator(0)

    def call(self, mean_and_log_variance):
        """Returns a draw."""
        mean, log_variance = mean_and_log_variance
        terms = 1 + log_variance - mean**2 - keras.ops.exp(log_variance)
        self.add_loss(-0.0003 * keras.ops.mean(keras.ops.sum(terms, axis=1)))
        noise = keras.random.normal(keras.ops.shape(mean), seed=self.seed)
        return mean + keras.ops.exp(log_variance / 2) * noise


keras.utils.set_random_seed(0)
x = load_digits().data.astype("float32") / 16

pixels = keras.Input((64,))
hidden = keras.layers.Dense(128, "relu", name="encoder")(pixels)
posterior = [keras.layers.Dense(8, name=name)(hidden) for name in ("mean", "variance")]
hidden = keras.layers.Dense(128, "relu", name="decoder")(Sampling()(posterior))
vae = keras.Model(pixels, keras.layers.Dense(64, "sigmoid", name="pixels")(hidden))
vae.compile(keras.optimizers.Adam(3e-3), "mse")

pruned = snip_tf.prune_model(vae, x, x, sparsity=0.8)
before = pruned.evaluate(x, x, verbose=0)
pruned.fit(x, x, epochs=12, verbose=0)
after = pruned.evaluate(x, x, verbose=0)
print(f"{snip_tf.sparsity(pruned):.0%} pruned: loss {before:.3f} -> {after:.3f}")
print(f"the mean image as a constant output: {np.var(x, axis=0).mean():.3f}")

"""A GAN: no loss on outputs can express what its `train_step` minimizes."""

import keras
import numpy as np
import tensorflow as tf

import snip_tf

ops = keras.ops


def network(name, inputs, outputs):
    """Returns a small dense network."""
    layers = [keras.layers.Dense(64, "relu"), keras.layers.Dense(outputs)]
    return keras.Sequential([keras.Input((inputs,)), *layers], name=name)


class Gan(keras.Model):
    """Generates points of the plane."""

    def __init__(self):
        super().__init__()
        self.generator = network("generator", 4, 2)
        self.discriminator = network("discriminator", 2, 1)
        self.noise = keras.random.SeedGenerator(0)

    def draw(self, n):
        """Returns n generated points."""
        return self.generator(keras.random.normal((n, 4), seed=self.noise))

    def generator_loss(self, n):
        """Returns how well the discriminator recognizes n generated points."""
        return ops.mean(ops.softplus(-self.discriminator(self.draw(n))))

    def discriminator_loss(self, real):
        """Returns how badly it distinguishes real points from generated ones."""
        fake = self.discriminator(self.draw(ops.shape(real)[0]))
        real = self.discriminator(real)
        return ops.mean(ops.softplus(fake)) + ops.mean(ops.softplus(-real))

    def train_step(self, real):
        """Takes a step of each of the two."""
        with tf.GradientTape(persistent=True) as tape:
            losses = {
                self.discriminator: self.discriminator_loss(real),
                self.generator: self.generator_loss(ops.shape(real)[0]),
            }
        for part, loss in losses.items():
            gradients = tape.gradient(loss, part.trainable_variables)
            part.optimizer.apply_gradients(
                zip(gradients, part.trainable_variables, strict=True)
            )
        return {part.name: loss for part, loss in losses.items()}


keras.utils.set_random_seed(0)
points = np.random.normal([3, -3], 0.5, size=(2048, 2)).astype("float32")
gan = Gan()
pruned = snip_tf.prune_model(
    gan,
    points,
    sparsity=0.5,
    objective=lambda model, batch, training: model.generator_loss(256),
    exclude="discriminator/*",
)
for part in (pruned.generator, pruned.discriminator):
    part.optimizer = keras.optimizers.Adam(5e-4, beta_1=0.5)
pruned.compile()
pruned.fit(points, batch_size=64, epochs=30, verbose=0)
mean = np.asarray(pruned.draw(2048)).mean(axis=0)
print(f"{snip_tf.sparsity(pruned.generator):.0%} of the generator pruned")
print("mean of the generated points:", mean.round(1), "of the real ones: [3, -3]")

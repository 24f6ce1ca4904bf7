"""A model whose training step is its own, as each backend's users write it."""

import keras

from tests.kinds.custom import Subclassed
from tests.kinds.making import compiled, kind, labels, normal

ops = keras.ops


def penalty(kernels):
    return sum(1e-3 * ops.sum(ops.square(kernel)) for kernel in kernels)


class Step(Subclassed):
    """What the steps have in common: they read what the layers are made of."""

    def kernels(self):
        assert [block.units for block in self.blocks] == [self.units] * 2
        return [block.kernel for block in self.blocks]

    def total_loss(self, x, y):
        loss = self.compute_loss(x, y, self(x, training=True), training=True)
        return loss + penalty(self.kernels())


class TensorflowStep(Step):
    def train_step(self, data):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = self.total_loss(*data)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss}

    def test_step(self, data):
        x, y = data
        return {"loss": self.compute_loss(x, y, self(x, training=False))}


class JaxStep(Step):
    def train_step(self, state, data):
        import jax

        trainable, others, optimizer, metrics = state
        x, y = data
        paths = [variable.path for variable in self.trainable_variables]
        indices = [paths.index(kernel.path) for kernel in self.kernels()]

        def loss(trainable, others):
            y_pred, others = self.stateless_call(trainable, others, x, training=True)
            kernels = [trainable[index] for index in indices]
            return self.compute_loss(x, y, y_pred) + penalty(kernels), others

        differentiated = jax.value_and_grad(loss, has_aux=True)
        (value, others), gradients = differentiated(trainable, others)
        trainable, optimizer = self.optimizer.stateless_apply(
            optimizer, gradients, trainable
        )
        return {"loss": value}, (trainable, others, optimizer, metrics)


class TorchStep(Step):
    def train_step(self, data):
        import torch

        self.zero_grad()
        loss = self.total_loss(*data)
        loss.backward()
        variables = self.trainable_variables
        with torch.no_grad():
            self.optimizer.apply([v.value.grad for v in variables], variables)
        return {"loss": loss}


STEPS = {"tensorflow": TensorflowStep, "jax": JaxStep, "torch": TorchStep}


@keras.saving.register_keras_serializable("snip_tf_tests")
class OwnStep(STEPS[keras.backend.backend()]):
    pass


@kind("a subclassed model with its own `train_step`")
def own_step():
    model = OwnStep()
    model(normal(5))
    return compiled(model), normal(5), labels()

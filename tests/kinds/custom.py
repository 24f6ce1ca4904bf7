"""Models and layers of a user's own."""

import keras

from tests.kinds.making import classifier, compiled, kind, labels, normal

layers = keras.layers
ops = keras.ops


@keras.saving.register_keras_serializable("snip_tf_tests")
class MinimalCell(layers.Layer):
    """A recurrent cell of a user's own."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.state_size = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        square = self.units, self.units
        self.recurrent_kernel = self.add_weight(shape=square, name="recurrent_kernel")

    def call(self, inputs, states):
        h = ops.tanh(inputs @ self.kernel + states[0] @ self.recurrent_kernel)
        return h, [h]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@kind("RNN of a custom cell")
def custom_cell():
    return classifier(layers.RNN(MinimalCell(4)), shape=(4, 3))


@keras.saving.register_keras_serializable("snip_tf_tests")
class Bilinear(layers.Layer):
    """Weights without names, one of rank 3."""

    def build(self, shape):
        size = shape[-1]
        self.form = self.add_weight(shape=(size, size, 4))
        self.shift = self.add_weight(shape=(4,))

    def call(self, x):
        return ops.einsum("bi,bj,ijk->bk", x, x, self.form) + self.shift


@kind("a custom layer with `add_weight`")
def custom_layer():
    return classifier(Bilinear(), shape=(5,))


@keras.saving.register_keras_serializable("snip_tf_tests")
class Composite(layers.Layer):
    """Layers in an attribute, a list and a dict; their weights come in the call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(6)
        self.norm = layers.BatchNormalization()
        self.parts = [layers.Dense(6, activation="tanh") for _ in range(2)]
        self.named = {"drop": layers.Dropout(0.1), "last": layers.Dense(4)}

    def call(self, x, training=False):
        x = self.norm(self.first(x), training=training)
        for part in self.parts:
            x = part(x)
        return self.named["last"](self.named["drop"](x, training=training))


@kind("a composite layer: attributes, lists, dicts, no `build`")
def composite():
    return classifier(Composite(), shape=(5,))


@keras.saving.register_keras_serializable("snip_tf_tests")
class Subclassed(keras.Model):
    """Layers in attributes, a list and a dict, and an inner model."""

    def __init__(self, units=6, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.blocks = [layers.Dense(units, activation="tanh") for _ in range(2)]
        self.inner = keras.Sequential([layers.Dense(units), layers.Dropout(0.1)])
        self.norm = layers.BatchNormalization()
        self.heads = {"y": layers.Dense(3)}

    def call(self, x, training=False):
        for block in self.blocks:
            x = block(x)
        x = self.norm(self.inner(x, training=training), training=training)
        return self.heads["y"](x)

    def get_config(self):
        return {"units": self.units, "name": self.name}


@kind("a subclassed model")
def subclassed():
    model = Subclassed()
    model(normal(5))
    return compiled(model), normal(5), labels()


@keras.saving.register_keras_serializable("snip_tf_tests")
class FunctionalSubclass(keras.Model):
    """Made as a Functional model by its own constructor, as KerasHub's backbones."""

    def __init__(self, units=6, **kwargs):
        x = keras.Input((5,))
        hidden = layers.Dense(units, activation="tanh")
        self_features = hidden(x)
        super().__init__(x, layers.Dense(3)(self_features), **kwargs)
        self.units = units
        self.hidden = hidden
        self.features = self_features

    def get_config(self):
        return {"units": self.units, "name": self.name}


@kind("a Functional model with a constructor of its own")
def functional_subclass():
    return compiled(FunctionalSubclass()), normal(5), labels()


@keras.saving.register_keras_serializable("snip_tf_tests")
class TiedAutoencoder(keras.Model):
    """Uses one kernel twice, the second time transposed."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.encoder = layers.Dense(4, activation="tanh", name="encoder")

    def call(self, x):
        code = self.encoder(x)
        return ops.matmul(code, ops.transpose(self.encoder.kernel))

    def get_config(self):
        return {"name": self.name}


@kind("tied weights")
def tied():
    model = TiedAutoencoder()
    model(normal(5))
    return compiled(model, loss="mse"), normal(5), normal(5)

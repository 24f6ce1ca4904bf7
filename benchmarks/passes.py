"""A forward and backward pass by hand on each backend of Keras, and networks for it."""

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

import snip_tf

SPARSITY = 0.95


class Network(NamedTuple):
    """A model, a batch for it and what it minimizes."""

    model: keras.Model
    x: np.ndarray
    y: np.ndarray
    loss: keras.losses.Loss


def network(name: str, examples: int) -> Network:
    """Makes one of `vgg_d`, `resnet_50`, `transformer` and `transformer_100m`."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    if name == "transformer":
        model = transformer(blocks=6, width=256, heads=8, tokens=128, words=10_000)
    elif name == "transformer_100m":
        model = transformer(blocks=12, width=768, heads=12, tokens=128, words=20_000)
    elif name == "resnet_50":
        model = keras.applications.ResNet50(
            weights=None, classes=10, classifier_activation=None
        )
    else:
        model = snip_tf.models.build(name)
    shape = examples, *model.inputs[0].shape[1:]
    if name.startswith("transformer"):
        x = rng.integers(10_000, size=shape)
    else:
        x = rng.normal(size=shape).astype(np.float32)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return Network(model, x, rng.integers(10, size=examples), loss)


def transformer(blocks: int, width: int, heads: int, tokens: int, words: int):
    """Returns a classifier of sequences: BERT's blocks, normalized first."""
    layers = keras.layers
    inputs = keras.Input((tokens,), dtype="int32")
    x = layers.Embedding(words, width)(inputs)
    for _ in range(blocks):
        y = layers.LayerNormalization()(x)
        x += layers.MultiHeadAttention(heads, width // heads)(y, y)
        y = layers.LayerNormalization()(x)
        y = layers.Dense(4 * width, activation="gelu")(y)
        x += layers.Dense(width)(y)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(10)(x))


def plain_pass(made: Network) -> Callable[[], Any]:
    """Returns a function that differentiates the loss by all trainable weights."""
    model, x, y, loss = made
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        def tensorflow_pass():
            with tf.GradientTape() as tape:
                value = loss(y, model(x, training=False))
            return tape.gradient(value, model.trainable_variables), float(value)

        return tensorflow_pass
    if backend == "torch":
        import torch

        def torch_pass():
            value = loss(y, model(x, training=False))
            weights = [variable.value for variable in model.trainable_variables]
            gradients = torch.autograd.grad(value, weights)
            return gradients, value.item()

        return torch_pass
    import jax

    others = [variable.value for variable in model.non_trainable_variables]

    def of_weights(weights):
        return loss(y, model.stateless_call(weights, others, x, training=False)[0])

    def jax_pass():
        weights = [variable.value for variable in model.trainable_variables]
        return jax.block_until_ready(jax.value_and_grad(of_weights)(weights))

    return jax_pass


def prune(made: Network) -> Callable[[], keras.Model]:
    """Returns a function that prunes the network."""
    model, x, y, loss = made
    return lambda: snip_tf.prune_model(model, x, y, sparsity=SPARSITY, loss=loss)


def synchronize() -> None:
    """Waits for a GPU on which PyTorch still computes."""
    if keras.backend.backend() == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()


def seconds(call: Callable[[], Any]) -> float:
    """Returns the seconds that a call takes, on a GPU, too."""
    synchronize()
    start = time.perf_counter()
    result = call()
    synchronize()
    taken = time.perf_counter() - start
    del result
    return taken


def in_turn(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Returns the median seconds of `plain`, of another call, and of their ratios."""
    [other] = calls.keys() - {"plain"}
    times: list[dict[str, float]] = []
    for _ in range(rounds + 1):
        times.append({})
        for kind, call in calls.items():
            times[-1][kind] = seconds(call)
            gc.collect()  # models are cycles
    del times[0]  # which compiles, and loads code
    medians = {kind: statistics.median(pair[kind] for pair in times) for kind in calls}
    ratio = statistics.median(pair[other] / pair["plain"] for pair in times)
    return {**medians, "ratio": ratio}

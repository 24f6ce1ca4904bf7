"""Measures what pruning costs: `prune_model` relative to a forward and backward pass.

    pip install torch==2.13.0 keras-hub==0.32.0
    python benchmarks/prune_time.py

Each network is measured in separate processes: cold, the first call in a process; warm,
the plain pass and the whole call in turn, as the median of the ratios; steady, each
many times in a row, so that it reuses the memory that it has just freed; and its peak
memory above the built model, in multiples of the weights. For comparison, a pass and
the same criterion in PyTorch, written like its public implementations: all scores in
one tensor, normalized, then `topk`. The results are in
benchmarks/results/prune_time.json.
"""

import gc
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags
from processes import PeakMemory, measured_alone

# The scored examples and the warm rounds of each network.
NETWORKS = {
    "lenet300": (100, 51),
    "lenet5": (100, 31),
    "vgg_d": (128, 3),
    "resnet_50": (8, 5),
    "mobilenet_v2": (16, 11),
    "mlp_196m": (32, 7),
    "gpt2_355m": (1, 3),
}
PEER_MEASURES = ["cold plain", "cold prune", "warm", "steady"]
PEER_MEASURES += ["memory plain", "memory prune"]
MEASURES = [*PEER_MEASURES, "selection"]

FLAGS = flags.FLAGS
flags.DEFINE_list("networks", list(NETWORKS), "The networks to measure.")
flags.DEFINE_integer("cores", 1, "Processor cores to run on.", lower_bound=1)
flags.DEFINE_bool("torch", True, "Measures PyTorch too, where there is a network.")
flags.DEFINE_enum("measure", None, MEASURES, "What one process measures; internal.")
flags.DEFINE_enum("library", "snip_tf", ["snip_tf", "torch"], "With what; internal.")

_RESULT = Path(__file__).resolve().parent / "results" / "prune_time.json"
_SPARSITY = 0.95
# For the plain network of 196 million parameters.
_MLP = (784, 7950, 7950, 7950, 7950, 10)
_TOKENS = 128


def measured(network: str, library: str, measure: str) -> dict[str, float]:
    """Makes one measurement, in a new process."""
    arguments = [f"--networks={network}", f"--library={library}"]
    return measured_alone(
        __file__, *arguments, f"--measure={measure}", cores=FLAGS.cores
    )


def measure_here(network: str, library: str, measure: str) -> dict[str, float]:
    """Makes the model, then measures the time or memory of the calls."""
    batch_size, rounds = NETWORKS[network]
    make = _with_torch if library == "torch" else _with_snip_tf
    if measure.startswith("memory"):
        for call in make("lenet5", 2)[0].values():
            call()  # so that all code is loaded
        peak = PeakMemory()
    calls, parameters = make(network, batch_size)
    if measure == "selection":
        return {"seconds": min(_seconds(calls["selection"]) for _ in range(rounds))}
    if measure.startswith("memory"):
        peak.restart()
        calls[measure.split()[1]]()
        return {"over_weights": peak.above_base() / (4 * parameters) - 1}
    if measure.startswith("cold"):
        return {"seconds": _seconds(calls[measure.split()[1]])}
    names = ("plain", "prune")
    if measure == "steady":
        times = {n: [_seconds(calls[n]) for _ in range(rounds + 1)][1:] for n in names}
        ratio = statistics.median(times["prune"]) / statistics.median(times["plain"])
    else:
        pairs = [{n: _seconds(calls[n]) for n in names} for _ in range(rounds + 1)][1:]
        times = {n: [pair[n] for pair in pairs] for n in names}
        ratio = statistics.median(pair["prune"] / pair["plain"] for pair in pairs)
    return {**{n: statistics.median(times[n]) for n in names}, "ratio": ratio}


def _with_snip_tf(network: str, batch_size: int) -> tuple[dict[str, Callable], int]:
    import keras
    import numpy as np
    import tensorflow as tf

    import snip_tf

    keras.utils.set_random_seed(0)
    model = _keras_model(network)
    rng = np.random.default_rng(0)
    x: Any
    y: np.ndarray
    loss: keras.losses.Loss
    if network == "gpt2_355m":
        tokens = rng.integers(50_257, size=(batch_size, _TOKENS))
        x = {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}
        y = rng.normal(size=(batch_size, _TOKENS, 1024)).astype(np.float32)
        loss = keras.losses.MeanSquaredError()
    else:
        shape = (batch_size, *model.inputs[0].shape[1:])
        x = rng.normal(size=shape).astype(np.float32)
        y = rng.integers(10, size=batch_size)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    weights = snip_tf.prunable_weights(model)

    def plain():
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=False))
        gradients = tape.gradient(value, model.trainable_variables)
        return gradients[0], float(value)

    def prune():
        return snip_tf.prune_model(model, x, y, sparsity=_SPARSITY, loss=loss)

    calls = {"plain": plain, "prune": prune}
    if FLAGS.measure == "selection":
        scores = {p: rng.random(w.shape, np.float32) for p, w in weights.items()}
        calls["selection"] = lambda: snip_tf.select_masks(scores, _SPARSITY)
    return calls, model.count_params()


def _keras_model(network: str):
    import keras

    from snip_tf import models

    if network == "mlp_196m":
        first, *hidden, classes = _MLP
        dense = [keras.layers.Dense(units, activation="relu") for units in hidden]
        layers = [keras.Input((first,)), *dense, keras.layers.Dense(classes)]
        return keras.Sequential(layers)
    if network == "resnet_50":
        return keras.applications.ResNet50(
            weights=None, classes=10, classifier_activation=None
        )
    if network == "mobilenet_v2":
        return keras.applications.MobileNetV2(
            (96, 96, 3), weights=None, classes=10, classifier_activation=None
        )
    if network == "gpt2_355m":
        import keras_hub

        return keras_hub.models.GPT2Backbone(
            vocabulary_size=50_257,
            num_layers=24,
            num_heads=16,
            hidden_dim=1024,
            intermediate_dim=4096,
            dropout=0,
        )
    return models.build(network)


def _with_torch(network: str, batch_size: int) -> tuple[dict[str, Callable], int]:
    import torch

    torch.manual_seed(0)
    model = _torch_model(network).eval()
    shape = {"mlp_196m": (_MLP[0],), "vgg_d": (3, 32, 32)}.get(network, (1, 28, 28))
    x = torch.randn(batch_size, *shape)
    y = torch.randint(10, (batch_size,))
    weights = [p for p in model.parameters() if p.ndim > 1]

    def gradients():
        loss = torch.nn.functional.cross_entropy(model(x), y)
        return torch.autograd.grad(loss, weights), loss

    def plain():
        found, loss = gradients()
        return found[0], float(loss)

    def prune():
        found, _ = gradients()
        scores = [torch.abs(g * w) for g, w in zip(found, weights, strict=True)]
        with torch.no_grad():
            flat = torch.cat([score.flatten() for score in scores])
            total = flat.sum()
            flat /= total
            kept, _ = torch.topk(flat, round((1 - _SPARSITY) * flat.numel()))
            return [(score / total >= kept[-1]).float() for score in scores]

    parameters = sum(p.numel() for p in model.parameters())
    return {"plain": plain, "prune": prune}, parameters


def _torch_model(network: str):
    from torch import nn

    def dense(*units: int) -> list:
        layers = [nn.Flatten()]
        for inputs, outputs in itertools.pairwise(units):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        return layers[:-1]

    if network == "mlp_196m":
        return nn.Sequential(*dense(*_MLP))
    if network == "lenet300":
        return nn.Sequential(*dense(784, 300, 100, 10))
    if network == "lenet5":
        layers = [nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5)]
        return nn.Sequential(*layers, nn.MaxPool2d(2), *dense(800, 500, 10))
    layers, channels = [], 3
    for filters, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers.append(nn.Conv2d(channels, filters, 3, padding=1, bias=False))
            layers += [nn.BatchNorm2d(filters), nn.ReLU()]
            channels = filters
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, *dense(512, 512, 512, 10))


def _seconds(call: Callable) -> float:
    start = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    del result
    gc.collect()  # models are cycles: else the next call gets memory never touched yet
    return seconds


_TORCH_NETWORKS = ("lenet300", "lenet5", "vgg_d", "mlp_196m")


def main(argv: list[str]) -> None:
    del argv
    if FLAGS.measure:
        print(json.dumps(measure_here(FLAGS.networks[0], FLAGS.library, FLAGS.measure)))
        return
    result = json.loads(_RESULT.read_text()) if _RESULT.exists() else {}
    if result.get("cores") != FLAGS.cores:
        result = {"cores": FLAGS.cores, "networks": {}}
    for network in FLAGS.networks:
        row: dict[str, Any]
        row = {m: measured(network, "snip_tf", m) for m in MEASURES}
        print(network, json.dumps(row), flush=True)
        if FLAGS.torch and network in _TORCH_NETWORKS:
            row["torch"] = {m: measured(network, "torch", m) for m in PEER_MEASURES}
            print("  torch", json.dumps(row["torch"]), flush=True)
        result["networks"][network] = row
        _RESULT.parent.mkdir(parents=True, exist_ok=True)
        _RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)

"""Compares masks with PyTorch implementations of SNIP, on equal weights and batches.

    git clone https://github.com/mil-ad/snip
    git clone https://github.com/ganguli-lab/Synaptic-Flow
    pip install torch==2.13.0
    python benchmarks/peer_masks.py --mil_ad=snip --synaptic_flow=Synaptic-Flow

Copies the initial weights of both LeNets into PyTorch, has each implementation choose
connections, and counts those on which it and `snip_tf` disagree. The counts are in
benchmarks/results/peer_masks.json. mil-ad/snip scores newly drawn weights; that line is
disabled here.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import torch

import snip_tf
from snip_tf import datasets, models

BATCH_SIZE = 100
SPARSITIES = (0.5, 0.9, 0.95, 0.99)
_RESULT = Path(__file__).resolve().parent / "results" / "peer_masks.json"


class Twin(torch.nn.Module):
    """A Keras LeNet in PyTorch, with layers made by `linear` and `conv2d`."""

    def __init__(self, model: keras.Model, linear: Callable, conv2d: Callable):
        super().__init__()
        self.steps = torch.nn.ModuleList()
        for layer in model.layers:
            if isinstance(layer, keras.layers.Dense):
                self._add(linear(*layer.kernel.shape), layer, (1, 0))
                if layer.activation is keras.activations.relu:
                    self.steps.append(torch.nn.ReLU())
            elif isinstance(layer, keras.layers.Conv2D):
                *size, inputs, outputs = layer.kernel.shape
                self._add(conv2d(inputs, outputs, size[0]), layer, (3, 2, 0, 1))
            elif isinstance(layer, keras.layers.MaxPooling2D):
                self.steps.append(torch.nn.MaxPool2d(2))
            elif isinstance(layer, keras.layers.Flatten):
                self.steps.append(torch.nn.Flatten())
            else:
                raise TypeError(f"Expected a layer of a LeNet. Received: {layer!r}")

    def _add(self, step: torch.nn.Module, layer: keras.Layer, order: tuple) -> None:
        with torch.no_grad():
            kernel = layer.kernel.numpy().transpose(order)
            step.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel)))
            step.bias.copy_(torch.from_numpy(layer.bias.numpy()))
        self.steps.append(step)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.permute(0, 3, 1, 2)
        for step in self.steps:
            if isinstance(step, torch.nn.Flatten):
                x = x.permute(0, 2, 3, 1)  # the order in which Keras flattens
            x = step(x)
        return torch.log_softmax(x, dim=-1)


def by_mil_ad(folder: str, model: keras.Model, batch: tuple, sparsity: float) -> list:
    peer = _imported(folder, "snip")
    twin = Twin(model, torch.nn.Linear, torch.nn.Conv2d)
    with mock.patch.object(torch.nn.init, "xavier_normal_", lambda weight: weight):
        masks = peer.SNIP(twin, 1 - sparsity, [batch], "cpu")
    return [mask.numpy() for mask in masks]


def by_synaptic_flow(
    folder: str, model: keras.Model, batch: tuple, sparsity: float
) -> list:
    pruners = _imported(folder, "Pruners.pruners")
    layers = _imported(folder, "Layers.layers")
    generator = _imported(folder, "Utils.generator")
    twin = Twin(model, layers.Linear, layers.Conv2d)
    pruner = pruners.SNIP(generator.masked_parameters(twin))
    pruner.score(twin, torch.nn.functional.nll_loss, [batch], "cpu")
    pruner.mask(1 - sparsity, "global")  # what it calls sparsity is the fraction kept
    return [mask.detach().numpy() for mask, _ in pruner.masked_parameters]


def _imported(folder: str, name: str):
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(name)


def differing(network: str, peer: Callable, folder: str, sparsity: float) -> dict:
    """Returns how many connections each keeps, and on how many they disagree."""
    keras.utils.set_random_seed(0)
    model = models.build(network)
    images, labels = datasets.load("digits").train
    x, y = images[:BATCH_SIZE], labels[:BATCH_SIZE]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruned = snip_tf.prune_model(
        model, x, y, sparsity=sparsity, batch_size=BATCH_SIZE, loss=loss
    )
    ours = list(snip_tf.get_masks(pruned).values())
    batch = torch.from_numpy(np.asarray(x)), torch.from_numpy(np.asarray(y, np.int64))
    theirs = [
        mask.transpose((1, 0) if mask.ndim == 2 else (2, 3, 1, 0)) > 0
        for mask in peer(folder, model, batch, sparsity)
    ]
    return {
        "kept": int(sum(mask.sum() for mask in ours)),
        "kept by the peer": int(sum(mask.sum() for mask in theirs)),
        "differ": int(sum((a != b).sum() for a, b in zip(ours, theirs, strict=True))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mil_ad", help="folder of a clone of mil-ad/snip")
    parser.add_argument("--synaptic_flow", help="... of ganguli-lab/Synaptic-Flow")
    options = parser.parse_args()
    peers = {
        "mil-ad/snip": (by_mil_ad, options.mil_ad),
        "ganguli-lab/Synaptic-Flow": (by_synaptic_flow, options.synaptic_flow),
    }
    results = {}
    for name, (peer, folder) in peers.items():
        if not folder:
            continue
        for network in ("lenet300", "lenet5"):
            for sparsity in SPARSITIES:
                found = differing(network, peer, folder, sparsity)
                results[f"{name}, {network}, {sparsity}"] = found
                print(name, network, sparsity, found)
    if not results:
        parser.error("Expected the folder of a peer: --mil_ad or --synaptic_flow")
    _RESULT.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Prunes trained networks, without training after: magnitude, SNIP and Wanda.

    pip install keras-hub
    python benchmarks/trained_networks.py --data_dir=DATA --resnet=RUN/model.keras

LeNet-5 is trained on MNIST here, and a transformer of KerasHub on Python's own
documentation, byte by byte; ResNet-20 is one that `scripts/train.py` has trained on
CIFAR-10. Each is pruned to 50 % and to 2:4. Of the images the error of the test set is
measured, in percent, of the text the perplexity of its last tenth. Each criterion ranks
what its paper ranks together: magnitude each weight tensor by itself, SNIP the whole
network, Wanda each output. The results are in benchmarks/results/trained.json.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags

NETWORKS = ("lenet5", "resnet_20", "transformer")
SCOPES = {"magnitude": "layer", "snip": "global", "wanda": "unit"}

FLAGS = flags.FLAGS
flags.DEFINE_list("networks", list(NETWORKS), f"Some of {', '.join(NETWORKS)}.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tensorflow-datasets.")
flags.DEFINE_string("resnet", None, "A trained ResNet-20, of scripts/train.py.")
flags.DEFINE_integer("steps", 2000, "Steps in which the transformer is trained.")

_RESULT = Path(__file__).resolve().parent / "results" / "trained.json"
_CALIBRATION = 1000  # examples that are scored


def pruned_in_each_way(
    model: Any,
    x: Any,
    y: Any,
    value: Callable[[Any], float],
    batch_size: int,
    exclude: list[str],
) -> dict[str, Any]:
    """Returns a value of the dense model, and of each pruned one."""
    import snip_tf

    found: dict[str, Any] = {"dense": value(model)}
    for structure in ("weights", "2:4"):
        row = found.setdefault("50 %" if structure == "weights" else structure, {})
        for criterion, scope in SCOPES.items():
            pruned = snip_tf.prune_model(
                model,
                x,
                y,
                sparsity=0.5,
                criterion=criterion,
                structure=structure,
                scope=scope if structure == "weights" else "global",
                exclude=exclude + _without_groups(model, structure),
                batch_size=batch_size,
                batches=-(-len(y) // batch_size),
            )
            row[criterion] = value(pruned)
            print(structure, criterion, row[criterion], flush=True)
    return found


def _without_groups(model: Any, structure: str) -> list[str]:
    """Returns the weights whose inputs do not divide by four, as those of an image."""
    import snip_tf

    weights = snip_tf.prunable_weights(model) if structure == "2:4" else {}
    # (The kernels of attention have their inputs first.)
    return [
        path
        for path, weight in weights.items()
        if weight.shape[0 if "attention" in path else -2] % 4
    ]


def images(name: str) -> dict[str, Any]:
    """Returns the errors of a network of images."""
    import keras
    import numpy as np

    import snip_tf

    keras.utils.set_random_seed(0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    datasource = "mnist" if name == "lenet5" else "cifar10"
    data = snip_tf.datasets.load(datasource, FLAGS.data_dir)
    if name == "lenet5":
        model = snip_tf.models.build(
            name, kernel_regularizer=keras.regularizers.L2(25e-5)
        )
        rate = keras.optimizers.schedules.PiecewiseConstantDecay([2000], [0.03, 0.003])
        model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss)
        model.fit(*data.train, batch_size=100, epochs=5, verbose=0)
    else:
        model = keras.models.load_model(FLAGS.resnet)
    model.compile("sgd", loss)
    order = np.random.default_rng(0).permutation(len(data.train[0]))[:_CALIBRATION]
    x, y = (part[order] for part in data.train)

    def error(candidate: Any) -> float:
        logits = candidate.predict(data.test[0], batch_size=500, verbose=0)
        return round(100 * float((logits.argmax(axis=1) != data.test[1]).mean()), 3)

    return pruned_in_each_way(model, x, y, error, batch_size=100, exclude=[])


def transformer() -> dict[str, Any]:
    """Returns the perplexities of a small GPT-2 of KerasHub."""
    import pydoc_data.topics

    import keras
    import keras_hub
    import numpy as np

    keras.utils.set_random_seed(0)
    length = 128
    text = "\n".join(pydoc_data.topics.topics.values()).encode()
    tokens = np.frombuffer(text, np.uint8).astype("int32")
    cut = len(tokens) * 9 // 10

    def windows(part: np.ndarray) -> tuple[dict, np.ndarray]:
        count = (len(part) - 1) // length
        x = part[: count * length].reshape(count, length)
        y = part[1 : count * length + 1].reshape(count, length)
        return {"token_ids": x, "padding_mask": np.ones_like(x)}, y

    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=256,
        num_layers=4,
        num_heads=4,
        hidden_dim=128,
        intermediate_dim=512,
        max_sequence_length=length,
        dropout=0.0,
    )
    logits = keras.layers.Dense(256, name="logits")(backbone.output)
    model = keras.Model(backbone.input, logits)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rate = keras.optimizers.schedules.CosineDecay(2e-3, FLAGS.steps)
    model.compile(keras.optimizers.Adam(rate), loss)
    rng = np.random.default_rng(0)
    for _ in range(FLAGS.steps):
        starts = rng.integers(cut - length - 1, size=32)
        rows = starts[:, None] + np.arange(length + 1)
        batch = tokens[rows]
        x = {"token_ids": batch[:, :-1], "padding_mask": np.ones((32, length), "int32")}
        model.train_on_batch(x, batch[:, 1:])
    test_x, test_y = windows(tokens[cut:])
    x, y = windows(tokens[:cut])
    chosen = rng.permutation(len(y))[:128]

    def perplexity(candidate: Any) -> float:
        candidate.compile("adam", loss)
        return round(float(np.exp(candidate.evaluate(test_x, test_y, verbose=0))), 3)

    scored = {name: part[chosen] for name, part in x.items()}
    return pruned_in_each_way(
        model, scored, y[chosen], perplexity, batch_size=32, exclude=["logits/*"]
    )


def main(argv: list[str]) -> None:
    del argv
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    result = json.loads(_RESULT.read_text()) if _RESULT.exists() else {}
    for name in FLAGS.networks:
        result[name] = transformer() if name == "transformer" else images(name)
        print(name, json.dumps(result[name]), flush=True)
        _RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)

"""Measures `prune_model` relative to a plain pass on TensorFlow, JAX and PyTorch.

    pip install jax torch==2.13.0
    python benchmarks/backends.py

The plain pass is a forward and backward pass of the same Keras model, written by hand:
`tf.GradientTape`, `jax.value_and_grad`, `torch.autograd.grad`, operation by operation.
On each backend each network has a process of its own, on one core; plain pass and
pruning in turn, the median of the ratios. The results are in
benchmarks/results/backends.json.
"""

import importlib.util
import json
from pathlib import Path

from absl import app, flags
from processes import measured_alone

BACKENDS = ("tensorflow", "jax", "torch")
# The scored examples and the rounds of each network.
NETWORKS = {"vgg_d": (128, 3), "resnet_50": (8, 5), "transformer": (16, 5)}

FLAGS = flags.FLAGS
flags.DEFINE_list("backends", list(BACKENDS), "The backends of Keras.")
flags.DEFINE_list("networks", list(NETWORKS), "The networks to measure.")
flags.DEFINE_integer("cores", 1, "Processor cores to run on.", lower_bound=1)
flags.DEFINE_bool("here", False, "Measures one network in this process; internal.")

_RESULT = Path(__file__).resolve().parent / "results" / "backends.json"


def measure_here(name: str) -> dict[str, float]:
    """Returns the seconds of a plain pass and of pruning, and their ratio."""
    import passes

    examples, rounds = NETWORKS[name]
    made = passes.network(name, examples)
    calls = {"plain": passes.plain_pass(made), "prune": passes.prune(made)}
    return passes.in_turn(calls, rounds)


def main(argv: list[str]) -> None:
    del argv
    if FLAGS.here:
        print(json.dumps(measure_here(FLAGS.networks[0])))
        return
    result = json.loads(_RESULT.read_text()) if _RESULT.exists() else {}
    if result.get("cores") != FLAGS.cores:
        result = {"cores": FLAGS.cores, "networks": {}}
    for name in FLAGS.networks:
        row = result["networks"].setdefault(name, {})
        for backend in filter(importlib.util.find_spec, FLAGS.backends):
            row[backend] = measured_alone(
                __file__,
                "--here",
                f"--networks={name}",
                cores=FLAGS.cores,
                environment={"KERAS_BACKEND": backend},
            )
            print(name, backend, json.dumps(row[backend]), flush=True)
            _RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)

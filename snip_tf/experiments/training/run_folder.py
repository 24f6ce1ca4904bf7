"""The folder of a run: who uses it, and whether the run in it can be continued.

Messages call it --logdir, and say what a user of `scripts/train.py` can do.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import keras
import tensorflow as tf

from snip_tf.experiments.results import read_object
from snip_tf.experiments.training import checkpoint, seals
from snip_tf.files import DAMAGE, locked, write_json
from snip_tf.network import Network
from snip_tf.reports.sparsity import sparsity as sparsity_of

_FLAGS = "flags.json"
_PRUNING = "pruning.json"


@contextlib.contextmanager
def own_folder(logdir: Path, is_chief: bool) -> Iterator[Path]:
    """Yields where a process writes: `logdir`, or a temporary folder.

    All workers write the same, since reading their variables may need them all; only
    what the chief writes is kept. The chief keeps other processes out of the folder.

    Raises:
        ValueError: if another process trains there.
    """
    if not is_chief:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(logdir))
        except BlockingIOError as error:
            raise ValueError(
                f"Expected --logdir to be free. Received: {logdir}, where another "
                f"process is training now. Wait for it, or name another --logdir."
            ) from error
        yield logdir


def keep_flags(folder: Path, flags: Mapping[str, object]) -> None:
    """Records the flags that a run was started with."""
    write_json(folder / _FLAGS, flags)


def keep_pruning_seconds(folder: Path, seconds: float) -> None:
    """Records how long pruning took, sealed, since any number would look right."""
    sealed = {"seconds": seconds, "seal": seals.digest_of(seconds)}
    write_json(folder / _PRUNING, sealed)


def pruning_seconds(logdir: Path) -> float:
    """Returns how long pruning took."""
    with _whole(logdir):
        found = read_object(logdir / _PRUNING)
        seconds = found["seconds"]
        # An earlier version wrote no seal.
        if found.keys() - {"seconds"} and found != {
            "seconds": seconds,
            "seal": seals.digest_of(seconds),
        }:
            raise ValueError(f"{_PRUNING} was changed")
        if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
            raise ValueError(f"{_PRUNING} has {seconds!r} seconds")
        return seconds


def check_flags(logdir: Path, flags: Mapping[str, object]) -> None:
    """Raises a ValueError if the folder holds an unfinished run with other flags."""
    if not checkpoint.has_checkpoint(logdir):
        return
    with _whole(logdir):
        earlier = read_object(logdir / _FLAGS)
    different = [
        f"--{name} was {earlier.get(name)!r} there and is {flags.get(name)!r} now"
        for name in sorted(earlier.keys() | flags.keys())
        if earlier.get(name) != flags.get(name)
    ]
    if different:
        raise ValueError(
            f"Expected --logdir to be new, or to hold a run with the same flags to "
            f"continue. Received: {logdir}, where {'; '.join(different)}. Name another "
            f"--logdir."
        )


def load_checkpoint(logdir: Path) -> tuple[keras.Model, list[checkpoint.Check]] | None:
    """Loads a checkpoint; raises a ValueError if files are damaged or missing."""
    with _whole(logdir):
        return checkpoint.load_checkpoint(logdir)


def check_model(
    logdir: Path, model: keras.Model, network: keras.Model, sparsity: float
) -> None:
    """Raises a ValueError if the checkpoint is of another run, or files are missing.

    Args:
        logdir: the folder of the run.
        model: the model loaded from it.
        network: the unpruned network that the flags ask for.
        sparsity: the sparsity that the flags ask for.
    """
    found, expected = Network(model), Network(network)
    # For a dense model `snip_tf.sparsity` counts zeros, which weights may be by chance.
    received = sparsity_of(model) if found.mask_variables else 0
    problem = None
    if _shapes(found) != _shapes(expected):
        problem = f"one of {model.name!r}, whose weights have other names or shapes"
    elif abs(received - sparsity) > 1e-3:
        problem = f"one of sparsity {received:.6g}"
    pruning_seconds(logdir)
    if problem:
        raise ValueError(
            f"Expected --logdir to hold a checkpoint of a {network.name!r} at "
            f"--target_sparsity={sparsity}, unchanged, or none. Received: {logdir}, "
            f"with {problem}. Name another --logdir."
        )


def _shapes(network: Network) -> dict[str, tuple[int, ...]]:
    return {path: tuple(weight.shape) for path, weight in network.weights.items()}


@contextlib.contextmanager
def _whole(logdir: Path) -> Iterator[None]:
    """Turns errors into a ValueError that names the folder."""
    try:
        yield
    except (
        *DAMAGE,
        # Not all of TensorFlow's: `cluster` handles a lost worker.
        tf.errors.InvalidArgumentError,
        tf.errors.ResourceExhaustedError,
    ) as error:
        raise ValueError(
            "Expected --logdir to hold the unchanged files of a run. Received: "
            f"{logdir}, which lacks one or has a damaged one: {error}. Name another "
            "--logdir."
        ) from error

"""Controls: baselines that show whether a criterion chooses more than counts.

Frankle et al. found criteria at initialization largely indifferent to the first two:
what matters is the fraction that they keep of each layer.

Example:

>>> import keras, snip_tf
>>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
>>> pruned = snip_tf.prune_model(model, sparsity=0.75, criterion="magnitude")
>>> masks = snip_tf.controls.shuffle(snip_tf.get_masks(pruned), seed=0)
>>> snip_tf.sparsity(snip_tf.apply_masks(model, masks))
0.75

Reference: "Pruning neural networks at initialization: why are we missing the mark?",
ICLR 2021, https://arxiv.org/abs/2009.08576
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any, overload

import keras
import numpy as np

from snip_tf import criteria
from snip_tf.checks import check_seed, visible
from snip_tf.criteria.base import take_attributes
from snip_tf.masking.compiling import compile_like, strategy_scope
from snip_tf.masking.copying import plain_copy
from snip_tf.masking.masks import check_masks
from snip_tf.masking.pruned_model import apply_masks
from snip_tf.network import Network, check_built, is_built
from snip_tf.selecting.scores import as_floats
from snip_tf.weights import weights_by_path


def shuffle(
    masks: Mapping[str, np.ndarray], seed: int | None = None
) -> dict[str, np.ndarray]:
    """Moves the kept connections of each weight to random positions.

    Apply the masks to the original model (`snip_tf.apply_masks(model, ...)`), which
    still has all weights.

    Args:
        masks: `{weight path: bool array}`, as `snip_tf.get_masks` returns.
        seed: int, 0 or more. None draws with NumPy's global generator.

    Returns:
        Masks that keep the same number of each weight. N:M patterns and blocks are
        lost.

    Raises:
        TypeError, ValueError: if `masks` or `seed` is not valid.

    Example:

    >>> import numpy as np, snip_tf
    >>> masks = {"out/kernel": np.array([[True, True], [False, False]])}
    >>> int(snip_tf.controls.shuffle(masks, seed=0)["out/kernel"].sum())
    2
    """
    check_masks(masks)
    check_seed(seed)
    rng = np.random.default_rng(np.random.randint(2**32) if seed is None else seed)
    return {
        path: rng.permutation(mask.reshape(-1)).reshape(mask.shape)
        for path, mask in masks.items()
    }


@overload
def invert(scores: Mapping[str, Any]) -> dict[str, np.ndarray]: ...
@overload
def invert(scores: str | Callable) -> criteria.Criterion: ...
def invert(
    scores: Mapping[str, Any] | str | Callable,
) -> dict[str, np.ndarray] | criteria.Criterion:
    """Negates the scores, so that the smallest come first.

    Args:
        scores: `{weight path: scores}`, such as `snip_tf.score` returns, for
            `snip_tf.select_masks`; or a criterion, or its name, for
            `snip_tf.prune_model`.

    Returns:
        Scores, or a criterion with the steps and the seed of the given one.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> scores = {"out/kernel": np.array([[3.0, 1.0], [2.0, 4.0]])}
    >>> masks = snip_tf.select_masks(snip_tf.controls.invert(scores), sparsity=0.75)
    >>> masks["out/kernel"].tolist()
    [[False, True], [False, False]]
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> inverted = snip_tf.controls.invert("magnitude")
    >>> pruned = snip_tf.prune_model(model, sparsity=0.75, criterion=inverted)
    """
    if isinstance(scores, Mapping):
        return _negative(scores)
    return _Inverted(criteria.get(scores))


@dataclasses.dataclass(frozen=True)
class _Inverted(criteria.Criterion):
    """A criterion with the negated scores, and the attributes, of another one."""

    criterion: criteria.Criterion

    def __post_init__(self):
        take_attributes(self, self.criterion)

    def __call__(self, context: criteria.ScoringContext) -> dict[str, np.ndarray]:
        return _negative(self.criterion(context))


def _negative(scores: Mapping[str, Any]) -> dict[str, np.ndarray]:
    # As floats, since unsigned integers cannot be negated.
    return {path: -np.asarray(score) for path, score in as_floats(scores).items()}


def reinitialize(model: keras.Model) -> keras.Model:
    """Draws all weights of a model anew, under the same masks.

    Each layer is recreated from its configuration, so that every variable is newly
    drawn from its initializer with Keras' global generator
    (`keras.utils.set_random_seed`); seeds of Keras' initializers are ignored. What
    `adapt` learned is lost, too: pass a model without such layers.

    Args:
        model: a built `keras.Model`, pruned or not, that can be recreated from its
            configuration. It is left unchanged.

    Returns:
        A new model, compiled as `model` is, with the masks of `model`.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if it is not built, or cannot be recreated.

    Example:

    >>> import keras, snip_tf
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> pruned = snip_tf.prune_model(model, sparsity=0.75, criterion="random")
    >>> anew = snip_tf.controls.reinitialize(pruned)
    >>> snip_tf.sparsity(anew)
    0.75
    """
    check_built(model)
    network = Network(model)
    masks = network.masks
    plain = plain_copy(network) if masks else model
    try:
        config = keras.saving.serialize_keras_object(plain)
        config.pop("compile_config", None)  # losses and metrics need not be registered
        with strategy_scope(model):
            # Safe, since this configuration does not come from somebody else.
            fresh = keras.saving.deserialize_keras_object(
                _without_seeds(config), safe_mode=False
            )
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            "Expected a model that can be recreated from its configuration, as when "
            "it is loaded from a file (`get_config`, "
            "`keras.saving.register_keras_serializable`). Received: "
            f"model={model.name!r} of class {type(plain).__name__}. The error: {error}"
        ) from error
    if not is_built(fresh):
        raise ValueError(
            f"Expected a model whose configuration builds it. Received: "
            f"model={model.name!r} of class {type(plain).__name__}, which has no "
            f"weights before it is called"
        )
    _warn_of_the_same(plain, fresh, masks)
    compile_like(fresh, model)
    return apply_masks(fresh, masks) if masks else fresh


def _warn_of_the_same(
    model: keras.Model, fresh: keras.Model, masks: Mapping[str, np.ndarray]
) -> None:
    """Warns of pruned weights that have the same values as before."""
    new = weights_by_path(fresh)
    same = []
    for path, weight in weights_by_path(model).items():
        if path in masks and path in new:
            before, after = (np.asarray(w)[masks[path]] for w in (weight, new[path]))
            if before.size and np.ptp(before) and np.array_equal(before, after):
                same.append(path)
    if same:
        warnings.warn(
            f"The initializer of {', '.join(map(visible, same))} returns the same "
            "numbers each time, since it is not random or sets a seed in its own "
            "code: these weights are unchanged.",
            stacklevel=3,
        )


def _without_seeds(config: Any) -> Any:
    """Returns a configuration whose initializers draw anew."""
    if isinstance(config, (list, tuple)):
        return [_without_seeds(part) for part in config]
    if not isinstance(config, Mapping):
        return config
    config = {key: _without_seeds(value) for key, value in config.items()}
    own = config.get("config")
    of_initializer = config.get("module") == "keras.initializers"
    if of_initializer and isinstance(own, dict) and own.get("seed") is not None:
        own["seed"] = None
    return config

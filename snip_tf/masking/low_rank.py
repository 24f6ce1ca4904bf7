"""Low-rank updates (LoRA) of masked weights: layers compute with m * (W + s A B)."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras

from snip_tf.masking.masked_weights import masked_value
from snip_tf.network import mask_of
from snip_tf.weights import Owner, layer_tree

layers = keras.layers


class Update(NamedTuple):
    """The low-rank update of a layer.

    Attributes:
        name: the name of the weight, `kernel` or `embeddings`.
        weight: W, which is frozen.
        first: A.
        second: B.
        scale: s, lora_alpha / lora_rank.
    """

    name: str
    weight: keras.Variable
    first: keras.Variable
    second: keras.Variable
    scale: float

    @property
    def is_masked(self) -> bool:
        """Whether W, or a factor, has a mask."""
        parts = self.weight, self.first, self.second
        return any(mask_of(part) is not None for part in parts)

    @property
    def mask(self) -> keras.Variable | None:
        """The mask of W, which is that of the sum, too."""
        return mask_of(self.weight)

    def merged(self) -> Any:
        """Returns m * (W + s A B), in the type of W."""
        product = keras.ops.matmul(self.first, self.second)
        total = keras.ops.add(
            keras.ops.cast(self.weight, product.dtype), self.scale * product
        )
        total = keras.ops.cast(total, self.weight.dtype)
        return total if self.mask is None else masked_value(total, self.mask)


def update_of(layer: keras.Layer) -> Update | None:
    """Returns the low-rank update of one of Keras' layers, or None."""
    if not getattr(layer, "lora_enabled", False):
        return None
    for name in ("kernel", "embeddings"):
        first, second = (getattr(layer, f"lora_{name}_{part}", None) for part in "ab")
        if first is not None and second is not None:
            rank = layer.lora_rank
            # (Keras 3.8 has no alpha.)
            alpha = getattr(layer, "lora_alpha", None) or rank
            weight = getattr(layer, f"_{name}")
            return Update(name, weight, first, second, alpha / rank)
    return None


@functools.cache
def adapt_low_rank() -> None:
    """Has Keras' layers mask the sum of a weight and its update.

    Layers, and files, read it as a property of the layer. For weights without a mask,
    or without an update, it is unchanged.
    """
    for kind in (layers.Dense, layers.EinsumDense, layers.Embedding, layers.Conv1D):
        for cls in kind.__mro__:
            for name in ("kernel", "embeddings"):
                own = vars(cls).get(name)
                if isinstance(own, property) and hasattr(cls, "enable_lora"):
                    setattr(cls, name, _masked_sum(own, name))


def _masked_sum(own: property, name: str) -> property:
    def value(self: keras.Layer) -> Any:
        total = own.__get__(self)
        mask = mask_of(getattr(self, f"_{name}", None))
        if mask is None or not getattr(self, "lora_enabled", False):
            return total
        return keras.ops.multiply(total, keras.ops.cast(mask, total.dtype))

    return property(value, own.fset, own.fdel, own.__doc__)


def merge_updates(owners: list[Owner], copied: list[Owner]) -> set[int]:
    """Merges the masked updates in a copy, which then has plain layers there.

    Args:
        owners: the layers of the original.
        copied: their copies, in the same order.

    Returns:
        The ids of the variables that the copy had.
    """
    removed: set[int] = set()
    for (layer, _), (new, weights) in zip(owners, copied, strict=True):
        update = update_of(layer)
        if update is None or not update.is_masked:
            continue
        weight = getattr(new, f"_{update.name}")
        weight.assign(update.merged())
        for part in "ab":
            name = f"lora_{update.name}_{part}"
            removed.add(id(getattr(new, name)))
            weights.pop(name, None)
            delattr(new, name)
        new.lora_enabled, new.lora_rank = False, None
        if hasattr(new, "lora_alpha"):
            new.lora_alpha = None
        weight.trainable = new.trainable
    return removed


def updates_in(layer: keras.Layer) -> dict[str, Any]:
    """Returns what a layer's configuration keeps of updates of the layers inside.

    Keras keeps only that of a layer itself.
    """
    parts = list(layer_tree(layer))
    found = [
        [number, part.lora_rank, getattr(part, "lora_alpha", None)]
        for number, part in enumerate(parts)
        if update_of(part) is not None
    ]
    if not found:
        return {}
    # With an update, all but some layers are usually frozen.
    frozen = [number for number, part in enumerate(parts) if not part.trainable]
    return {"low_rank": found, "frozen": frozen}


def restore_updates(layer: keras.Layer, kept: Mapping[str, Any]) -> None:
    """Enables the updates of the layers inside, as they were."""
    if not kept:
        return
    parts = list(layer_tree(layer))
    frozen = set(kept["frozen"])
    for number, part in enumerate(parts):  # a layer before what is inside
        if part.trainable != (number not in frozen):
            part.trainable = number not in frozen
    for number, rank, alpha in kept["low_rank"]:
        part = parts[number]
        if update_of(part) is None:
            part.enable_lora(rank)
        if alpha is not None:
            part.lora_alpha = alpha
        update = update_of(part)
        assert update is not None
        update.weight.trainable = False


def are_updates(kept: Any) -> bool:
    """Returns whether this is what `updates_in` returns."""
    lists = kept.get("low_rank", []), kept.get("frozen", [])
    if not all(isinstance(each, list) for each in lists):
        return False
    return all(isinstance(each, (list, tuple)) and len(each) == 3 for each in lists[0])


def masked_updates(layer: keras.Layer) -> Iterator[keras.Layer]:
    """Yields the layers inside whose sum of weight and update is masked."""
    for part in layer_tree(layer):
        update = update_of(part)
        if update is not None and update.mask is not None:
            yield part

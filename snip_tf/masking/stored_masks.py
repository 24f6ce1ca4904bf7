"""Saves and loads masks with the layers that own the weights."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import h5py
import keras
import numpy as np

from snip_tf import _keras
from snip_tf.files import named_damage
from snip_tf.masking.low_rank import update_of
from snip_tf.masking.mask_files import mask_from_old_row, mask_from_row, mask_to_row
from snip_tf.masking.masked_weights import remove
from snip_tf.network import masks_of
from snip_tf.weights import Owner, own_weights, weights_by_path

# Beside the masks, in a file. (No weight has a name that begins like this.)
_STEP = "_step"
_UPDATE = ("_lora_weight", "_lora_a", "_lora_b", "_lora_alpha")


def _update_as_it_is(layer: keras.Layer) -> dict[str, Any]:
    """Returns the parts of a masked layer's low-rank update, by their names in files.

    Keras saves the sum, so that a plain layer computes the same.
    """
    update = update_of(layer)
    if update is None:
        return {}
    alpha = update.scale * layer.lora_rank
    parts = update.weight, update.first, update.second, np.array(alpha)
    return dict(zip(_UPDATE, parts, strict=True))


def keep_with_owners(owners: Iterable[Owner]) -> None:
    """Attaches masks to the layers that own the weights.

    TensorFlow's checkpoints and Keras' files then contain them.
    """
    for layer, weights in owners:
        masks = masks_of(weights)
        for name, mask in masks.items():
            _keras.show_to_tensorflow(layer, f"_snip_mask_of_{name}", mask)
        if masks and "_snip_masks" not in vars(layer):
            # Bypasses Keras, for which only what a layer has when it is built is state.
            object.__setattr__(layer, "_snip_masks", StoredMasks(layer))


def keep_step(owners: Iterable[Owner], step: int) -> None:
    """Notes the step at which a schedule last updated the masks, for files."""
    for stored in _stored(owners):
        stored.step = step


def step_of(owners: Iterable[Owner]) -> int | None:
    """Returns the step at which a schedule last updated the masks, or None."""
    return max((s.step for s in _stored(owners) if s.step is not None), default=None)


def _stored(owners: Iterable[Owner]) -> list[StoredMasks]:
    found = [vars(layer).get("_snip_masks") for layer, _ in owners]
    return [stored for stored in found if stored is not None]


class StoredMasks(_keras.SavedPart):
    """Saves and loads the masks of the weights that a layer owns itself.

    Keras saves an attribute of a layer in a group of its own, and loads it after the
    variables of the layer. So the layer's variables are where a plain layer stores
    them, and each reads the files of the other.

    Args:
        layer: `keras.Layer`, the owner.

    Attributes:
        step: the step of the optimizer at which a schedule last updated the masks, or
            None.
    """

    def __init__(self, layer: keras.Layer):
        self._reference = weakref.ref(layer)
        self.step: int | None = None

    def __repr__(self) -> str:
        return f"<masks of layer {self._layer().name!r}>"

    def _layer(self) -> keras.Layer:
        # Not a property, since Keras visits all attributes of what it saves.
        layer = self._reference()
        if layer is None:
            raise ReferenceError("The layer of these masks is gone.")
        return layer

    def save_own_variables(self, store: Any) -> None:
        """Writes each mask under the name of its weight."""
        for name, mask in masks_of(own_weights(self._layer())).items():
            store[name] = mask_to_row(name, keras.ops.convert_to_numpy(mask))
        if self.step is not None:
            store[_STEP] = np.array(self.step)
        for name, value in _update_as_it_is(self._layer()).items():
            store[name] = keras.ops.convert_to_numpy(value)

    def load_own_variables(self, store: Any) -> None:
        """Reads the masks, if the file is of a pruned model, then sets weights to zero.

        Raises:
            ValueError: if the masks are of other weights, or do not fit.
        """
        weights = own_weights(self._layer())
        masks = masks_of(weights)
        try:
            rows = {name: store[name] for name in store.keys()}  # noqa: SIM118
            step = rows.pop(_STEP, None)
            update = {name: rows.pop(name) for name in _UPDATE if name in rows}
            if rows or has_masks(store):
                self._check_names(rows, masks)
                loaded = {
                    name: self._read(name, row, masks[name].shape)
                    for name, row in rows.items()
                }
                for name, mask in loaded.items():
                    masks[name].assign(mask)
                self.step = None if step is None else int(step[()])
                self._set_update(update)
        finally:
            for name in masks:
                remove(weights[name])

    def _set_update(self, rows: Mapping[str, Any]) -> None:
        """Sets a low-rank update, whose factors Keras has merged, and made zero."""
        known = _update_as_it_is(self._layer())
        if rows.keys() == known.keys():
            for name, variable in known.items():
                if isinstance(variable, keras.Variable):
                    variable.assign(rows[name])
                else:
                    self._layer().lora_alpha = float(rows[name][()])

    def _check_names(self, rows: Iterable[str], masks: Iterable[str]) -> None:
        if set(rows) != set(masks):
            raise ValueError(
                f"Expected a file with masks of the weights of layer "
                f"{self._layer().name!r} that are pruned: {', '.join(masks)}. "
                f"Received: a file of a pruned model with masks of "
                f"{', '.join(rows) or 'none'} there. Load it into a model that is "
                f"pruned alike, or into the plain one, and apply its masks "
                f"(`snip_tf.apply_masks`)."
            )

    def _read(self, name: str, row: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        try:
            return mask_from_row(name, row, shape)
        except ValueError as error:
            raise ValueError(
                f"Expected the mask of {name!r} of layer {self._layer().name!r} as a "
                f"bit for each connection of a weight of shape {tuple(shape)}. "
                f"Received: {error}. The file is damaged, or is of another network."
            ) from error


def load_numbered_masks(layer: keras.Layer, store: Any) -> list[str]:
    """Assigns masks from a file in which they are numbered, as in earlier versions.

    In other files a layer may have something else under such a name.

    Returns:
        The keys of the masks in the store.

    Raises:
        ValueError: if they do not fit.
    """
    keys = [key for key in store.keys() if re.fullmatch(r"mask_bits\d+", key)]  # noqa: SIM118
    if not keys or has_masks(store):
        return []
    weights = weights_by_path(layer)
    masks = masks_of(weights)
    try:
        if len(keys) != len(masks):
            raise ValueError(f"{len(keys)} masks")
        loaded = [
            mask_from_old_row(store[f"mask_bits{number}"], mask.shape)
            for number, mask in enumerate(masks.values())
        ]
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"Expected a file with a mask for each of the {len(masks)} pruned "
            f"weights of layer {layer.name!r}, a bit for each connection. Received: "
            f"{error}. The file is damaged, or is of another network."
        ) from error
    for mask, value in zip(masks.values(), loaded, strict=True):
        mask.assign(value)
    return keys


def has_masks(store: Any) -> bool:
    """Returns whether the file that a store reads has any mask."""
    return any(map(_is_of_masks, _keras.paths_in(store)))


def _is_of_masks(path: str) -> bool:
    """Returns whether a path in a file leads to a group of masks, or into one."""
    return any(
        # (Also with one damaged letter.)
        len(name) == 11
        and sum(a != b for a, b in zip(name, "_snip_masks", strict=True)) <= 1
        for name in path.split("/")
    )


def layers_with_masks(path: Any) -> list[str]:
    """Returns the paths of the layers that have masks in a weight file of Keras."""
    if not str(path).endswith(".weights.h5"):
        return []
    names: list[str] = []
    with named_damage(path, "a weight file"), h5py.File(path, "r") as file:
        file.visit(names.append)
    found = [name.partition("/_snip_masks/vars/") for name in names]
    return list(dict.fromkeys(above for above, _, mask in found if mask))

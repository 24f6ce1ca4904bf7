"""Masks on weights: how removed connections stay at zero, and how masks are saved.

A mask is a boolean variable that belongs to a weight, True where it is kept. The weight
refers to it, so that whoever has the weight has its mask, and it goes when the weight
does.
"""

from __future__ import annotations

import functools
import weakref
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import h5py
import keras
import numpy as np

# Keras saves and loads what is one of these, and has no public name for it that is not
# a layer, a loss or the like.
from keras.src.saving.keras_saveable import KerasSaveable
from keras.src.utils import tracking

from snip_tf.files import named_damage
from snip_tf.masking.masks import packed_mask
from snip_tf.masking.optimizers import adapt_optimizers
from snip_tf.network import mask_of
from snip_tf.weights import layer_tree, own_weights, weights_by_path


class KeepZeros(keras.constraints.Constraint):
    """A weight's own constraint, then its mask.

    Masked gradients already keep zeros under optimizers that treat each weight by
    itself. Others mix them (Muon orthogonalizes whole matrices); and a hand-written
    training step may do anything.
    """

    def __init__(self, constraint: keras.constraints.Constraint | None, mask):
        self.constraint = constraint
        self.mask = mask

    def __call__(self, w):  # noqa: D102
        if self.constraint is not None:
            w = self.constraint(w)
        return masked_value(w, self.mask)


def masked_value(weight: Any, mask: Any) -> Any:
    """`weight * mask`, as a tensor: a removed weight is zero whatever it was."""
    # `where` rather than a product: 0 * inf would be NaN, and -1 * 0 is -0. The number
    # takes the type of the weight.
    return keras.ops.where(mask, weight, 0)


def check_not_low_rank(paths: Iterable[str], known: Iterable[str] = ()) -> None:
    """Raises if one is of LoRA, whose factors Keras adds to the kernel in files.

    Args:
        paths: of the weights to mask.
        known: of all weights, by which to tell a kernel that is saved with an update.
    """
    known = set(known)
    of_lora = [
        path
        for path in paths
        for above, slash, name in [path.rpartition("/")]
        if name.startswith("lora_") or f"{above}{slash}lora_{name}_a" in known
    ]
    if of_lora:
        raise ValueError(
            f"Expected masks of weights that Keras saves as they are. Received: masks "
            f"of {', '.join(of_lora)}, of a low-rank update (LoRA), whose factors "
            f"Keras adds to the kernel when it saves: the masks would be lost. Mask "
            f"the kernel of a model without LoRA."
        )


def mask_variable(path: str, mask: np.ndarray) -> keras.Variable:
    """A mask for the weight of a path."""
    # bool, by measurement (`benchmarks/mask_dtype.py`, two cores, batch 100): a
    # training step over the dense model's took 1.10 (LeNet-300-100), 1.08 (LeNet-5)
    # and 1.01 (an MLP of 6.3 million weights); with uint8 1.13, 0.99, 1.01; with
    # float32 1.03, 0.98, 1.13: no difference beyond the noise, of about 0.1, while
    # float32 takes four times the memory, as much as the weight itself.
    # (TensorFlow exports no variable whose name begins with `_`.)
    name = path.rpartition("/")[2] + "_mask"
    return keras.Variable(mask, dtype="bool", trainable=False, name=name)


def put_mask(weight: keras.Variable, mask: keras.Variable) -> None:
    """Gives a weight a mask, unless it has one, and zeros what is removed."""
    adapt_optimizers()
    _adapt_layers()
    if mask_of(weight) is None:
        weight._snip_mask = mask
        # Keras has no public way to say it, and `get_state_tree` wants no path twice.
        above, slash, name = weight.path.rpartition("/")
        mask._path = f"{above}{slash}_snip_mask_of_{name}"
        weight.constraint = KeepZeros(weight.constraint, mask)
    remove(weight)


@functools.cache
def _adapt_layers() -> None:
    """Has Keras' layers respect masks of weights that they own or hold.

    A layer inside a composite one, which is masked as a whole, and a model of layers
    keep their classes. These methods do for weights without a mask what they did.
    """
    keras.Layer.set_weights = _with_zeros(keras.Layer.set_weights)
    keras.Model.load_weights = _unless_masks_are_left(keras.Model.load_weights)
    kinds = keras.layers
    for kind in (kinds.Dense, kinds.EinsumDense, kinds.Embedding, kinds.Conv1D):
        for cls in kind.__mro__:
            if "enable_lora" in vars(cls):
                cls.enable_lora = unless_masked(cls.enable_lora)


def _with_zeros(set_weights: Callable) -> Callable:
    """`Layer.set_weights`; then what is removed is zero, as after a training step."""

    @functools.wraps(set_weights)
    def set_weights_with_zeros(self, weights):
        set_weights(self, weights)
        for weight in self.weights:
            if mask_of(weight) is not None:
                remove(weight)

    return set_weights_with_zeros


def _unless_masks_are_left(load_weights: Callable) -> Callable:
    """`Model.load_weights`, refused where layers that are not pruned have masks.

    Zeros of those would not stay, while those of the others do. Into a plain model
    a file of any pruned one is loaded.
    """

    @functools.wraps(load_weights)
    def load_weights_with_all_masks(self, filepath, skip_mismatch=False, **kwargs):
        pruned = {id(part) for part in layer_tree(self) if "_snip_masks" in vars(part)}
        masked = _layers_with_masks(filepath) if pruned else ()
        if len(masked) > len(pruned) and not skip_mismatch:
            raise ValueError(
                f"Expected a file with masks of the {len(pruned)} layers of "
                f"{self.name!r} that are pruned. Received: {str(filepath)!r}, of a "
                f"model of which {len(masked)} are: {', '.join(masked)}. Load it into "
                f"a model that is pruned alike, or into the plain one, and apply its "
                f"masks (`snip_tf.apply_masks`)."
            )
        return load_weights(self, filepath, skip_mismatch, **kwargs)

    return load_weights_with_all_masks


def _layers_with_masks(path: Any) -> list[str]:
    """The places of layers that have masks in a weight file, one of Keras' own."""
    if not str(path).endswith(".weights.h5"):
        return []
    names: list[str] = []
    with named_damage(path, "a weight file"), h5py.File(path, "r") as file:
        file.visit(names.append)
    found = [name.partition("/_snip_masks/vars/") for name in names]
    return list(dict.fromkeys(above for above, _, mask in found if mask))


def unless_masked(enable_lora: Callable) -> Callable:
    """`enable_lora`, refused by a layer that has masks but on its bias.

    Keras saves the sum of a kernel and its update, which is dense; loaded under the
    masks, it would compute something else.
    """

    @functools.wraps(enable_lora)
    def enable_lora_unless_masked(self, *args, **kwargs):
        masked = [weight for weight in self.weights if mask_of(weight) is not None]
        if any(weight.name != "bias" for weight in masked):
            raise ValueError(
                f"Expected a layer without masks, since a low-rank update (LoRA) is "
                f"dense: it would bring removed connections back. Received: "
                f"layer={self.name!r}, which is pruned. Call `enable_lora` on the "
                f"model that `snip_tf.strip_pruning` gives; the zeros stay in the "
                f"kernel, beside the update."
            )
        return enable_lora(self, *args, **kwargs)

    return enable_lora_unless_masked


def remove(weight: keras.Variable) -> None:
    """Zeros what a weight's mask removes."""
    weight.assign(masked_value(weight, mask_of(weight)))


def masked_below(layer: keras.Layer) -> dict[str, keras.Variable]:
    """The weights of a layer, and of all below it, that have a mask, by weight path."""
    if not any(mask_of(weight) is not None for weight in layer.weights):
        return {}
    weights = weights_by_path(layer)
    return {path: w for path, w in weights.items() if mask_of(w) is not None}


def all_masks(layer: keras.Layer) -> dict[str, keras.Variable]:
    """The masks of a layer and of all below it, by weight path; empty without any."""
    return {path: mask_of(weight) for path, weight in masked_below(layer).items()}


def keep_with_owners(layer: keras.Layer) -> None:
    """Has the layers that own masked weights, at any depth, keep the masks with them.

    TensorFlow's checkpoints and Keras' files then have them.
    """
    for part in layer_tree(layer):
        own = own_masked(part)
        for name, weight in own.items():
            _show_to_tensorflow(part, f"_snip_mask_of_{name}", mask_of(weight))
        if own and "_snip_masks" not in vars(part):
            # Past Keras, to which only what a layer has when it is built is state.
            object.__setattr__(part, "_snip_masks", StoredMasks(part))


def own_masked(layer: keras.Layer) -> dict[str, keras.Variable]:
    """Returns the masked weights that a layer owns itself, by name."""
    own = own_weights(layer)
    return {name: weight for name, weight in own.items() if mask_of(weight) is not None}


def _show_to_tensorflow(layer: keras.Layer, name: str, mask: keras.Variable) -> None:
    """Has TensorFlow's checkpoints save a mask with a layer."""
    if hasattr(layer, "_track_trackable"):
        # Keras sees what TensorFlow tracks, and takes it for a weight, unless told not
        # to; it has no public name for that.
        with tracking.DotNotTrackScope():
            layer._track_trackable(mask, name, overwrite=True)


class StoredMasks(KerasSaveable):
    """Saves and loads the masks of the weights that a layer owns itself.

    Keras saves what is an attribute of a layer in a group of its own, and loads it
    after the variables of the layer. So the layer's variables are where a plain layer
    has them, and each reads the files of the other.

    Args:
        layer: `keras.Layer`, the owner.
    """

    def __init__(self, layer: keras.Layer):
        self._layer = weakref.ref(layer)

    def __repr__(self) -> str:
        return f"<masks of layer {self._layer().name!r}>"

    def _obj_type(self) -> str:
        return "Operation"  # by which Keras skips the attributes that those have

    def save_own_variables(self, store: Any) -> None:
        """Writes each mask under the name of its weight: bits, then a checksum.

        HDF5 has none, and Keras does not read that of the archive around it.
        """
        for name, weight in own_masked(self._layer()).items():
            bits = np.packbits(keras.ops.convert_to_numpy(mask_of(weight)))
            store[name] = np.concatenate([bits, _checksum(name, weight, bits)])

    def load_own_variables(self, store: Any) -> None:
        """Reads the masks, if the file is of a pruned model, then zeros the weights.

        Raises:
            ValueError: if the masks are of other weights, or do not fit.
        """
        own = own_masked(self._layer())
        try:
            found = {name: store[name] for name in store.keys()}  # noqa: SIM118
            if found or has_masks(store):
                for name, mask in self._masks(found, own).items():
                    mask_of(own[name]).assign(mask)
        finally:
            for weight in own.values():
                remove(weight)

    def _masks(
        self, found: dict[str, np.ndarray], own: dict[str, keras.Variable]
    ) -> dict[str, np.ndarray]:
        layer = self._layer().name
        if found.keys() != own.keys():
            raise ValueError(
                f"Expected a file with masks of the weights of layer {layer!r} that "
                f"are pruned: {', '.join(own)}. Received: a file of a pruned model "
                f"with masks of {', '.join(found) or 'none'} there. Load it into a "
                f"model that is pruned alike, or into the plain one, and apply its "
                f"masks (`snip_tf.apply_masks`)."
            )
        masks = {}
        for name, bits in found.items():
            try:
                masks[name] = unpacked(bits[:-4], own[name])
                if not np.array_equal(bits[-4:], _checksum(name, own[name], bits[:-4])):
                    raise ValueError("other bits than were written")
            except ValueError as error:
                raise ValueError(
                    f"Expected the mask of {name!r} of layer {layer!r} as a bit for "
                    f"each connection of a weight of shape {tuple(own[name].shape)}. "
                    f"Received: {error}. The file is damaged, or is of another network."
                ) from error
        return masks


def _checksum(name: str, weight: keras.Variable, bits: np.ndarray) -> np.ndarray:
    text = f"{name} {list(weight.shape)} ".encode()
    number = zlib.crc32(text + bits.tobytes())
    return np.frombuffer(number.to_bytes(4, "little"), np.uint8)


def unpacked(bits: np.ndarray, weight: keras.Variable) -> np.ndarray:
    """The mask of a weight, from a bit for each connection; a ValueError if not so."""
    shape = tuple(weight.shape)
    if bits.dtype != np.uint8 or bits.ndim != 1:
        raise ValueError(f"an array of shape {bits.shape} and type {bits.dtype}")
    return packed_mask(bits.tobytes(), shape).unpack()


def has_masks(store: Any) -> bool:
    """Whether the file that a store reads has a mask of any weight.

    Keras shows a layer only what is its own; so this asks the HDF5 file that the store
    holds, or its list of what is in which of several, by names that are not public.
    Other kinds of files say no.
    """
    shards = getattr(store, "sharding_config", {}).get("weight_map", {})
    if any(map(_is_of_masks, shards)):
        return True  # in one of several files
    file = getattr(store, "h5_file", None)
    return bool(file and file.visit(lambda name: _is_of_masks(name) or None))


def _is_of_masks(path: str) -> bool:
    """Whether a path in a file is that of a group of masks, or of its content."""
    return any(
        # (With one letter damaged, too.)
        len(name) == 11
        and sum(a != b for a, b in zip(name, "_snip_masks", strict=True)) <= 1
        for name in path.split("/")
    )

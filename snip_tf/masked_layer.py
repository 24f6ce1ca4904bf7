"""MaskedLayer: a layer with some of its connections removed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from snip_tf.masks import check_masks
from snip_tf.weights import layer_tree, weights_by_path


@keras.saving.register_keras_serializable(package="snip_tf")
class MaskedLayer(keras.layers.Wrapper):
    """Runs a layer of any kind with `w * mask` in the place of its weights.

    The inner layer is called inside a `keras.StatelessScope` in which each masked
    weight has its masked value, so that no layer type needs to be known: whatever reads
    the weight reads zeros where the mask is False. Removed connections therefore get no
    gradient, and a constraint on the variable holds them at exactly zero, whatever the
    optimizer does. What the layer itself changes in a call (BatchNorm statistics, seed
    and recurrent states) is assigned back, and its losses are handed on.

    Args:
        layer: `keras.Layer`, the inner layer.
        masks: `{weight path below the layer: mask}`, a boolean array of the weight's
            shape, True is kept; or the shape alone, such as `{"kernel": (784, 300)}`,
            for a mask that keeps all until `set_masks` changes it.
        name: defaults to the name of the inner layer.
        sublayer_names: names for what the inner layer holds, in the order of
            `layer_tree`. Keras numbers layers without a name anew when they are made
            from a configuration, but the paths of the masks must stay.
        **kwargs: what any Keras layer takes.

    Input shape, output shape: those of the inner layer.

    Example:

    >>> import keras, numpy as np, snip_tf
    >>> dense = keras.layers.Dense(2, kernel_initializer="ones")
    >>> masked = snip_tf.MaskedLayer(dense, {"kernel": (3, 2)})
    >>> masked.set_masks({"kernel": np.array([[1, 0], [0, 0], [1, 1]], bool)})
    >>> np.asarray(masked(np.ones((1, 3))))
    array([[2., 1.]], dtype=float32)
    """

    def __init__(
        self,
        layer: keras.Layer,
        masks: Mapping[str, np.ndarray | Sequence[int]],
        name: str | None = None,
        sublayer_names: Sequence[str] = (),
        **kwargs: Any,
    ):
        # `Layer.__init__` reads the signature of `self.call` (see `call` below), which
        # is that of the inner layer, before Keras allows attributes to be set.
        object.__setattr__(self, "_inner_signature", inspect.signature(layer.call))
        # No casting here: the inner layer casts its inputs and weights by its own
        # policy, and the masks are applied to the variables as they are stored.
        kwargs = {"dtype": "float32", "trainable": layer.trainable, **kwargs}
        super().__init__(layer, name=name or layer.name, autocast=False, **kwargs)
        for sublayer, its_name in zip(self._sublayers(), sublayer_names, strict=False):
            sublayer.name = its_name
        self.supports_masking = layer.supports_masking
        self.supports_jit = layer.supports_jit
        # bool, by measurement (`benchmarks/mask_dtype.py`, two cores, batch 100): a
        # training step over the dense model's took 1.08 (LeNet-300-100), 1.10 (LeNet-5)
        # and 1.19 (an MLP of 6.3 million weights); with uint8 1.12, 1.06, 1.24; with
        # float32 1.18, 1.00, 1.27: no difference beyond the noise, of about 0.1, while
        # float32 takes four times the memory, as much as the weight itself.
        self._masks = {path: self._add_mask(path, masks[path]) for path in masks}

    def _add_mask(self, path: str, mask: np.ndarray | Sequence[int]) -> keras.Variable:
        mask = mask if isinstance(mask, np.ndarray) else np.ones(mask, bool)
        return self.add_weight(
            shape=mask.shape,
            initializer=lambda shape, dtype: keras.ops.convert_to_tensor(mask, dtype),
            dtype="bool",
            trainable=False,
            name=path.replace("/", "_") + "_mask",
        )

    @property
    def unmasked_layer(self) -> keras.Layer:
        """The inner layer. Having it, the wrapper is no part of a weight path."""
        return self.layer

    @property
    def masks(self) -> dict[str, keras.Variable]:
        """`{weight path below the layer: bool variable}`, True is kept."""
        return dict(self._masks)

    def set_masks(self, masks: Mapping[str, np.ndarray]) -> None:
        """Assigns masks, and zeros to the weights that they remove.

        Args:
            masks: `{weight path below the layer: bool array}` for any of the masks.

        Raises:
            TypeError: if a mask is not boolean.
            ValueError: if a path is not known, or a shape does not fit.
        """
        check_masks(masks, self._masks)
        for path, mask in masks.items():
            self._masks[path].assign(mask)
        if self.layer.built:
            for weight, mask in self.masked_weights():
                weight.assign(_masked(weight, mask))

    def build(self, input_shape: Any = None) -> None:
        """Builds the inner layer, and holds its removed weights at zero from now on."""
        super().build(input_shape)
        for weight, mask in self.masked_weights():
            weight.assign(_masked(weight, mask))
            if not isinstance(weight.constraint, _KeepZeros):
                weight.constraint = _KeepZeros(weight.constraint, mask)

    @property
    def call(self):
        """The inner layer's `call`, on masked weights.

        A property, so that `inspect.signature(self.call)`, from which Keras learns
        about `training`, `mask` and the names of the inputs, is that of the inner
        layer.
        """

        def call(*args, **kwargs):
            return self._call_masked(*args, **kwargs)

        call.__signature__ = self._inner_signature
        return call

    def _call_masked(self, *args: Any, **kwargs: Any) -> Any:
        masked = {
            id(weight): _masked(weight, mask) for weight, mask in self.masked_weights()
        }
        variables = self.layer.variables + self.layer.metrics_variables
        with keras.StatelessScope(collect_losses=True) as scope:
            for variable in variables:
                value = masked.get(id(variable))
                if value is None and scope.original_scope is not None:
                    # A scope around this one is not looked through by Keras.
                    value = scope.original_scope.get_current_value(variable)
                if value is not None:
                    scope.add_update((variable, value))
            before = [scope.get_current_value(variable) for variable in variables]
            outputs = self.layer(*args, **kwargs)
        for variable, old in zip(variables, before, strict=True):
            new = scope.get_current_value(variable)
            if new is not old:
                variable.assign(new)
        for loss in scope.losses:
            # A new tensor: Keras knows losses by their id, and the inner layer has
            # already claimed this one.
            self.add_loss(keras.ops.add(loss, 0))
        return outputs

    def masked_weights(self) -> list[tuple[keras.Variable, keras.Variable]]:
        """Each masked weight of the inner layer with its mask."""
        weights = weights_by_path(self.layer)
        return [(weights[path], mask) for path, mask in self._masks.items()]

    # The rest of what Keras asks a layer is answered by the inner one.

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:  # noqa: D102
        return self.layer.compute_mask(inputs, previous_mask)

    def get_config(self) -> dict[str, Any]:  # noqa: D102
        shapes = {path: list(mask.shape) for path, mask in self._masks.items()}
        names = [sublayer.name for sublayer in self._sublayers()]
        return {**super().get_config(), "masks": shapes, "sublayer_names": names}

    def _sublayers(self) -> list[keras.Layer]:
        return list(layer_tree(self.layer))[1:]


class _KeepZeros(keras.constraints.Constraint):
    """A weight's own constraint, then its mask.

    Masked gradients already keep zeros under optimizers that treat each weight by
    itself. Others mix them (Muon orthogonalizes whole matrices); and a hand-written
    training step may do anything.
    """

    def __init__(self, constraint: keras.constraints.Constraint | None, mask):
        self.constraint = constraint
        self.mask = mask

    def __call__(self, w):
        if self.constraint is not None:
            w = self.constraint(w)
        return _masked(w, self.mask)


def _masked(weight, mask):
    # `where` rather than a product: 0 * inf would be NaN, and -1 * 0 is -0.
    return keras.ops.where(mask, weight, keras.ops.zeros((), weight.dtype))

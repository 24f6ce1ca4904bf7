"""The model that training starts from: built, pruned and compiled."""

from __future__ import annotations

import time

import keras

from snip_tf.experiments import controls, models
from snip_tf.experiments.datasets import Dataset
from snip_tf.experiments.training import optimizers, schedules
from snip_tf.experiments.training.settings import Settings
from snip_tf.masking.pruned_model import apply_masks, get_masks
from snip_tf.network import Network
from snip_tf.pruning import prune_model
from snip_tf.scoring.sampling import sample_per_class
from snip_tf.selecting import structures
from snip_tf.selecting.kernels import kernels_of
from snip_tf.selecting.selection import Selection
from snip_tf.selecting.structures.units import Units


def make_optimizer(settings: Settings) -> keras.optimizers.Optimizer:
    """Returns the optimizer; raises a ValueError that names the flags it depends on."""
    try:
        return optimizers.make_optimizer(
            settings.optimizer,
            settings.lr,
            settings.lr_decay_type,
            [int(boundary) for boundary in settings.decay_boundaries],
            [float(value) for value in settings.decay_values],
            settings.decoupled_decay,
            settings.train_iterations,
        )
    except ValueError as error:
        names = "--lr_decay_type, --decay_boundaries, --decay_values"
        raise ValueError(f"{names}: {error}") from error


def build_network(settings: Settings, data: Dataset) -> keras.Model:
    """Returns the dense network, with its initialization before pruning.

    Raises:
        ValueError: if it cannot take the data, or is too small for `min_kept`.
    """
    network = _build(
        settings, data, settings.initializer_w_bp, settings.initializer_b_bp
    )
    if settings.is_pruned:
        _check_selection(settings, Network(network))
    return network


def _check_selection(settings: Settings, network: Network) -> None:
    """Raises a ValueError if the pruning flags cannot be met together."""
    structure = structures.get(settings.structure)
    sparsity, scope, least = (
        settings.target_sparsity,
        settings.scope,
        settings.least_kept,
    )
    if isinstance(structure, Units):
        structures.check_request(structure, sparsity, scope, least)
    else:
        weights = network.prunable(_include(settings))
        kernels = kernels_of(network.owners, weights)
        Selection(kernels, sparsity, scope, least, structure)


def _build(
    settings: Settings, data: Dataset, initializer_w: str, initializer_b: str
) -> keras.Model:
    decay = keras.regularizers.L2(settings.l2_decay / 2) if settings.l2_decay else None
    try:
        return models.build(
            settings.arch,
            input_shape=data.input_shape,
            classes=data.classes,
            kernel_initializer=initializer_w,
            bias_initializer=initializer_b,
            kernel_regularizer=decay,
            bias_regularizer=decay,
        )
    except ValueError as error:
        flags = f"--arch={settings.arch} --datasource={settings.datasource}"
        raise ValueError(f"{flags}: {error}") from error


def make_model(
    settings: Settings,
    data: Dataset,
    network: keras.Model,
    optimizer: keras.optimizers.Optimizer,
) -> tuple[keras.Model, float]:
    """Prunes a network and compiles it.

    Args:
        settings: how to prune.
        data: what the network is scored on.
        network: as `build_network` returns it.
        optimizer: to compile it with.

    Returns:
        The model to train, and the seconds that pruning took.
    """
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model, seconds = network, 0.0
    if settings.is_pruned:
        start = time.perf_counter()
        model = _prune(settings, data, network, loss)
        seconds = time.perf_counter() - start
        model = _controlled(settings, network, model)
    if settings.initializer_w_ap:
        model = _drawn_anew(settings, data, model, settings.initializer_w_ap)
    model.compile(optimizer, loss, jit_compile=settings.jit_compile)
    return model, seconds


def _prune(
    settings: Settings, data: Dataset, network: keras.Model, loss: keras.losses.Loss
) -> keras.Model:
    if settings.schedule == "gradual":  # which begins with everything
        return prune_model(
            network, sparsity=0.0, criterion="magnitude", include=_include(settings)
        )
    criterion = schedules.criterion_of(settings)
    scored, size = data.train, settings.scoring_batch_size or settings.batch_size
    if settings.examples_per_class:
        scored = sample_per_class(*scored, settings.examples_per_class, settings.seed)
        size = len(scored[1])
    return prune_model(
        network,
        *scored,
        sparsity=settings.target_sparsity,
        criterion=criterion,
        structure=settings.structure,
        scope=settings.scope,
        min_kept=settings.least_kept,
        include=_include(settings),
        loss=loss,
        batch_size=size,
        seed=settings.seed,
    )


def _include(settings: Settings) -> str | None:
    return "*bias" if settings.prune_biases else None


def _controlled(
    settings: Settings, network: keras.Model, pruned: keras.Model
) -> keras.Model:
    """Returns the pruned model, after the control if there is one."""
    if settings.control == "shuffle":
        masks = controls.shuffle(get_masks(pruned), settings.seed)
        return apply_masks(network, masks)
    if settings.control == "reinitialize":
        return controls.reinitialize(pruned)
    return pruned


def _drawn_anew(
    settings: Settings, data: Dataset, model: keras.Model, initializer_w: str
) -> keras.Model:
    """Draws the weights anew under the same masks, as the release does."""
    fresh = _build(settings, data, initializer_w, settings.initializer_b_ap)
    return apply_masks(fresh, get_masks(model)) if settings.is_pruned else fresh

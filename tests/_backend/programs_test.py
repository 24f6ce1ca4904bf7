"""Users' programs, on each backend of Keras."""

import os
import subprocess
import sys
import traceback
from pathlib import Path

import keras
import numpy as np
import pytest
import scipy.sparse

import snip_tf
from snip_tf import _keras
from tests.versions import on

layers = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 8)).astype(np.float32)
Y = RNG.integers(3, size=32)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"


def mlp(optimizer="adam", loss=LOSS, **options):
    inputs = keras.Input((8,), **options)
    hidden = layers.Dense(16, "relu", name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="out")(hidden))
    model.compile(optimizer, loss)
    return model


def masks(model, *data, sparsity=0.7, **options):
    return snip_tf.get_masks(
        snip_tf.prune_model(model, *data, sparsity=sparsity, **options)
    )


# What all optimizers are, and those that are made of other ones.
OF_OTHERS = ("LossScaleOptimizer", "MultiOptimizer", "Optimizer", "OptimizerMap")
OPTIMIZERS = [
    name
    for name, value in vars(keras.optimizers).items()
    if isinstance(value, type) and name not in OF_OTHERS
]


@on("jax", "torch")  # on TensorFlow, tests/masking/optimizers_test.py does more
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zeros_stay_with_each_optimizer(name):
    optimizer = getattr(keras.optimizers, name)(learning_rate=0.01)
    pruned = snip_tf.prune_model(mlp(optimizer), X, Y, sparsity=0.7)
    before = [np.array(weight) for weight in pruned.get_weights()]
    pruned.fit(X, Y, epochs=3, batch_size=8, verbose=0)
    weights = snip_tf.prunable_weights(pruned)
    for path, mask in snip_tf.get_masks(pruned).items():
        value = keras.ops.convert_to_numpy(weights[path])
        assert not value[~mask].any(), path
    after = pruned.get_weights()
    assert all(np.isfinite(value).all() for value in after)
    assert any((old != new).any() for old, new in zip(before, after, strict=True))


def test_scipy_matrices():
    """As `fit` takes them, with the masks of the same numbers in an array."""
    keras.utils.set_random_seed(0)
    model = mlp()
    x = X * (RNG.random(X.shape) < 0.3)
    expected = masks(model, x, Y)
    np.testing.assert_equal(masks(model, scipy.sparse.csr_matrix(x), Y), expected)
    if keras.backend.backend() != "torch":  # which has no sparse inputs
        sparse = mlp(sparse=True)
        sparse.set_weights(model.get_weights())
        np.testing.assert_equal(masks(sparse, scipy.sparse.csr_matrix(x), Y), expected)


def test_labels_of_text():
    with pytest.raises(ValueError, match=r"^Expected targets that are numbers"):
        masks(mlp(), X, np.array(["cat", "dog", "cow"])[Y])


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_padding_does_not_count(criterion):
    tokens = RNG.integers(1, 15, (12, 9))
    tokens[np.arange(9) >= RNG.integers(3, 9, (12, 1))] = 0
    inputs = keras.Input((9,), dtype="int32")
    embedded = layers.Embedding(15, 8, mask_zero=True)(inputs)
    hidden = layers.TimeDistributed(layers.Dense(12, "tanh"))(embedded)
    model = keras.Model(inputs, layers.Dense(4)(hidden))
    model.compile("sgd", LOSS)
    y = RNG.integers(4, size=tokens.shape)
    other = np.where(tokens == 0, (y + 1) % 4, y)
    options = {"criterion": criterion}
    expected = masks(model, tokens, y, **options)
    np.testing.assert_equal(masks(model, tokens, other, **options), expected)
    # The mean is over what is not padding, in several batches, too.
    scores = snip_tf.score(model, tokens, y, **options, batch_size=12)
    parts = snip_tf.score(model, tokens, y, **options, batch_size=4, batches=3)
    totals = [sum(np.abs(s).sum() for s in of.values()) for of in (scores, parts)]
    for path, score in scores.items():
        expected = score / totals[0]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(parts[path] / totals[1], expected, atol=1e-4 * scale)


def test_no_second_derivative():
    """The loss CTC has none, or one that is not finite, but on JAX."""
    inputs = keras.Input((10, 4))
    model = keras.Model(inputs, layers.Dense(5)(layers.Dense(6, "tanh")(inputs)))
    model.compile("sgd", keras.losses.CTC())
    x = RNG.normal(size=(4, 10, 4)).astype(np.float32)
    y = RNG.integers(1, 5, size=(4, 3))
    masks(model, x, y)
    if keras.backend.backend() == "jax":
        masks(model, x, y, criterion="grasp")
        return
    with pytest.raises(ValueError, match=r"second derivative.*Use another"):
        masks(model, x, y, criterion="grasp")


def test_formats_of_tensorflow(tmp_path):
    pruned = snip_tf.prune_model(mlp(), X, Y, sparsity=0.7)
    for name, format in (("small.tflite", "litert"), ("folder", "saved_model")):
        if ON_TENSORFLOW:
            snip_tf.export(pruned, tmp_path / name, format, print_fn=lambda line: None)
            continue
        with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow"):
            snip_tf.export(pruned, tmp_path / name, format)
        assert not list(tmp_path.iterdir())


def test_an_error_in_fit_is_not_hidden():
    def fails(y_true, y_pred):
        raise ZeroDivisionError("of the user's")

    pruned = snip_tf.prune_model(mlp(loss=fails), X, Y, sparsity=0.7, loss=LOSS)
    with pytest.raises(ZeroDivisionError, match="of the user's"):
        pruned.fit(X, Y, verbose=0)


def test_layers_in_attributes():
    """PyTorch keeps them where it looks for modules."""
    model = keras.Sequential([keras.Input((8,)), mlp(), layers.Dense(3)])
    paths = list(snip_tf.prunable_weights(model))
    assert len(paths) == len(set(paths)) == 3
    modules = _keras.modules_of(mlp())
    assert modules == {} or "_operations" not in modules


@on("torch")  # NumPy reads other tensors of a GPU
def test_tensors_are_read_as_those_of_a_gpu(monkeypatch):
    """NumPy cannot read them where they are: by way of the processor's memory."""
    import torch

    from snip_tf.selecting.scores import Product

    places, read = [], torch.Tensor.__array__

    def recorded(tensor, *args, **kwargs):
        places.append(traceback.extract_stack()[-2].filename)
        return read(tensor, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "__array__", recorded)
    monkeypatch.setattr(Product, "on_accelerator", property(lambda product: True))
    np.asarray(torch.ones(1))
    assert places.pop() == __file__
    for criterion in snip_tf.criteria.CRITERIA:
        masks(mlp(), X, Y, criterion=criterion)
    for structure in ("units", "2:4"):
        pruned = snip_tf.prune_model(mlp(), X, Y, sparsity=0.5, structure=structure)
    snip_tf.compact(pruned)
    str(snip_tf.report(pruned))
    snip_tf.sparse_runtime(pruned)(X)
    library = str(Path(snip_tf.__file__).parent)
    assert not [place for place in places if place.startswith(library)]


ON_TWO_DEVICES = """
import keras
import numpy as np
import snip_tf

if {devices} == 2:
    keras.distribution.set_distribution(keras.distribution.DataParallel())
stack = [keras.layers.Conv2D(6, 3), keras.layers.BatchNormalization()]
stack += [keras.layers.Flatten(), keras.layers.Dense(3)]
model = keras.Sequential([keras.Input((8, 8, 1)), *stack])
rng = np.random.default_rng(0)
for weight in model.trainable_weights:
    weight.assign(rng.normal(size=weight.shape).astype("float32"))
x, y = rng.normal(size=(32, 8, 8, 1)).astype("float32"), rng.integers(3, size=32)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss)
pruned = snip_tf.prune_model(model, x, y, sparsity=0.7)
pruned.fit(x, y, batch_size=16, verbose=0)
masks = snip_tf.get_masks(pruned)
for path, weight in snip_tf.prunable_weights(pruned).items():
    value = keras.ops.convert_to_numpy(weight)
    assert len(weight.value.devices()) == {devices}
    assert value[masks[path]].any() and not value[~masks[path]].any()
snip_tf.save_masks("{devices}.npz", masks)
"""


@on("jax")  # the only one for which Keras distributes
def test_masks_on_two_devices_are_those_of_one(tmp_path):
    flags = {1: "", 2: "--xla_force_host_platform_device_count=2"}
    for devices, xla in flags.items():
        program = ON_TWO_DEVICES.format(devices=devices)
        environment = {**os.environ, "XLA_FLAGS": xla}
        environment["PYTHONPATH"] = str(Path(snip_tf.__file__).parents[1])
        command = [sys.executable, "-c", program]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    one, two = (snip_tf.load_masks(tmp_path / f"{n}.npz") for n in flags)
    np.testing.assert_equal(two, one)

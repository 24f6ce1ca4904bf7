"""A model without a `call`, such as a GAN, which only its `train_step` runs."""

import warnings

import keras
import numpy as np
import pytest

import snip_tf
from tests.by_hand import Gan, X, assert_close, by_hand, dense

layers, ops = keras.layers, keras.ops


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


def of_generator(model, batch, training):
    del training
    return ops.mean(ops.softplus(-model.discriminator(model.generator(batch))))


@pytest.mark.parametrize("built", [True, False])
def test_parts_of_a_model_without_a_call(built):
    generator, discriminator = dense("g", 4, 8, 6), dense("d", 6, 7, 1)
    if not built:
        generator, discriminator = (
            keras.Sequential(
                [layers.Dense(n, "tanh", name=f"d{n}") for n in units], name=name
            )
            for name, units in (("g", (8, 6)), ("d", (7, 1)))
        )
    z = X[:, :4]
    model = Gan(generator, discriminator)
    model.compile("sgd")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = snip_tf.connection_sensitivity(model, z, objective=of_generator)
    expected = by_hand(model, lambda: of_generator(model, z, False))
    assert list(expected) == [
        "g/d8/kernel",
        "g/d6/kernel",
        "d/d7/kernel",
        "d/d1/kernel",
    ]
    assert_close(found, expected)
    pruned = snip_tf.prune_model(
        model, z, sparsity=0.5, objective=of_generator, exclude="d/*"
    )
    assert set(snip_tf.get_masks(pruned)) == {"g/d8/kernel", "g/d6/kernel"}
    assert snip_tf.sparsity(pruned) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("criterion", ["magnitude", "random"])
@pytest.mark.parametrize("data", [(), (X,)])
def test_parts_without_a_call_need_no_objective_without_a_loss(criterion, data):
    model = Gan(dense("g", 4, 6), dense("d", 6, 1))
    pruned = snip_tf.prune_model(model, *data, sparsity=0.5, criterion=criterion)
    assert snip_tf.sparsity(pruned) == 0.5


@pytest.mark.parametrize("data", [(), (X,)])
def test_nothing_flows_through_a_model_without_a_call(data):
    model = Gan(dense("g", 4, 6), dense("d", 6, 1))
    with pytest.raises(ValueError, match=r"no `call`\. Prune its parts.*'magnitude'"):
        snip_tf.prune_model(model, *data, sparsity=0.5, criterion="synflow")


@pytest.mark.parametrize("format", ["litert", "saved_model"])
def test_a_model_without_a_call_is_exported_by_its_parts(format, tmp_path):
    model = Gan(dense("g", 4, 6), dense("d", 6, 1))
    pruned = snip_tf.prune_model(model, sparsity=0.5, criterion="magnitude")
    path = tmp_path / ("file.tflite" if format == "litert" else "folder")
    with pytest.raises(ValueError, match=r"with a `call`.*Export its parts"):
        snip_tf.export(pruned, path, format)
    assert not path.exists()
    snip_tf.export(pruned.generator, path, format, print_fn=lambda line: None)
    assert path.exists()


def test_a_model_without_a_call_is_compacted_by_its_parts():
    model = Gan(dense("g", 4, 6), dense("d", 6, 8, 1))
    pruned = snip_tf.prune_model(model, sparsity=0.9, criterion="magnitude")
    for tool in (snip_tf.compact, snip_tf.sparse_runtime):
        with pytest.raises(ValueError, match="no `call`, only parts"):
            tool(pruned)
    part = pruned.discriminator
    small = snip_tf.compact(part)
    assert small.count_params() < part.count_params()
    np.testing.assert_allclose(small(X), part(X), atol=1e-6)

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


def prunable(model):
    return list(snip_tf.prunable_weights(model))


class Container(keras.Model):
    """Parts that only a training step of its own would call."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = list(parts)


class Block(layers.Layer):
    def __init__(self, *parts):
        super().__init__()
        self.parts = list(parts)


def part(name, *shape):
    stack = [layers.Dense(units, name=f"fc{units}") for units in shape[1:]]
    return keras.Sequential([keras.Input(shape[:1]), *stack], name=name)


def test_a_model_without_call_is_built_if_its_parts_are():
    model = Container(part("generator", 4, 8, 6), part("critic", 6, 8, 1))
    expected = [
        "generator/fc8/kernel",
        "generator/fc6/kernel",
        "critic/fc8/kernel",
        "critic/fc1/kernel",
    ]
    assert prunable(model) == expected
    pruned = snip_tf.prune_model(model, sparsity=0.5, criterion="random")
    assert prunable(pruned) == expected
    assert snip_tf.sparsity(pruned) == 0.5
    again = snip_tf.prune_model(pruned, sparsity=0.75, criterion="magnitude")
    assert snip_tf.sparsity(again) == 0.75
    same = snip_tf.apply_masks(model, snip_tf.get_masks(again))
    assert snip_tf.sparsity(same) == 0.75
    stripped = snip_tf.strip_pruning(again)
    assert prunable(stripped) == expected
    kernels = snip_tf.prunable_weights(stripped).values()
    assert sum(np.count_nonzero(kernel) for kernel in kernels) == 34
    assert [row.kept for row in snip_tf.report(again).weights] == [
        mask.sum() for mask in snip_tf.get_masks(again).values()
    ]
    assert "fc8" in capture_summary(again)
    critic = snip_tf.prune_model(
        model, sparsity=0.5, criterion="random", exclude=model.parts[0]
    )
    assert list(snip_tf.get_masks(critic)) == expected[2:]


@pytest.mark.parametrize(
    "make",
    [
        layers.Flatten,
        lambda: layers.Rescaling(2.0),
        lambda: keras.Sequential([layers.RandomFlip(), layers.RandomZoom(0.1)]),
        lambda: Block(part("inner", 4, 2)),
    ],
)
def test_parts_that_make_no_weights_need_not_be_built(make):
    model = Container(make(), part("critic", 6, 8, 1))
    pruned = snip_tf.prune_model(model, sparsity=0.5, criterion="magnitude")
    assert snip_tf.sparsity(pruned) == 0.5
    assert len(prunable(snip_tf.strip_pruning(pruned))) == len(prunable(model))
    assert "critic/fc8" in capture_summary(pruned)
    assert snip_tf.report(pruned).weights


def test_a_container_in_a_container():
    inner = Container(part("generator", 4, 8, 6))
    model = Container(inner, part("critic", 6, 1))
    pruned = snip_tf.prune_model(model, sparsity=0.5, criterion="random")
    assert "generator/fc8" in capture_summary(pruned)
    rows = snip_tf.report(pruned).layers
    assert [row.parameters for row in rows] == [94, 7]
    stripped = snip_tf.strip_pruning(pruned)
    assert type(stripped.parts[0]) is Container


@keras.saving.register_keras_serializable("tests")
class OfTwo(Container):
    def get_config(self):
        parts = [keras.saving.serialize_keras_object(part) for part in self.parts]
        return {"parts": parts}

    @classmethod
    def from_config(cls, config):
        return cls(*map(keras.saving.deserialize_keras_object, config["parts"]))


def test_a_model_without_call_keeps_its_masks_in_a_file(tmp_path):
    model = OfTwo(part("generator", 4, 8, 6), part("critic", 6, 8, 1))
    pruned = snip_tf.prune_model(model, sparsity=0.5, criterion="random")
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_equal(snip_tf.get_masks(loaded), snip_tf.get_masks(pruned))
    for found, expected in zip(loaded.weights, pruned.weights, strict=True):
        np.testing.assert_array_equal(found, expected)


def capture_summary(model):
    lines = []
    snip_tf.summary(model, print_fn=lines.append)
    return "\n".join(map(str, lines))


def test_parts_that_are_not_built_are_named():
    unbuilt = keras.Sequential([layers.Dense(3)], name="generator")
    for generator in (unbuilt, Container(unbuilt), Block(unbuilt)):
        generator.name = "generator"
        with pytest.raises(ValueError, match="not built: 'generator'"):
            prunable(Container(generator, part("critic", 6, 1)))
    with pytest.raises(ValueError, match="not built: 'norm'"):
        prunable(Container(layers.LayerNormalization(name="norm"), part("c", 6, 1)))
    model = Container(unbuilt, part("critic", 6, 1))
    with pytest.raises(ValueError, match=r"without `call`.*not built: 'generator'"):
        prunable(model)

    class WithCall(Container):
        def call(self, x):
            return self.parts[1](self.parts[0](x))

    with pytest.raises(ValueError, match="not built"):
        prunable(WithCall(part("generator", 4, 6), part("critic", 6, 1)))

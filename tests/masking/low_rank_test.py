"""LoRA on masked layers: they compute with m * (W + s A B), and keep the zeros."""

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf.masking.low_rank import update_of
from snip_tf.weights import layer_tree
from tests.versions import since

layers = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6)).astype(np.float32)
Y = RNG.normal(size=(32, 3)).astype(np.float32)


def dense_network():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, activation="tanh", name="hidden"),
            layers.Dense(3, name="out"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.05), "mse")
    return model


def with_update(model=None, trained=True, **options):
    pruned = snip_tf.prune_model(
        model or dense_network(), sparsity=0.75, criterion="random", seed=0
    )
    pruned.get_layer("hidden").enable_lora(2, **options)
    pruned.compile(keras.optimizers.Adam(0.05), "mse")
    if trained:
        pruned.fit(X, Y, epochs=3, verbose=0)
    return pruned


def array(value):
    return keras.ops.convert_to_numpy(value)


def effective(layer):
    """m * (W + s A B), in NumPy."""
    update = update_of(layer)
    total = array(update.weight) + update.scale * array(update.first) @ array(
        update.second
    )
    return total * array(update.mask)


def test_computes_with_the_masked_sum():
    pruned = with_update()
    hidden = pruned.get_layer("hidden")
    assert (effective(hidden) != array(hidden._kernel)).any()
    expected = np.tanh(X @ effective(hidden) + array(hidden.bias))
    np.testing.assert_allclose(array(hidden(X)), expected, atol=1e-6)
    np.testing.assert_allclose(array(hidden.kernel), effective(hidden), atol=1e-7)


def test_training_changes_the_factors_alone():
    pruned = with_update(trained=False)
    kernel = array(pruned.get_layer("hidden")._kernel).copy()
    before = pruned.evaluate(X, Y, verbose=0)
    pruned.fit(X, Y, epochs=20, verbose=0)
    hidden = pruned.get_layer("hidden")
    np.testing.assert_array_equal(array(hidden._kernel), kernel)
    assert array(hidden.lora_kernel_b).any()
    assert pruned.evaluate(X, Y, verbose=0) < 0.9 * before


@since("3.10")  # before, there is no alpha
def test_alpha():
    hidden = with_update(lora_alpha=6).get_layer("hidden")
    assert update_of(hidden).scale == 3
    expected = np.tanh(X @ effective(hidden) + array(hidden.bias))
    np.testing.assert_allclose(array(hidden(X)), expected, atol=1e-6)


@pytest.mark.parametrize("form", ["keras", "weights.h5"])
def test_saved_and_loaded_as_it_is(form, tmp_path):
    """One more step gives what it gives without saving."""
    pruned = with_update()
    path = tmp_path / f"a.{form}"
    if form == "keras":
        pruned.save(path)
        loaded = keras.models.load_model(path)
    else:
        pruned.save_weights(path)
        loaded = with_update(trained=False)
        loaded.fit(X[:2], Y[:2], verbose=0)
        loaded.load_weights(path)
    np.testing.assert_array_equal(array(loaded(X)), array(pruned(X)))
    for one, other in zip(
        update_of(loaded.get_layer("hidden"))[1:],
        update_of(pruned.get_layer("hidden"))[1:],
        strict=True,
    ):
        np.testing.assert_array_equal(array(one), array(other))
    for model in (loaded, pruned):
        model.fit(X, Y, shuffle=False, verbose=0)
    for one, other in zip(loaded.get_weights(), pruned.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@since("3.10")
def test_alpha_is_saved(tmp_path):
    pruned = with_update(lora_alpha=6)
    pruned.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    assert update_of(loaded.get_layer("hidden")).scale == 3
    np.testing.assert_array_equal(array(loaded(X)), array(pruned(X)))


def test_a_plain_model_loads_the_sum(tmp_path):
    pruned = with_update()
    pruned.save_weights(tmp_path / "a.weights.h5")
    plain = dense_network()
    plain.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_allclose(array(plain(X)), array(pruned(X)), atol=1e-6)
    other = snip_tf.prune_model(dense_network(), sparsity=0.1, criterion="random")
    other.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_allclose(array(other(X)), array(pruned(X)), atol=1e-6)


def test_strip_merges():
    pruned = with_update()
    hidden = pruned.get_layer("hidden")
    plain = snip_tf.strip_pruning(pruned)
    merged = plain.get_layer("hidden")
    assert type(merged) is layers.Dense and not merged.lora_enabled
    assert [weight.name for weight in merged.weights] == ["kernel", "bias"]
    assert [weight.name for weight in merged.trainable_weights] == ["kernel", "bias"]
    mask = snip_tf.get_masks(pruned)["hidden/kernel"]
    np.testing.assert_array_equal(array(merged.kernel) != 0, mask)
    np.testing.assert_allclose(array(merged.kernel), effective(hidden), atol=1e-7)
    np.testing.assert_allclose(array(plain(X)), array(pruned(X)), atol=1e-6)
    plain.fit(X, Y, verbose=0)
    assert hidden.lora_enabled
    config = merged.get_config()
    assert not config.get("lora_rank")


@pytest.mark.parametrize("format", ["keras", "sparse"])
def test_exports_are_merged(format, tmp_path):
    pruned = with_update()
    path = str(tmp_path / ("a.keras" if format == "keras" else "a.npz"))
    snip_tf.export(pruned, path, format=format)
    load = keras.models.load_model if format == "keras" else snip_tf.load_sparse
    np.testing.assert_allclose(array(load(path)(X)), array(pruned(X)), atol=1e-6)


def test_compact_and_runtime_and_report():
    pruned = with_update()
    for model in (snip_tf.compact(pruned), snip_tf.sparse_runtime(pruned)):
        np.testing.assert_allclose(np.asarray(model(X)), array(pruned(X)), atol=1e-5)
    assert snip_tf.report(pruned).totals()["parameters"] == 6 * 8 + 8 + 8 * 3 + 3


def test_masks_of_factors_survive(tmp_path):
    model = dense_network()
    model.get_layer("hidden").enable_lora(2)
    model.fit(X, Y, epochs=2, verbose=0)
    pruned = snip_tf.prune_model(
        model, sparsity=0.5, criterion="magnitude", include="*/lora_*", exclude="out/*"
    )
    masks = snip_tf.get_masks(pruned)
    assert sorted(masks) == ["hidden/lora_kernel_a", "hidden/lora_kernel_b"]
    pruned.fit(X, Y, epochs=2, verbose=0)
    pruned.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    for path, mask in snip_tf.get_masks(loaded).items():
        np.testing.assert_array_equal(mask, masks[path])
        weight = getattr(loaded.get_layer("hidden"), path.rpartition("/")[2])
        assert not array(weight)[~mask].any() and array(weight).any()
    np.testing.assert_array_equal(array(loaded(X)), array(pruned(X)))
    plain = snip_tf.strip_pruning(pruned)
    np.testing.assert_allclose(array(plain(X)), array(pruned(X)), atol=1e-6)


KINDS = {
    "einsum": lambda: [
        keras.Input((5, 6)),
        layers.EinsumDense("abc,cd->abd", output_shape=(5, 4), name="hidden"),
        layers.Flatten(),
    ],
    "conv": lambda: [
        keras.Input((6, 6, 2)),
        layers.Conv2D(4, 3, name="hidden"),
        layers.Flatten(),
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_layers(kind, tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([*KINDS[kind](), layers.Dense(3, name="out")])
    model.compile("adam", "mse")
    x = RNG.normal(size=(8, *model.input_shape[1:])).astype(np.float32)
    y = RNG.normal(size=(8, 3)).astype(np.float32)
    pruned = snip_tf.prune_model(model, sparsity=0.75, criterion="random", seed=0)
    pruned.get_layer("hidden").enable_lora(2)
    pruned.compile("adam", "mse")
    pruned.fit(x, y, epochs=3, verbose=0)
    plain = snip_tf.strip_pruning(pruned)
    np.testing.assert_allclose(array(plain(x)), array(pruned(x)), atol=1e-5)
    mask = snip_tf.get_masks(pruned)["hidden/kernel"]
    np.testing.assert_array_equal(array(plain.get_layer("hidden").kernel) != 0, mask)
    pruned.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    np.testing.assert_array_equal(array(loaded(x)), array(pruned(x)))


@keras.saving.register_keras_serializable(package="low_rank_test")
class Block(layers.Layer):
    """A composite layer, whose configuration does not know of updates inside."""

    def __init__(self, name=None, **options):  # a name is saved if it is an argument
        super().__init__(name=name, **options)
        self.first = layers.Dense(8, name="first")
        self.second = layers.Dense(6, name="second")

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], 8))

    def call(self, x):
        return x + self.second(keras.ops.relu(self.first(x)))


def test_layers_inside_a_composite_one(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), Block(name="block"), layers.Dense(3, name="out")]
    )
    model.compile("adam", "mse")
    pruned = snip_tf.prune_model(model, sparsity=0.75, criterion="random", seed=0)
    block = pruned.get_layer("block")
    for part in (block, pruned.get_layer("out")):
        part.trainable = False
    block.first.trainable = True
    block.first.enable_lora(2)
    pruned.compile("adam", "mse")
    pruned.fit(X, Y, epochs=3, verbose=0)
    pruned.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    inside = loaded.get_layer("block").first
    assert inside.lora_enabled and update_of(inside).mask is not None
    flags = [[part.trainable for part in layer_tree(m)][1:] for m in (pruned, loaded)]
    assert flags[0] == flags[1]
    names = [[v.path for v in m.trainable_variables] for m in (pruned, loaded)]
    assert len(names[0]) == len(names[1]) == 3
    for model in (loaded, pruned):
        model.fit(X, Y, shuffle=False, verbose=0)
    for one, other in zip(loaded.get_weights(), pruned.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    plain = snip_tf.strip_pruning(pruned)
    assert not plain.get_layer("block").first.lora_enabled
    mask = snip_tf.get_masks(pruned)["block/first/kernel"]
    kernel = array(plain.get_layer("block").first.kernel)
    np.testing.assert_array_equal(kernel != 0, mask)
    np.testing.assert_allclose(array(plain(X)), array(pruned(X)), atol=1e-6)


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        pruned = with_update()
    finally:
        keras.config.set_dtype_policy("float32")
    plain = snip_tf.strip_pruning(pruned)
    kernel = array(plain.get_layer("hidden").kernel)
    np.testing.assert_array_equal(
        kernel != 0, snip_tf.get_masks(pruned)["hidden/kernel"]
    )
    np.testing.assert_allclose(
        array(plain(X)).astype("float32"), array(pruned(X)).astype("float32"), atol=0.1
    )


def test_pruned_again_under_the_update():
    pruned = with_update()
    masks = {"hidden/kernel": RNG.random((6, 8)) < 0.5}
    again = snip_tf.apply_masks(pruned, masks)
    hidden = again.get_layer("hidden")
    assert hidden.lora_enabled
    expected = masks["hidden/kernel"] & snip_tf.get_masks(pruned)["hidden/kernel"]
    np.testing.assert_array_equal(array(hidden.kernel) != 0, expected)


def test_quantize_is_refused():
    with pytest.raises(ValueError, match=r"without low-rank updates.*hidden"):
        with_update().quantize("int8")


def test_a_damaged_configuration_is_refused():
    config = with_update().get_layer("hidden").get_config()
    config["low_rank"] = [1]
    with pytest.raises(ValueError, match="low_rank"):
        snip_tf.MaskedLayer.from_config(config)

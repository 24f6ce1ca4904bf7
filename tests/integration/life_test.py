"""What happens to a pruned model after it is pruned, with calls of Keras alone."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf.weights import weights_by_path

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X = np.random.default_rng(0).normal(size=(32, 8, 8, 1)).astype(np.float32)
Y = np.arange(32) % 3


def make_model():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = keras.Input((8, 8, 1))
    y = layers.Conv2D(4, 3, name="conv")(x)
    y = layers.BatchNormalization(name="norm")(y)
    y = layers.Reshape((36, 4), name="rows")(y)
    y = layers.MultiHeadAttention(2, 4, name="attention")(y, y)
    y = layers.LSTM(5, name="lstm")(y)
    model = keras.Model(x, layers.Dense(3, name="head")(y), name="net")
    model.compile(keras.optimizers.Adam(0.01, weight_decay=0.01), LOSS)
    return model


def prune(model):
    return snip_tf.prune_model(model, X, Y, sparsity=0.8, seed=0)


def trained():
    pruned = prune(make_model())
    pruned.fit(X, Y, verbose=0)
    return pruned


@pytest.fixture(scope="module")
def pruned():
    """One for all tests that only read it."""
    return trained()


@pytest.fixture
def to_change():
    return trained()


@pytest.fixture
def unlike():
    """A pruned model of the same kind, with other weights and other masks."""
    model = make_model()
    weights = snip_tf.prunable_weights(model)
    masks = {path: np.zeros(w.shape, bool) for path, w in weights.items()}
    return snip_tf.apply_masks(model, masks)


def predicted(model):
    return np.asarray(model(X))


def assert_zeros(model):
    for path, weight in snip_tf.prunable_weights(model).items():
        assert not weight.numpy()[~snip_tf.get_masks(model)[path]].any(), path


def assert_like(model, pruned):
    """The same masks, the same outputs, and zeros that stay."""
    np.testing.assert_equal(snip_tf.get_masks(model), snip_tf.get_masks(pruned))
    np.testing.assert_array_equal(predicted(model), predicted(pruned))
    assert_zeros(model)
    model.compile("adam", LOSS)
    model.fit(X, Y, verbose=0)
    assert_zeros(model)


def test_deepcopy(pruned):
    assert_like(copy.deepcopy(pruned), pruned)


def test_a_clone_has_the_masks_and_takes_the_weights(pruned):
    clone = keras.models.clone_model(pruned)
    np.testing.assert_equal(snip_tf.get_masks(clone), snip_tf.get_masks(pruned))
    assert_zeros(clone)
    clone.set_weights(pruned.get_weights())
    assert_like(clone, pruned)


def test_configurations_hold_the_masks(pruned):
    for copied in (
        keras.Model.from_config(pruned.get_config()),
        keras.models.model_from_json(pruned.to_json()),
    ):
        copied.set_weights(pruned.get_weights())
        assert_like(copied, pruned)


def test_weights_of_the_model_before_it_was_pruned_fit(to_change):
    """To train again from the first weights, as for lottery tickets."""
    model = make_model()
    to_change.set_weights(model.get_weights())
    again = snip_tf.apply_masks(model, snip_tf.get_masks(to_change))
    np.testing.assert_array_equal(predicted(to_change), predicted(again))


def test_weights_saved_before_it_was_pruned_load(to_change, tmp_path):
    model = make_model()
    model.save_weights(tmp_path / "dense.weights.h5")
    masks = snip_tf.get_masks(to_change)
    to_change.load_weights(tmp_path / "dense.weights.h5")
    np.testing.assert_equal(snip_tf.get_masks(to_change), masks)
    again = snip_tf.apply_masks(model, masks)
    np.testing.assert_array_equal(predicted(to_change), predicted(again))
    weights = weights_by_path(to_change)
    assert not weights["conv/kernel"].numpy()[~masks["conv/kernel"]].any()


def test_pickled(pruned):
    model = built_without_config()
    masks = {"first/kernel": np.eye(8, 4, dtype=bool)}
    layer = snip_tf.apply_masks(model, masks).parts[0]
    assert_like(pickle.loads(pickle.dumps(pruned)), pruned)
    assert isinstance(pickle.loads(pickle.dumps(layer)), snip_tf.MaskedLayer)


def test_stripped_after_it_was_saved_to_hdf5(pruned, tmp_path):
    pruned.save(tmp_path / "legacy.h5")
    assert snip_tf.strip_pruning(pruned).compiled


def test_weights_saved_alone_bring_the_masks(pruned, unlike, tmp_path):
    pruned.save_weights(tmp_path / "some.weights.h5")
    unlike.load_weights(tmp_path / "some.weights.h5")
    assert_like(unlike, pruned)


def test_checkpoint_of_tensorflow(pruned, unlike, tmp_path):
    path = tf.train.Checkpoint(model=pruned).save(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(model=unlike).restore(path).assert_existing_objects_matched()
    assert_like(unlike, pruned)


def test_model_checkpoint(to_change, tmp_path):
    path = tmp_path / "model.keras"
    to_change.fit(X, Y, verbose=0, callbacks=[keras.callbacks.ModelCheckpoint(path)])
    assert_like(keras.models.load_model(path), to_change)


def test_a_run_that_was_killed_goes_on(tmp_path):
    class Kill(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    def fit(*more):
        pruned = prune(make_model())
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        options = {"epochs": 3, "shuffle": False, "verbose": 0}
        return pruned, pruned.fit(X, Y, callbacks=[backup, *more], **options)

    with pytest.raises(KeyboardInterrupt):
        fit(Kill())
    resumed, history = fit()
    assert history.epoch == [2]
    assert_zeros(resumed)


@pytest.mark.parametrize(
    "options",
    [
        {"run_eagerly": True},
        {"steps_per_execution": 2},
        pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
    ],
    ids=lambda options: next(iter(options)),
)
def test_ways_to_run_a_step(to_change, options):
    to_change.compile(
        keras.optimizers.Adam(gradient_accumulation_steps=2), LOSS, **options
    )
    before = to_change.get_weights()
    to_change.fit(X, Y, batch_size=8, verbose=0)
    to_change.train_on_batch(X, Y)
    assert_zeros(to_change)
    assert any(map(np.any, map(np.subtract, to_change.get_weights(), before)))


def test_saved_model(pruned, tmp_path):
    pruned.export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(loaded.serve(X), predicted(pruned), atol=1e-6)


def test_litert(tmp_path):
    interpreters = pytest.importorskip("ai_edge_litert.interpreter")
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3), keras.layers.Flatten()]
    )
    model.add(keras.layers.Dense(3))
    pruned = snip_tf.prune_model(model, X, Y, sparsity=0.8, loss=LOSS)
    pruned.export(tmp_path / "model.tflite", format="litert", verbose=False)
    interpreter = interpreters.Interpreter(str(tmp_path / "model.tflite"))
    run = interpreter.get_signature_runner()
    [name] = run.get_input_details()
    [output] = run(**{name: X[:1]}).values()
    np.testing.assert_allclose(output, predicted(pruned)[:1], atol=1e-5)


def test_onnx(tmp_path):
    pytest.importorskip("tf2onnx")
    runtime = pytest.importorskip("onnxruntime")
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(3))
    pruned = snip_tf.prune_model(model, X, Y, sparsity=0.8, loss=LOSS)
    pruned.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    [output] = session.run(None, {session.get_inputs()[0].name: X})
    np.testing.assert_allclose(output, predicted(pruned), atol=1e-5)


def test_quantized_after_it_is_stripped(pruned, tmp_path):
    masks = snip_tf.get_masks(pruned)
    stripped = snip_tf.strip_pruning(pruned)
    stripped.quantize("int8")
    weights = weights_by_path(stripped)
    for path in ("head/kernel", "attention/query/kernel"):
        assert weights[path].dtype == "int8"
        assert not weights[path].numpy()[~masks[path]].any(), path


def test_pruned_again(pruned):
    masks = snip_tf.get_masks(pruned)
    again = snip_tf.prune_model(pruned, X, Y, sparsity=0.9)
    for path, mask in snip_tf.get_masks(again).items():
        assert not (mask & ~masks[path]).any(), path
    assert snip_tf.sparsity(again) > snip_tf.sparsity(pruned)
    with pytest.raises(ValueError, match="at least 0"):
        snip_tf.prune_model(pruned, X, Y, sparsity=0.5)


class NoConfig(keras.Model):
    """As most subclassed models are: without `get_config`."""

    def __init__(self, units):
        super().__init__()
        first = keras.layers.Dense(units, name="first")
        self.parts = [first, keras.layers.Dense(3, name="second")]

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


def built_without_config():
    model = NoConfig(4)
    model(X[:, :, 0, 0])
    return model


def test_a_model_without_configuration_lives_on_in_weights_and_masks(tmp_path):
    x = X[:, :, 0, 0]
    pruned = snip_tf.prune_model(built_without_config(), x, Y, sparsity=0.5, loss=LOSS)
    with pytest.raises(NotImplementedError, match=r"get_config.*snip_tf.save_masks"):
        pruned.save(tmp_path / "model.keras")
    # What the message says:
    pruned.save_weights(tmp_path / "model.weights.h5")
    snip_tf.save_masks(tmp_path / "masks.npz", snip_tf.get_masks(pruned))
    masks = snip_tf.load_masks(tmp_path / "masks.npz")
    again = snip_tf.apply_masks(built_without_config(), masks)
    again.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(again(x), pruned(x))
    np.testing.assert_equal(snip_tf.get_masks(again), snip_tf.get_masks(pruned))


class Unregistered(keras.layers.Dense):
    pass


def test_classes_that_are_not_registered_are_named_when_loading(tmp_path):
    model = keras.Sequential([keras.Input((8,)), Unregistered(3, name="head")])
    pruned = snip_tf.prune_model(model, X[:, :, 0, 0], Y, sparsity=0.5, loss=LOSS)
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(
        tmp_path / "model.keras", custom_objects={"Unregistered": Unregistered}
    )
    assert isinstance(loaded.get_layer("head"), Unregistered)
    np.testing.assert_equal(snip_tf.get_masks(loaded), snip_tf.get_masks(pruned))


def test_code_in_a_file_is_not_run_unasked(tmp_path):
    double = keras.layers.Lambda(lambda x: 2 * x, output_shape=(3,))
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3), double])
    pruned = snip_tf.prune_model(model, X[:, :, 0, 0], Y, sparsity=0.5, loss=LOSS)
    pruned.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="unsafe"):
        keras.models.load_model(tmp_path / "model.keras")

import copy
import pickle

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf import controls

layers = keras.layers


def network():
    seeded = keras.initializers.GlorotUniform(seed=3)
    generator = keras.initializers.GlorotUniform(seed=keras.random.SeedGenerator(3))
    stack = [
        keras.Input((6, 6, 2)),
        layers.Conv2D(4, 3, kernel_initializer=seeded, name="conv"),
        layers.BatchNormalization(name="norm"),
        layers.Bidirectional(layers.LSTM(3), name="both"),
        layers.Dense(4, kernel_initializer=generator, name="head"),
    ]
    stack.insert(3, layers.Reshape((4, 16)))
    return keras.Sequential(stack)


@pytest.fixture
def pruned():
    keras.utils.set_random_seed(1)  # not those drawn in a test
    model = network()
    model.compile("adam", "mse")
    model.layers[0].kernel.assign(7 * model.layers[0].kernel)  # as if trained
    return snip_tf.prune_model(model, sparsity=0.7, criterion="random")


def test_shuffle_keeps_the_count_of_each_weight_and_moves_the_rest(pruned):
    masks = snip_tf.get_masks(pruned)
    shuffled = controls.shuffle(masks, seed=1)
    again, other = controls.shuffle(masks, seed=1), controls.shuffle(masks, seed=2)
    assert list(shuffled) == list(masks)
    for path, mask in masks.items():
        assert shuffled[path].shape == mask.shape
        assert shuffled[path].sum() == mask.sum()
        assert (shuffled[path] != mask).any()
        assert (shuffled[path] != other[path]).any()
        np.testing.assert_array_equal(shuffled[path], again[path])


def test_shuffle_is_uniform():
    mask = {"a": np.arange(10) < 3}
    counts = sum(controls.shuffle(mask, seed)["a"].astype(int) for seed in range(2000))
    assert np.abs(counts / 2000 - 0.3).max() < 0.05


def test_invert_keeps_the_smallest():
    scores = {"a": np.arange(10.0), "b": np.arange(5.0, 15.0)}
    masks = snip_tf.select_masks(controls.invert(scores), sparsity=0.75)
    np.testing.assert_array_equal(masks["a"], np.arange(10) < 5)
    assert not masks["b"].any()
    inverted = controls.invert({"a": np.array([0, 1, 200], np.uint8)})
    np.testing.assert_array_equal(inverted["a"], [0, -1, -200])


def test_inverts_a_criterion():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6), layers.Dense(4)])
    options = {"sparsity": 0.5, "scope": "layer"}
    best = snip_tf.prune_model(model, criterion="magnitude", **options)
    inverted = controls.invert("magnitude")
    worst = snip_tf.get_masks(snip_tf.prune_model(model, criterion=inverted, **options))
    for path, mask in snip_tf.get_masks(best).items():
        np.testing.assert_array_equal(worst[path], ~mask)
    of_steps = controls.invert(snip_tf.criteria.SynFlow(steps=3))
    assert (of_steps.steps, of_steps.needs_data) == (3, False)
    pruned = snip_tf.prune_model(model, criterion=of_steps, **options)
    assert snip_tf.sparsity(pruned) == 0.5
    with pytest.raises(ValueError, match="'snip', 'iterative_snip'"):
        controls.invert("sinp")


def test_an_inverted_criterion_is_what_it_was():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6), layers.Dense(4)])

    def masks(criterion, seed):
        options = {"sparsity": 0.5, "criterion": criterion, "seed": seed}
        return snip_tf.get_masks(snip_tf.prune_model(model, **options))

    inverted = controls.invert("random")
    twice = controls.invert(inverted)
    for path, mask in masks("random", 1).items():
        np.testing.assert_array_equal(masks(inverted, 1)[path], ~mask)
        np.testing.assert_array_equal(masks(twice, 1)[path], mask)
        assert (masks(inverted, 2)[path] != ~mask).any()
    force = controls.invert(snip_tf.criteria.Force(steps=3))
    assert (force.steps, force.revives) == (3, True)
    assert force.needs_data
    for again in (copy.deepcopy(force), pickle.loads(pickle.dumps(force))):
        assert again == force


@pytest.mark.parametrize(
    ("seed", "error"), [(-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_seeds_are_whole_numbers(seed, error):
    with pytest.raises(error, match=rf"`seed` to be a whole.*seed={seed}"):
        controls.shuffle({"a": np.ones(3, bool)}, seed)


def test_reinitialize_draws_every_weight_anew_and_keeps_the_masks(pruned):
    keras.utils.set_random_seed(0)
    before = pruned.get_weights()
    anew = controls.reinitialize(pruned)
    other = controls.reinitialize(pruned)
    masks = snip_tf.get_masks(pruned)
    for path, mask in snip_tf.get_masks(anew).items():
        np.testing.assert_array_equal(mask, masks[path])
        new = snip_tf.prunable_weights(anew)[path].numpy()
        for model in (pruned, other):
            old = snip_tf.prunable_weights(model)[path].numpy()
            assert (new[mask] != old[mask]).all(), path
        assert not new[~mask].any()
    for value, own in zip(before, pruned.get_weights(), strict=True):
        np.testing.assert_array_equal(value, own)
    assert anew.compiled
    assert isinstance(anew.optimizer, keras.optimizers.Adam)
    x = np.ones((2, 6, 6, 2), np.float32)
    assert anew(x).shape == (2, 4)
    keras.utils.set_random_seed(0)
    again = controls.reinitialize(pruned)
    np.testing.assert_array_equal(again(x), anew(x))


def test_reinitialize_a_dense_model():
    model = network()
    anew = controls.reinitialize(model)
    assert (anew.layers[0].kernel.numpy() != model.layers[0].kernel.numpy()).all()
    assert [w.shape for w in anew.weights] == [w.shape for w in model.weights]


@keras.saving.register_keras_serializable("controls_test")
class Seeded(layers.Layer):
    def build(self, shape):
        seeded = keras.initializers.GlorotUniform(seed=0)
        self.kernel = self.add_weight((shape[-1], 3), seeded, name="kernel")

    def call(self, x):
        return x @ self.kernel


def test_reinitialize_names_what_comes_out_the_same():
    stack = [Seeded(name="own"), layers.Dense(4, kernel_initializer=glorot())]
    model = keras.Sequential([keras.Input((8,)), *stack])
    pruned = snip_tf.prune_model(model, sparsity=0.5, criterion="random")
    with pytest.warns(UserWarning, match="initializer of own/kernel returns the"):
        controls.reinitialize(pruned)


def glorot():
    return keras.initializers.GlorotUniform(seed=0)


def test_scores_of_bfloat16():
    stack = [layers.Dense(n, dtype="bfloat16") for n in (6, 4)]
    model = keras.Sequential([keras.Input((8,), dtype="bfloat16"), *stack])
    best = snip_tf.prune_model(model, sparsity=0.5, criterion="magnitude")
    again = snip_tf.prune_model(best, sparsity=0.8, criterion="magnitude")
    inverted = controls.invert("magnitude")
    worst = snip_tf.prune_model(model, sparsity=0.5, criterion=inverted)
    masks = [snip_tf.get_masks(each).values() for each in (best, again, worst)]
    for first, second, last in zip(*masks, strict=True):
        assert not (second & ~first).any()
        assert (last & first).sum() <= 4  # equals, of which bfloat16 makes some


class NoConfig(keras.Model):
    def __init__(self, units):
        super().__init__()
        self.dense = layers.Dense(units)

    def call(self, x):
        return self.dense(x)


def test_says_what_cannot_be_made_again():
    model = NoConfig(3)
    model(np.ones((1, 2), np.float32))
    with pytest.raises(ValueError, match=r"configuration.*NoConfig"):
        controls.reinitialize(model)
    with pytest.raises(TypeError, match="Keras 3 model"):
        controls.reinitialize("model")
    with pytest.raises(TypeError, match="boolean NumPy array"):
        controls.shuffle({"a": np.ones(3)})

"""SET and RigL against what their papers say, written in NumPy."""

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf.network import Network
from tests.schedules.programs import LOSS, RNG, Recorder, X, Y, dense, fit, sparse

layers = keras.layers


def hidden_layer_network():
    """Two layers without biases, whose gradients are written out below."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(10, "relu", use_bias=False, name="hidden"),
            layers.Dense(4, use_bias=False, name="out"),
        ]
    )
    model.compile("sgd", LOSS)
    return snip_tf.prune_model(model, sparsity=0.6, criterion="random", seed=3)


def dense_gradients(weights, x, y):
    """dL/dw of the effective weights in float64, of removed connections too."""
    first, second = (weights[p].astype(np.float64) for p in weights)
    hidden = np.maximum(x @ first, 0)
    logits = hidden @ second
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    by_logits = exponents / exponents.sum(axis=1, keepdims=True)
    by_logits[np.arange(len(y)), y] -= 1
    by_logits /= len(y)
    by_hidden = by_logits @ second.T * (hidden > 0)
    return {"hidden/kernel": x.T @ by_hidden, "out/kernel": hidden.T @ by_logits}


def fraction(step, end, of):
    return of / 2 * (1 + np.cos(np.pi * step / end))


def recorded(schedule, pruned, **options):
    """Masks and weights just before and just after what the schedule does."""
    before, after = Recorder(), Recorder()
    fit(pruned, before, schedule, after, **options)
    return before, after


def test_rigl_against_numpy():
    schedule = snip_tf.RigL(X, Y, frequency=5, end_step=17, fraction=0.4, seed=0)
    before, after = recorded(schedule, hidden_layer_network(), epochs=3)
    changed = 0
    for step in range(1, 25):
        old, new = before.masks[step - 1], after.masks[step - 1]
        weights = before.weights[step - 1]
        gradients = dense_gradients(weights, X.astype(np.float64), Y)
        for path, mask in old.items():
            count = 0
            if step in (5, 10, 15, 17):
                count = int(fraction(step, 17, 0.4) * mask.sum())
            gone, come = mask & ~new[path], ~mask & new[path]
            smallest = np.sort(np.abs(weights[path])[mask])[:count]
            largest = np.sort(np.abs(gradients[path])[~mask])[::-1][:count]
            np.testing.assert_array_equal(
                np.sort(np.abs(weights[path])[gone]), smallest
            )
            np.testing.assert_allclose(
                np.sort(np.abs(gradients[path])[come])[::-1], largest, rtol=1e-4
            )
            assert not after.weights[step - 1][path][come].any()
            changed += count
    assert changed > 20


def test_rigl_draws_other_examples_for_each_update():
    """Of each example, only the weights of one input have a gradient."""
    x, y = np.eye(12, dtype=np.float32), np.zeros(12, int)
    pruned = hidden_layer_network()

    def inputs_of(seed):
        schedule = snip_tf.RigL(x, y, 1, end_step=40, batch_size=1, seed=seed)
        schedule.set_model(pruned)
        found = [schedule._growth(Network(pruned), step) for step in range(1, 20)]
        rows = [np.flatnonzero(g["hidden/kernel"].any(axis=1)) for g in found]
        return [int(row[0]) for row in rows if len(row) == 1]

    assert len(set(inputs_of(0))) > 5
    assert inputs_of(0) == inputs_of(0) != inputs_of(1)


def test_set_against_numpy():
    schedule = snip_tf.SET(frequency=4, end_step=14, fraction=0.25, seed=7)
    before, after = recorded(schedule, sparse())
    for step in range(1, 17):
        old, new = before.masks[step - 1], after.masks[step - 1]
        for path, mask in old.items():
            count = int(0.25 * mask.sum()) if step in (4, 8, 12, 14) else 0
            gone, come = mask & ~new[path], ~mask & new[path]
            weights = before.weights[step - 1][path]
            smallest = np.sort(np.abs(weights)[mask])[:count]
            np.testing.assert_array_equal(np.sort(np.abs(weights)[gone]), smallest)
            assert come.sum() == count
            assert not after.weights[step - 1][path][come].any()


def test_set_draws_uniformly():
    """Each removed connection comes about equally often."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="one")])
    mask = np.zeros((8, 8), bool)
    mask[0] = True
    pruned = snip_tf.apply_masks(model, {"one/kernel": mask})
    counts = np.zeros((8, 8))
    for seed in range(400):
        schedule = snip_tf.SET(frequency=1, end_step=1, fraction=0.5, seed=seed)
        schedule.set_model(pruned)
        new = schedule._new_masks(Network(pruned), 1)["one/kernel"]
        counts += new & ~mask
    assert not counts[0].any()
    # 1600 in 56 places: 28.6 on average, with a standard deviation of 5.2.
    assert counts[1:].min() > 8 and counts[1:].max() < 52


@pytest.mark.parametrize("make", [snip_tf.SET, lambda **o: snip_tf.RigL(X, Y, **o)])
def test_the_number_kept_of_each_weight_stays(make):
    pruned, recorder = sparse(), Recorder()
    kept = {path: mask.sum() for path, mask in snip_tf.get_masks(pruned).items()}
    fit(pruned, make(frequency=1, fraction=0.5, seed=0), recorder)
    for masks in recorder.masks:
        assert {path: mask.sum() for path, mask in masks.items()} == kept
    assert any((a != b).any() for a, b in zip(*_two(recorder.masks), strict=True))


def _two(masks):
    return masks[0].values(), masks[-1].values()


def test_end_step_is_three_quarters_of_fit():
    recorder = Recorder()
    fit(sparse(), snip_tf.SET(frequency=5, seed=0), recorder)  # 16 steps
    changes = [
        step
        for step in range(2, 17)
        if any(
            (recorder.masks[step - 1][p] != recorder.masks[step - 2][p]).any()
            for p in recorder.masks[0]
        )
    ]
    assert changes == [5, 10, 12]


def test_end_step_is_needed_where_fit_does_not_know_its_steps():
    def batches():
        for start in range(0, 128, 16):
            yield X[start : start + 16], Y[start : start + 16]

    with pytest.raises(ValueError, match=r"Expected `end_step`.*unknown length"):
        sparse().fit(batches(), callbacks=[snip_tf.SET()], verbose=0)
    pruned, recorder = sparse(), Recorder()
    schedule = snip_tf.SET(frequency=2, end_step=4, seed=0)
    pruned.fit(batches(), callbacks=[schedule, recorder], verbose=0)
    assert len(recorder.masks) == 8


def test_frozen_weights_are_refused():
    pruned = sparse()
    pruned.get_layer("second").trainable = False
    pruned.compile("sgd", LOSS)
    with pytest.raises(ValueError, match=r"second/kernel, frozen"):
        fit(pruned, snip_tf.RigL(X, Y, frequency=2))


def test_a_dense_model_has_nothing_to_replace():
    pruned, recorder = dense(), Recorder()
    fit(pruned, snip_tf.SET(frequency=2, seed=0), recorder)
    assert all(mask.all() for masks in recorder.masks for mask in masks.values())


def test_rigl_in_training_mode_leaves_the_model_alone():
    """The gradients change neither statistics nor seeds."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(16, name="hidden"),
            layers.BatchNormalization(),
            layers.Dropout(0.5, seed=1),
            layers.Dense(4, name="out"),
        ]
    )
    model.compile("sgd", LOSS)
    pruned = snip_tf.prune_model(model, sparsity=0.5, criterion="random", seed=0)
    schedule = snip_tf.RigL(X, Y, frequency=1, end_step=10, seed=0)
    schedule.set_model(pruned)
    masked = {mask.path for mask in pruned.variables if "_mask" in mask.path}
    others = [v for v in pruned.variables if "kernel" not in v.path]
    before = [keras.ops.convert_to_numpy(v) for v in others]
    pruned.optimizer.iterations.assign(1)
    schedule.step()
    assert masked
    for variable, value in zip(others, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"frequency": 0}, ValueError, "frequency=0"),
        ({"frequency": 1.5}, TypeError, "frequency=1.5"),
        ({"fraction": 0}, ValueError, "fraction=0"),
        ({"fraction": 1.0}, ValueError, "fraction=1.0"),
        ({"end_step": 50}, ValueError, "end_step=50"),
        ({"seed": -1}, ValueError, "seed=-1"),
    ],
)
def test_bad_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        snip_tf.SET(**arguments)
    with pytest.raises(error, match=words):
        snip_tf.RigL(X, Y, **arguments)


def test_rigl_without_data():
    with pytest.raises(ValueError, match="x=None"):
        snip_tf.RigL(None)


def test_an_end_beyond_fit_warns():
    with pytest.warns(UserWarning, match=r"step 16, before end_step=100"):
        fit(sparse(), snip_tf.SET(frequency=4, end_step=100, seed=RNG.integers(9)))

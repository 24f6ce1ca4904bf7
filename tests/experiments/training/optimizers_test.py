import keras
import numpy as np
import pytest

from snip_tf.experiments.training import optimizers
from snip_tf.experiments.training.optimizers import make_optimizer


def steps(optimizer, gradients):
    """How far each gradient, one for each iteration, moves a weight."""
    weight = keras.Variable(np.zeros(()))
    values = [0.0]
    for gradient in gradients:
        optimizer.apply([np.float32(gradient)], [weight])
        values.append(float(weight))
    return np.diff(values)


def rate_at(optimizer, iteration):
    optimizer.iterations.assign(iteration)
    return float(optimizer.learning_rate)


def test_a_constant_rate():
    moved = steps(make_optimizer("sgd", 0.25), [1, -2, 4])
    np.testing.assert_array_equal(moved, [-0.25, 0.5, -1])


def test_a_piecewise_rate_changes_exactly_at_its_boundaries():
    # Rates and sums that float32 holds exactly.
    optimizer = make_optimizer(
        "sgd", 9.0, "piecewise", [1, 3, 6], [8.0, 1.0, 0.5, 0.25]
    )
    moved = steps(optimizer, np.ones(8))
    expected = [8, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
    np.testing.assert_array_equal(-moved, expected)


def test_the_schedule_of_the_authors_vgg():
    boundaries = [30_000, 60_000, 90_000, 120_000]
    values = [0.1, 0.02, 0.004, 0.0008, 0.00016]
    optimizer = make_optimizer("momentum", 0.1, "piecewise", boundaries, values)
    optimizer.build([])
    assert rate_at(optimizer, 0) == np.float32(0.1)
    assert rate_at(optimizer, 149_999) == np.float32(0.00016)
    for boundary, before, after in zip(boundaries, values, values[1:], strict=False):
        assert rate_at(optimizer, boundary - 1) == np.float32(before)
        assert rate_at(optimizer, boundary) == np.float32(after)


def test_momentum_is_sgd_with_momentum_09():
    gradients = [1.0, -2.0, 0.5, 0.0]
    moved = steps(make_optimizer("momentum", 0.1), gradients)
    velocity, expected = 0.0, []
    for gradient in gradients:
        velocity = 0.9 * velocity - 0.1 * gradient
        expected.append(velocity)
    np.testing.assert_allclose(moved, expected, rtol=1e-5)


def test_adam():
    gradients = np.array([1.0, -2.0, 0.5])
    moved = steps(make_optimizer("adam", 0.01), gradients)
    first = second = 0.0
    for t, gradient in enumerate(gradients, 1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        expected = -0.01 * (first / (1 - 0.9**t)) / np.sqrt(second / (1 - 0.999**t))
        np.testing.assert_allclose(moved[t - 1], expected, rtol=1e-3)


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_decoupled_weight_decay_takes_its_part_of_the_rate_off(name):
    weight = keras.Variable([2.0, -1.0])
    make_optimizer(name, 0.1, weight_decay=0.05).apply([np.zeros(2)], [weight])
    np.testing.assert_allclose(weight, [2 * 0.995, -0.995], rtol=1e-6)


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_each_call_makes_a_new_optimizer(name):
    assert make_optimizer(name, 0.1) is not make_optimizer(name, 0.1)


@pytest.mark.parametrize(
    ("boundaries", "values"),
    [([], []), ([], [0.1]), ([10], []), ([10], [0.1]), ([10], [0.1, 0.01, 0.001])],
)
def test_one_value_more_than_boundaries(boundaries, values):
    with pytest.raises(ValueError, match=r"one more value than boundaries.*Received"):
        make_optimizer("sgd", 0.1, "piecewise", boundaries, values)


@pytest.mark.parametrize(
    "boundaries", [[20, 10], [10, 10], [0, 10], [-5, 10], [10, 2**63]]
)
def test_boundaries_increase_from_1_on(boundaries):
    with pytest.raises(ValueError, match=r"increasing boundaries.*Received"):
        make_optimizer("sgd", 0.1, "piecewise", boundaries, [0.1, 0.01, 0.001])


@pytest.mark.parametrize(
    ("boundaries", "values"), [([10], []), ([], [0.1]), ([10], [0.1, 0.01])]
)
def test_a_constant_rate_takes_no_boundaries_or_values(boundaries, values):
    with pytest.raises(ValueError, match=r"'constant'.*Use.*'piecewise'"):
        make_optimizer("sgd", 0.1, "constant", boundaries, values)

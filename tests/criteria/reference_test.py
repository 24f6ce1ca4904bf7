"""Every criterion against a float64 reference that knows nothing of the library."""

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf import criteria
from snip_tf.criteria import ScoringContext
from snip_tf.network import prunable_weights
from snip_tf.scoring.objective import Objective
from tests import numpy_reference as reference

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
STEPS = 7


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(1)
    dense = [keras.layers.Dense(units, "relu") for units in (14, 11)]
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Flatten(), *dense, keras.layers.Dense(5)]
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6, 6, 1)).astype(np.float32)
    return model, x, np.arange(40) % 5


def parts(model):
    """Kernels and biases, in float64."""
    weights = [w.astype(np.float64) for w in model.get_weights()]
    return weights[::2], weights[1::2]


def gradients(kernels, biases, x, y, temperature=1.0):
    """dL/dw by hand; logits divided by a temperature."""
    both = [w for pair in zip(kernels, biases, strict=True) for w in pair]
    both[-2:] = [w / temperature for w in both[-2:]]
    *first, last = reference.lenet300_gradients(both, x, y)
    return [*first, last / temperature]


def snip(model, x, y):
    kernels, biases = parts(model)
    found = gradients(kernels, biases, x, y)
    return [np.abs(w * g) for w, g in zip(kernels, found, strict=True)]


def grasp(model, x, y):
    """w * (H g), the Hessian by differences of the gradient along g."""
    kernels, biases = parts(model)
    along = gradients(kernels, biases, x, y, 200.0)
    sides = []
    for step in (1e-4, -1e-4):
        moved = [w + step * g for w, g in zip(kernels, along, strict=True)]
        sides.append(gradients(moved, biases, x, y, 200.0))
    return [w * (up - down) / 2e-4 for w, up, down in zip(kernels, *sides, strict=True)]


def synflow(kernels, masks):
    """|w| * dR/d|w| by the product of the matrices on both sides of a weight."""
    a, b, c = (np.abs(w) * m for w, m in zip(kernels, masks, strict=True))
    ones = np.ones(len(a))
    outer = [
        np.outer(ones, b @ c.sum(1)),
        np.outer(ones @ a, c.sum(1)),
        np.outer(ones @ a @ b, np.ones(c.shape[1])),
    ]
    return [w * o for w, o in zip((a, b, c), outer, strict=True)]


def in_steps(score, size, sparsity, stays_out):
    """The masks of a criterion in steps, by a full sort each."""
    masks = None
    for step in range(1, STEPS + 1):
        scores = score(masks)
        if stays_out and masks:
            scores = [np.where(m, s, -1) for m, s in zip(masks, scores, strict=True)]
        final = round((1 - sparsity) * size)
        kept = round(size * (final / size) ** (step / STEPS))
        masks = reference.keep_largest(scores, kept)
    return masks


def expected_masks(name, model, x, y, sparsity):
    kernels, biases = parts(model)
    size = sum(w.size for w in kernels)
    ones = [np.ones(w.shape, bool) for w in kernels]

    def sensitivity(masks):
        left = [w * m for w, m in zip(kernels, masks or ones, strict=True)]
        found = gradients(left, biases, x, y)
        return [np.abs(w * g) for w, g in zip(kernels, found, strict=True)]

    if name in ("iterative_snip", "force"):
        return in_steps(sensitivity, size, sparsity, name == "iterative_snip")
    if name == "synflow":
        return in_steps(lambda m: synflow(kernels, m or ones), size, sparsity, True)
    scores = {
        "snip": snip,
        "grasp": grasp,
        "magnitude": lambda *_: map(np.abs, kernels),
    }
    kept = round((1 - sparsity) * size)
    return reference.keep_largest(list(scores[name](model, x, y)), kept)


SETTINGS = {
    "iterative_snip": criteria.IterativeSnip(STEPS),
    "force": criteria.Force(STEPS),
    "synflow": criteria.SynFlow(STEPS),
}


@pytest.mark.filterwarnings("ignore:Pruning kept nothing")
@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.97])
# (wanda_test.py and ntk_sap_test.py have references of their own.)
@pytest.mark.parametrize(
    "name", [name for name in criteria.CRITERIA if name not in ("wanda", "ntk_sap")]
)
def test_masks_are_those_of_the_reference(network, name, sparsity):
    model, x, y = network
    pruned = snip_tf.prune_model(
        model,
        x,
        y,
        sparsity=sparsity,
        loss=LOSS,
        criterion=SETTINGS.get(name, name),
    )
    masks = list(snip_tf.get_masks(pruned).values())
    if name == "random":
        assert sum(m.sum() for m in masks) == round((1 - sparsity) * 713)
        return
    expected = expected_masks(name, model, x, y, sparsity)
    for mask, own in zip(masks, expected, strict=True):
        np.testing.assert_array_equal(mask, own)


@pytest.mark.parametrize("pieces", [1, 4])
@pytest.mark.parametrize("name", ["snip", "grasp", "synflow", "magnitude"])
def test_scores_are_those_of_the_reference(network, name, pieces):
    model, x, y = network
    kernels, _ = parts(model)
    weights = prunable_weights(model)
    ones = {path: np.ones(w.shape, bool) for path, w in weights.items()}
    masks = ones if name == "synflow" else {}
    rows = np.split(np.arange(40), pieces)
    batches = [(x[part], y[part], None) for part in rows]
    context = ScoringContext(
        model, weights, batches, objective=Objective(LOSS), masks=masks
    )
    scores = criteria.get(name)(context)
    expected = {
        "snip": lambda: snip(model, x, y),
        "grasp": lambda: grasp(model, x, y),
        "synflow": lambda: synflow(kernels, list(ones.values())),
        "magnitude": lambda: [np.abs(w) for w in kernels],
    }[name]()
    for score, own in zip(scores.values(), expected, strict=True):
        scale = np.abs(own).mean()
        np.testing.assert_allclose(np.asarray(score), own, rtol=1e-4, atol=1e-4 * scale)


def test_random_scores_are_uniform_and_of_the_seed():
    weights = {"a": keras.Variable(np.zeros((300, 500), np.float32))}
    model = keras.Sequential()

    def random(own=None, seed=None):
        return criteria.Random(own)(ScoringContext(model, weights, seed=seed))["a"]

    draw = [random(seed=seed) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(draw[0], draw[1])
    assert (draw[0] != draw[2]).mean() > 0.99
    counts, _ = np.histogram(draw[0], 10, (0, 1))
    assert np.abs(counts / 15000 - 1).max() < 0.05
    keras.utils.set_random_seed(5)
    first = random()
    keras.utils.set_random_seed(5)
    np.testing.assert_array_equal(first, random())
    np.testing.assert_array_equal(draw[0], random(own=3, seed=4))

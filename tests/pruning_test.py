import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from tests import numpy_reference

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
GRADIENTS = {
    "lenet300": numpy_reference.lenet300_gradients,
    "lenet5": numpy_reference.lenet5_gradients,
}


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 8)).astype(np.float32), rng.integers(4, size=32)


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, activation="relu", name="hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(4, name="head"),
        ]
    )


def kept(model):
    return {path: int(m.sum()) for path, m in snip_tf.get_masks(model).items()}


def assert_same(left, right):
    assert list(left) == list(right)
    for path in left:
        np.testing.assert_array_equal(left[path], right[path])


@pytest.mark.parametrize("sparsity", [0, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_sparsity_is_exact_to_one_weight(model, data, sparsity, scope):
    if sparsity == 0.99:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pruned = snip_tf.prune_model(
                model, *data, sparsity=sparsity, scope=scope, loss=LOSS
            )
    else:
        pruned = snip_tf.prune_model(
            model, *data, sparsity=sparsity, scope=scope, loss=LOSS
        )
    numbers = kept(pruned)
    if scope == "layer":
        for path, size in (("hidden/kernel", 128), ("head/kernel", 64)):
            assert abs(numbers[path] - (1 - sparsity) * size) < 1
    assert sum(numbers.values()) == round((1 - sparsity) * 192)


def test_all_forms_of_data_give_the_same_masks(model, data):
    x, y = data

    class Whole(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return x, y

    def prune(*data):
        return snip_tf.get_masks(
            snip_tf.prune_model(model, *data, sparsity=0.5, loss=LOSS)
        )

    expected = prune(x, y)
    for same in (
        (tf.constant(x), tf.constant(y)),
        (tf.data.Dataset.from_tensors((x, y)),),
        (Whole(),),
        (iter([(x, y)]),),
    ):
        assert_same(prune(*same), expected)


def test_builds_an_unbuilt_model_on_the_first_batch(data):
    model = keras.Sequential([keras.layers.Dense(4, name="head")])
    pruned = snip_tf.prune_model(model, *data, sparsity=0.5, loss=LOSS)
    assert kept(pruned) == {"head/kernel": 16}


def test_include_and_exclude(model, data):
    pruned = snip_tf.prune_model(
        model, *data, sparsity=0.5, loss=LOSS, include="head/bias", exclude="hidden/*"
    )
    assert set(kept(pruned)) == {"head/kernel", "head/bias"}
    assert snip_tf.sparsity(pruned) == 0.5


def test_several_batches_equal_one_larger(model, data):
    x, y = data
    whole = snip_tf.prune_model(model, x, y, sparsity=0.5, loss=LOSS)
    parts = snip_tf.prune_model(
        model, x, y, sparsity=0.5, loss=LOSS, batch_size=8, batches=4
    )
    assert_same(snip_tf.get_masks(whole), snip_tf.get_masks(parts))


def test_a_criterion_may_be_a_callable(model, data):
    def magnitude(context):
        return {path: np.abs(w.numpy()) for path, w in context.weights.items()}

    pruned = snip_tf.prune_model(model, *data, sparsity=0.75, criterion=magnitude)
    weights = np.concatenate(
        [w.numpy().ravel() for w in snip_tf.prunable_weights(model).values()]
    )
    threshold = np.sort(np.abs(weights))[-48]
    for path, w in snip_tf.prunable_weights(model).items():
        expected = np.abs(w.numpy()) >= threshold
        np.testing.assert_array_equal(snip_tf.get_masks(pruned)[path], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda scores: scores.popitem(), "exactly the weights"),
        (lambda scores: scores.update(x=0), "exactly the weights"),
        (
            lambda scores: scores.update({"head/kernel": np.ones(3)}),
            "of shape \\(3,\\)",
        ),
        (
            lambda scores: scores.update({"head/kernel": np.full((16, 4), np.nan)}),
            "64 of the scores of 'head/kernel' are NaN",
        ),
    ],
)
def test_refuses_scores_that_do_not_fit(model, data, change, message):
    def criterion(context):
        scores = {path: np.ones(w.shape) for path, w in context.weights.items()}
        change(scores)
        return scores

    with pytest.raises(ValueError, match=message):
        snip_tf.prune_model(model, *data, sparsity=0.5, criterion=criterion)


def test_pruning_again_does_not_revive_connections(model, data):
    once = snip_tf.prune_model(model, *data, sparsity=0.5, loss=LOSS)
    twice = snip_tf.prune_model(once, *data, sparsity=0.8, loss=LOSS)
    assert snip_tf.sparsity(twice) == pytest.approx(0.8, abs=1 / 192)
    for path, mask in snip_tf.get_masks(twice).items():
        assert not (mask & ~snip_tf.get_masks(once)[path]).any()
    with pytest.raises(ValueError, match=r"at least 0\.8.*already pruned to that"):
        snip_tf.prune_model(twice, *data, sparsity=0.5, loss=LOSS)


def test_a_warning_has_no_control_characters():
    red = "\x1b[31m"
    inputs = keras.Input((2,))
    hidden = keras.layers.Dense(2, name=f"{red}1")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name=f"{red}2")(hidden))
    model.layers[1].kernel.assign(np.zeros((2, 2)))
    with pytest.warns(UserWarning, match="kept nothing of") as caught:
        snip_tf.prune_model(model, sparsity=0.5, criterion="magnitude")
    assert all(str(each.message).isprintable() for each in caught)
    with pytest.raises(ValueError, match="which matches none") as raised:
        snip_tf.prunable_weights(model, exclude="zzz")
    assert str(raised.value).isprintable()


def test_warns_of_a_layer_that_kept_nothing(model, data):
    def only_hidden(context):
        return {
            path: np.full(w.shape, float(path.startswith("hidden")))
            for path, w in context.weights.items()
        }

    options = {"sparsity": 0.5, "criterion": only_hidden}
    with pytest.warns(snip_tf.CollapseWarning, match="kept nothing of head/kernel"):
        snip_tf.prune_model(model, *data, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", snip_tf.CollapseWarning)
        with pytest.raises(snip_tf.CollapseWarning, match="nothing of head/kernel"):
            snip_tf.prune_model(model, *data, **options)
        kept = snip_tf.prune_model(model, *data, min_kept=1, **options)
    masks = snip_tf.get_masks(kept)
    assert masks["head/kernel"].sum() == 1
    assert sum(m.sum() for m in masks.values()) == round(
        0.5 * sum(m.size for m in masks.values())
    )


def test_without_data_only_criteria_that_need_none(model):
    for criterion in ("synflow", "magnitude", "random"):
        pruned = snip_tf.prune_model(model, sparsity=0.5, criterion=criterion)
        assert snip_tf.sparsity(pruned) == 0.5
    for criterion in ("snip", "grasp", "force", "iterative_snip", only_shape):
        with pytest.raises(ValueError, match=r"x=None .*synflow, magnitude, random"):
            snip_tf.prune_model(model, sparsity=0.5, criterion=criterion)


def only_shape(context):
    return {path: np.ones(w.shape) for path, w in context.weights.items()}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sparsity": 95}, ValueError, r"sparsity=0\.95"),
        ({"sparsity": 1.0}, ValueError, "every weight"),
        ({"sparsity": -0.5}, ValueError, "0 <= sparsity < 1"),
        ({"sparsity": float("nan")}, ValueError, "Received: sparsity=nan"),
        ({"sparsity": "0.95"}, TypeError, "Received: sparsity='0.95' of type str"),
        ({"scope": "local"}, ValueError, "'global', 'layer', 'unit', 'erk'"),
        ({"structure": "filters"}, ValueError, "'weights', 'units', 'N:M'"),
        ({"structure": 4}, TypeError, "`structure` to be a string, or a value"),
        ({"structure": snip_tf.NOfM}, TypeError, r"write NOfM\(\.\.\.\)"),
        ({"sparsity": {}}, ValueError, "at least one"),
        ({"sparsity": {"*": 95}}, ValueError, r"sparsity\['\*'\]=0\.95"),
        ({"verbose": 2}, ValueError, "`verbose` to be 'auto', 0 or 1"),
        ({"criterion": "sinp"}, ValueError, "'snip'"),
        ({"batch_size": 0}, ValueError, "`batch_size` to be a whole number, 1 or more"),
        ({"batches": 0}, ValueError, "`batches` to be a whole number, 1 or more"),
        ({"include": "hiden/*"}, ValueError, "Did you mean 'hidden/"),
        ({"exclude": "*"}, ValueError, "at least one prunable weight"),
        ({"loss": None}, ValueError, "not compiled"),
    ],
)
def test_bad_arguments(model, data, arguments, error, message):
    with pytest.raises(error, match=message):
        snip_tf.prune_model(
            model, *data, **{"sparsity": 0.5, "loss": LOSS, **arguments}
        )


def test_bad_data(model, data):
    x, y = data
    bad = [
        ((x, y[:-1]), "x has 32, y has 31"),
        ((x[:0], y[:0]), "0 examples"),
        ((x, y + 1), "labels from 0 to 3.*labels from 1 to 4"),
        ((x * np.nan, y), "finite loss"),
        ((x, None), "y=None"),
        ((tf.data.Dataset.from_tensors((x, y)).take(0),), "it is empty"),
    ]
    for data, message in bad:
        with pytest.raises(ValueError, match=message):
            snip_tf.prune_model(model, *data, sparsity=0.5, loss=LOSS)


def test_a_gradient_that_is_not_finite_names_the_weight(model, data):
    def rooted(y_true, y_pred):
        # The square root of 0 has an infinite slope: 0 * inf is NaN.
        return keras.ops.sqrt(keras.ops.sum(y_pred * 0, axis=-1))

    with pytest.raises(ValueError, match="'hidden/kernel' are NaN"):
        snip_tf.prune_model(model, *data, sparsity=0.5, loss=rooted)


def test_sensitivity_of_a_loss_that_is_flat(model, data):
    def flat(y_true, y_pred):
        return keras.ops.sum(y_pred * 0, axis=-1)

    with pytest.raises(ValueError, match="are zero for every prunable weight"):
        snip_tf.connection_sensitivity(model, *data, loss=flat)


def test_nothing_prunable(data):
    model = keras.Sequential([keras.Input((8,)), keras.layers.BatchNormalization()])
    with pytest.raises(ValueError, match="at least one prunable weight"):
        snip_tf.prune_model(model, *data, sparsity=0.5, loss="mse")
    for thing in (None, "model.keras", keras.layers.Dense(3)):
        with pytest.raises(TypeError, match="Keras 3 model"):
            snip_tf.prune_model(thing, *data, sparsity=0.5)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum"])
@pytest.mark.parametrize("size", [1, 5, 16, 100])
def test_pieces_score_as_one_mini_batch(size, reduction):
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(20, "tanh", name="hidden")
    normalization = keras.layers.BatchNormalization()
    layers = [keras.Input((8,)), hidden, normalization, keras.layers.Dense(3)]
    model = keras.Sequential(layers)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 8)), rng.normal(size=(16, 3))
    weights = rng.uniform(size=16)
    loss = keras.losses.MeanSquaredError(reduction=reduction)
    options = {"x": x, "y": y, "sample_weight": weights, "loss": loss}
    whole = snip_tf.connection_sensitivity(model, **options)
    cut = {"batch_size": size, "batches": -(-16 // size)}
    pieces = snip_tf.connection_sensitivity(model, **options, **cut)
    for path in whole:
        np.testing.assert_allclose(pieces[path], whole[path], rtol=1e-4, atol=1e-8)
    pruned = [
        snip_tf.prune_model(model, **options, sparsity=0.9, **how) for how in ({}, cut)
    ]
    np.testing.assert_equal(*map(snip_tf.get_masks, pruned))


def test_batches_are_what_the_criterion_sees():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    x, y = np.zeros((10, 8)), np.zeros((10, 3))
    sizes = []

    def criterion(context):
        sizes.extend(len(batch[0]) for batch in context.batches)
        return only_shape(context)

    options = {"sparsity": 0.5, "criterion": criterion, "batch_size": 4, "batches": 3}
    snip_tf.prune_model(model, x, y, **options)
    assert sizes == [4, 4, 2]


def test_a_pruned_model_is_scored_by_any_criterion():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    x, y = np.zeros((10, 8)), np.zeros((10, 4))
    scores = {}

    def criterion(context):
        for path, weight in context.weights.items():
            scores[path] = np.arange(np.prod(weight.shape)).reshape(weight.shape)
        return scores

    once = snip_tf.prune_model(model, x, y, sparsity=0.5, criterion=criterion)
    twice = snip_tf.prune_model(once, x, y, sparsity=0.75, criterion=criterion)
    [mask] = snip_tf.get_masks(twice).values()
    assert mask.ravel().tolist() == [False] * 24 + [True] * 8
    [score] = scores.values()
    assert score.min() == 0, "what the criterion returned was changed"

"""What must hold of criteria in any network."""

import functools
import itertools
import warnings

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf

import snip_tf
from snip_tf import criteria
from snip_tf.criteria import ScoringContext
from snip_tf.criteria.grasp import hessian_products
from snip_tf.scoring.objective import Objective
from snip_tf.weights import prunable_weights

layers = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def dense(*units, name="dense"):
    hidden = [layers.Dense(n, "relu") for n in units[1:-1]]
    stack = [keras.Input(units[:1]), *hidden, layers.Dense(units[-1])]
    return keras.Sequential(stack, name=name)


def data(features=12, classes=4):
    x = np.random.default_rng(0).normal(size=(32, features)).astype(np.float32)
    return x, np.arange(32) % classes


def bits(model):
    return np.concatenate([m.ravel() for m in snip_tf.get_masks(model).values()])


def masks_of_each_step(kind, model, x, y, sparsity, steps):
    seen = []

    class Recording(kind):
        def __call__(self, context):
            masks = context.masks.values()
            seen.append(np.concatenate([m.ravel() for m in masks]))
            return super().__call__(context)

    pruned = snip_tf.prune_model(
        *(model, x, y), sparsity=sparsity, loss=LOSS, criterion=Recording(steps)
    )
    return [*seen, bits(pruned)]


@pytest.mark.parametrize("kind", [criteria.IterativeSnip, criteria.Force])
def test_one_step_is_snip(kind):
    model, (x, y) = dense(12, 9, 4), data()
    one, snip = (
        snip_tf.prune_model(model, x, y, sparsity=0.8, loss=LOSS, criterion=criterion)
        for criterion in (kind(steps=1), "snip")
    )
    np.testing.assert_array_equal(bits(one), bits(snip))


@pytest.mark.parametrize("kind", [criteria.IterativeSnip, criteria.Force])
def test_the_fraction_kept_falls_exponentially_and_only_force_revives(kind):
    keras.utils.set_random_seed(0)
    model, (x, y) = dense(12, 30, 30, 4), data()
    steps = masks_of_each_step(kind, model, x, y, sparsity=0.97, steps=12)
    size = steps[0].size
    final = round(0.03 * size)
    for step, mask in enumerate(steps):
        assert mask.sum() == round(size * (final / size) ** (step / 12))
    revived = sum((late & ~early).sum() for early, late in itertools.pairwise(steps))
    assert (revived > 0) == (kind is criteria.Force)


@pytest.mark.parametrize("name", ["iterative_snip", "force", "synflow"])
def test_what_was_pruned_before_stays_out(name):
    keras.utils.set_random_seed(0)
    model, (x, y) = dense(12, 30, 4), data()
    first = snip_tf.prune_model(model, sparsity=0.5, criterion="random")
    again = snip_tf.prune_model(first, x, y, sparsity=0.9, loss=LOSS, criterion=name)
    assert not (bits(again) & ~bits(first)).any()
    assert bits(again).sum() == round(0.1 * bits(again).size)


def of_images(pooling=layers.MaxPooling2D):
    stack = [
        keras.Input((12, 12, 3)),
        layers.Conv2D(6, 3, padding="same", activation="relu"),
        layers.BatchNormalization(),
        pooling(),
        layers.SeparableConv2D(8, 3, activation="relu"),
        layers.Dropout(0.5),
        layers.Flatten(),
        layers.Dense(7),
        layers.Dense(4, activation="softmax"),
    ]
    return keras.Sequential(stack)


def ones(model):
    return {p: np.ones(w.shape, bool) for p, w in prunable_weights(model).items()}


def sums(model, masks=None):
    weights = prunable_weights(model)
    context = ScoringContext(model, weights, masks=masks or ones(model))
    scores = criteria.SynFlow()(context)
    return [score.sum() for score in scores.values()]


@pytest.mark.parametrize("make", [lambda: dense(12, 9, 30, 4), of_images])
def test_synflow_conserves_the_sum_of_each_layer(make):
    model = make()
    found = sums(model)
    np.testing.assert_allclose(found, found[0], rtol=1e-6)
    pruned = snip_tf.prune_model(model, sparsity=0.9, criterion="synflow")
    found = sums(model, snip_tf.get_masks(pruned))
    np.testing.assert_allclose(found, found[0], rtol=1e-6)


def test_synflow_does_not_overflow_in_a_hundred_layers():
    """R is about 1e175 there, far outside of float32."""
    keras.utils.set_random_seed(0)
    model = dense(*[16] * 100 + [10])
    for layer in model.layers:
        layer.kernel.assign(32 * layer.kernel)
    found = sums(model)
    values = np.ones(16)
    for layer in model.layers:
        values = values @ np.abs(layer.get_weights()[0].astype(np.float64))
    assert values.sum() > 1e150
    np.testing.assert_allclose(found, values.sum(), rtol=1e-6)
    pruned = snip_tf.prune_model(model, sparsity=0.99, criterion="synflow")
    assert min(m.sum() for m in snip_tf.get_masks(pruned).values()) > 0


def nested(depth):
    def block():
        return keras.Sequential(
            layers.Dense(16, "relu", kernel_initializer="he_normal") for _ in range(10)
        )

    blocks = [block() for _ in range(depth // 10)]
    return keras.Sequential([keras.Input((16,)), *blocks])


def adapted():
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(7, 2, size=(50, 6)))
    return layer


UNUSUAL = {
    "a hundred layers in ten models": lambda: nested(100),
    "a shift before the first weight": lambda: keras.Sequential(
        [
            keras.Input((6,)),
            layers.Rescaling(1 / 127.5, -1),
            *[layers.Dense(8, "relu"), layers.Dense(4)],
        ]
    ),
    "adapted": lambda: keras.Sequential(
        [keras.Input((6,)), adapted(), layers.Dense(8, "relu"), layers.Dense(4)]
    ),
    "activations with a bound": lambda: keras.Sequential(
        [
            keras.Input((600,)),
            *[layers.Dense(80, "relu6") for _ in range(5)],
            layers.Dense(4, "tanh"),
        ]
    ),
    "a constant in float32": lambda: keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8),
            layers.Lambda(lambda x: x * tf.constant(2.0)),
            layers.Dense(4),
        ]
    ),
    "filters in groups": lambda: keras.Sequential(
        [
            *[keras.Input((5, 5, 4)), layers.Conv2D(8, 3, groups=4)],
            *[layers.GlobalAveragePooling2D(), layers.Dense(4)],
        ]
    ),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_synflow_flows_through(kind):
    keras.utils.set_random_seed(0)
    model = UNUSUAL[kind]()
    x = np.random.default_rng(0).normal(size=(3, *model.input_shape[1:]))
    before = model(x).numpy()
    found = sums(model)
    assert min(found) > 0
    if kind != "activations with a bound":  # which are in proportion up to it
        np.testing.assert_allclose(found, found[0], rtol=1e-6)
    pruned = snip_tf.prune_model(model, sparsity=0.9, criterion=criteria.SynFlow(10))
    assert min(mask.sum() for mask in snip_tf.get_masks(pruned).values()) > 0
    np.testing.assert_array_equal(model(x), before)  # it computes as it did


def test_synflow_says_that_the_flow_overflows():
    model = dense(*[16] * 30)
    for layer in model.layers:
        layer.kernel.assign(1e12 * layer.kernel)
    with pytest.raises(ValueError, match="Expected a finite flow through the network"):
        snip_tf.prune_model(model, sparsity=0.9, criterion="synflow")


@hypothesis.given(
    st.lists(st.integers(2, 12), min_size=3, max_size=6),
    st.integers(0, 40),
    st.integers(0, 2**31),
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_synflow_cuts_no_layer_where_a_path_is_possible(units, more, seed):
    keras.utils.set_random_seed(seed)
    model = dense(*units)
    shapes = [w.shape for w in prunable_weights(model).values()]
    size = sum(a * b for a, b in shapes)
    kept = min(size, len(shapes) + more)  # a path takes one connection of each layer
    pruned = snip_tf.prune_model(
        model,
        sparsity=1 - (kept + 0.1) / size if kept < size else 0.0,
        criterion="synflow",
    )
    masks = snip_tf.get_masks(pruned)
    assert sum(m.sum() for m in masks.values()) == kept
    flow = np.ones(units[0])
    for mask in masks.values():
        flow = flow @ mask
    assert flow.sum() > 0


def test_synflow_needs_no_data_and_leaves_out_the_softmax():
    softmax, plain = (
        keras.Sequential([keras.Input((12,)), layers.Dense(9), layers.Dense(4, end)])
        for end in ("softmax", None)
    )
    plain.set_weights(softmax.get_weights())
    first, second = (
        snip_tf.prune_model(model, sparsity=0.8, criterion="synflow")
        for model in (softmax, plain)
    )
    np.testing.assert_array_equal(bits(first), bits(second))


RECURRENT = {
    "lstm": lambda: [keras.Input((None, 6)), layers.LSTM(8), layers.Dense(4)],
    "gru": lambda: [keras.Input((5, 6)), layers.GRU(8), layers.Dense(4)],
    "both ways": lambda: [
        keras.Input((5, 6)),
        layers.Bidirectional(layers.SimpleRNN(8, activation="relu")),
        layers.Dense(4),
    ],
}


def attention():
    inputs = keras.Input((5, 6))
    x = layers.LayerNormalization()(layers.MultiHeadAttention(2, 4)(inputs, inputs))
    x = layers.GlobalAveragePooling1D()(layers.Add()([x, inputs]))
    return keras.Model(inputs, layers.Dense(4)(x))


@pytest.mark.parametrize("name", ["grasp", "force", "synflow"])
@pytest.mark.parametrize("kind", [*RECURRENT, "attention"])
def test_through_time_and_attention(kind, name):
    keras.utils.set_random_seed(0)
    model = attention() if kind == "attention" else keras.Sequential(RECURRENT[kind]())
    x = np.random.default_rng(0).normal(size=(16, 5, 6)).astype(np.float32)
    pruned = snip_tf.prune_model(
        *(model, x, np.arange(16) % 4), sparsity=0.5, loss=LOSS, criterion=name
    )
    assert bits(pruned).sum() == round(0.5 * bits(pruned).size)


def normalized(layer):
    stack = [keras.Input((5, 6)), layers.Dense(6), layer, layers.Flatten()]
    return keras.Sequential([*stack, layers.Dense(4)])


TWICE = {
    "gru": lambda: keras.Sequential(RECURRENT["gru"]()),
    "layer norm": lambda: normalized(layers.LayerNormalization()),
    "group norm": lambda: normalized(layers.GroupNormalization(2)),
    "batch norm": lambda: normalized(layers.BatchNormalization()),
    "attention": attention,
}


def test_synflow_asks_for_data_where_the_shape_is_open():
    model = keras.Sequential([keras.Input((None, 6)), layers.LSTM(4)])
    with pytest.raises(ValueError, match=r"\(None, None, 6\).*mini-batch as `x`"):
        snip_tf.prune_model(model, sparsity=0.5, criterion="synflow")
    x = np.ones((1, 5, 6), np.float32)
    pruned = snip_tf.prune_model(model, x, sparsity=0.5, criterion="synflow")
    [recurrent] = [m for p, m in snip_tf.get_masks(pruned).items() if "recurrent" in p]
    assert recurrent.sum() > 20  # of 64: as much as the order of equals would leave


def test_synflow_gives_a_state_as_many_examples_as_it_is_of():
    stack = [layers.GRU(5, stateful=True, name="gru"), layers.Dense(3, name="out")]
    model = keras.Sequential([keras.Input(batch_shape=(4, 6, 2)), *stack])
    x = np.ones((4, 6, 2), np.float32)
    found = snip_tf.prune_model(model, sparsity=0.5, criterion="synflow")
    other = snip_tf.prune_model(model, x, sparsity=0.5, criterion="synflow")
    for path, mask in snip_tf.get_masks(found).items():
        np.testing.assert_array_equal(mask, snip_tf.get_masks(other)[path])
    assert not np.any(model.layers[0].states[0])


def test_a_layer_that_ends_with_nothing_is_scored_until_the_last_step():
    seen = []

    class Watched(snip_tf.criteria.IterativeSnip):
        def __call__(self, context):
            seen.append(context.masks["out/kernel"].sum())
            return super().__call__(context)

    dense = [layers.Dense(50), layers.Dense(4, name="out")]
    model = keras.Sequential([keras.Input((20,)), *dense])
    x = np.random.default_rng(0).normal(size=(16, 20)).astype(np.float32)
    options = {"sparsity": {"out/*": 0.999, "*": 0.99}, "loss": LOSS}
    with pytest.warns(UserWarning, match="Pruning kept nothing of out/kernel"):
        snip_tf.prune_model(
            model, x, np.arange(16) % 4, criterion=Watched(4), **options
        )
    assert min(seen) >= 1


def test_grasp_says_where_its_temperature_has_no_place():
    inputs = keras.Input((8,))
    model = keras.Model(inputs, [layers.Dense(4)(inputs), layers.Dense(4)(inputs)])
    y = [np.arange(16) % 4] * 2
    with pytest.warns(UserWarning, match="temperature of 200 is not used"):
        snip_tf.prune_model(
            *(model, np.ones((16, 8)), y), sparsity=0.5, loss=LOSS, criterion="grasp"
        )


def own_crossentropy(y, y_pred):
    return keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True)


SAME_LOSS = {
    "in a list": lambda: [LOSS],
    "in a dict": lambda: {"out": LOSS},
    "a partial function": lambda: functools.partial(
        keras.losses.sparse_categorical_crossentropy, from_logits=True
    ),
}


def grasp_scores(model, x, y, loss, temperature=200.0):
    context = ScoringContext(
        model, prunable_weights(model), [(x, y, None)], objective=Objective(loss)
    )
    return criteria.Grasp(temperature)(context)


@pytest.mark.parametrize("given", SAME_LOSS)
def test_grasp_uses_its_temperature_however_the_loss_is_given(given):
    inputs, (x, y) = keras.Input((12,)), data()
    hidden = layers.Dense(9, "relu")(inputs)
    model = keras.Model(inputs, layers.Dense(4, name="out")(hidden))
    expected = grasp_scores(model, x, y, LOSS)
    found = grasp_scores(model, x, y, SAME_LOSS[given]())
    for path, score in expected.items():
        np.testing.assert_allclose(found[path], score, rtol=1e-5)


@pytest.mark.parametrize("loss", [LOSS, {"out": LOSS}])
@pytest.mark.parametrize("nest", ["dict", "list", "of targets"])
def test_grasp_uses_its_temperature_where_one_output_is_in_a_nest(nest, loss):
    inputs, (x, y) = keras.Input((12,)), data()
    hidden = layers.Dense(9, "relu")(inputs)
    output = layers.Dense(4, name="out")(hidden)
    expected = grasp_scores(keras.Model(inputs, output), x, y, LOSS)
    nested = {"dict": {"out": output}, "list": [output], "of targets": output}[nest]
    targets = {"out": y} if nest == "dict" else [y]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = grasp_scores(keras.Model(inputs, nested), x, targets, loss)
    for path, score in expected.items():
        np.testing.assert_allclose(found[path], score, rtol=1e-5)


def test_grasp_knows_short_names():
    model = keras.Sequential([keras.Input((12,)), layers.Dense(1, "sigmoid")])
    x, y = data()
    long, short = (
        grasp_scores(model, x, y % 2, name) for name in ("binary_crossentropy", "bce")
    )
    for path, score in long.items():
        np.testing.assert_array_equal(short[path], score)


@pytest.mark.parametrize("name", ["ce", "Crossentropy"])
@pytest.mark.parametrize(
    ("outputs", "activation", "one_hot", "long"),
    [
        (4, "softmax", False, "sparse_categorical_crossentropy"),
        (4, "softmax", True, "categorical_crossentropy"),
        (1, "sigmoid", False, "binary_crossentropy"),
    ],
)
def test_grasp_knows_names_that_depend_on_shapes(
    name, outputs, activation, one_hot, long
):
    stack = layers.Dense(9, "relu"), layers.Dense(outputs, activation)
    model = keras.Sequential([keras.Input((12,)), *stack])
    x, y = data()
    y = np.eye(4, dtype=np.float32)[y] if one_hot else y % max(outputs, 2)
    expected, found = (grasp_scores(model, x, y, loss) for loss in (long, name))
    for path, score in expected.items():
        np.testing.assert_array_equal(found[path], score)


def test_grasp_says_that_it_does_not_know_a_loss():
    model, (x, y) = dense(12, 9, 4), data()
    with pytest.warns(UserWarning, match="'own_crossentropy' is not a built-in"):
        found = grasp_scores(model, x, y, own_crossentropy)
    plain = grasp_scores(model, x, y, LOSS, temperature=1.0)
    for path, score in plain.items():
        np.testing.assert_allclose(found[path], score, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("end", "loss"),
    [
        ("softmax", "sparse_categorical_crossentropy"),
        ("sigmoid", "binary_crossentropy"),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_grasp_takes_probabilities_of_zero_and_one(end, loss, known):
    keras.utils.set_random_seed(0)
    outputs = [layers.Dense(10, end)]
    if not known:  # from what logits they come
        outputs += [layers.Reshape((10,))]
    stack = [layers.Dense(300, "relu"), layers.Dense(100, "relu"), *outputs]
    model = keras.Sequential([keras.Input((784,)), *stack])
    x = np.random.default_rng(0).integers(256, size=(64, 784)).astype(np.float32)
    y = np.arange(64) % 10 if end == "softmax" else np.eye(10)[np.arange(64) % 10]
    scores = grasp_scores(model, x, y, loss)
    assert all(np.isfinite(score).all() and score.any() for score in scores.values())


@pytest.mark.parametrize("name", ["snip", "grasp", "force", "synflow"])
def test_refuses_to_choose_by_zeros(name):
    stack = [layers.Dense(n, kernel_initializer="zeros") for n in (9, 4)]
    model, (x, y) = keras.Sequential([keras.Input((12,)), *stack]), data()
    with pytest.raises(ValueError, match="Expected a score that is not zero"):
        snip_tf.prune_model(model, x, y, sparsity=0.5, loss=LOSS, criterion=name)


def test_random_takes_the_seed_of_the_call():
    model = dense(12, 9, 4)
    first, second, other = (
        bits(snip_tf.prune_model(model, sparsity=0.5, criterion="random", seed=seed))
        for seed in (3, 3, 4)
    )
    assert (first == second).all()
    assert (first != other).any()


class Halved(criteria.Random):
    """A criterion of one's own, with a constructor of its own."""

    def __init__(self, path, seed=None):
        super().__init__(seed)
        object.__setattr__(self, "path", path)

    def __call__(self, context):
        scores = super().__call__(context)
        return scores | {self.path: scores[self.path] / 2}


def test_a_subclass_stays_what_it_is():
    model = dense(12, 9, 4)

    def masks(criterion, seed=None):
        options = {"sparsity": 0.5, "criterion": criterion, "seed": seed}
        return bits(snip_tf.prune_model(model, **options))

    path = next(iter(snip_tf.prunable_weights(model)))
    own = Halved(path)
    assert (masks(own, 3) == masks(own, 3)).all()
    assert (masks(own, 3) == masks(Halved(path, seed=3), 4)).all()
    assert (masks(own, 3) != masks(own, 4)).any()
    assert (masks(own, 3) != masks("random", 3)).any()
    assert own.seed is None


def with_a_branch_of_zeros():
    inputs = keras.Input((8,))
    branch = layers.Dense(16, "relu", name="branch")(inputs)
    last = layers.Dense(8, kernel_initializer="zeros", name="last")(branch)
    joined = layers.Add()([inputs, last])
    return keras.Model(inputs, layers.Dense(4, name="head")(joined))


@pytest.mark.parametrize(
    ("zeros", "options"),
    [
        ("branch", {}),
        ("branch", {"criterion": criteria.IterativeSnip(steps=4)}),
        ("branch", {"criterion": criteria.Force(steps=4)}),
        ("last", {"criterion": "grasp", "scope": "layer"}),
        ("last", {"criterion": "magnitude", "scope": "layer"}),
        ("branch", {"structure": "2:4"}),
        ("branch", {"structure": "2x2"}),
        ("branch", {"scope": "erk"}),
    ],
    ids=str,
)
def test_zeros_that_are_kept_by_their_position_are_told(zeros, options):
    keras.utils.set_random_seed(0)
    model = with_a_branch_of_zeros()
    x, y = np.random.rand(32, 8), np.arange(32) % 4
    options = {"sparsity": 0.5, "loss": LOSS, **options}
    with pytest.warns(UserWarning, match="score of zero") as told:
        pruned = snip_tf.prune_model(model, x, y, **options)
    [words] = [str(one.message) for one in told if "score of zero" in str(one.message)]
    kept = int(snip_tf.get_masks(pruned)[f"{zeros}/kernel"].sum())
    assert f"{kept} of '{zeros}/kernel'" in words
    assert not any("Lower the sparsity" in str(one.message) for one in told)
    with warnings.catch_warnings():
        # What was chosen before is not told again.
        warnings.filterwarnings("error", message=".*score of zero")
        snip_tf.prune_model(pruned, x, y, **options)


def test_units_of_zeros_that_are_kept_by_their_position_are_told():
    keras.utils.set_random_seed(0)
    stack = [layers.Dense(8, "relu"), layers.Dense(8), layers.Dense(4)]
    model = keras.Sequential([keras.Input((8,)), *stack])
    model.layers[1].kernel.assign(np.eye(8) * (np.arange(8) == 3)[:, np.newaxis])
    x, y = np.random.rand(32, 8), np.arange(32) % 4
    options = {"sparsity": 0.25, "loss": LOSS, "structure": "units"}
    with pytest.warns(UserWarning, match="kept units have a score of zero"):
        snip_tf.prune_model(model, x, y, **options)


@pytest.mark.parametrize("steps", [0, 2.5])
def test_refuses_the_steps_of_a_criterion_of_ones_own(steps):
    class Ones(criteria.Criterion):
        needs_data = False

        def __call__(self, context):
            return {path: np.ones(w.shape) for path, w in context.weights.items()}

    criterion = Ones()
    criterion.steps = steps
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    with pytest.raises((TypeError, ValueError), match="`steps` to be a whole number"):
        snip_tf.prune_model(model, sparsity=0.5, criterion=criterion)


@pytest.mark.parametrize("kind", TWICE)
def test_hessian_products_are_differences_of_gradients(kind):
    keras.utils.set_random_seed(0)
    usual = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        model = TWICE[kind]()
    finally:
        keras.config.set_dtype_policy(usual)
    x = np.random.default_rng(0).normal(size=(16, 5, 6))
    batch, weights = (x, np.arange(16) % 4, None), prunable_weights(model)
    loss = keras.losses.SparseCategoricalCrossentropy(True, dtype="float64")
    rng = np.random.default_rng(1)
    along = {path: rng.normal(size=tuple(w.shape)) for path, w in weights.items()}
    context = ScoringContext(
        model, weights, [batch], objective=Objective(loss), training=True
    )
    found = hessian_products(context, along)
    # Keras computes the softmax of attention in float32: a small step would drown.
    step = 1e-3
    sides, values = [], {path: w.numpy() for path, w in weights.items()}
    for way in (step, -step):
        for path, weight in weights.items():
            weight.assign(values[path] + way * along[path])
        sides.append(context.gradients())
    for path in weights:
        expected = (sides[0][path].numpy() - sides[1][path].numpy()) / (2 * step)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            found[path], expected, rtol=0, atol=1e-3 * scale, err_msg=path
        )


def test_grasp_divides_the_logits_of_probabilities_too():
    x, y = data()
    logits = dense(12, 9, 4)
    probabilities = keras.Sequential([logits, layers.Softmax()])
    probabilities.build((None, 12))
    first = snip_tf.prune_model(
        logits, x, y, sparsity=0.7, loss=LOSS, criterion="grasp"
    )
    loss = "sparse_categorical_crossentropy"
    second = snip_tf.prune_model(
        probabilities, x, y, sparsity=0.7, loss=loss, criterion="grasp"
    )
    np.testing.assert_array_equal(bits(first), bits(second))


@pytest.mark.parametrize(
    "kind", [criteria.IterativeSnip, criteria.Force, criteria.SynFlow]
)
def test_refuses_settings_that_are_none(kind):
    with pytest.raises(ValueError, match="1 or more"):
        kind(steps=0)
    with pytest.raises(TypeError, match=r"Received: steps=2\.5 of type float"):
        kind(steps=2.5)
    with pytest.raises(TypeError, match=rf"write {kind.__name__}\(\)"):
        criteria.get(kind)
    with pytest.raises(ValueError, match="above 0"):
        criteria.Grasp(temperature=0)
    with pytest.raises(TypeError, match="above 0"):
        criteria.Grasp(temperature="hot")
    with pytest.raises(ValueError, match="0 or more"):
        criteria.Random(-1)
    with pytest.raises(TypeError, match="0 or more"):
        criteria.Random("a")

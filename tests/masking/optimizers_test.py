"""Every optimizer of Keras leaves zeros where masks remove, in all that it keeps."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from packaging.version import Version

import snip_tf
from snip_tf.masking.masked_weights import KeepZeros
from snip_tf.masking.optimizers import reset_slots
from snip_tf.weights import weights_by_path
from tests.versions import since

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 12)).astype(np.float32)
Y = RNG.integers(4, size=64)


def of_keras():
    """The classes that `keras.optimizers` has."""
    found = {
        name: cls
        for name, cls in vars(keras.optimizers).items()
        if inspect.isclass(cls) and issubclass(cls, keras.Optimizer)
    }
    inside = ["Optimizer", "LossScaleOptimizer", "MultiOptimizer"]
    if Version(keras.__version__) < Version("3.13"):
        inside.append("Muon")  # which fails on its own
    return {name: cls for name, cls in found.items() if name not in inside}


OPTIMIZERS = {
    name: lambda cls=cls, **options: cls(0.01, **options)
    for name, cls in of_keras().items()
}
OPTIMIZERS["SGD, momentum"] = lambda **options: keras.optimizers.SGD(
    0.1, momentum=0.9, nesterov=True, **options
)
OPTIMIZERS["Adam, amsgrad, weight decay, clipped, accumulated"] = lambda **options: (
    keras.optimizers.Adam(
        0.01,
        amsgrad=True,
        weight_decay=0.1,
        global_clipnorm=0.5,
        gradient_accumulation_steps=2,
        **options,
    )
)
OPTIMIZERS["loss scaled"] = lambda **options: keras.optimizers.LossScaleOptimizer(
    keras.optimizers.Adam(0.01, **options), initial_scale=64.0
)
MUON = pytest.param("Muon", marks=since("3.13"))
# All of them, of which the quick tests run these.
MOST_SLOW = [
    name
    if name in ("Adam", "Adafactor", "Muon", "SGD, momentum", "ScheduleFreeAdamW")
    else pytest.param(name, marks=pytest.mark.slow)
    for name in OPTIMIZERS
]


def network():
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    hidden = [dense(16, "relu", name="first"), dense(16, "relu", name="second")]
    return keras.Sequential([keras.Input((12,)), *hidden, dense(4, name="out")])


def masks_with_whole_rows_and_columns(seed=0):
    rng = np.random.default_rng(seed)
    masks = {
        path: rng.random(weight.shape) < 0.4
        for path, weight in snip_tf.prunable_weights(network()).items()
    }
    for path in ("first/kernel", "second/kernel"):
        rows, columns = (rng.permutation(n)[: n // 2] for n in masks[path].shape)
        masks[path][rows] = False
        masks[path][:, columns] = False
    return masks


def all_variables(model):
    variables = [*model.variables, *model.optimizer.variables]
    inner = getattr(model.optimizer, "inner_optimizer", None)
    return variables + (list(inner.variables) if inner else [])


def removed(model, masks):
    weights = weights_by_path(model)
    return {path: weights[path].numpy()[~mask] for path, mask in masks.items()}


def averages(model, masks):
    """The moving averages of removed connections."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    kept = {f"{path.replace('/', '_')}": mask for path, mask in masks.items()}
    found = [
        variable.numpy()[~mask]
        for variable in optimizer.variables
        for path, mask in kept.items()
        if variable.path.endswith(f"{path}_average")
    ]
    assert len(found) == len(masks)
    return found


def assert_zeros_and_finite(model, masks):
    for variable in all_variables(model):
        value = np.asarray(variable, np.float64)
        assert np.isfinite(value).all(), variable.path
    for path, values in removed(model, masks).items():
        np.testing.assert_array_equal(values, 0, err_msg=path)


def test_knows_the_optimizers_of_keras():
    assert {"SGD", "Adam", "AdamW", "Adafactor", "Lion"} <= of_keras().keys()


@pytest.mark.parametrize(
    ("name", "jit_compile"),
    # XLA where it could make other numbers of zeros.
    [*((name, False) for name in OPTIMIZERS), ("Adafactor", True)],
)
def test_every_number_stays_finite_and_every_zero_zero(name, jit_compile):
    masks = masks_with_whole_rows_and_columns()
    pruned = snip_tf.apply_masks(network(), masks)
    pruned.compile(OPTIMIZERS[name](), LOSS, jit_compile=jit_compile)
    losses = pruned.fit(X, Y, batch_size=16, epochs=3, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert_zeros_and_finite(pruned, masks)


@pytest.mark.parametrize("name", ["Adafactor", "Adafactor, no epsilon", MUON, "Adam"])
@pytest.mark.parametrize("masked", [True, False])
def test_a_whole_weight_between_pruned_ones(name, masked):
    """Half of its inputs are always zero, and nothing reads half of its outputs."""
    masks = {
        path: np.ones_like(m) for path, m in masks_with_whole_rows_and_columns().items()
    }
    masks["first/kernel"][:, :8] = masks["out/kernel"][:8] = False
    if not masked:
        del masks["second/kernel"]
    pruned = snip_tf.apply_masks(network(), masks)
    no_epsilon = {"epsilon_1": 0.0} if "no epsilon" in name else {}
    pruned.compile(OPTIMIZERS[name.partition(",")[0]](**no_epsilon), LOSS)
    pruned.fit(X, Y, batch_size=16, epochs=3, verbose=0)
    assert_zeros_and_finite(pruned, masks)


def test_adafactor_beside_a_table_with_unread_rows():
    model = keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Embedding(9, 4, name="table"),
            keras.layers.Flatten(),
            keras.layers.Dense(4, name="out"),
        ]
    )
    masks = {"out/kernel": RNG.random((48, 4)) < 0.4}
    pruned = snip_tf.apply_masks(model, masks)
    pruned.compile(OPTIMIZERS["Adafactor"](), LOSS)
    pruned.fit(np.abs(X).astype(int), Y, batch_size=16, verbose=0)
    assert_zeros_and_finite(pruned, masks)


def test_a_mask_that_keeps_everything_changes_no_step_of_adafactor():
    kept = {
        path: np.ones_like(m) for path, m in masks_with_whole_rows_and_columns().items()
    }
    plain, pruned = network(), snip_tf.apply_masks(network(), kept)
    for model in (plain, pruned):
        model.compile(OPTIMIZERS["Adafactor"](), LOSS)
        model.fit(X, Y, batch_size=16, epochs=3, verbose=0, shuffle=False)
    for weight, expected in zip(pruned.weights, plain.weights, strict=True):
        np.testing.assert_allclose(weight, expected, atol=1e-6)


@pytest.mark.parametrize("name", MOST_SLOW)
def test_new_masks_in_the_middle_of_training_with_averages(name, tmp_path):
    """What goes is zero at once and for good; what comes back begins at zero."""
    pruned = snip_tf.apply_masks(network(), masks_with_whole_rows_and_columns())
    options = {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3}
    pruned.compile(OPTIMIZERS[name](**options), LOSS)
    pruned.fit(X, Y, batch_size=16, verbose=0)

    before, masks = snip_tf.get_masks(pruned), masks_with_whole_rows_and_columns(1)
    snip_tf.set_masks(pruned, masks)
    returned = {path: masks[path] & ~before[path] for path in masks}
    for path, weight in weights_by_path(pruned).items():
        if path in masks:
            assert returned[path].any()
            assert not weight.numpy()[returned[path] | ~masks[path]].any()

    pruned.fit(X, Y, batch_size=16, epochs=2, verbose=0)
    assert_zeros_and_finite(pruned, masks)
    for average in averages(pruned, masks):
        np.testing.assert_array_equal(average, 0)
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_equal(snip_tf.get_masks(loaded), masks)
    assert_zeros_and_finite(loaded, masks)


def test_averages_in_a_custom_loop():
    """`set_masks` does not know the optimizer there."""
    pruned = snip_tf.apply_masks(network(), masks_with_whole_rows_and_columns())
    optimizer = keras.optimizers.Adam(0.01, use_ema=True)
    weights, masks = pruned.trainable_variables, masks_with_whole_rows_and_columns(1)
    gradients = [np.ones(weight.shape, np.float32) for weight in weights]
    optimizer.apply(gradients, weights)
    both = {
        path: mask & masks[path] for path, mask in snip_tf.get_masks(pruned).items()
    }
    snip_tf.set_masks(pruned, both)
    optimizer.finalize_variable_values(weights)
    for path, values in removed(pruned, both).items():
        np.testing.assert_array_equal(values, 0, err_msg=path)


class Gan(keras.Model):
    """Has an optimizer for each of its parts, and one in a list."""

    def __init__(self):
        super().__init__()
        self.maker = keras.Sequential([keras.layers.Dense(12, name="a")], name="maker")
        self.critic = keras.Sequential([keras.layers.Dense(1, name="b")], name="critic")

    def call(self, x):
        return self.critic(self.maker(x))

    def compile(self, of_maker, of_critic):
        super().compile()
        self.of_maker, self.of_parts = of_maker, {"critic": [of_critic]}

    def train_step(self, x):
        parts = [(self.maker, self.of_maker), (self.critic, self.of_parts["critic"][0])]
        with tf.GradientTape(persistent=True) as tape:
            loss = tf.reduce_mean(self(x) ** 2)
        for part, optimizer in parts:
            weights = part.trainable_variables
            optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


def test_optimizers_of_a_custom_training_step():
    """What comes back begins anew, also where `compile` got no optimizer."""
    model = Gan()
    model(X)
    masks = {
        path: np.ones(weight.shape, bool)
        for path, weight in snip_tf.prunable_weights(model).items()
    }
    pruned = snip_tf.apply_masks(model, masks)
    make = OPTIMIZERS["SGD, momentum"]
    optimizers = [make(), keras.optimizers.Adam(0.01, use_ema=True)]
    pruned.compile(*optimizers)
    pruned.fit(X, batch_size=16, verbose=0)
    snip_tf.set_masks(pruned, {path: ~mask for path, mask in masks.items()})
    snip_tf.set_masks(pruned, masks)
    slots = [
        slot
        for optimizer in optimizers
        for slot in optimizer.variables
        if tuple(slot.shape) in [(12, 12), (12, 1)]
    ]
    assert len(slots) == 4
    for slot in slots:
        assert not slot.numpy().any(), slot.path


@since("3.13")
def test_averages_that_a_callback_swaps_in(tmp_path):
    masks = masks_with_whole_rows_and_columns()
    pruned = snip_tf.apply_masks(network(), masks)
    optimizer = keras.optimizers.Muon(0.01, use_ema=True, ema_momentum=0.5)
    pruned.compile(optimizer, LOSS)
    path = tmp_path / "{epoch}.keras"
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    saves = keras.callbacks.ModelCheckpoint(path)
    data = {"validation_data": (X, Y), "callbacks": [swap, saves]}
    pruned.fit(X, Y, batch_size=16, epochs=2, verbose=0, **data)
    assert_zeros_and_finite(pruned, masks)
    for epoch in (1, 2):
        assert_zeros_and_finite(
            keras.models.load_model(tmp_path / f"{epoch}.keras"), masks
        )


def test_averages_from_a_file_of_the_plain_model(tmp_path):
    masks = masks_with_whole_rows_and_columns()
    plain, pruned = network(), snip_tf.apply_masks(network(), masks)
    for model in (plain, pruned):
        model.compile(keras.optimizers.SGD(0.01, use_ema=True), LOSS)
        model.fit(X, Y, verbose=0)
    plain.save_weights(tmp_path / "plain.weights.h5")
    pruned.load_weights(tmp_path / "plain.weights.h5")
    swap = keras.callbacks.SwapEMAWeights()
    swap.set_model(pruned)
    swap.on_test_begin()
    assert_zeros_and_finite(pruned, masks)


def test_slots_are_set_back_to_how_they_began():
    """All that an optimizer has for a weight, where it is not kept."""
    # (What follows the weights themselves begins where they do: removed ones at 0.)
    weight = keras.Variable(np.zeros((2, 3), np.float32), name="kernel")
    other = keras.Variable(np.ones((3, 2), np.float32), name="other")
    kept = np.array([[True, False, True], [False, True, False]])
    for name, make in OPTIMIZERS.items():
        optimizer = make()
        optimizer.build([other, weight])
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        slots = [v for v in inner.variables if tuple(v.shape) in ((2, 3), (3, 2))]
        starts = [slot.numpy() for slot in slots]
        for slot in slots:
            slot.assign(slot + 7)
        reset_slots(optimizer, weight, kept)
        stays = [kept if v.shape == weight.shape else True for v in slots]
        assert 2 * sum(stay is kept for stay in stays) == len(slots), name
        for slot, start, stay in zip(slots, starts, stays, strict=True):
            expected = np.where(stay, start + 7, start)
            np.testing.assert_array_equal(slot, expected, err_msg=f"{name} {slot.path}")


@since("3.13")
def test_keras_still_needs_what_is_changed_in_it():
    """Once this fails, `adapt_optimizers` can go."""
    adafactor = keras.optimizers.Adafactor
    weight = keras.Variable(np.ones((4, 4), np.float32))
    optimizer = adafactor(0.01)
    optimizer.build([weight])
    own = inspect.unwrap(adafactor.update_step)
    gradient = np.diag([1e-3, 1e-3, 0.0, 0.0]).astype(np.float32)
    own(optimizer, gradient, weight, 0.01)
    assert np.isnan(weight.numpy()).any()

    muon = keras.optimizers.Muon(0.1, use_ema=True)
    weight = keras.Variable(np.eye(4, dtype=np.float32))
    weight.constraint = KeepZeros(None, np.eye(4, dtype=bool))
    apply = inspect.unwrap(keras.Optimizer.apply)
    for _ in range(2):
        apply(muon, [RNG.normal(size=(4, 4)).astype(np.float32)], [weight])
    average = next(v for v in muon.variables if v.path.endswith("average"))
    assert average.numpy()[~np.eye(4, dtype=bool)].any()

"""What all schedules share: when updates are due, checkpoints, zeros, optimizers."""

import contextlib
import gc

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf.schedules.base import seed_of
from tests.schedules.programs import (
    LOSS,
    Recorder,
    X,
    Y,
    dense,
    fit,
    network,
    sparse,
    weights_of,
)
from tests.versions import on

OF_OTHERS = ("LossScaleOptimizer", "MultiOptimizer", "Optimizer", "OptimizerMap")
OPTIMIZERS = [
    name
    for name, value in vars(keras.optimizers).items()
    if isinstance(value, type) and name not in OF_OTHERS
]
SCHEDULES = {
    "gradual": lambda **o: snip_tf.GradualPruning(0.9, end_step=12, frequency=4),
    "gradual_snip": lambda **o: snip_tf.GradualPruning(
        0.9, end_step=12, frequency=4, criterion="snip", x=X, y=Y, seed=0, batch_size=32
    ),
    "set": lambda **o: snip_tf.SET(frequency=4, end_step=12, seed=0),
    "rigl": lambda **o: snip_tf.RigL(
        X, Y, frequency=4, end_step=12, seed=0, batch_size=32
    ),
}


def start(name, *arguments, **options):
    made = dense if name.startswith("gradual") else sparse
    return made(*arguments, **options)


@pytest.mark.parametrize(
    ("first", "end", "frequency"), [(0, 17, 5), (5, 20, 5), (3, 3, 9)]
)
def test_steps_of_updates(first, end, frequency):
    schedule = snip_tf.GradualPruning(
        0.5, begin_step=first, end_step=end, frequency=frequency
    )
    due = [t for t in range(first, end + 1) if (t - first) % frequency == 0 or t == end]
    for step in range(end + 12):
        later = [t for t in due if t > step]
        earlier = [t for t in due if t <= step]
        assert schedule.next_step(step) == (later[0] if later else None)
        assert schedule._last_due(step) == (earlier[-1] if earlier else None)


def test_seeds_of_steps_differ():
    seeds = {seed_of(seed, step) for seed in range(20) for step in range(50)}
    assert len(seeds) == 1000
    assert seed_of(None, 3) is None and seed_of(1, 3) == seed_of(1, 3)


def test_a_model_without_masks():
    for schedule in SCHEDULES.values():
        with pytest.raises(ValueError, match=r"has none. Apply.*prune_model\(model"):
            fit(network(), schedule())


def test_two_schedules_at_once():
    with pytest.raises(ValueError, match=r"one schedule.*SET and RigL"):
        fit(sparse(), SCHEDULES["set"](), SCHEDULES["rigl"]())


def test_one_schedule_after_another():
    pruned = sparse()
    fit(pruned, SCHEDULES["set"]())
    gc.collect()
    before = snip_tf.get_masks(pruned)
    # The optimizer is at step 16.
    fit(pruned, snip_tf.RigL(X, Y, frequency=4, end_step=40, seed=0))
    after = snip_tf.get_masks(pruned)
    assert any((before[path] != after[path]).any() for path in before)


def test_steps_go_on_from_an_earlier_fit():
    """With the default end, three quarters of the steps of the second `fit`."""
    pruned = sparse()
    fit(pruned)  # 16 steps
    recorder = Recorder()
    fit(pruned, snip_tf.SET(frequency=5, seed=0), recorder)
    changes = [
        16 + number
        for number in range(2, 17)
        if any(
            (recorder.masks[number - 1][p] != recorder.masks[number - 2][p]).any()
            for p in recorder.masks[0]
        )
    ]
    assert changes == [20, 25, 28]


def test_a_loop_without_a_model_or_an_end():
    with pytest.raises(ValueError, match="set_model"):
        SCHEDULES["set"]().step()
    schedule = snip_tf.SET()
    schedule.set_model(sparse())
    with pytest.raises(ValueError, match="Expected `end_step` in a loop"):
        schedule.step()


def test_a_loop_with_an_optimizer_of_its_own():
    pruned = sparse()
    pruned = snip_tf.apply_masks(pruned, snip_tf.get_masks(pruned))
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(pruned.trainable_variables)
    schedule = snip_tf.SET(frequency=2, end_step=6, seed=0)
    schedule.set_model(pruned)
    before = snip_tf.get_masks(pruned)
    rng = np.random.default_rng(0)
    for step in range(1, 7):
        gradients = [
            keras.ops.convert_to_tensor(rng.normal(size=v.shape).astype("float32"))
            for v in pruned.trainable_variables
        ]
        optimizer.apply(gradients, pruned.trainable_variables)
        old = snip_tf.get_masks(pruned)
        schedule.step(optimizer)
        new = snip_tf.get_masks(pruned)
        assert any((old[p] != new[p]).any() for p in old) == (step % 2 == 0)
        if step % 2:
            continue
        slots = optimizer.variables[2:]  # after the iterations and the rate
        for path, weight in snip_tf.prunable_weights(pruned).items():
            [position] = [
                n for n, w in enumerate(pruned.trainable_variables) if w is weight
            ]
            momentum = keras.ops.convert_to_numpy(slots[position])
            come = new[path] & ~old[path]
            assert not momentum[come].any() and not momentum[~new[path]].any()
    assert any((before[p] != new[p]).any() for p in before)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zeros_with_each_optimizer(name):
    """Exact in weights, in slots and in averages, after every update."""
    options = {"use_ema": True, "ema_momentum": 0.9} if name != "MultiOptimizer" else {}
    optimizer = getattr(keras.optimizers, name)(learning_rate=0.01, **options)
    pruned = dense(optimizer)
    weights = snip_tf.prunable_weights(pruned)

    class Check(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            masks = snip_tf.get_masks(self.model)  # brings JAX up to date
            for path, weight in weights.items():
                gone = ~masks[path]
                assert not keras.ops.convert_to_numpy(weight)[gone].any()
                for variable in self.model.optimizer.variables:
                    if variable.path.endswith("moving_average") and tuple(
                        variable.shape
                    ) == tuple(weight.shape):
                        average = keras.ops.convert_to_numpy(variable)
                        assert not average[gone].any()

    fit(pruned, SCHEDULES["gradual"](), Check())
    assert snip_tf.sparsity(pruned) == pytest.approx(0.9, abs=1e-3)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    "options",
    [{"jit_compile": True}, {"run_eagerly": True}, {"steps_per_execution": 4}],
    ids=lambda options: next(iter(options)),
)
def test_ways_to_execute(name, options):
    if keras.backend.backend() == "torch" and not options.get("run_eagerly"):
        pytest.skip("PyTorch has neither")
    plain, other = start(name, "sgd"), start(name, "sgd", **options)
    fit(plain, SCHEDULES[name]())
    fit(other, SCHEDULES[name]())
    for path, mask in snip_tf.get_masks(plain).items():
        differ = (mask != snip_tf.get_masks(other)[path]).sum()
        assert differ <= 2, path  # rounding


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        pruned = dense(keras.optimizers.SGD(0.01))
    finally:
        keras.config.set_dtype_policy(before)
    fit(pruned, SCHEDULES["gradual_snip"]())
    assert snip_tf.sparsity(pruned) == pytest.approx(0.9, abs=1e-3)


class Killed(Exception):
    pass


class KillAt(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.left = step

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise Killed


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("order", ["schedule first", "backup first"])
def test_killed_and_resumed_after_an_epoch(name, order, tmp_path):
    """To the bit, with a backup made at the very step of an update."""
    whole, killed, resumed = (start(name) for _ in range(3))

    def callbacks(*more):
        found = [SCHEDULES[name](), keras.callbacks.BackupAndRestore(tmp_path)]
        return [*(found if order == "schedule first" else found[::-1]), *more]

    fit(whole, SCHEDULES[name](), epochs=3)
    with contextlib.suppress(Killed):
        fit(killed, *callbacks(KillAt(11)), epochs=3)
    fit(resumed, *callbacks(), epochs=3)
    assert_equal(resumed, whole)


def assert_equal(one, other):
    masks = snip_tf.get_masks(other)
    for path, mask in snip_tf.get_masks(one).items():
        np.testing.assert_array_equal(mask, masks[path])
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(one.optimizer.variables, other.optimizer.variables, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (a, b)))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("order", ["before", "after"])
def test_a_file_of_the_step_of_an_update(name, order, tmp_path):
    """Written before the update of that step or after it: training ends the same."""
    path = tmp_path / "model.keras"

    class Save(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            snip_tf.get_masks(self.model)  # brings JAX up to date
            if int(self.model.optimizer.iterations) == 8:
                self.model.save(path)

    whole = start(name)
    callbacks = [SCHEDULES[name](), Save()]
    fit(whole, *(callbacks if order == "after" else callbacks[::-1]))
    resumed = keras.models.load_model(path)
    resumed.fit(
        X,
        Y,
        batch_size=16,
        epochs=2,
        initial_epoch=1,
        shuffle=False,
        verbose=0,
        callbacks=[SCHEDULES[name]()],
    )
    assert_equal(resumed, whole)


@pytest.mark.parametrize("name", ["gradual", "set"])
def test_the_step_is_that_of_gradient_accumulation(name):
    """`iterations` counts the steps that change weights."""
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    pruned, recorder = start(name, optimizer), Recorder()
    schedule = SCHEDULES[name]()
    fit(pruned, schedule, recorder, epochs=4)
    changes = [
        step
        for step in range(2, 33)
        if any(
            (recorder.masks[step - 1][p] != recorder.masks[step - 2][p]).any()
            for p in recorder.masks[0]
        )
    ]
    assert changes == [8, 16, 24]


def test_several_optimizers_and_a_training_step_of_ones_own():
    """As in a GAN: the step is that of the optimizer which is furthest along."""

    class Two(keras.Model):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def compile(self, first, second):
            super().compile()
            self.first, self.second = first, second

        def call(self, x):
            return self.inner(x)

        def train_on(self, rng):
            for optimizer, variables in (
                (self.first, self.inner.layers[0].trainable_variables),
                (self.second, self.inner.layers[-1].trainable_variables),
            ):
                gradients = [
                    keras.ops.convert_to_tensor(rng.normal(size=v.shape), "float32")
                    for v in variables
                ]
                optimizer.apply(gradients, variables)

    model = Two(network())
    model(X[:2])
    pruned = snip_tf.prune_model(model, sparsity=0.0, criterion="magnitude")
    pruned.compile(keras.optimizers.SGD(0.01), keras.optimizers.Adam(0.01))
    schedule = snip_tf.GradualPruning(0.8, end_step=4, frequency=2)
    schedule.set_model(pruned)
    rng = np.random.default_rng(0)
    for _ in range(4):
        pruned.train_on(rng)
        schedule.step()
    assert snip_tf.sparsity(pruned) == pytest.approx(0.8, abs=1e-3)


@on("tensorflow")
@pytest.mark.xdist_group("two replicas")
@pytest.mark.parametrize("name", SCHEDULES)
def test_replicas_have_the_same_masks(name):
    from tests.replicas import two_replicas

    strategy = two_replicas()
    with strategy.scope():
        pruned = start(name, keras.optimizers.SGD(0.1, momentum=0.9))
    before = snip_tf.get_masks(pruned)
    fit(pruned, SCHEDULES[name]())
    for path, weight in snip_tf.prunable_weights(pruned).items():
        first, second = (part.numpy() for part in weight._snip_mask.value.values)
        np.testing.assert_array_equal(first, second)
        assert (first != before[path]).any()
    kept = 0.1 if name.startswith("gradual") else 0.25
    assert snip_tf.sparsity(pruned) == pytest.approx(1 - kept, abs=1e-3)


def test_a_plain_model_loads_the_file_of_a_scheduled_one(tmp_path):
    pruned = sparse()
    fit(pruned, SCHEDULES["set"]())
    pruned.save_weights(tmp_path / "a.weights.h5")
    plain = network()
    plain.load_weights(tmp_path / "a.weights.h5")
    for path, weight in weights_of(pruned).items():
        np.testing.assert_array_equal(weights_of(plain)[path], weight)


def test_a_callback_is_freed_with_its_model():
    import weakref

    pruned, schedule = sparse(), SCHEDULES["set"]()
    fit(pruned, schedule)
    gone = weakref.ref(schedule), weakref.ref(pruned)
    del schedule, pruned
    gc.collect()
    keras.utils.clear_session()
    gc.collect()
    assert gone[0]() is None


def test_loss_of_the_compiled_model_is_used():
    """RigL needs no `loss` of its own."""
    pruned = sparse()
    pruned.compile("sgd", LOSS)
    before = snip_tf.get_masks(pruned)
    fit(pruned, SCHEDULES["rigl"]())
    after = snip_tf.get_masks(pruned)
    assert any((before[path] != after[path]).any() for path in before)

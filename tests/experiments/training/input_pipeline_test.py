import itertools

import numpy as np
import pytest

from snip_tf.experiments.training.augmentation import AUGMENTATIONS
from snip_tf.experiments.training.input_pipeline import training_batches

# 23 examples make epochs of 5 batches of 4, and 3 are left out. The label is the row.
COUNT, BATCH, PER_EPOCH = 23, 4, 5
IMAGES = np.random.default_rng(0).normal(size=(COUNT, 6, 5, 1)).astype(np.float32)
LABELS = np.arange(COUNT, dtype=np.int32)


def take(number, batch_size=BATCH, **options):
    batches = training_batches(IMAGES, LABELS, batch_size, **options)
    return list(itertools.islice(batches.as_numpy_iterator(), number))


def labels_of(batches):
    return np.concatenate([labels for _, labels in batches])


def epochs(count, **options):
    return labels_of(take(count * PER_EPOCH, **options)).reshape(count, -1)


def assert_same(found, expected):
    for (images, labels), (wanted, wanted_labels) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(images, wanted)
        np.testing.assert_array_equal(labels, wanted_labels)


def test_images_keep_their_labels():
    for images, labels in take(3 * PER_EPOCH):
        assert images.shape == (BATCH, 6, 5, 1)
        assert images.dtype == np.float32
        np.testing.assert_array_equal(images, IMAGES[labels])


def test_an_epoch_has_no_example_twice():
    for labels in epochs(20):
        assert len(set(labels)) == PER_EPOCH * BATCH


def test_an_epoch_of_whole_batches_is_a_permutation():
    batches = take(2, batch_size=COUNT)
    for _, labels in batches:
        np.testing.assert_array_equal(np.sort(labels), LABELS)


def test_each_epoch_has_another_order_and_leaves_out_others():
    orders = epochs(80)
    assert len({tuple(order) for order in orders}) == 80
    left_out = [frozenset(LABELS) - set(order) for order in orders]
    assert frozenset.union(*left_out) == set(LABELS)


def test_the_seed_decides_the_order():
    first = epochs(2, seed=1)
    np.testing.assert_array_equal(epochs(2, seed=1), first)
    assert (epochs(2, seed=2) != first).any(axis=1).all()


def test_a_seed_is_no_shift_of_another():
    """Epoch 1 of one seed is not epoch 0 of the next."""
    orders = [tuple(order) for seed in range(4) for order in epochs(4, seed=seed)]
    assert len(set(orders)) == 16


@pytest.mark.parametrize("kinds", [(), tuple(AUGMENTATIONS)])
@pytest.mark.parametrize("start", [1, 4, 5, 6, 13])
def test_starts_at_any_iteration_as_if_it_had_run_up_to_it(start, kinds):
    whole = take(20, seed=7, aug_kinds=kinds)
    rest = take(20 - start, seed=7, aug_kinds=kinds, start=start)
    assert_same(rest, whole[start:])


def test_starts_late_without_running_up_to_it():
    # A million iterations would take minutes.
    [(images, labels)] = take(1, start=1_000_003)
    np.testing.assert_array_equal(images, IMAGES[labels])


def test_augmentation_is_another_one_at_each_iteration():
    options = {"batch_size": COUNT, "aug_kinds": ["translate_px"]}
    by_row = [images[np.argsort(labels)] for images, labels in take(5, **options)]
    for first, second in itertools.combinations(by_row, 2):
        assert (first != second).any(axis=(1, 2, 3)).mean() > 0.5


def test_augmentation_follows_the_seed():
    first, again, other = (
        take(3, seed=seed, aug_kinds=["fliplr", "translate_px"]) for seed in (1, 1, 2)
    )
    assert_same(first, again)
    assert any((a[0] != b[0]).any() for a, b in zip(first, other, strict=True))


def test_augmentation_leaves_the_order_as_it_is():
    plain, augmented = take(10), take(10, aug_kinds=["translate_px"])
    np.testing.assert_array_equal(labels_of(augmented), labels_of(plain))


def test_too_few_examples_for_a_batch():
    assert len(take(3, batch_size=COUNT)) == 3
    with pytest.raises(ValueError, match=r"batch_size.*23.*batch_size=24"):
        take(1, batch_size=COUNT + 1)

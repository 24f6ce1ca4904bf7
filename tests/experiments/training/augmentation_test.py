import numpy as np
import pytest

from snip_tf.experiments.training.augmentation import AUGMENTATIONS, augment

# All different, so that each output tells what was done to its image.
IMAGES = np.random.default_rng(0).normal(size=(2000, 7, 6, 2)).astype(np.float32)
SHIFTS = [(down, right) for down in range(-4, 5) for right in range(-4, 5)]


def flipped(images):
    return images[:, :, ::-1]


def shifted(images, down, right):
    """Row by row and column by column; what comes in is zero."""
    moved = np.zeros_like(images)
    height, width = images.shape[1:3]
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                moved[:, row, column] = images[:, row - down, column - right]
    return moved


def same(a, b):
    return (a == b).all(axis=(1, 2, 3))


def shift_of_each(images, outputs):
    """Position in SHIFTS, or -1 where no shift gives the output."""
    found = np.full(len(images), -1)
    for position, shift in enumerate(SHIFTS):
        found[same(shifted(images, *shift), outputs)] = position
    return found


def run(*kinds, seed=(0, 0), images=IMAGES):
    return np.asarray(augment(images, kinds, seed))


def test_fliplr_mirrors_half_of_the_images():
    outputs = run("fliplr")
    mirrored = same(outputs, flipped(IMAGES))
    assert (mirrored | same(outputs, IMAGES)).all()
    # 2,000 throws of a coin: a deviation of 22.
    assert 890 < mirrored.sum() < 1110


def test_translate_px_moves_by_up_to_4_pixels_each_way():
    found = shift_of_each(IMAGES, run("translate_px"))
    assert (found >= 0).all()
    counts = np.bincount(found, minlength=81)
    # About 25 of each of the 81 shifts, with a deviation of 5.
    assert counts.min() >= 5
    assert counts.max() <= 50


def test_both_are_independent_of_each_other():
    outputs = run("fliplr", "translate_px")
    straight = shift_of_each(IMAGES, outputs)
    mirrored = shift_of_each(flipped(IMAGES), outputs)
    assert ((straight >= 0) ^ (mirrored >= 0)).all()
    is_mirrored = mirrored >= 0
    down, right = np.array(SHIFTS)[np.where(is_mirrored, mirrored, straight)].T
    for a, b in ((is_mirrored, down), (is_mirrored, right), (down, right)):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(len(IMAGES))


def test_at_random_every_second_image_is_augmented():
    """A flip that is applied still mirrors only every second."""
    mirrored = same(run("fliplr_at_random"), flipped(IMAGES))
    # A quarter of 2,000, with a deviation of 19.
    assert 400 < mirrored.sum() < 600
    found = shift_of_each(IMAGES, run("translate_px_at_random"))
    still = (found == SHIFTS.index((0, 0))).sum()
    # Half of them, and 1 in 81 of the others, with a deviation of 22.
    assert 900 < still < 1125


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_the_two_seeds_decide(kind):
    first = run(kind, seed=(1, 2))
    np.testing.assert_array_equal(run(kind, seed=(1, 2)), first)
    for other in ((1, 3), (2, 2), (2, 1)):
        assert not same(run(kind, seed=other), first).all()


def test_takes_turns_in_the_order_given():
    one_by_one = run("fliplr", "translate_px")
    np.testing.assert_array_equal(one_by_one, run("fliplr", "translate_px"))
    other_order = run("translate_px", "fliplr")
    assert not same(one_by_one, other_order).all()


def test_no_kinds_change_nothing():
    np.testing.assert_array_equal(run(), IMAGES)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_keeps_the_type_and_the_shape(kind):
    outputs = run(kind, images=IMAGES[:3])
    assert outputs.dtype == np.float32
    assert outputs.shape == (3, 7, 6, 2)

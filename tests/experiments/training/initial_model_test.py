"""What a run starts from, as the flags of scripts/train.py say."""

import keras
import numpy as np
import pytest

import snip_tf
from snip_tf.experiments.training import initial_model
from snip_tf.experiments.training.settings import Settings
from tests.programs import loaded
from tests.training_runs import parsed

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def data():
    return snip_tf.datasets.load("digits", max_examples=200)


@pytest.fixture(scope="module")
def made(data):
    """Makes the initial model of some flags."""
    with loaded("scripts/train.py") as train:

        def make(*flags):
            settings = parsed(train, Settings, "--arch=lenet300", *flags)
            keras.utils.set_random_seed(settings.seed)
            network = initial_model.build_network(settings, data)
            optimizer = initial_model.make_optimizer(settings)
            model, _ = initial_model.make_model(settings, data, network, optimizer)
            return network, model

        yield make


def masks_of(made, *flags):
    return snip_tf.get_masks(made(*flags)[1])


def counts(masks):
    return [int(mask.sum()) for mask in masks.values()]


def test_controls_of_a_criterion(made):
    """Shuffled masks are others of as many; redrawn weights have the same masks."""
    snip, shuffled, redrawn, inverted = (
        masks_of(made, f"--control={control}")
        for control in ("none", "shuffle", "reinitialize", "invert")
    )
    np.testing.assert_equal(redrawn, snip)
    assert counts(shuffled) == counts(snip)
    assert counts(inverted) != counts(snip)
    assert sum(counts(inverted)) == sum(counts(snip))
    for path, mask in snip.items():
        assert (shuffled[path] != mask).any()


def test_criteria_differ(made):
    snip = masks_of(made, "--criterion=snip")
    assert counts(masks_of(made, "--criterion=force")) != counts(snip)


def kept_of(weights, masks):
    return [np.asarray(weights[path])[mask] for path, mask in masks.items()]


@pytest.mark.parametrize("flag", ["--control=reinitialize", "--initializer_w_ap=vs"])
def test_weights_are_drawn_anew(made, flag):
    network, model = made(flag)
    masks = snip_tf.get_masks(model)
    before = kept_of(snip_tf.prunable_weights(network), masks)
    after = kept_of(snip_tf.prunable_weights(model), masks)
    for old, new in zip(before, after, strict=True):
        assert (old != new).all()


def test_without_them_the_weights_that_were_scored_are_trained(made):
    network, model = made()
    masks = snip_tf.get_masks(model)
    before = kept_of(snip_tf.prunable_weights(network), masks)
    after = kept_of(snip_tf.prunable_weights(model), masks)
    np.testing.assert_equal(after, before)


@pytest.mark.parametrize(("structure", "sparsity"), [("2:4", 0.5), ("1:4", 0.75)])
def test_n_of_m_are_kept(made, structure, sparsity):
    masks = masks_of(made, f"--structure={structure}", f"--target_sparsity={sparsity}")
    for mask in masks.values():
        assert set(mask.T.reshape(-1, 4).sum(axis=1)) == {int(structure[0])}


def test_blocks_are_kept_or_removed_whole(made):
    for mask in masks_of(made, "--structure=4x2", "--target_sparsity=0.5").values():
        inputs, outputs = mask.shape
        blocks = mask.reshape(inputs // 4, 4, outputs // 2, 2).sum(axis=(1, 3))
        assert np.isin(blocks, [0, 8]).all()


def test_each_unit_by_itself(made):
    """Each keeps its share of its inputs, rounded down or up."""
    masks = masks_of(made, "--scope=unit", "--target_sparsity=0.75")
    for mask in masks.values():
        share = len(mask) / 4
        assert set(mask.sum(axis=0)) <= {np.floor(share), np.ceil(share)}
    assert sum(counts(masks)) == round(0.25 * 266_200)


def test_scope_and_min_kept(made):
    masks = masks_of(made, "--scope=layer", "--target_sparsity=0.5")
    assert counts(masks) == [mask.size / 2 for mask in masks.values()]
    few = ("--target_sparsity=0.99", "--min_kept=800")
    assert min(counts(masks_of(made, *few))) >= 800
    assert sum(counts(masks_of(made, *few))) == round(0.01 * 266_200)


def test_biases_are_pruned_as_the_release_does(made):
    masks = masks_of(made, "--prune_biases")
    assert sum(counts(masks)) == round(0.1 * 266_610)
    assert {"dense1/bias", "dense2/bias", "logits/bias"} < masks.keys()


def test_what_is_scored_on(made):
    """The masks of examples of each class differ from those of a mini-batch."""
    size, other, each = (
        counts(masks_of(made, flag))
        for flag in (
            "--scoring_batch_size=30",
            "--scoring_batch_size=60",
            "--examples_per_class=3",
        )
    )
    assert size != other
    assert each not in (size, other)


def test_sparsity_0_is_the_dense_network(made):
    network, model = made("--target_sparsity=0")
    assert model is network


@pytest.mark.parametrize("form", ["l2", "decoupled"])
def test_the_form_of_weight_decay(made, form):
    _, model = made("--weight_decay=0.25", f"--weight_decay_form={form}")
    decay = {"l2": 0, "decoupled": 0.25}[form]
    assert (model.optimizer.weight_decay or 0) == decay
    assert bool(model.losses) is (form == "l2")


def test_errors_name_the_flags(made):
    with pytest.raises(ValueError, match=r"--decay_boundaries.*one more value"):
        made("--lr_decay_type=piecewise", "--decay_boundaries=3")
    for flags, words in (
        (["--min_kept=1000000"], "min_kept=1000000"),
        (["--structure=units", "--scope=layer"], "scope='layer'"),
        (["--structure=4x4"], "logits/kernel"),
        (["--structure=4:2"], "structure='4:2'"),
    ):
        with pytest.raises(ValueError, match=words):
            made(*flags)

import importlib
import pickle
import sys

import keras
import numpy as np
import pytest

import snip_tf
import snip_tf.reports

pytest.importorskip("matplotlib")
from snip_tf import plots
from snip_tf.reports.costs import LayerRow
from tests.random_networks import OwnModel

IMAGES = np.random.default_rng(0).random((6, 5, 4, 3)).astype(np.float32)


def drawn(figure):
    """The pixels of a figure, which must not be one color."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    assert pixels.std() > 0
    return figure


def pruned_model():
    layers = [keras.layers.Conv2D(4, 3, name="conv"), keras.layers.Flatten()]
    head = keras.layers.Dense(2, name="head")
    model = keras.Sequential([keras.Input((5, 4, 3)), *layers, head])
    rng = np.random.default_rng(0)
    masks = {
        "conv/kernel": rng.random((3, 3, 3, 4)) < 0.5,
        "head/kernel": rng.random((24, 2)) < 0.25,
    }
    return snip_tf.apply_masks(model, masks), masks


def test_error_against_sparsity_has_means_and_deviations():
    curves = {"a": {0.9: [2.0, 4.0], 0.0: [1.0]}, "b": {0.5: [1.5]}}
    [axes] = drawn(plots.error_against_sparsity(curves)).axes
    lines = {c.get_label(): c.lines[0].get_xydata() for c in axes.containers}
    np.testing.assert_array_equal(lines["a"], [[0, 1], [90, 3]])
    np.testing.assert_array_equal(lines["b"], [[50, 1.5]])
    low, high = axes.containers[0].lines[2][0].get_segments()[1][:, 1]
    np.testing.assert_allclose(high - low, 2 * np.sqrt(2))


def test_layer_sparsity_takes_models_and_numbers():
    pruned, masks = pruned_model()
    networks = {"mine": pruned, "other": {"a/kernel": 0.5}}
    first, second = drawn(plots.layer_sparsity(networks)).axes
    heights = [bar.get_height() for bar in first.patches]
    np.testing.assert_allclose(heights, [100 * mask.mean() for mask in masks.values()])
    assert [bar.get_height() for bar in second.patches] == [50]
    assert first.get_title() == "mine"


def test_layer_sparsity_has_a_panel_for_each_of_many():
    networks = {f"{number}": {"a": 0.1, "b": 1.0} for number in range(6)}
    assert len(drawn(plots.layer_sparsity(networks)).axes) == 6


def test_layer_sparsity_of_one_network():
    pruned, masks = pruned_model()
    expected = [100 * mask.mean() for mask in masks.values()]
    kept = {path: mask.mean() for path, mask in masks.items()}
    for network in (pruned, snip_tf.report(pruned), masks, kept):
        [axes] = drawn(plots.layer_sparsity(network)).axes
        np.testing.assert_allclose([b.get_height() for b in axes.patches], expected)
    networks = {"model": pruned, "report": snip_tf.report(pruned), "masks": masks}
    assert len(plots.layer_sparsity(networks).axes) == 3


@pytest.mark.parametrize(
    ("draw", "thing", "error", "words"),
    [
        (plots.layer_sparsity, 5, TypeError, "Received: networks=5 of type int"),
        (plots.layer_sparsity, {"a": "b"}, TypeError, "Keras 3 model"),
        (plots.layer_costs, "model", TypeError, "Received: layers='model'"),
        (plots.loss_curves, keras.callbacks.History(), TypeError, "a History"),
        (plots.loss_curves, {"loss": [3.0]}, TypeError, r"history\['loss'\]"),
        (plots.error_against_sparsity, {"a": [1.0]}, TypeError, "a dict of list"),
        (plots.error_by_criterion, [1.0], TypeError, "errors in percent"),
        (plots.mean_images, IMAGES, TypeError, "{label: images}"),
        (plots.image_grid, {"a": IMAGES[0]}, TypeError, "{column label: array}"),
        (plots.layer_costs, [5], TypeError, "of type list"),
        (plots.layer_costs, [], ValueError, "something to draw"),
    ],
)
def test_what_is_no_network(draw, thing, error, words):
    with pytest.raises(error, match=words):
        draw(thing)


def test_layer_sparsity_of_what_has_no_masks():
    dense = snip_tf.strip_pruning(pruned_model()[0])
    for network in (dense, snip_tf.report(dense), {"dense": dense}):
        with pytest.raises(ValueError, match="which has no masks"):
            plots.layer_sparsity(network)


def normalized():
    """Layers with and without multiply-adds."""
    stack = [keras.layers.Dense(4, name="in"), keras.layers.BatchNormalization()]
    return keras.Sequential([keras.Input((3,)), *stack, keras.layers.Dense(2)])


def test_layer_costs_draws_what_multiplies():
    model = normalized()
    report = snip_tf.report(model)
    for given in (model, report, report.layers):
        figure = drawn(plots.layer_costs(given))
        for axes, counts in zip(figure.axes, ([16, 10], [12, 8]), strict=True):
            bars = axes.containers[0].patches
            assert [bar.get_width() for bar in bars] == counts
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["in", report.layers[-1].layer]


@pytest.mark.parametrize("count", [2, 100])
def test_layer_costs_has_its_axes_on_top_and_no_blank_bands(count):
    [row, *_] = snip_tf.report(normalized()).layers
    figure = drawn(plots.layer_costs([row] * count))
    for axes in figure.axes:
        assert axes.xaxis.get_ticks_position() == "top"
        bottom, top = axes.get_ylim()
        assert (bottom, top) == (count - 0.5, -0.5)  # the first layer is the highest
    assert figure.get_figheight() < 1.3 + 0.31 * count


def test_layer_costs_of_a_model_whose_multiply_adds_are_unknown():
    own = OwnModel()
    own(np.zeros((1, 2)))
    [axes] = drawn(plots.layer_costs(own)).axes
    assert axes.get_title() == "parameters"
    assert [bar.get_width() for bar in axes.containers[0].patches] == [9]


def test_odd_names_are_drawn_as_they_are():
    names = ["a$^$", "b\nc", "$x$", "long" * 50, "\x1b[31m"]
    stack = [keras.layers.Dense(2, name=name) for name in names]
    model = keras.Sequential([keras.Input((2,)), *stack], name="m$^$")
    masks = {f"{name}/kernel": np.eye(2, dtype=bool) for name in names}
    pruned = snip_tf.apply_masks(model, masks)
    labels = drawn(plots.layer_costs(pruned)).axes[0].get_yticklabels()
    shown = [label.get_text().replace("\\$", "$") for label in labels]
    assert shown[:3] == ["a$^$", "b\\nc", "$x$"]
    assert len(shown[3]) < 50
    drawn(plots.layer_sparsity(pruned))


def test_retained_connections_of_a_model():
    pruned, masks = pruned_model()
    expected = plots.retained_image(masks["conv/kernel"], (5, 4, 3))
    np.testing.assert_array_equal(plots.retained_image(pruned, (5, 4, 3)), expected)
    assert len(drawn(plots.retained_connections(pruned, (5, 4, 3))).axes) == 1
    grid = {"a": {"b": pruned, "c": masks["conv/kernel"]}}
    assert len(drawn(plots.retained_connections(grid, (5, 4, 3))).axes) == 2
    with pytest.raises(TypeError, match=r"row label: .* Received: a dict of ndarray"):
        plots.retained_connections(snip_tf.get_masks(pruned), (5, 4, 3))


def test_loss_curves():
    [axes] = drawn(plots.loss_curves({"dense": ([1, 2], [3.0, 2.0])})).axes
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[1, 3], [2, 2]])


def test_retained_image_of_a_convolution_is_that_of_its_filters():
    _, masks = pruned_model()
    image = plots.retained_image(masks["conv/kernel"], (5, 4, 3))
    np.testing.assert_allclose(image, masks["conv/kernel"].mean((2, 3)))


def test_retained_image_of_a_dense_layer_is_that_of_the_pixels():
    mask = np.random.default_rng(0).random((60, 7)) < 0.3
    expected = [
        [
            np.mean([mask[(row * 4 + column) * 3 + c] for c in range(3)])
            for column in range(4)
        ]
        for row in range(5)
    ]
    np.testing.assert_allclose(plots.retained_image(mask, (5, 4, 3)), expected)


@pytest.mark.parametrize("shape", [(59, 7), (60,), (3, 3, 1, 2)])
def test_retained_image_refuses_what_sees_no_such_images(shape):
    with pytest.raises(ValueError, match=r"Received: a mask of shape"):
        plots.retained_image(np.ones(shape, bool), (5, 4, 3))


def test_retained_connections_is_a_labeled_grid():
    mask = np.random.default_rng(0).random((60, 7)) < 0.3
    masks = {"cat": {"10%": mask, "90%": mask}, "dog": {"10%": mask, "90%": mask}}
    axes = drawn(plots.retained_connections(masks, (5, 4, 3))).axes
    assert [a.get_ylabel() for a in axes] == ["cat", "", "dog", ""]
    assert [a.get_title() for a in axes] == ["10%", "90%", "", ""]


def test_mean_images():
    axes = drawn(plots.mean_images({"1": IMAGES[:1], "6": IMAGES})).axes
    assert [a.get_title() for a in axes] == ["1", "6"]
    mean = IMAGES.mean(axis=0)
    shown = np.asarray(axes[1].images[0].get_array())
    np.testing.assert_allclose(shown, (mean - mean.min()) / np.ptp(mean), rtol=1e-5)


@pytest.mark.parametrize(
    "draw",
    [
        plots.error_against_sparsity,
        plots.layer_sparsity,
        plots.loss_curves,
        plots.mean_images,
        plots.image_grid,
    ],
)
def test_nothing_to_draw(draw):
    with pytest.raises(ValueError, match="Expected something to draw"):
        draw({})


CURVES = {"a": {0.5: [1.0, 2.0]}}
DRAWN = {
    "error_against_sparsity": [CURVES],
    "error_by_criterion": [CURVES],
    "layer_costs": [[LayerRow("a", "Dense", 6, 6, 4, 4)]],
    "layer_sparsity": [{"a/kernel": 0.5}],
    "loss_curves": [{"a": ([1, 2], [2.0, 1.0])}],
    "mean_images": [{"a": IMAGES}],
    "image_grid": [{"a": {"b": IMAGES[0]}}],
    "retained_connections": [{"a": {"b": np.eye(60, dtype=bool)}}, (5, 4, 3)],
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_notebook_shows_each_figure(name):
    picture = getattr(plots, name)(*DRAWN[name])._repr_png_()
    assert picture.startswith(b"\x89PNG")


def test_figures_do_not_use_pyplot():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    figure = plots.loss_curves(*DRAWN["loss_curves"])
    assert plt.get_fignums() == before
    assert len(pickle.loads(pickle.dumps(figure)).axes) == 1


@pytest.mark.parametrize("module", ["matplotlib", "matplotlib.figure"])
@pytest.mark.parametrize("name", DRAWN)
def test_each_says_how_to_get_matplotlib(name, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        getattr(plots, name)(*DRAWN[name])


def test_matplotlib_is_imported_where_it_is_used(monkeypatch):
    monkeypatch.setattr(snip_tf, "reports", snip_tf.reports)  # to be put back
    for name in list(sys.modules):
        if name.partition(".")[0] == "matplotlib":
            monkeypatch.setitem(sys.modules, name, None)
        if name.startswith("snip_tf.reports"):
            monkeypatch.delitem(sys.modules, name)
    anew = importlib.import_module("snip_tf.reports.plots")
    with pytest.raises(ImportError, match="pip install matplotlib"):
        anew.loss_curves(*DRAWN["loss_curves"])


def test_criteria_are_drawn_from_the_lowest_to_the_highest_seed():
    curves = {"a": {0.9: [1.0, 2.0, 6.0], 0.99: [0.1, 0.1, 0.1]}, "b": {0.99: [5.0]}}
    axes = plots.error_by_criterion(curves, dense=[0.5, 0.7]).axes[0]
    first, second = axes.containers
    [bars] = first.lines[2]
    ranges = [segment[:, 1] for segment in bars.get_segments()]
    np.testing.assert_allclose(ranges, [[1, 6], [0.1, 0.1]])
    np.testing.assert_allclose(first.lines[0].get_ydata(orig=False), [3, 0.1])
    np.testing.assert_allclose(second.lines[0].get_xdata(orig=False), [1], atol=0.2)
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["dense", "a", "b"]

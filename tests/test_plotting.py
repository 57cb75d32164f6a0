"""Pictures: what they hold, where they are drawn, and that nothing in them overlaps."""

import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from matplotlib import animation as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

import spikeflow as sf
from spikeflow import plotting
from spikeflow.plotting import learning, movies, style

rng = np.random.default_rng(0)
SPIKES = (rng.random((12, 10)) < 0.3).astype(np.float32)
MEMBRANE = rng.normal(size=(12, 10))
LABELS, PREDICTIONS = rng.integers(0, 10, 300), rng.integers(0, 10, 300)
ROWS = [{"iteration": 0, "test_accuracy": 0.1}, {"iteration": 1, "train_loss": 2.3}, {"iteration": 2, "train_loss": 2.0}]
ROWS += [{"iteration": 2, "test_accuracy": 0.5}]
EPOCHS = [{"iteration": i, "epoch": (i - 1) // 4, "train_loss": 0.1 / i} for i in range(1, 9)]
EPOCHS += [
    {
        "iteration": i,
        "epoch": i // 4 - 1,
        "test_accuracy": i / 10,
        "test_loss": 0.2 / i,
        "train_loss": 9.0,
        "train_accuracy": i / 16,
    }
    for i in (4, 8)
]
RATES = {"2": np.array([0, 0, 0.25, 1.0]), "5": np.full(3, 0.5)}
GRADIENTS = {name: {kind: rng.normal(size=(9, 2, 3, 4)) for kind in ("dspikes", "dmembrane")} for name in ("2", "5", "8")}
NAMES = "t-shirt trouser pullover dress coat sandal shirt sneaker bag boot".split()


def axes_of(rows=1, columns=1):
    return Figure(layout="constrained").subplots(rows, columns)


def figure_of(result):
    if isinstance(result, mpl.Animation):
        result._draw_was_started = True  # an animation that was never drawn warns
        return result._fig
    return result.figure if isinstance(result, Axes) else result


def visible_texts(figure):
    """All texts that are drawn: not ticks' labels outside of the limits."""
    outside = set()
    for ax in figure.findobj(Axes):
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            margin = 1e-6 * (high - low)
            for tick in axis.get_major_ticks() + axis.get_minor_ticks():
                if not low - margin <= tick.get_loc() <= high + margin or not ax.axison:
                    outside.update((tick.label1, tick.label2))
    texts = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible() and artist.get_text().strip())
    return [text for text in dict.fromkeys(texts) if text not in outside]


def corners(text, renderer):
    """The text's box, turned as it is: the upright one of slanted labels meets its neighbours'."""
    angle, text_angle = np.deg2rad(text.get_rotation()), text.get_rotation()
    box = text.get_window_extent(renderer)
    if text_angle % 90 == 0:
        return np.array([[box.x0, box.y0], [box.x1, box.y0], [box.x1, box.y1], [box.x0, box.y1]])
    text.set_rotation(0)
    flat = text.get_window_extent(renderer)
    text.set_rotation(text_angle)
    axis = np.array([np.cos(angle), np.sin(angle)]) * flat.width / 2
    across = np.array([-np.sin(angle), np.cos(angle)]) * flat.height / 2
    centre = np.array([box.x0 + box.x1, box.y0 + box.y1]) / 2
    return centre + np.array([-axis - across, axis - across, axis + across, across - axis])


def overlap(one, other, slack=1.0):
    """Do two rectangles share more than ``slack`` pixels? Not if a side of either separates them."""
    for corners in (one, other):
        for side in (corners[1] - corners[0], corners[3] - corners[0]):
            direction = side / np.linalg.norm(side)
            a, b = one @ direction, other @ direction
            if a.max() <= b.min() + slack or b.max() <= a.min() + slack:
                return False
    return True


def assert_legible(figure):
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = visible_texts(figure)
    boxes = [corners(text, renderer) for text in texts]
    for text, box in zip(texts, boxes, strict=True):
        assert text.get_fontsize() >= 8, text
        assert box.min() >= -1 and (box.max(0) <= figure.bbox.max + 1).all(), f"{text} leaves the figure"
    for (one, a), (other, b) in itertools.combinations(zip(texts, boxes, strict=True), 2):
        assert not overlap(a, b), f"{one} overlaps {other}"


PICTURES = {
    "raster": lambda: plotting.raster(SPIKES),
    "raster of many": lambda: plotting.raster(rng.random((50, 12, 12, 12)) < 0.1),
    "traces": lambda: plotting.traces(MEMBRANE, SPIKES, 1.0),
    "traces of a ragged grid": lambda: plotting.traces(MEMBRANE, SPIKES, 1.0, dim=(3, 4)),
    "one trace": lambda: plotting.traces(100 * MEMBRANE[:, :1]),
    "curves": lambda: plotting.training_curves(ROWS),
    "curves in one": lambda: plotting.training_curves(ROWS, axes_of()),
    "curves of epochs": lambda: plotting.training_curves(EPOCHS),
    "surrogates": lambda: plotting.surrogates(),
    "rates": lambda: plotting.firing_rates(RATES),
    "rates of six": lambda: plotting.firing_rates({str(i): rng.random(1000) for i in range(6)}),
    "filters in": lambda: plotting.filters(rng.normal(size=(12, 1, 5, 5))),
    "filters": lambda: plotting.filters(rng.normal(size=(64, 12, 5, 5))),
    "one filter": lambda: plotting.filters(rng.normal(size=(1, 1, 3, 3))),
    "confusion": lambda: plotting.confusion_matrix(LABELS, PREDICTIONS),
    "confusion of names": lambda: plotting.confusion_matrix(LABELS, PREDICTIONS, NAMES, normalize=False),
    "confusion of 100": lambda: plotting.confusion_matrix([0, 99], [0, 1]),
    "flow": lambda: plotting.gradient_flow(GRADIENTS),
    "flow of six": lambda: plotting.gradient_flow({str(i): GRADIENTS["2"] for i in range(6)}),
    "flow of one": lambda: plotting.gradient_flow({"1": {"dspikes": np.zeros((5, 2, 3))}}),
    "maps": lambda: plotting.feature_maps(rng.normal(size=(64, 8, 8))),
    "seven maps": lambda: plotting.feature_maps(rng.normal(size=(7, 28, 20))),
    "encoder": lambda: plotting.encoder(rng.random((28, 28)), rng.random((4, 128, 28, 28)) < 0.1),
    "encoder of one step": lambda: plotting.encoder(rng.random((28, 20)), rng.random((1, 3, 28, 20)) < 0.5),
    "encoder of one map": lambda: plotting.encoder(rng.random((8, 8)), rng.random((50, 1, 4, 4)) < 0.5),
    "count": lambda: plotting.spike_count(SPIKES),
    "count of names": lambda: plotting.spike_count(SPIKES, NAMES),
    "count of 100": lambda: plotting.spike_count(rng.random((5, 100)) < 0.5),
    "animator": lambda: plotting.animator(rng.random((3, 28, 28))),
    "animator of channels": lambda: plotting.animator(rng.random((3, 5, 20, 28))),
    "animator of polarities": lambda: plotting.animator(rng.random((3, 2, 28, 28)) < 0.2, polarities=("off", "on")),
}


@pytest.mark.parametrize("name", PICTURES)
def test_no_text_overlaps_another_leaves_the_figure_or_is_tiny(name):
    assert_legible(figure_of(PICTURES[name]()))


def test_the_check_finds_overlaps_and_texts_outside():
    ax = axes_of()
    ax.text(0.5, 0.5, "one"), ax.text(0.51, 0.5, "two")
    with pytest.raises(AssertionError, match="overlaps"):
        assert_legible(ax.figure)
    ax = Figure().subplots()
    ax.set_ylabel("far", labelpad=200)
    with pytest.raises(AssertionError, match="leaves"):
        assert_legible(ax.figure)


def test_pyplot_is_not_touched_and_stays_unloaded():
    code = "import sys, spikeflow.plotting as p; p.raster([[0, 1]]); a = p.animator([[[1]]]); a._draw_was_started = True;"
    result = subprocess.run(
        [sys.executable, "-c", code + "print('matplotlib.pyplot' in sys.modules)"], capture_output=True, text=True
    )
    assert result.stdout == "False\n", result.stderr


# ------------------------------------------------------------------------------------------------ activity


def test_raster_marks_every_spike_of_a_flattened_sample():
    ax = axes_of()
    spikes = SPIKES.reshape(12, 2, 5)
    assert plotting.raster(spikes, ax, size=3) is ax
    (marks,) = ax.collections
    assert sorted(map(tuple, marks.get_offsets().astype(int))) == sorted(zip(*np.nonzero(SPIKES), strict=True))
    assert marks.get_sizes() == [9] and ax.get_xlim() == (-0.5, 11.5) and ax.get_ylim() == (-0.5, 9.5)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time step", "neuron")
    assert len(plotting.raster(np.zeros((3, 2))).collections[0].get_offsets()) == 0


def test_traces_draw_membranes_thresholds_and_spikes():
    threshold = np.linspace(0.5, 1, 10)
    figure = plotting.traces(MEMBRANE, SPIKES, threshold, dim=(2, 3))
    assert isinstance(figure, Figure) and len(figure.axes) == 6
    for neuron, ax in enumerate(figure.axes):
        line, level, marks = ax.lines
        np.testing.assert_array_equal(line.get_ydata(), MEMBRANE[:, neuron])
        assert set(level.get_ydata()) == {threshold[neuron]}
        np.testing.assert_array_equal(marks.get_xdata(), np.flatnonzero(SPIKES[:, neuron]))
        assert (marks.get_ydata() > MEMBRANE[:, :6].max()).all() and (marks.get_ydata() < ax.get_ylim()[1]).all()
        assert bool(ax.get_xlabel()) == (neuron >= 3) and bool(ax.get_ylabel()) == (neuron % 3 == 0)
    assert [text.get_text() for text in figure.legends[0].texts] == ["membrane", "threshold", "spike"]


def test_traces_with_fewer_neurons_and_in_a_given_figure():
    figure = Figure(layout="constrained")
    part = figure.subfigures(1, 2)[0]
    assert plotting.traces(np.zeros((4, 2)), fig=part, dim=(3, 3)) is part
    assert len(part.axes) == 2 and all(len(ax.lines) == 1 for ax in part.axes)
    ragged = plotting.traces(MEMBRANE, dim=(3, 4))
    assert [bool(ax.get_xlabel()) for ax in ragged.axes] == [False] * 6 + [True] * 4
    assert len(plotting.traces(SPIKES > 0, SPIKES > 0).axes) == 9


def test_firing_rates_count_the_dead_and_the_saturated():
    axes = axes_of(1, 2)
    assert plotting.firing_rates(RATES, axes, bins=4) is axes[0].figure
    assert axes[0].get_title() == "layer 2: 4 neurons\n2 never fire, 1 always"
    assert axes[1].get_title() == "layer 5: 3 neurons\n0 never fire, 0 always"
    *histogram, dead, saturated = [patch.get_height() for patch in axes[0].patches]
    assert histogram == [0, 1, 0, 0] and (dead, saturated) == (2, 1)
    assert [patch.get_height() for patch in axes[1].patches] == [0, 0, 3, 0, 0, 0]


def test_firing_rates_of_a_record():
    net = sf.Sequential(sf.Linear(6, 8), sf.Leaky(0.5), sf.Linear(8, 3), sf.Leaky(0.5), seed=1, backend="reference")
    record = net.record(np.ones((4, 6), np.float32), num_steps=7)
    figure = plotting.firing_rates(record)
    for ax, layer in zip(figure.axes, record.values(), strict=True):
        counts = layer["spikes"].sum((0, 1))
        dead, saturated = (counts == 0).sum(), (counts == 28).sum()
        assert ax.get_title().endswith(f"{dead} never fire, {saturated} always")
        assert sum(patch.get_height() for patch in ax.patches) == counts.size


# ------------------------------------------------------------------------------------------------ learning


def test_training_curves_of_rows_and_of_a_run_folder(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for source in (ROWS, tmp_path, str(tmp_path / "metrics.jsonl")):
        left, right = plotting.training_curves(source).axes
        assert left.lines[0].get_xydata().tolist() == [[1, 2.3], [2, 2.0]]
        assert right.lines[0].get_xydata().tolist() == [[0, 10], [2, 50]] and "50.00 %" in right.get_title()


def test_training_curves_of_a_run_that_was_killed_while_it_wrote_a_row(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS) + '{"iteration": 3, "train_l')
    left, _ = plotting.training_curves(tmp_path).axes
    assert left.lines[0].get_xydata().tolist() == [[1, 2.3], [2, 2.0]]
    (tmp_path / "metrics.jsonl").write_text("[1]\n")
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 1: a row must be an object"):
        plotting.training_curves(tmp_path)


def test_training_curves_of_epochs_keep_batches_and_epochs_apart():
    left, right = plotting.training_curves(EPOCHS).axes
    assert left.lines[0].get_xydata().tolist() == [[i, 0.1 / i] for i in range(1, 9)]
    assert left.lines[1].get_xydata().tolist() == [[4, 0.05], [8, 0.025]]
    drawn = {line.get_label(): line.get_xydata().tolist() for line in right.lines}
    assert drawn == {"training batches": [[4, 25], [8, 50]], "test set": [[4, 40], [8, 80]]} and "80.00 %" in right.get_title()
    left, right = plotting.training_curves(EPOCHS, axes_of()).axes
    assert len(left.lines) == len(right.lines) == 1


def test_training_curves_in_given_axes():
    pair = axes_of(1, 2)
    assert plotting.training_curves(ROWS, pair) is pair[0].figure and len(pair[1].lines) == 1
    ax = axes_of()
    left, right = plotting.training_curves(ROWS, ax).axes
    assert left is ax and len(left.lines) == len(right.lines) == 1 and right.yaxis.get_label_position() == "right"


def test_surrogates_draw_both_functions():
    chosen = [sf.surrogate.atan(4), sf.surrogate.fast_sigmoid(10)]
    axes = axes_of(1, 2)
    assert plotting.surrogates(chosen, axes, normalize=False) is axes[0].figure
    for function, derivative, primitive in zip(chosen, axes[0].lines, axes[1].lines, strict=True):
        x = derivative.get_xdata()
        assert (x[0], x[-1]) == (-2, 2)
        np.testing.assert_array_equal(derivative.get_ydata(), function.of_array(function.derivative, x))
        np.testing.assert_array_equal(primitive.get_ydata(), function.of_array(function.primitive, x))
    everything = plotting.surrogates()
    assert [len(ax.lines) for ax in everything.axes] == [18, 18]
    assert all(line.get_ydata().max() == pytest.approx(1) for line in everything.axes[0].lines)
    looks = {(line.get_color(), line.get_linestyle()) for line in everything.axes[0].lines}
    assert len(looks) == 18
    labels = [text.get_text() for text in everything.axes[1].get_legend().texts]
    assert "sigmoid(slope=25), peak 6.25" in labels and "atan(alpha=2)" in labels


def test_a_surrogate_without_primitive_has_its_derivative_drawn():
    half = sf.surrogate.custom(lambda x, p: p[0] * (x > -p[0]), constants=(1,))
    assert [len(ax.lines) for ax in plotting.surrogates(half).axes] == [1, 0]


def contrast(color, background):
    light, dark = sorted((learning._luminance(color), learning._luminance(background)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("normalize", [True, False])
def test_confusion_matrix_counts_and_is_readable(normalize):
    ax = axes_of()
    labels = np.repeat([0, 1, 2, 3], [1000, 100, 10, 1])
    predictions = labels.copy()
    predictions[:400] = 1
    assert plotting.confusion_matrix(labels, predictions, 5, ax, normalize=normalize) is ax
    (image,) = ax.images
    counts = np.diag([600, 100, 10, 1, 0])
    counts[0, 1] = 400
    expected = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1) if normalize else counts
    np.testing.assert_array_equal(image.get_array(), expected)
    assert len(ax.texts) == 25 and ax.get_title() == "accuracy 64.00 %"
    assert {text.get_text() for text in ax.texts} == ({"60.0", "40.0", "100", "0"} if normalize else set(map(str, counts.flat)))
    for text in ax.texts:
        prediction, label = text.get_position()
        assert float(text.get_text()) == pytest.approx(expected[label, prediction], abs=0.05)
        assert contrast(text.get_color(), image.cmap(image.norm(expected[label, prediction]))) >= 4.5


def test_text_is_readable_on_every_shade():
    image = plotting.confusion_matrix([0, 1], [0, 1]).images[0]
    for value in np.linspace(0, 100, 101):
        background = image.cmap(image.norm(value))
        assert contrast(learning._readable_on(background), background) >= 4.5


def test_confusion_matrix_of_named_and_of_many_classes():
    ax = plotting.confusion_matrix([0, 1], [0, 1], ["cat", "dog", "bird"])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "dog", "bird"]
    assert ax.images[0].get_array().shape == (3, 3)
    assert not plotting.confusion_matrix([0, 49], [0, 49]).texts


def test_gradient_flow_draws_norms_over_time_and_depth():
    axes = axes_of(1, 5)
    assert plotting.gradient_flow(GRADIENTS, axes) is axes[0].figure
    for kind, ax, index in (("dspikes", axes[0], 0), ("dmembrane", axes[1], 1)):
        norms = np.array([np.sqrt((layer[kind] ** 2).sum((1, 2, 3))) for layer in GRADIENTS.values()])
        np.testing.assert_allclose(ax.images[0].get_array(), norms, rtol=1e-12)
        for panel, line in zip(axes[2:], norms, strict=True):
            np.testing.assert_allclose(panel.lines[index].get_ydata(), line, rtol=1e-12)
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["2", "5", "8"]
    assert axes[0].images[0].norm.vmin > 0 and axes[2].get_yscale() == "log"


def test_gradient_flow_of_zeros_and_of_tiny_and_huge_numbers():
    gradient = np.ones((6, 1, 2))
    gradient[0], gradient[1], gradient[5] = 0, 1e-200, 1e-8
    figure = plotting.gradient_flow({"1": {"dmembrane": gradient}, "2": {"dmembrane": 0 * gradient}})
    heat, *panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    values = heat.images[0].get_array()
    assert values.mask[:, 0].all() and values.mask[1].all() and values.mask.sum() == 7
    assert values[0, 1] == pytest.approx(np.sqrt(2) * 1e-200) and heat.images[0].norm.vmin == pytest.approx(np.sqrt(2) * 1e-10)
    assert np.isnan(panels[0].lines[0].get_ydata()[0]) and panels[1].get_title() == "layer 2: all zero"
    figure = plotting.gradient_flow({"1": {"dspikes": np.full((3, 4), 1e200)}})
    assert np.isfinite(figure.axes[0].images[0].get_array()).all()


# ------------------------------------------------------------------------------------------------ maps


def test_filters_are_symmetric_about_zero():
    weight = rng.normal(size=(3, 2, 2, 4))
    ax = axes_of()
    assert plotting.filters(weight, ax) is ax
    picture = ax.images[0].get_array()
    assert picture.shape == (2 * 3 - 1, 3 * 5 - 1)
    for o, c in np.ndindex(3, 2):
        np.testing.assert_array_equal(picture[3 * c : 3 * c + 2, 5 * o : 5 * o + 4], weight[o, c])
    assert picture.mask[2].all() and picture.mask[:, 4].all() and picture.mask.sum() == picture.size - weight.size
    assert ax.images[0].get_clim() == (-abs(weight).max(), abs(weight).max()) and len(ax.figure.axes) == 2
    assert plotting.filters(np.zeros((2, 1, 3, 3))).images[0].get_clim() == (-1, 1)


def test_filters_of_one_channel_are_wrapped():
    ax = plotting.filters(rng.normal(size=(12, 1, 5, 5)))
    assert ax.images[0].get_array().shape == (3 * 6 - 1, 4 * 6 - 1)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0–3", "4–7", "8–11"]
    assert plotting.filters(rng.normal(size=(12, 1, 5, 5)), columns=6).images[0].get_array().shape == (11, 35)


def test_feature_maps_are_normalised_each_for_itself():
    images = np.stack([np.arange(6.0).reshape(2, 3), 1e3 + np.arange(6.0).reshape(2, 3), np.full((2, 3), 7.0)])
    ax = axes_of()
    assert plotting.feature_maps(images, ax, columns=2) is ax
    picture = ax.images[0].get_array()
    for row, column in ((0, 0), (0, 1)):
        np.testing.assert_allclose(picture[3 * row : 3 * row + 2, 4 * column : 4 * column + 3], images[0] / 5)
    assert (picture[3:5, :3] == 0).all() and picture.mask[3:5, 4:].all() and ax.images[0].get_clim() == (0, 1)


# ------------------------------------------------------------------------------------------------ animations


def test_encoder_shows_the_image_and_the_sums_of_spikes_after_the_first_and_the_last_step():
    image = rng.random((2, 3))
    spikes = np.zeros((3, 4, 2, 3))  # maps: fires at the first two steps, later, everywhere, nowhere
    spikes[:2, 0, 0, 0] = spikes[1:, 1, 1, 1] = spikes[2, 1, 0, 2] = spikes[:, 2] = 1
    figure = plotting.encoder(image, spikes)
    left, first, last = figure.axes
    np.testing.assert_array_equal(left.images[0].get_array(), image)
    assert [ax.get_title() for ax in figure.axes] == ["Input image", r"$\sum_t S_t$ at $t = 0$", r"$\sum_t S_t$ at $t = 2$"]
    expected = np.zeros((2, 4, 2, 3))
    expected[:, 0, 0, 0] = expected[1, 1, 1, 1] = expected[:, 2] = 1
    expected[1, 1, 0, 2] = 0.5
    for ax, maps in zip((first, last), expected, strict=True):
        picture = ax.images[0].get_array()
        assert picture.shape == (5, 7) and np.ma.getmaskarray(picture)[2].all() and np.ma.getmaskarray(picture)[:, 3].all()
        for index, tile in enumerate(maps):
            top, begin = 3 * (index // 2), 4 * (index % 2)
            np.testing.assert_array_equal(picture[top : top + 2, begin : begin + 3], tile)
        assert ax.images[0].get_clim() == (0, 1) and ax.images[0].get_cmap()(0.5)[:3] == pytest.approx((0.5,) * 3, abs=0.01)


def test_encoder_of_128_maps_has_16_columns_and_of_one_step_one_picture():
    figure = plotting.encoder(np.zeros((28, 28)), np.zeros((1, 128, 28, 28)))
    assert len(figure.axes) == 2 and figure.axes[1].images[0].get_array().shape == (8 * 29 - 1, 16 * 29 - 1)
    figure = plotting.encoder(np.zeros((28, 28)), np.zeros((1, 6, 28, 28)), columns=6)
    assert figure.axes[1].images[0].get_array().shape == (28, 6 * 29 - 1)


def test_spike_count_grows_and_highlights_the_leader():
    ax = axes_of()
    spikes = np.array([[0, 0, 1], [0, 1, 0], [0, 1, 0]])
    animation = plotting.spike_count(spikes, ["a", "b", "c"], interpolate=2, ax=ax)
    assert isinstance(animation, mpl.FuncAnimation) and len(list(animation.new_frame_seq())) == 7
    expected = [[0, 0, 0], [0, 0, 0.5], [0, 0, 1], [0, 0.5, 1], [0, 1, 1], [0, 1.5, 1], [0, 2, 1]]
    leaders = [None, 2, 2, 2, 1, 1, 1]
    animation._draw_was_started = True
    for frame, (widths, leader) in enumerate(zip(expected, leaders, strict=True)):
        animation._draw_frame(frame)
        assert [bar.get_width() for bar in ax.patches] == widths
        strong = [index for index, bar in enumerate(ax.patches) if to_hex(bar.get_facecolor()) == style.VERMILLION]
        assert strong == ([] if leader is None else [leader])
        assert ax.get_title() == f"step {frame // 2} of 3"
    assert [text.get_text() for text in ax.texts] == ["0", "2", "1"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]


def test_animator_draws_channels_side_by_side_and_polarities_in_one():
    frames = (rng.random((4, 2, 5, 6)) < 0.5).astype(float)
    axes = axes_of(1, 2)
    animation = plotting.animator(frames, axes)
    animation._draw_was_started = True
    animation._draw_frame(3)
    for channel, ax in enumerate(axes):
        np.testing.assert_array_equal(ax.images[0].get_array(), frames[3, channel])
        assert ax.images[0].get_clim() == (0, 1)
    assert axes[0].get_xlabel() == "step 4 of 4"
    single = plotting.animator(frames[:, 0])
    assert len(figure_of(single).axes) == 1
    both = plotting.animator(frames, polarities=("off", "on"))
    both._draw_was_started = True
    (ax,) = both._fig.axes
    both._draw_frame(2)
    off, on = frames[2] > 0
    picture = ax.images[0].get_array()
    np.testing.assert_allclose(picture[off & ~on], np.broadcast_to(to_rgb(style.VERMILLION), ((off & ~on).sum(), 3)))
    np.testing.assert_allclose(picture[on & ~off], np.broadcast_to(to_rgb(style.BLUE), ((on & ~off).sum(), 3)))
    assert (picture[~on & ~off] == 1).all() and (picture[on & off] < 0.3).all()
    assert [text.get_text() for text in ax.get_legend().texts] == ["off", "on"]


def test_axes_do_not_tremble():
    animation = plotting.spike_count(SPIKES)
    animation._draw_was_started = True
    places = []
    for frame in (0, 60):
        animation._draw_frame(frame)
        animation._fig.draw_without_rendering()
        places.append(animation._fig.axes[0].get_position().bounds)
    assert places[0] == places[1]


def small_animation():
    return plotting.animator(rng.random((5, 8, 8)))


def test_gif(tmp_path):
    path = tmp_path / "small.GIF"
    plotting.save_animation(small_animation(), path, fps=20, dpi=50)
    with Image.open(path) as image:
        assert image.format == "GIF" and image.n_frames == 5 and image.info["duration"] == 50
    assert os.listdir(tmp_path) == ["small.GIF"]


def test_html_needs_nothing_else(tmp_path):
    path = tmp_path / "a & b.html"
    animation = small_animation()
    plotting.save_animation(animation, path, fps=10, dpi=50)
    page = path.read_text("utf-8")
    assert page.count("data:image/png;base64") == 5 and "<title>a &amp; b</title>" in page
    assert "http" not in page and "<link" not in page and 'class="fa' not in page and page.count("</button>") == 9
    assert os.listdir(tmp_path) == ["a & b.html"]
    plotting.save_animation(animation, path, fps=20, dpi=50)
    assert "50" in path.read_text("utf-8").split("new Animation(frames")[1]


def test_large_html_drops_no_frame(tmp_path, monkeypatch):
    monkeypatch.setitem(mpl.mpl.rcParams, "animation.embed_limit", 1e-4)
    plotting.save_animation(small_animation(), tmp_path / "a.html", dpi=50)
    assert (tmp_path / "a.html").read_text("utf-8").count("data:image/png;base64") == 5


def test_mp4_without_ffmpeg_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(movies.mpl.FFMpegWriter, "isAvailable", classmethod(lambda cls: False))
    animation = small_animation()
    figure_of(animation)
    with pytest.raises(RuntimeError, match=r"needs the program ffmpeg.*\.gif or \.html"):
        plotting.save_animation(animation, tmp_path / "a.mp4")
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(not mpl.FFMpegWriter.isAvailable(), reason="needs ffmpeg")
def test_mp4(tmp_path):
    plotting.save_animation(small_animation(), tmp_path / "a.mp4")
    assert b"ftyp" in (tmp_path / "a.mp4").read_bytes()[:16]


@pytest.mark.parametrize("name", ["a.gif", "a.html"])
def test_a_failure_leaves_the_old_file_and_nothing_else(name, tmp_path, monkeypatch):
    scratch, folder = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir(), folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    (folder / name).write_text("old")

    def draw(frame):
        if frame == 2:
            raise KeyboardInterrupt
        return []

    animation = mpl.FuncAnimation(axes_of().figure, draw, 4, cache_frame_data=False)
    with pytest.raises(KeyboardInterrupt):
        plotting.save_animation(animation, folder / name)
    assert (folder / name).read_text() == "old" and os.listdir(folder) == [name] and not os.listdir(scratch)


# ------------------------------------------------------------------------------------------------ errors


NAN = np.full((4, 4), np.nan)
BAD = {
    "raster rank": (lambda: plotting.raster(np.zeros(3)), "spikes must be"),
    "raster empty": (lambda: plotting.raster(np.zeros((0, 3))), "spikes must be"),
    "raster text": (lambda: plotting.raster([["a"]]), "spikes must be"),
    "raster ragged": (lambda: plotting.raster([[1], [1, 2]]), "spikes must be"),
    "raster axes": (lambda: plotting.raster(SPIKES, Figure()), "ax must be"),
    "traces rank": (lambda: plotting.traces(np.zeros((4, 2, 3))), "membrane must be"),
    "traces NaN": (lambda: plotting.traces(NAN), "membrane holds NaN"),
    "traces spikes": (lambda: plotting.traces(MEMBRANE, SPIKES[:, :3]), "spikes must have"),
    "traces threshold": (lambda: plotting.traces(MEMBRANE, threshold=np.ones(3)), "threshold must be"),
    "traces dim": (lambda: plotting.traces(MEMBRANE, dim=(0, 3)), "dim must be"),
    "traces dim pair": (lambda: plotting.traces(MEMBRANE, dim=3), "dim must be"),
    "traces fig": (lambda: plotting.traces(MEMBRANE, fig=axes_of()), "fig must be"),
    "rates none": (lambda: plotting.firing_rates({}), "record must be"),
    "rates key": (lambda: plotting.firing_rates({"1": {"membrane": MEMBRANE}}), "record.*must hold"),
    "rates rank": (lambda: plotting.firing_rates({"1": {"spikes": SPIKES}}), "record.*must be"),
    "rates range": (lambda: plotting.firing_rates({"1": np.array([0.5, 2])}), "from 0 to 1"),
    "rates axes": (lambda: plotting.firing_rates(RATES, axes_of()), "axes must be 2"),
    "rates bins": (lambda: plotting.firing_rates(RATES, bins=0), "bins must be"),
    "curves": (lambda: plotting.training_curves([{"train_loss": 1}]), "metrics must be"),
    "curves axes": (lambda: plotting.training_curves(ROWS, axes_of(1, 3)), "axes must be 2"),
    "surrogates": (lambda: plotting.surrogates(["atan"]), "functions must be"),
    "surrogates none": (lambda: plotting.surrogates([]), "functions must be"),
    "confusion floats": (lambda: plotting.confusion_matrix([0.0], [0]), "labels must be integers"),
    "confusion negative": (lambda: plotting.confusion_matrix([0], [-1]), "predictions must be integers"),
    "confusion shapes": (lambda: plotting.confusion_matrix([0, 1], [0]), "predictions must have"),
    "confusion classes": (lambda: plotting.confusion_matrix([0, 3], [0, 1], 3), "classes must be at least 4"),
    "flow": (lambda: plotting.gradient_flow([]), "record must be"),
    "flow kinds": (lambda: plotting.gradient_flow({"1": {"spikes": SPIKES}}), "record must hold"),
    "flow one kind": (
        lambda: plotting.gradient_flow({"1": {"dspikes": SPIKES}, "2": {"dmembrane": SPIKES}}),
        "record.*must hold",
    ),
    "flow rank": (lambda: plotting.gradient_flow({"1": {"dspikes": np.zeros(3)}}), "record.*must be"),
    "flow NaN": (lambda: plotting.gradient_flow({"1": {"dspikes": NAN}}), "record.*NaN"),
    "flow steps": (lambda: plotting.gradient_flow({"1": {"dspikes": SPIKES}, "2": {"dspikes": SPIKES[1:]}}), "same number"),
    "flow axes": (lambda: plotting.gradient_flow(GRADIENTS, axes_of(1, 2)), "axes must be 5"),
    "filters": (lambda: plotting.filters(np.zeros((3, 5, 5))), "weight must be"),
    "filters columns": (lambda: plotting.filters(np.zeros((3, 2, 5, 5)), columns=2), "columns is for"),
    "maps": (lambda: plotting.feature_maps(np.zeros((3, 4))), "images must be"),
    "maps columns": (lambda: plotting.feature_maps(np.zeros((3, 4, 4)), columns=1.5), "columns must be"),
    "encoder image": (lambda: plotting.encoder(np.zeros((1, 4, 4)), np.zeros((2, 3, 4, 4))), "image must be"),
    "encoder spikes": (lambda: plotting.encoder(np.zeros((4, 4)), np.zeros((3, 4, 4))), "spikes must be"),
    "encoder columns": (lambda: plotting.encoder(np.zeros((4, 4)), np.zeros((2, 3, 4, 4)), columns=0), "columns must be"),
    "count": (lambda: plotting.spike_count(np.zeros((3, 4, 2))), "spikes must be"),
    "count labels": (lambda: plotting.spike_count(SPIKES, ["a"]), "labels must be 10"),
    "count interpolate": (lambda: plotting.spike_count(SPIKES, interpolate=0), "interpolate must be"),
    "animator": (lambda: plotting.animator(np.zeros((3, 4))), "frames must be"),
    "animator polarities": (lambda: plotting.animator(np.zeros((3, 4, 4)), polarities=("a", "b")), "polarities must be"),
    "animator negative": (lambda: plotting.animator(-np.ones((3, 2, 4, 4)), polarities=("a", "b")), "frames must not"),
    "animator axes": (lambda: plotting.animator(np.zeros((3, 2, 4, 4)), axes_of()), "axes must be 2"),
    "suffix": (lambda: plotting.save_animation(None, "a.avi"), r"path must end in one of \.gif, \.html, \.mp4"),
    "animation": (lambda: plotting.save_animation(None, "a.gif"), "animation must be"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_bad_metrics_files_and_rates_of_frames(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"iteration": 1}\n{"iter\n{"iteration": 2}\n')
    with pytest.raises(ValueError, match="metrics: .*not JSON"):
        plotting.training_curves(tmp_path)
    animation = small_animation()
    figure_of(animation)
    for bad in (0, np.nan, "fast"):
        with pytest.raises(ValueError, match="fps must be"):
            plotting.save_animation(animation, tmp_path / "a.gif", fps=bad)

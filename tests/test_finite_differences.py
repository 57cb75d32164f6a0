from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import surrogate
from spikeflow.finite_differences import Report, Row
from spikeflow.layers import Neuron
from spikeflow.ops.surrogate import SURROGATES

LOSSES = [sf.losses.ce_rate_loss(), sf.losses.ce_count_loss(), sf.losses.ce_membrane_loss()]


def dense(backend="reference", dtype=np.float64, **options):
    return sf.Sequential(
        sf.Linear(4, 5), sf.Leaky(**{"beta": 0.6, **options}), sf.Linear(5, 3), sf.Leaky(0.8, 0.5), backend=backend, dtype=dtype
    )


def csnn(backend="reference", dtype=np.float64):
    return sf.Sequential(
        sf.Conv2d(2, 3, 3, padding=1), sf.MaxPool2d(3, 2), sf.Leaky(0.5, learn_beta=True),
        sf.Conv2d(3, 4, 2, stride=2, bias=False), sf.Leaky(0.7, learn_threshold=True), sf.Flatten(), sf.Linear(4, 3),
        sf.Leaky(0.9), backend=backend, dtype=dtype,
    )  # fmt: skip


def draw(*shape, dtype=np.float64):
    """-> images or a sequence of this shape, labels for five samples."""
    rng = np.random.default_rng(0)
    return rng.uniform(0, 1, shape).astype(dtype), rng.integers(0, 3, 5)


def both(spikes, membrane, labels):
    """A plain loss of both outputs, with a given linear form."""
    weights = np.random.default_rng(1).normal(size=(2, *spikes.shape))
    return float(np.vdot(weights[0], spikes) + np.vdot(weights[1], membrane)), *weights


LEARNED = {"learn_beta": True, "learn_threshold": True, "learn_graded_spikes_factor": True}
FEATURES = np.array([0.3, 0.5, 0.7, 0.9, 0.4])
NEURONS = {  # behind five features
    **{reset: sf.Leaky(0.6, reset_mechanism=reset, **LEARNED) for reset in ("subtract", "zero", "none")},
    "at once": sf.Leaky(0.6, reset_delay=False, **LEARNED),
    "at once, zero": sf.Leaky(0.6, reset_delay=False, reset_mechanism="zero", **LEARNED),
    "each its own": sf.Leaky(FEATURES, FEATURES[::-1], graded_spikes_factor=2 * FEATURES, **LEARNED),
    "inhibition": sf.Leaky(0.6, 0.5, inhibition=True, **LEARNED),
    "inhibition, at once": sf.Leaky(FEATURES, 0.5, inhibition=True, reset_delay=False, **LEARNED),
    "Lapicque": sf.Lapicque(beta=0.7, R=2.5, learn_beta=True, learn_threshold=True),
    "Lapicque of R and C": sf.Lapicque(R=2.0, C=1.5, time_step=0.9, reset_mechanism="zero", learn_beta=True),
    "Lapicque, each its own": sf.Lapicque(beta=FEATURES, C=0.7, learn_beta=True),
    "Synaptic": sf.Synaptic(0.6, 0.7, learn_alpha=True, learn_beta=True, learn_threshold=True),
    "Synaptic, at once": sf.Synaptic(FEATURES, 0.7, reset_delay=False, reset_mechanism="zero", learn_alpha=True, learn_beta=True),
    "Alpha": sf.Alpha(0.8, 0.6, threshold=0.3, learn_alpha=True, learn_beta=True, learn_threshold=True),
    "Alpha, subtract": sf.Alpha(0.95, FEATURES, 0.3, reset_mechanism="subtract", learn_alpha=True, learn_beta=True),
    "RLeaky, matrix": sf.RLeaky(0.6, linear_features=5, learn_beta=True, learn_threshold=True),
    "RLeaky, one to one": sf.RLeaky(0.6, V=FEATURES, all_to_all=False, reset_mechanism="zero", learn_beta=True),
    "RSynaptic, matrix": sf.RSynaptic(
        0.6, 0.7, linear_features=5, reset_delay=False, learn_alpha=True, learn_beta=True, graded_spikes_factor=1.5,
        learn_graded_spikes_factor=True,
    ),
    "RSynaptic, one to one": sf.RSynaptic(0.6, 0.7, V=-0.5, all_to_all=False, learn_alpha=True, learn_beta=True),
}  # fmt: skip
COMPILED = {"subtract", "each its own", "inhibition", "Lapicque", "Synaptic", "Alpha", "RLeaky, matrix", "RSynaptic, one to one"}


@pytest.mark.parametrize(
    "backend, name", [("reference", name) for name in NEURONS] + [("cpu", name) for name in sorted(COMPILED)]
)
def test_every_neuron_passes(backend, name):
    neuron = NEURONS[name].unused_copy()
    net = sf.Sequential(sf.Linear(4, 5), neuron, sf.Linear(5, 3), sf.LeakyIntegrator(0.8, learn_beta=True), backend=backend)
    report = sf.gradcheck(net, *draw(5, 4), sf.losses.ce_membrane_loss(), num_steps=5, entries=6, directions=2)
    assert report.passed, f"\n{report}"
    assert {row.name for row in report.rows} == {parameter.name for parameter in net.parameters()} | {"input"}
    assert len(report.rows) > 6


@pytest.mark.parametrize("make", SURROGATES.values(), ids=lambda make: make.__name__)
def test_every_surrogate_passes(make):
    pair = make(B=-0.5) if make is surrogate.SFS else make()  # SFS has no gradient at the twin's membranes by default
    report = sf.gradcheck(dense(spike_grad=pair, reset_delay=False), *draw(5, 4), LOSSES[0], num_steps=4, entries=4)
    assert report.passed, f"\n{report}"


def test_a_surrogate_without_a_primitive_has_no_twin():
    mine = surrogate.custom(lambda x, p: p[0], constants=(1.0,), name="mine")
    with pytest.raises(ValueError, match="'mine' has no primitive"):
        sf.gradcheck(dense(spike_grad=mine), *draw(5, 4), LOSSES[0])


IMAGES = {
    "a beta for each channel": lambda: sf.Leaky(np.array([0.3, 0.9])[:, None, None], learn_beta=True),
    "a threshold for each neuron": lambda: sf.Synaptic(
        0.5, 0.6, np.linspace(0.3, 0.8, 12).reshape(2, 3, 2), learn_threshold=True
    ),
    "a recurrent convolution": lambda: sf.RLeaky(0.6, conv2d_channels=2, kernel_size=3),
}


@pytest.mark.parametrize("name", IMAGES)
def test_neurons_behind_images_pass(name):
    net = sf.Sequential(sf.Conv2d(1, 2, 2), IMAGES[name]())
    report = sf.gradcheck(net, *draw(5, 1, 4, 3), both, num_steps=4)
    assert report.passed, f"\n{report}"


@pytest.mark.parametrize("loss_fn", [*LOSSES, both], ids=["rate", "count", "membrane", "both"])
@pytest.mark.parametrize("steps", [None, 4], ids=["static", "sequence"])
def test_a_convolutional_network_passes(backend, steps, loss_fn):
    shape = (5, 2, 7, 6) if steps is None else (steps, 5, 2, 7, 6)
    report = sf.gradcheck(csnn(backend), *draw(*shape), loss_fn, num_steps=4 if steps is None else None, entries=6, directions=2)
    assert report.passed, f"\n{report}"


def test_outputs_may_be_images(backend):
    net = sf.Sequential(sf.Conv2d(1, 2, 2), sf.Leaky(0.5, learn_beta=True), backend=backend)
    report = sf.gradcheck(net, *draw(5, 1, 4, 3), both, num_steps=3)
    assert report.passed, f"\n{report}"


def test_the_network_stays_as_it_is(backend):
    net, (images, labels) = csnn(backend, np.float32), draw(5, 2, 7, 6, dtype=np.float32)
    for parameter in net.parameters():
        parameter.grad[...] = 7
    before, pixels = net.state_dict(), images.copy()
    report = sf.gradcheck(net, images, labels, LOSSES[0], num_steps=3, entries=2, directions=1)
    assert report.passed, f"\n{report}"
    np.testing.assert_array_equal(images, pixels)
    for parameter in net.parameters():
        np.testing.assert_array_equal(parameter.value, before[parameter.name], strict=True)
        assert (parameter.grad == 7).all()
    with pytest.raises(RuntimeError, match="forward"):
        net.backward(np.zeros((3, 5, 3)))


def test_the_same_seed_compares_the_same_numbers(backend):
    net, (images, labels) = dense(backend), draw(5, 4)
    reports = [sf.gradcheck(net, images, labels, LOSSES[0], entries=4, directions=2, seed=seed) for seed in (1, 1, 2)]
    assert reports[0] == reports[1] != reports[2]


def test_gradients_that_are_zero_never_pass(backend):
    net = dense(backend)
    weight = next(parameter for parameter in net.parameters() if parameter.name == "2.weight")
    weight.value[...] = 0  # nothing before the last layer matters
    report = sf.gradcheck(net, *draw(5, 4), LOSSES[0], num_steps=3)
    verdicts = {row.name: row.verdict for row in report.rows}
    assert verdicts == {
        "0.weight": "undecidable", "0.bias": "undecidable", "2.weight": "ok", "2.bias": "ok", "input": "undecidable"
    }  # fmt: skip
    assert not report.passed


def test_gradients_below_the_round_off_never_pass(backend):
    def loud(spikes, membrane, labels):
        """The gradient is right, but it drowns in a large constant."""
        loss, dspikes = LOSSES[0](spikes, labels)
        return loss + 1e9, dspikes, None

    report = sf.gradcheck(dense(backend), *draw(5, 4), loud, num_steps=3, entries=3, directions=1)
    assert {row.verdict for row in report.rows} == {"undecidable"} and not report.passed


def test_weights_are_scaled_until_membranes_reach_the_threshold(backend):
    images, labels = draw(5, 2, 7, 6)
    report = sf.gradcheck(csnn(backend), images / 100, labels, LOSSES[0], num_steps=3, entries=3, directions=1)
    assert report.passed, f"\n{report}"
    assert report.scales and all(factor > 1 for factor in report.scales.values())
    kept = sf.gradcheck(csnn(backend), images / 100, labels, LOSSES[0], num_steps=3, entries=3, directions=1, rescale=False)
    assert kept.scales == {}


def test_the_report_prints(backend):
    report = sf.gradcheck(dense(backend, learn_beta=True), *draw(5, 4), LOSSES[0], num_steps=3)
    lines = str(report).splitlines()
    assert lines[0] == f"loss of the smooth twin {report.loss:.6f}"
    assert len(lines) == 2 + len(report.scales) + len(report.rows)
    table = {line.split()[0]: line.split()[1:] for line in lines[-len(report.rows) :]}
    assert list(table) == ["0.weight", "0.bias", "1.beta", "2.weight", "2.bias", "input"]
    assert all(cells[-1] == "ok" for cells in table.values())
    assert table["0.weight"][0] == "15" and table["1.beta"][0] == "4"  # entries and directions
    assert float(table["2.bias"][1]) == pytest.approx(report.rows[4].norm, rel=1e-3)


GOOD = Row("p", compared=4, norm=1.0, entries=1e-9, directions=1e-9, floor=1e-9, tolerance=1e-6)


@pytest.mark.parametrize(
    "changes, verdict",
    [
        ({}, "ok"),
        ({"entries": 1e-5}, "FAILED"),
        ({"directions": 1e-5}, "FAILED"),
        ({"entries": math.nan, "directions": math.nan}, "FAILED"),
        ({"entries": math.inf}, "FAILED"),
        ({"floor": 1e-5}, "undecidable"),
        ({"floor": math.inf}, "undecidable"),
        ({"floor": math.nan}, "undecidable"),
        ({"floor": 1e-5, "entries": 1.0}, "undecidable"),
        ({"tolerance": 1e-10, "floor": 1e-12}, "FAILED"),
        ({"directions": math.nan}, "FAILED"),
    ],
    ids=str,
)  # fmt: skip
def test_verdict(changes, verdict):
    assert replace(GOOD, **changes).verdict == verdict


@pytest.mark.parametrize(
    "rows, passed",
    [([{}], True), ([{}, {"entries": 1.0}], False), ([{}, {"floor": math.inf}], False)],
    ids=["ok", "failed", "undecidable"],
)
def test_a_report_passes_only_if_every_row_is_ok(rows, passed):
    assert Report([replace(GOOD, **changes) for changes in rows], 1.0, {}).passed == passed


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_a_learned_beta_at_a_bound_passes(backend, beta):
    report = sf.gradcheck(dense(backend, beta=beta, learn_beta=True), *draw(5, 4), LOSSES[0], num_steps=3)
    assert report.passed, f"\n{report}"


@pytest.mark.parametrize("factor", [0.99, 1.001, -1.0])
def test_a_wrong_gradient_of_a_users_loss_is_found(backend, factor):
    def wrong(spikes, membrane, labels):
        loss, dspikes = LOSSES[0](spikes, labels)
        return loss, factor * dspikes, None

    report = sf.gradcheck(dense(backend), *draw(5, 4), wrong, num_steps=3, entries=3, directions=1)
    assert {row.verdict for row in report.rows} == {"FAILED"}
    assert report.rows[0].entries == pytest.approx(abs(1 - factor) / max(1, abs(factor)), rel=1e-3)


class Renamed(sf.Leaky):
    """A Leaky whose decay has another name."""

    own_names, decays = ("decay",), ("decay",)

    def __init__(self, decay, learn_decay: bool = False):
        Neuron.__init__(self)
        self._numbers("decay", decay, learn_decay, 0, 1)

    def plain(self):
        return None


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_learned_decays_of_any_name_are_moved_off_their_bounds(backend, decay):
    net = sf.Sequential(sf.Linear(6, 5), Renamed(decay, learn_decay=True), backend=backend)
    report = sf.gradcheck(net, np.random.default_rng(0).random((3, 6)), np.arange(3), sf.losses.ce_rate_loss())
    assert report.passed and "1.decay" in {row.name for row in report.rows}, f"\n{report}"

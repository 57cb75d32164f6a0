"""The gradient of a wide weight is computed once a batch, by tasks of some outputs each: the same as block by block.

Both ways add up the same products. They differ in the order, which costs a few units of 6e-8 in float32.
"""

from __future__ import annotations

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import surrogate
from spikeflow.engine import host, weighted

LIF = {"beta": 0.5, "spike_grad": surrogate.fast_sigmoid(slope=25)}
LOSS = sf.losses.ce_rate_loss()
ALL, NONE = 0, 2**60  # values of WIDE: every weight is wide, or none
BATCH, STEPS = 37, 6  # ten blocks, the last one short

# name -> layers, shape of a sample, value of WIDE: None leaves it as it is
NETWORKS = {
    "a megabyte behind Flatten": (
        lambda: [sf.Flatten(), sf.Linear(700, 384), sf.Leaky(**LIF), sf.Linear(384, 4), sf.Leaky(**LIF)], (7, 10, 10), None,
    ),
    "a megabyte of rows": (
        lambda: [sf.Linear(700, 384, bias=False), sf.Leaky(**LIF), sf.Linear(384, 4), sf.Leaky(**LIF)], (700,), None,
    ),
    "rows": (lambda: [sf.Linear(30, 20), sf.Leaky(**LIF), sf.Linear(20, 70), sf.Leaky(**LIF)], (30,), ALL),
    "pool before the neuron": (
        lambda: [
            sf.Conv2d(1, 6, 3), sf.MaxPool2d(2), sf.Leaky(**LIF), sf.Conv2d(6, 70, 3), sf.MaxPool2d(2), sf.Leaky(**LIF),
            sf.Flatten(), sf.Linear(280, 4), sf.Leaky(**LIF),
        ], (1, 14, 14), ALL,
    ),
    "padding, stride, pool after the neuron": (
        lambda: [
            sf.Conv2d(2, 6, 3, stride=2, padding=1), sf.Leaky(**LIF), sf.MaxPool2d(2), sf.Conv2d(6, 9, 3, padding=1, bias=False),
            sf.Leaky(**LIF), sf.Flatten(), sf.Linear(81, 4), sf.Leaky(**LIF),
        ], (2, 12, 12), ALL,
    ),
}  # fmt: skip


@pytest.fixture(params=NETWORKS)
def case(request, monkeypatch):
    """-> a network whose weights are wide, and arguments of ``loss_and_grad``."""
    make, shape, wide = NETWORKS[request.param]
    if wide is not None:
        monkeypatch.setattr(weighted, "WIDE", wide)
    monkeypatch.setattr(host, "MOST", 4)  # small blocks, and
    monkeypatch.setattr(host, "LANES", 4)  # fewer lanes than blocks, so that they take turns
    net = sf.Sequential(*make())
    for parameter in net.parameters():
        parameter.value *= 3
    rng = np.random.default_rng(0)
    return net, (rng.uniform(0, 2, (BATCH, *shape)).astype(np.float32), rng.integers(0, 4, BATCH))


@pytest.fixture
def deferred(monkeypatch):
    """The names of the parameters whose gradient was put off."""
    names = []
    compute = weighted.Weighted.settle

    def watched(self, ops, packed, key, parts):
        names.append(f"{self.layer.name}.{key}")
        return compute(self, ops, packed, key, parts)

    monkeypatch.setattr(weighted.Weighted, "settle", watched)
    return names


def gradients(net, images, labels, **options):
    net.zero_grad()
    loss, spikes = net.loss_and_grad(images, labels, LOSS, **{"num_steps": STEPS, **options})
    assert spikes.any()
    return [parameter.grad.copy() for parameter in net.parameters()]


def assert_close(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        assert other.any() and np.linalg.norm(one - other) <= 1e-6 * np.linalg.norm(other)


def assert_same_bits(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("static", [True, False], ids=["static", "sequence"])
def test_gradients_of_wide_weights_are_the_ordinary_ones(case, deferred, monkeypatch, static):
    net, (images, labels) = case
    options = {}
    if not static:
        options["num_steps"] = None
        images = images * np.random.default_rng(1).uniform(0, 1, (STEPS, *images.shape)).astype(np.float32)
    wide = gradients(net, images, labels, **options)
    weights = [p.name for p in net.parameters() if p.name.endswith("weight") and p.value.nbytes > weighted.WIDE]
    assert deferred == weights != []
    monkeypatch.setattr(weighted, "WIDE", NONE)
    net._programs.clear()
    ordinary = gradients(net, images, labels, **options)
    assert deferred == weights
    assert_close(wide, ordinary)


def test_gradients_of_wide_weights_have_the_same_bits_on_any_number_of_threads(case, deferred):
    net, given = case
    before, results = sf.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            sf.set_num_threads(threads)
            results.append(gradients(net, *given))
    finally:
        sf.set_num_threads(before)
    assert deferred
    for other in results[1:]:
        assert_same_bits(other, results[0])


def test_wide_weights_in_loss_and_grad_and_in_forward_and_backward(case, deferred):
    net, (images, labels) = case
    fused = gradients(net, images, labels)
    net.zero_grad()
    spikes, _ = net.forward(images, num_steps=STEPS)
    net.backward(LOSS(spikes, labels)[1])
    assert len(deferred) > 1
    assert_close([parameter.grad for parameter in net.parameters()], fused)


def test_a_whole_batch_at_once_gives_the_bits_of_its_blocks(case):
    net, (images, _) = case
    whole = net.forward(images, num_steps=STEPS)
    parts = [net.forward(images[first : first + 4], num_steps=STEPS) for first in range(0, len(images), 4)]  # one block each
    for expected, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate(pieces, axis=1), expected)


def whole(**options):
    """A network with a weight so large that all blocks wait for it (``large_linear.LARGE``)."""
    neuron = {"beta": 0.8, "spike_grad": sf.surrogate.atan(2)}
    return sf.Sequential(
        sf.Linear(6, 1500), sf.Leaky(threshold=0.3, **neuron), sf.Linear(1500, 1500), sf.Leaky(threshold=0.1, **neuron),
        sf.Linear(1500, 5), sf.Leaky(threshold=0.05, **neuron), seed=2, **options,
    )  # fmt: skip


def test_a_weight_that_takes_the_whole_batch_changes_no_spike_and_hardly_a_gradient():
    images, labels = np.random.default_rng(0).random((20, 6)).astype(np.float32), np.arange(20) % 5
    fast, plain = whole(), whole(events=False)
    assert "large_linear" in {step.rule for step in fast.program(images, 3).steps}
    loss = sf.losses.ce_rate_loss()
    value, spikes = fast.loss_and_grad(images, labels, loss, num_steps=3)
    expected, outputs = plain.loss_and_grad(images, labels, loss, num_steps=3)
    assert spikes.any() and value == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(spikes, outputs)
    for one, other in zip(fast.parameters(), plain.parameters(), strict=True):
        assert np.linalg.norm(one.grad - other.grad) <= 1e-5 * np.linalg.norm(other.grad), one.name
    again = whole()
    outputs, _ = again.forward(images, 3)
    again.backward(loss(outputs, labels)[1])
    for one, other in zip(fast.parameters(), again.parameters(), strict=True):
        assert np.linalg.norm(one.grad - other.grad) <= 1e-6 * np.linalg.norm(other.grad), one.name


def test_all_ways_through_such_a_network_give_the_same_spikes():
    images = np.random.default_rng(1).random((20, 6)).astype(np.float32)
    net = whole()
    expected, _ = net.forward(images, 4)
    np.testing.assert_array_equal(net.predict(images, 4, batch_size=7), expected)
    np.testing.assert_array_equal(net.record(images, 4)["5"]["spikes"], expected)
    assert net.health(images, 4).layers[2].rate == pytest.approx(expected.mean())
    first, _, state = net.stream(images, num_steps=1)
    rest, _, _ = net.stream(images, state, num_steps=3)
    np.testing.assert_array_equal(np.concatenate([first, rest]), expected)

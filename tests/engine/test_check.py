"""SPIKEFLOW_CHECK=1: a rule whose step computes something else is named in one call; right ones are let through."""

from __future__ import annotations

import numpy as np
import pytest

import spikeflow as sf
from spikeflow.engine import rules
from spikeflow.engine.check import CheckError
from spikeflow.engine.forms import BITS, NUMBERS
from spikeflow.engine.rule import Rule
from spikeflow.engine.rules import conv_pool
from spikeflow.engine.rules.pool_of_bits import PoolOfBits
from spikeflow.layers import Conv2d, MaxPool2d

IMAGES = np.random.default_rng(0).random((9, 1, 16, 16)).astype(np.float32)
SPIKES = np.random.default_rng(1).random((5, 9, 1, 16, 16)) < 0.3
LABELS = np.arange(9) % 4
LOSS = sf.losses.ce_rate_loss()


def lif(**options):
    return sf.Leaky(0.5, 0.25, **options)


def two_pools(**options):
    return sf.Sequential(
        sf.Conv2d(1, 4, 3), lif(), sf.Conv2d(4, 5, 3), sf.MaxPool2d(2), lif(), sf.MaxPool2d(2), sf.Conv2d(5, 12, 2, stride=4),
        lif(), sf.Flatten(), sf.Linear(12, 4), lif(), **options,
    )  # fmt: skip


def normalised(**options):
    return sf.Sequential(
        sf.Conv2d(1, 3, 3), sf.BatchNorm2d(3), sf.IFNode(0.25), sf.MaxPool2d(2), sf.Conv2d(3, 4, 3), sf.BatchNorm2d(4),
        sf.IFNode(0.25), sf.Dropout(0.5), sf.Flatten(), sf.Linear(100, 4), lif(), **options,
    )  # fmt: skip


def wide(**options):
    layers = sf.Flatten(), sf.Linear(256, 1500), lif(), sf.Linear(1500, 1500), lif(), sf.Linear(1500, 4), lif()
    return sf.Sequential(*layers, **options)


@pytest.fixture
def checks(monkeypatch):
    monkeypatch.setenv("SPIKEFLOW_CHECK", "1")


@pytest.mark.parametrize("make", [two_pools, normalised, wide])
@pytest.mark.parametrize(
    "options",
    [{}, *(pytest.param(options, marks=pytest.mark.ci) for options in ({"amp": True}, {"dtype": np.float64}))],
    ids=["float32", "amp", "float64"],
)
def test_right_rules_pass(checks, make, options):
    net = make(**options)
    images, sequence = IMAGES.astype(net.dtype), SPIKES
    for training in (True, False):
        net.train(training)
        net.loss_and_grad(images, LABELS, LOSS, num_steps=5)
        net.loss_and_grad(sequence, LABELS, LOSS)
        net.loss_and_grad(images, LABELS, LOSS, num_steps=5, truncate=2)
    spikes, _ = net.forward(images, 5)
    net.backward(spikes, input_grad=True)
    _, _, state = net.stream(sequence)
    net.stream(sequence, state)
    net.predict(sequence)
    net.record(images, 5)
    net.health(images, 5)


@pytest.mark.parametrize("make", [two_pools, normalised, wide])
def test_the_check_changes_no_bit(monkeypatch, make):
    results = []
    for value in ("0", "1"):
        monkeypatch.setenv("SPIKEFLOW_CHECK", value)
        net = make()
        loss, spikes = net.loss_and_grad(IMAGES, LABELS, LOSS, num_steps=5)
        results.append([loss, spikes, *(parameter.grad.copy() for parameter in net.parameters())])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-9)  # wide gradients are added up block by block
    np.testing.assert_array_equal(results[0][1], results[1][1])


class WithoutPool(PoolOfBits):
    """Leaves the pool out."""

    def forward(self, ops, packed, x, run):
        return x, x


def planted(monkeypatch, name, pattern, make, takes=(NUMBERS,)):
    rule = Rule(name, pattern, takes=takes, guard=lambda place: place.takes_bits(len(pattern)), make=make)
    monkeypatch.setattr(rules, "RULES", [rule, *rules.RULES])


def test_a_rule_that_leaves_the_second_pool_out_is_named(monkeypatch, checks):
    planted(monkeypatch, "no_pool", (MaxPool2d,), lambda place: WithoutPool(*place.covered(1)), (BITS,))
    with pytest.raises(CheckError, match=r"step 5, made by rule no_pool, forward: gives \(5, 4, 5, 5, 5\) where they give"):
        two_pools().predict(IMAGES[:4, :, :14, :14], 5)


def test_without_the_check_it_is_not(monkeypatch):
    planted(monkeypatch, "no_pool", (MaxPool2d,), lambda place: WithoutPool(*place.covered(1)), (BITS,))
    images = IMAGES[:4, :, :14, :14]
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(two_pools().predict(images, 5), two_pools(events=False).predict(images, 5))


class LastPool(PoolOfBits):
    """Forgets the spikes of one channel."""

    def forward(self, ops, packed, x, run):
        y, kept = super().forward(ops, packed, x, run)
        y.words[..., 0] = 0
        return y, kept


class HalfGradient(conv_pool.ConvPool):
    """Half of the input's gradient."""

    def backward(self, ops, packed, dy, kept, grads, input_grad):
        dx = super().backward(ops, packed, dy, kept, grads, input_grad)
        return dx / 2 if input_grad else None


class SlightBias(conv_pool.ConvPool):
    """A bias' gradient that is off by a ten-thousandth."""

    def backward(self, ops, packed, dy, kept, grads, input_grad):
        dx = super().backward(ops, packed, dy, kept, grads, input_grad)
        grads[self.layer.name]["bias"] *= 1.0001
        return dx


def test_a_missing_spike_is_found(monkeypatch, checks):
    planted(monkeypatch, "deaf", (MaxPool2d,), lambda place: LastPool(*place.covered(1)), (BITS,))
    net = sf.Sequential(
        sf.Conv2d(1, 3, 3), sf.Synaptic(0.5, 0.5, 0.25), sf.MaxPool2d(2), sf.Conv2d(3, 2, 3), lif(), sf.Flatten(),
        sf.Linear(50, 4), lif(),
    )  # fmt: skip
    with pytest.raises(CheckError, match="rule deaf, forward: .* numbers differ, on dyadic numbers, which are exact"):
        net.predict(IMAGES, 5)


@pytest.mark.parametrize("wrong, name", [(HalfGradient, "input"), (SlightBias, "2.bias")])
def test_a_wrong_gradient_is_found(monkeypatch, checks, wrong, name):
    rule = Rule(
        "wrong", (Conv2d, MaxPool2d), takes=(BITS,), guard=lambda place: True, make=lambda p: wrong(*p.covered(2), p.ops, BITS)
    )
    monkeypatch.setattr(rules, "RULES", [rule, *(r for r in rules.RULES if r.name not in ("leaky_conv_pool", "conv_pool_leaky"))])
    net = two_pools()
    net.predict(IMAGES, 5)
    with pytest.raises(CheckError, match=f"step 2 to 3, made by rule wrong, backward: the gradient of {name} differs"):
        net.loss_and_grad(IMAGES, LABELS, LOSS, num_steps=5)

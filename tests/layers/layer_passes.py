"""What the tests of the neuron layers share."""

from __future__ import annotations

import numpy as np


def passes(net, x, num_steps=None):
    """-> spikes, membrane, dx and the gradients of one forward and backward pass, with given gradients of both outputs."""
    net.zero_grad()
    spikes, membrane = net.forward(x, num_steps)
    outer = np.random.default_rng(1).normal(size=(2, *spikes.shape)).astype(spikes.dtype)
    dx = net.backward(*outer, input_grad=True)
    return spikes, membrane, dx, {parameter.name: parameter.grad.copy() for parameter in net.parameters()}


def assert_same_bits(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)

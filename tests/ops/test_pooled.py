"""Batch normalisation, neuron and max-pool in one pass, against the three operations one after the other."""

from __future__ import annotations

import numpy as np
import pytest
from differences import error

from spikeflow import surrogate
from spikeflow.ops.batch_norm import reference as batch_norm
from spikeflow.ops.events import SpikeWords
from spikeflow.ops.neurons import reference as neurons
from spikeflow.ops.neurons.model import Model
from spikeflow.ops.neurons.pooled import neuron_pool_backward, neuron_pool_forward
from spikeflow.ops.pool2d import reference as pool2d

IF = Model("if_node", "hard", surrogate.atan(), reset_delay=False)
LIF = Model("lif_node", "soft", surrogate.atan(), reset_delay=False, detach=True)
LEAKY = Model("leaky", "subtract", surrogate.fast_sigmoid(25))
PARAMS = {"if_node": [1, 1, 1, 0.25], "lif_node": [0.5, 1, 1, 0, 1.5], "leaky": [0.7, 1, 1, 0.9]}


def composed(model, x, scale, shift, T, params, K, dy):
    """-> pooled spikes (T, B, H', W', C), dcurrent like x."""
    steps, B, H, W, C = x.shape
    current = batch_norm.batch_norm_forward(x.reshape(-1, C), scale, shift).reshape(steps, -1)
    spikes, trajectory = neurons.neuron_forward(model, current, T, params)
    images = spikes.reshape(T * B, H, W, C)
    y, winner = pool2d.max_pool2d_forward(images, K, K)
    dspikes = pool2d.max_pool2d_backward(dy.reshape(y.shape), winner, images.shape, K, K)
    dx, _ = neurons.neuron_backward(model, dspikes.reshape(T, -1), None, trajectory, steps, params)
    return y.reshape(T, B, *y.shape[1:]), dx.reshape(x.shape)


@pytest.mark.parametrize(
    "model, steps, T, K, image, dtype",
    [
        (IF, 1, 4, 2, (4, 6, 3), np.float32),
        (IF, 1, 4, 2, (4, 4, 300), np.float32),
        (IF, 1, 70, 2, (5, 7, 16), np.float64),
        (LIF, 33, 33, 1, (2, 3, 5), np.float64),
        (LEAKY, 6, 6, 3, (7, 9, 40), np.float64),
        (LEAKY, 1, 1, 3, (6, 9, 1), np.float32),
    ],
    ids=["static", "wide", "long", "soft", "leaky", "one-step"],
)
def test_equals_the_operations_composed(model, steps, T, K, image, dtype):
    rng = np.random.default_rng(T)
    H, W, C = image
    x = rng.normal(size=(steps, 3, H, W, C)).astype(dtype)
    scale, shift, mean = (
        numbers.astype(dtype) for numbers in (rng.normal(1, 0.3, C), rng.normal(0.2, 0.2, C), rng.normal(size=C))
    )
    params = np.array(PARAMS[model.neuron], dtype)[:, None]
    dy = rng.normal(size=(T, 3, H // K, W // K, C)).astype(dtype)
    spikes, dx = composed(model, x, scale, shift, T, params, K, dy)
    assert 0.02 < spikes.mean() < 0.98

    words = neuron_pool_forward(model, x, scale, shift, T, params, K)
    np.testing.assert_array_equal(SpikeWords(words, T).dense(dtype), spikes)
    actual, sums = neuron_pool_backward(model, dy, x, scale, shift, mean, T, params, K)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    assert error(actual, dx) < tolerance
    expected = batch_norm.batch_norm_backward_sums(dx.reshape(-1, C), x.reshape(-1, C), mean)
    assert error(sums, expected) < 10 * tolerance


def test_where_nobody_fires_the_first_of_the_window_takes_the_gradient():
    x, ones, dy = np.full((1, 1, 2, 2, 1), 0.1, np.float32), np.ones(1, np.float32), np.ones((2, 1, 1, 1, 1), np.float32)
    params = np.array(PARAMS["if_node"], np.float32)[:, None]
    dx, _ = neuron_pool_backward(IF, dy, x, ones, 0 * ones, 0 * ones, 2, params, 2)
    assert dx[0, 0, 0, 0, 0] > 0 and (dx.reshape(-1)[1:] == 0).all()

"""Batch normalisation, neuron and max-pool in one launch, against the three operations one after the other."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from spikeflow import surrogate
from spikeflow.kernels.cuda import gpu
from spikeflow.ops.batch_norm import reference as batch_norm
from spikeflow.ops.events import SpikeWords
from spikeflow.ops.neurons import pooled, pooled_cuda
from spikeflow.ops.neurons import reference as neurons
from spikeflow.ops.neurons.model import Model
from spikeflow.ops.pool2d import reference as pool2d

IF = Model("if_node", "hard", surrogate.atan(), reset_delay=False)
LIF = Model("lif_node", "soft", surrogate.atan(), reset_delay=False, detach=True)
LEAKY = Model("leaky", "subtract", surrogate.fast_sigmoid(5))
PROMPT = Model("leaky", "zero", surrogate.sigmoid(5), reset_delay=False)
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


def draw(steps, T, B, H, W, C, K):
    """-> x, scale, shift, mean, dy"""
    rng = np.random.default_rng([steps, T, B, H, W, C, K])
    shapes = (steps, B, H, W, C), (T, B, H // K, W // K, C)
    x, dy = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    numbers = rng.normal(1, 0.3, C), rng.normal(0.5 - 0.4 * K, 0.2, C), rng.normal(size=C)
    return x, *(each.astype(np.float32) for each in numbers), dy


@pytest.mark.parametrize("name", ["neuron_pool_forward", "neuron_pool_backward"])
def test_arguments_are_those_of_the_cpu(name):
    assert inspect.signature(getattr(pooled_cuda, name)) == inspect.signature(getattr(pooled, name))


@pytest.mark.parametrize(
    "model, steps, T, shape, K",
    [
        (IF, 1, 4, (2, 4, 6, 3), 2),
        (IF, 4, 4, (1, 5, 3, 2), 2),
        (LIF, 3, 3, (2, 2, 3, 5), 1),
        (LEAKY, 9, 9, (1, 3, 4, 2), 3),
        (PROMPT, 6, 6, (1, 2, 5, 1), 2),
        (LEAKY, 1, 1, (3, 5, 4, 1), 2),
        (PROMPT, 1, 70, (1, 2, 5, 2), 2),
        (IF, 66, 66, (1, 2, 2, 1), 2),
        (LEAKY, 1, 11, (1, 5, 5, 1), 5),
    ],
    ids=["static", "rows", "no-pool", "three", "ragged", "one-step", "static-words", "words", "larger-than-a-block"],
)
def test_equals_the_operations_composed(model, steps, T, shape, K):
    x, scale, shift, mean, dy = draw(steps, T, *shape, K)
    C, params = shape[-1], np.array(PARAMS[model.neuron], np.float32)[:, None]
    spikes, expected = composed(model, x, scale, shift, T, params, K, dy)
    assert spikes.any() and not spikes.all()
    given, numbers = gpu.to_device(x), [gpu.to_device(each) for each in (scale, shift, mean)]

    words = pooled_cuda.neuron_pool_forward(model, given, *numbers[:2], T, params, K)
    np.testing.assert_array_equal(gpu.to_host(words), SpikeWords.pack(spikes).words, strict=True)
    dx, sums = pooled_cuda.neuron_pool_backward(model, gpu.to_device(dy), given, *numbers, T, params, K)
    np.testing.assert_allclose(gpu.to_host(dx), expected, rtol=1e-5, atol=1e-6)
    totals = batch_norm.batch_norm_backward_sums(expected.reshape(-1, C), x.reshape(-1, C), mean)
    np.testing.assert_allclose(gpu.to_host(sums), totals, rtol=1e-5, atol=1e-5)


def test_blocks_go_through_many_windows(monkeypatch):
    monkeypatch.setattr(pooled_cuda, "BLOCKS", 1)
    test_equals_the_operations_composed(IF, 1, 3, (2, 4, 5, 3), 2)


def test_blocks_as_large_as_on_a_card(monkeypatch):
    monkeypatch.setattr(pooled_cuda, "THREADS", 256)
    monkeypatch.setattr(pooled_cuda, "SHORT", 8)
    test_equals_the_operations_composed(LEAKY, 9, 9, (1, 5, 4, 3), 2)


def test_where_nobody_fires_the_first_of_the_window_takes_the_gradient():
    x, ones, dy = np.full((1, 1, 2, 2, 1), 0.1, np.float32), np.ones(1, np.float32), np.ones((2, 1, 1, 1, 1), np.float32)
    params = np.array(PARAMS["if_node"], np.float32)[:, None]
    numbers = [gpu.to_device(each) for each in (ones, 0 * ones, 0 * ones)]
    dx, _ = pooled_cuda.neuron_pool_backward(IF, gpu.to_device(dy), gpu.to_device(x), *numbers, 2, params, 2)
    dx = gpu.to_host(dx)
    assert dx[0, 0, 0, 0, 0] > 0 and (dx.reshape(-1)[1:] == 0).all()


@pytest.mark.parametrize("K, bits, message", [(2, np.zeros(1), "bits must be None"), (33, None, "K must be at most 32")])
def test_what_it_cannot_do(K, bits, message):
    x, one = gpu.empty((1, 1, 33, 33, 1)), gpu.empty(1)
    params = np.array(PARAMS["if_node"], np.float32)[:, None]
    with pytest.raises(ValueError, match=message):
        pooled_cuda.neuron_pool_forward(IF, x, one, one, 1, params, K, bits)
    with pytest.raises(ValueError, match=message):
        pooled_cuda.neuron_pool_backward(IF, x, x, one, one, one, 1, params, K, bits)


def test_one_launch_each_way():
    x, scale, shift, mean, dy = (gpu.to_device(each) for each in draw(1, 2, 1, 2, 2, 1, 2))
    params = np.array(PARAMS["if_node"], np.float32)[:, None]
    with gpu.launches() as launches:
        pooled_cuda.neuron_pool_forward(IF, x, scale, shift, 2, params, 2)
        pooled_cuda.neuron_pool_backward(IF, dy, x, scale, shift, mean, 2, params, 2)
    names = [launch.kernel.name.split("-")[0] for launch in launches]
    assert names == ["neuron_pool_forward", "neuron_pool_backward", "column_sums"]

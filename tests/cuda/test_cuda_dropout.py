"""Dropout on the device: the host's mask, to the bit."""

from types import SimpleNamespace

import numpy as np
import pytest

from spikeflow import backends
from spikeflow.kernels.cuda import gpu
from spikeflow.layers import Dropout
from spikeflow.ops import scale


@pytest.mark.parametrize("R, C", [(1, 1), (3, 20), (25, 3), (30, 5)])
def test_columns_times_a_number_each(R, C):
    x, by = (np.random.default_rng(R).normal(size=shape).astype(np.float32) for shape in ((R, C), (C,)))
    np.testing.assert_array_equal(gpu.to_host(scale.scale_columns(gpu.to_device(x), gpu.to_device(by))), x * by)


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 2, 2, 3)], ids=str)
def test_masks_are_the_hosts(shape):
    layer = Dropout(0.4)
    layer.initialize("3", np.float32, 7)
    x, dy = (np.random.default_rng(i).normal(size=shape).astype(np.float32) for i in range(2))
    run = SimpleNamespace(training=True, draw=2, first=0)
    y, kept = layer.forward(backends.load("reference"), None, x, run)
    on_device = backends.load("cuda")
    found, mask = layer.forward(on_device, None, gpu.to_device(x), run)
    dx = layer.backward(on_device, None, gpu.to_device(dy), mask, {}, True)
    for one, other in ((found, y), (mask, kept), (dx, dy * kept)):
        np.testing.assert_array_equal(gpu.to_host(one), other)
    run.training = False
    x = gpu.to_device(x)
    assert layer.forward(on_device, None, x, run) == (x, None) and layer.backward(on_device, None, x, None, {}, True) is x

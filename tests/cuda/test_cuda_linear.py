"""The linear layer on the device, bit for bit the reference's where all sums are exact."""

from __future__ import annotations

import numpy as np
import pytest
from dyadic_arrays import dyadic, same_bits

from spikeflow.kernels.cuda import gpu
from spikeflow.ops.linear import cuda, reference

SHAPES = [(1, 1, 1), (3, 5, 2), (9, 4, 9), (2, 21, 3), (33, 3, 10)]  # (N, F, O)
shapes = pytest.mark.parametrize("N, F, O", SHAPES)


@shapes
def test_forward(N, F, O):
    x, weight, bias = dyadic(1, N, F), dyadic(2, O, F), dyadic(3, O)
    with gpu.launches() as launches:
        packed = cuda.linear_pack(gpu.to_device(weight))
        y = cuda.linear_forward(gpu.to_device(x), packed, gpu.to_device(bias))
    assert same_bits(y, reference.linear_forward(x, weight, bias)) and len(launches) == 1
    assert same_bits(cuda.linear_forward(gpu.to_device(x), packed, None), reference.linear_forward(x, weight, None))


@shapes
def test_backward(N, F, O):
    x, weight, dy, dweight, dbias = dyadic(1, N, F), dyadic(2, O, F), dyadic(3, N, O), dyadic(4, O, F), dyadic(5, O)
    packed, found = cuda.linear_pack(gpu.to_device(weight)), (gpu.to_device(dweight), gpu.to_device(dbias))
    dx = cuda.linear_backward(gpu.to_device(dy), gpu.to_device(x), packed, *found, True)
    assert same_bits(dx, reference.linear_backward(dy, x, weight, dweight, dbias, True))
    assert same_bits(found[0], dweight) and same_bits(found[1], dbias)
    with gpu.launches() as launches:
        assert cuda.linear_backward(gpu.to_device(dy), gpu.to_device(x), packed, None, None, False) is None
    assert not launches


def test_ordinary_numbers():
    rng = np.random.default_rng(0)
    x, weight = (rng.normal(size=shape).astype(np.float32) for shape in ((7, 30), (5, 30)))
    y = gpu.to_host(cuda.linear_forward(gpu.to_device(x), cuda.linear_pack(gpu.to_device(weight)), None))
    exact = x.astype(float) @ weight.T.astype(float)
    assert np.abs(y - exact).max() <= 1e-6 * np.abs(exact).max()

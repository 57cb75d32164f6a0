"""Pooling, and Flatten, on the device against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from dyadic_arrays import dyadic, merge, same_bits, spikes, words

from spikeflow.kernels.cuda import gpu
from spikeflow.ops.flatten import cuda as flatten
from spikeflow.ops.flatten import reference as flatten_reference
from spikeflow.ops.pool2d import cuda, reference

SHAPES = [(1, 4, 4, 3), (2, 5, 6, 2), (3, 3, 7, 1)]
WINDOWS = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2), (2, 3), (3, 3)]  # (K, stride)
pools = pytest.mark.parametrize("K, stride", WINDOWS)
images = pytest.mark.parametrize("shape", SHAPES, ids=str)


def with_nan(x):
    x = x.copy()
    x.reshape(-1)[:: max(7, x.size // 5)] = np.nan
    return x


@pools
@images
def test_max(shape, K, stride):
    for x in (dyadic(1, *shape) / 8, with_nan(dyadic(2, *shape))):
        y, winner = reference.max_pool2d_forward(x, K, stride)
        found = cuda.max_pool2d_forward(gpu.to_device(x), K, stride)
        assert np.array_equal(gpu.to_host(found[0]), y, equal_nan=True) and same_bits(found[1], winner)
    dy = dyadic(3, *y.shape)
    dx = reference.max_pool2d_backward(dy, winner, shape, K, stride)
    assert same_bits(cuda.max_pool2d_backward(gpu.to_device(dy), found[1], shape, K, stride), dx)


@pools
@images
def test_average(shape, K, stride):
    x = dyadic(1, *shape)
    y = reference.avg_pool2d_forward(x, K, stride)
    assert same_bits(cuda.avg_pool2d_forward(gpu.to_device(x), K, stride), y)
    dy = dyadic(2, *y.shape) * np.float32(K * K)
    assert same_bits(
        cuda.avg_pool2d_backward(gpu.to_device(dy), shape, K, stride), reference.avg_pool2d_backward(dy, shape, K, stride)
    )


@pytest.mark.parametrize("T", [1, 3, 65])
@pools
def test_max_of_words(T, K, stride):
    x = spikes(T, T, 2, 4, 5, 2)
    y, winner = reference.max_pool2d_forward(merge(x), K, stride)
    found = cuda.max_pool2d_forward_words(words(x), K, stride)
    assert found.num_steps == T and same_bits(found.words, gpu.to_host(words(y.reshape(T, 2, *y.shape[1:])).words))
    dy = dyadic(1, *y.shape)
    dx = reference.max_pool2d_backward(dy, winner, merge(x).shape, K, stride)
    dy = gpu.to_device(dy.reshape(T, 2, *dy.shape[1:]))
    assert same_bits(cuda.max_pool2d_backward_words(dy, words(x), K, stride), dx.reshape(x.shape))


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 3), (2, 1, 1, 9), (2, 3, 5, 1), (3, 2, 3, 4), (2, 5, 1, 9), (2, 6), (3, 4, 5)], ids=str
)
def test_flatten(shape):
    x = dyadic(1, *shape)
    y = flatten_reference.flatten_forward(x)
    with gpu.launches() as launches:
        found = flatten.flatten_forward(gpu.to_device(x))
    assert same_bits(found, y)
    assert len(launches) == (len(shape) == 4 and shape[1] * shape[2] > 1 and shape[3] > 1)
    assert same_bits(flatten.flatten_backward(gpu.to_device(y), shape), x)

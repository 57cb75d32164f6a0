from __future__ import annotations

import numpy as np
import pytest
from differences import gap, sampled_error


def draw(seed: int) -> tuple[int, ...]:
    """A shape (N, H, W, C) of images, or now and then (N, F) of rows."""
    rng = np.random.default_rng([1, seed])
    return tuple(int(length) for length in rng.integers(1, 8, 2 if seed % 10 == 0 else 4))


shapes = pytest.mark.parametrize("shape", [draw(seed) for seed in range(100)], ids=lambda shape: "x".join(map(str, shape)))


def normal(*seed, size):
    return np.random.default_rng(seed).normal(size=size)


@shapes
def test_backward_is_the_derivative_of_forward(ops, shape):
    x = normal(2, *shape, size=shape)
    dy = normal(3, *shape, size=(shape[0], int(np.prod(shape[1:]))))
    dx = ops.flatten_backward(dy, shape)
    assert sampled_error(lambda: np.vdot(ops.flatten_forward(x), dy), x, dx, np.random.default_rng(4)) <= 1e-6


@shapes
def test_adjoint_and_inverse(ops, shape):
    x = normal(2, *shape, size=shape)
    y = ops.flatten_forward(x)
    dy = normal(3, *shape, size=y.shape)
    assert gap((y, dy), (x, ops.flatten_backward(dy, shape))) <= 1e-12
    np.testing.assert_array_equal(ops.flatten_backward(y, shape), x, strict=True)


@shapes
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_features_lie_in_the_order_of_torch(ops, shape, dtype):
    x = normal(2, *shape, size=shape).astype(dtype)
    torch = x if len(shape) == 2 else x.transpose(0, 3, 1, 2)
    y = ops.flatten_forward(x)
    np.testing.assert_array_equal(y, torch.reshape(shape[0], -1), strict=True)
    assert y.flags.c_contiguous and ops.flatten_backward(y, shape).flags.c_contiguous

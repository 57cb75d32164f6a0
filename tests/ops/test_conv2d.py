from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from differences import dyadic, error, gap, sampled_error

from spikeflow import backends


class Config(NamedTuple):
    N: int
    H: int
    W: int
    C: int
    O: int
    K: int
    stride: int
    padding: int
    bias: bool

    def __str__(self) -> str:
        bias = "bias" if self.bias else "nobias"
        return f"{self.N}x{self.H}x{self.W}x{self.C}-O{self.O}-K{self.K}-s{self.stride}-p{self.padding}-{bias}"


def draw(seed: int) -> Config:
    """Kernel 1-7, stride 1-3, padding 0-3; few shapes of the register tile: K C at most 21, O 1-16 or five tiles and one."""
    rng = np.random.default_rng([1, seed])
    K, stride, padding = int(rng.integers(1, 8)), int(rng.integers(1, 4)), int(rng.integers(0, 4))
    least = max(1, K - 2 * padding)
    H, W = (least + int(extra) for extra in rng.integers(0, 7, 2))
    O = int(rng.choice([1, 2, 3, 5, 7, 8, 9, 12, 16, 41]))
    return Config(int(rng.integers(1, 4)), H, W, int(rng.integers(1, 4)), O, K, stride, padding, bool(rng.integers(2)))


CONFIGS = [draw(seed) for seed in range(100)]
configs = pytest.mark.parametrize("config", CONFIGS, ids=str)


def arrays(config: Config, make=None):
    """-> x, weight, bias or None, all drawn with ``make(rng, shape)``."""
    make = make or (lambda rng, shape: rng.normal(size=shape))
    rng = np.random.default_rng([2, *config])
    x = make(rng, (config.N, config.H, config.W, config.C))
    weight = make(rng, (config.O, config.C, config.K, config.K))
    return x, weight, make(rng, (config.O,)) if config.bias else None


def forward(ops, config, x, weight, bias):
    return ops.conv2d_forward(x, ops.conv2d_pack(weight), bias, config.stride, config.padding)


def backward(ops, config, dy, x, weight, bias, input_grad=True):
    """-> dx, dweight, dbias or None."""
    dweight, dbias = np.zeros_like(weight), None if bias is None else np.zeros_like(bias)
    packed = ops.conv2d_pack(weight)
    return ops.conv2d_backward(dy, x, packed, config.stride, config.padding, dweight, dbias, input_grad), dweight, dbias


def cotangent(config, y):
    return np.random.default_rng([3, *config]).normal(size=y.shape).astype(y.dtype)


@configs
def test_backward_is_the_derivative_of_forward(ops, config):
    inputs = arrays(config)
    dy = cotangent(config, forward(ops, config, *inputs))
    rng = np.random.default_rng(4)
    for array, gradient in zip(inputs, backward(ops, config, dy, *inputs), strict=True):
        if array is not None:
            assert sampled_error(lambda: np.vdot(forward(ops, config, *inputs), dy), array, gradient, rng) <= 1e-6


@configs
def test_adjoint(ops, config):
    x, weight, _ = arrays(config)
    y = forward(ops, config, x, weight, None)
    dy = cotangent(config, y)
    dx, dweight, _ = backward(ops, config, dy, x, weight, None)
    assert gap((y, dy), (x, dx)) <= 1e-12
    assert gap((y, dy), (weight, dweight)) <= 1e-12


@configs
def test_cpu_equals_reference(config):
    inputs = arrays(config)
    reference, cpu = backends.load("reference"), backends.load("cpu")
    y = forward(reference, config, *inputs)
    assert error(forward(cpu, config, *inputs), y) <= 1e-12
    dy = cotangent(config, y)
    for actual, expected in zip(backward(cpu, config, dy, *inputs), backward(reference, config, dy, *inputs), strict=True):
        assert (actual is None and expected is None) or error(actual, expected) <= 1e-12


@pytest.mark.parametrize("config", CONFIGS[:40], ids=str)
def test_float32_forward_is_bit_equal_on_exact_sums(config):
    inputs = arrays(config, dyadic)
    reference, cpu = (forward(backends.load(name), config, *inputs) for name in ("reference", "cpu"))
    np.testing.assert_array_equal(cpu, reference, strict=True)


def test_forward_equals_nested_loops(ops):
    config = Config(N=2, H=5, W=6, C=2, O=3, K=3, stride=2, padding=1, bias=True)
    x, weight, bias = arrays(config)
    y = np.zeros((2, 3, 3, 3))
    for n, i, j, o in np.ndindex(*y.shape):
        y[n, i, j, o] = bias[o]
        for c, k, m in np.ndindex(2, 3, 3):
            row, column = 2 * i + k - 1, 2 * j + m - 1
            if 0 <= row < 5 and 0 <= column < 6:
                y[n, i, j, o] += weight[o, c, k, m] * x[n, row, column, c]
    np.testing.assert_allclose(forward(ops, config, x, weight, bias), y, rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_out_is_dtype_in(ops, dtype):
    config = CONFIGS[0]._replace(bias=True)
    inputs = arrays(config, lambda rng, shape: dyadic(rng, shape, dtype))
    y = forward(ops, config, *inputs)
    results = y, *backward(ops, config, y, *inputs)
    assert [result.dtype for result in results] == [dtype] * 4


def test_gradients_are_added(ops):
    config = Config(N=1, H=4, W=4, C=1, O=2, K=2, stride=1, padding=0, bias=True)
    x, weight, bias = arrays(config)
    dy = cotangent(config, forward(ops, config, x, weight, bias))
    _, once_weight, once_bias = backward(ops, config, dy, x, weight, bias)
    dweight, dbias = np.ones_like(weight), np.ones_like(bias)
    ops.conv2d_backward(dy, x, ops.conv2d_pack(weight), 1, 0, dweight, dbias, True)
    np.testing.assert_allclose(dweight, 1 + once_weight, rtol=1e-12)
    np.testing.assert_allclose(dbias, 1 + once_bias, rtol=1e-12)


def test_input_gradient_only_where_asked_for(ops):
    config = CONFIGS[0]
    inputs = arrays(config)
    dy = cotangent(config, forward(ops, config, *inputs))
    dx, dweight, dbias = backward(ops, config, dy, *inputs, input_grad=False)
    assert dx is None
    np.testing.assert_array_equal(dweight, backward(ops, config, dy, *inputs)[1])


def test_inputs_stay_as_they_are(ops):
    config = Config(N=1, H=4, W=5, C=2, O=3, K=3, stride=1, padding=1, bias=True)
    inputs = arrays(config)
    before = [array.copy() for array in inputs]
    dy = forward(ops, config, *inputs)
    cotangents = dy.copy()
    backward(ops, config, dy, *inputs)
    for array, copy in zip((*inputs, dy), (*before, cotangents), strict=True):
        np.testing.assert_array_equal(array, copy)

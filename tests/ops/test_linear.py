from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from differences import dyadic, error, gap, sampled_error

from spikeflow import backends


class Config(NamedTuple):
    N: int
    F: int
    O: int
    bias: bool

    def __str__(self) -> str:
        return f"{self.N}x{self.F}-O{self.O}-{'bias' if self.bias else 'nobias'}"


def draw(seed: int) -> Config:
    """Few shapes of the register tile: F at most 24 or five tiles and one, O as in the convolutions."""
    rng = np.random.default_rng([1, seed])
    F = int(rng.choice([1, 2, 3, 5, 8, 11, 16, 17, 23, 24, 41]))
    O = int(rng.choice([1, 2, 3, 5, 7, 8, 10, 16, 41]))
    return Config(int(rng.integers(1, 28)), F, O, bool(rng.integers(2)))


CONFIGS = [draw(seed) for seed in range(100)]
configs = pytest.mark.parametrize("config", CONFIGS, ids=[f"{i}-{config}" for i, config in enumerate(CONFIGS)])


def arrays(config: Config, make=None):
    """-> x, weight, bias or None, all drawn with ``make(rng, shape)``."""
    make = make or (lambda rng, shape: rng.normal(size=shape))
    rng = np.random.default_rng([2, *config])
    return make(rng, (config.N, config.F)), make(rng, (config.O, config.F)), make(rng, (config.O,)) if config.bias else None


def forward(ops, x, weight, bias):
    return ops.linear_forward(x, ops.linear_pack(weight), bias)


def backward(ops, dy, x, weight, bias, input_grad=True):
    """-> dx, dweight, dbias or None."""
    dweight, dbias = np.zeros_like(weight), None if bias is None else np.zeros_like(bias)
    return ops.linear_backward(dy, x, ops.linear_pack(weight), dweight, dbias, input_grad), dweight, dbias


def cotangent(config, y):
    return np.random.default_rng([3, *config]).normal(size=y.shape)


@configs
def test_backward_is_the_derivative_of_forward(ops, config):
    inputs = arrays(config)
    dy = cotangent(config, forward(ops, *inputs))
    rng = np.random.default_rng(4)
    for array, gradient in zip(inputs, backward(ops, dy, *inputs), strict=True):
        if array is not None:
            assert sampled_error(lambda: np.vdot(forward(ops, *inputs), dy), array, gradient, rng) <= 1e-6


@configs
def test_adjoint(ops, config):
    x, weight, _ = arrays(config)
    y = forward(ops, x, weight, None)
    dy = cotangent(config, y)
    dx, dweight, _ = backward(ops, dy, x, weight, None)
    assert gap((y, dy), (x, dx)) <= 1e-12
    assert gap((y, dy), (weight, dweight)) <= 1e-12


@configs
def test_cpu_equals_reference(config):
    inputs = arrays(config)
    reference, cpu = backends.load("reference"), backends.load("cpu")
    y = forward(reference, *inputs)
    assert error(forward(cpu, *inputs), y) <= 1e-12
    dy = cotangent(config, y)
    for actual, expected in zip(backward(cpu, dy, *inputs), backward(reference, dy, *inputs), strict=True):
        assert (actual is None and expected is None) or error(actual, expected) <= 1e-12


@configs
def test_float32_forward_is_bit_equal_on_exact_sums(config):
    inputs = arrays(config, dyadic)
    reference, cpu = (forward(backends.load(name), *inputs) for name in ("reference", "cpu"))
    np.testing.assert_array_equal(cpu, reference, strict=True)


def test_values(ops):
    x, weight, bias = np.array([[1.0, 2, 3]]), np.array([[1.0, 0, -1], [2, 1, 0.5]]), np.array([10.0, 20])
    dy = np.array([[1.0, 2]])
    np.testing.assert_array_equal(forward(ops, x, weight, bias), [[8, 25.5]])
    dx, dweight, dbias = backward(ops, dy, x, weight, bias)
    np.testing.assert_array_equal(dx, [[5, 2, 0]])
    np.testing.assert_array_equal(dweight, [[1, 2, 3], [2, 4, 6]])
    np.testing.assert_array_equal(dbias, [1, 2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_out_is_dtype_in(ops, dtype):
    inputs = arrays(Config(3, 5, 2, True), lambda rng, shape: dyadic(rng, shape, dtype))
    y = forward(ops, *inputs)
    assert [result.dtype for result in (y, *backward(ops, y, *inputs))] == [dtype] * 4


def test_gradients_are_added(ops):
    config = Config(4, 3, 2, True)
    x, weight, bias = arrays(config)
    dy = cotangent(config, forward(ops, x, weight, bias))
    _, once_weight, once_bias = backward(ops, dy, x, weight, bias)
    dweight, dbias = np.ones_like(weight), np.ones_like(bias)
    ops.linear_backward(dy, x, ops.linear_pack(weight), dweight, dbias, True)
    np.testing.assert_allclose(dweight, 1 + once_weight, rtol=1e-12)
    np.testing.assert_allclose(dbias, 1 + once_bias, rtol=1e-12)


def test_input_gradient_only_where_asked_for(ops):
    config = CONFIGS[0]
    inputs = arrays(config)
    dy = cotangent(config, forward(ops, *inputs))
    dx, dweight, _ = backward(ops, dy, *inputs, input_grad=False)
    assert dx is None
    np.testing.assert_array_equal(dweight, backward(ops, dy, *inputs)[1])

"""Batch normalisation: both backends, finite differences, and what a constant input may leave out."""

from __future__ import annotations

import numpy as np
import pytest
from differences import difference, error

from spikeflow.ops.batch_norm import cpu, reference

EPS = 1e-5


def normalise(ops, x, gamma, beta, center=None):
    """-> y, mean, 1 / sqrt(var + eps), by equations (1) to (4) from the operations' sums."""
    n = len(x)
    center = x[0].astype(np.float64) if center is None else center
    first, second = ops.batch_norm_sums(x, center) / n
    mean, inverse = center + first, 1 / np.sqrt(second - first**2 + EPS)
    scale = gamma * inverse
    return ops.batch_norm_forward(x, scale.astype(x.dtype), (beta - scale * mean).astype(x.dtype)), mean, inverse


def backward(ops, dy, x, gamma, mean, inverse, n=None):
    """-> dx, dgamma, dbeta by (5) to (7)."""
    n = len(x) if n is None else n
    dbeta, away = ops.batch_norm_backward_sums(dy, x, mean)
    dgamma, scale = away * inverse, gamma * inverse
    b = -scale * inverse * dgamma / n
    numbers = (number.astype(x.dtype) for number in (scale, b, -scale * dbeta / n - b * mean))
    return ops.batch_norm_backward(dy, x, *numbers), dgamma, dbeta


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-6), (np.float64, 1e-13)])
@pytest.mark.parametrize("rows, channels", [(1, 1), (7, 3), (129, 16), (200, 37)])
def test_cpu_equals_reference(rows, channels, dtype, tolerance):
    rng = np.random.default_rng(rows)
    x, dy = rng.normal(3, 2, (2, rows, channels)).astype(dtype)
    center, (a, b, c) = rng.normal(3, 1, channels), rng.normal(size=(3, channels)).astype(dtype)
    for one, other in (
        (cpu.batch_norm_sums(x, center.astype(dtype)), reference.batch_norm_sums(x, center.astype(dtype))),
        (cpu.batch_norm_forward(x, a, b), reference.batch_norm_forward(x, a, b)),
        (
            cpu.batch_norm_backward_sums(dy, x, center.astype(dtype)),
            reference.batch_norm_backward_sums(dy, x, center.astype(dtype)),
        ),
        (cpu.batch_norm_backward(dy, x, a, b, c), reference.batch_norm_backward(dy, x, a, b, c)),
    ):
        assert one.dtype == other.dtype
        assert error(one, other) < tolerance


def test_normalised_rows_have_mean_beta_and_deviation_gamma():
    x = np.random.default_rng(0).normal([5, -1e4, 0], [2, 3, 1e-4], (500, 3))
    gamma, beta = np.array([1.5, -2, 1]), np.array([0, 3, -1])
    y, _, _ = normalise(cpu, x, gamma, beta)
    np.testing.assert_allclose(y.mean(0), beta, atol=1e-9)
    np.testing.assert_allclose(y.std(0), abs(gamma) * x.std(0) / np.sqrt(x.var(0) + EPS), rtol=1e-7)


@pytest.mark.parametrize("ops", [reference, cpu])
def test_finite_differences(ops):
    rng = np.random.default_rng(1)
    x, outer = rng.normal(2, 1.5, (2, 11, 4))
    gamma, beta = rng.normal(1, 0.2, 4), rng.normal(size=4)

    def loss():
        return float((normalise(reference, x, gamma, beta)[0] ** 2 * outer).sum())

    y, mean, inverse = normalise(ops, x, gamma, beta)
    gradients = backward(ops, 2 * y * outer, x, gamma, mean, inverse)
    for array, gradient in zip((x, gamma, beta), gradients, strict=True):
        numeric = [difference(loss, array, i) for i in range(array.size)]
        assert error(numeric, gradient) < 1e-9


def test_a_constant_input_may_be_normalised_once():
    rng = np.random.default_rng(2)
    T, x, dy = 5, rng.normal(size=(30, 3)), rng.normal(size=(5, 30, 3))
    gamma, beta = rng.normal(1, 0.2, 3), rng.normal(size=3)
    repeated = np.tile(x, (T, 1))
    y, mean, inverse = normalise(reference, repeated, gamma, beta)
    whole = backward(reference, dy.reshape(-1, 3), repeated, gamma, mean, inverse)
    once, mean1, inverse1 = normalise(reference, x, gamma, beta)
    short = backward(reference, dy.sum(0), x, gamma, mean1, inverse1)
    np.testing.assert_allclose(np.tile(once, (T, 1)), y, rtol=0, atol=1e-13)
    np.testing.assert_allclose(whole[0].reshape(T, 30, 3).sum(0), short[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(whole[1:], short[1:], rtol=1e-12)

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from differences import dyadic, error, gap, sampled_error
from spikes import draw_spikes, merge, pack

from spikeflow import backends

WINDOWS = [(1, 2), (2, 1), (2, 2), (3, 2), (5, 3)]  # (K, stride): each compiles kernels of its own


class Config(NamedTuple):
    N: int
    H: int
    W: int
    C: int
    K: int
    stride: int

    def __str__(self) -> str:
        return f"{self.N}x{self.H}x{self.W}x{self.C}-K{self.K}-s{self.stride}"


def draw(seed: int) -> Config:
    rng = np.random.default_rng([1, seed])
    K, stride = WINDOWS[seed % len(WINDOWS)]
    H, W = (K + int(extra) for extra in rng.integers(0, 7, 2))
    return Config(int(rng.integers(1, 4)), H, W, int(rng.integers(1, 20)), K, stride)


CONFIGS = [draw(seed) for seed in range(100)]
configs = pytest.mark.parametrize("config", CONFIGS, ids=str)


def distinct(config: Config, dtype=np.float64) -> np.ndarray:
    """Images (N, H, W, C) of distinct values 1/256 apart, in random order: no tie, and none within a difference's step."""
    shape = config[:4]
    order = np.random.default_rng([2, *config]).permutation(int(np.prod(shape)))
    return (order.reshape(shape) / 256 - 1).astype(dtype)


def cotangent(config, y):
    return np.random.default_rng([3, *config]).normal(size=y.shape)


def gradient(ops, x, K, stride):
    """-> dL/dx of an image (H, W) or of images (N, H, W, C), for L the sum of the pooled values."""
    images = x if x.ndim == 4 else x[None, :, :, None]
    y, winner = ops.max_pool2d_forward(images, K, stride)
    return ops.max_pool2d_backward(np.ones_like(y), winner, images.shape, K, stride).reshape(x.shape)


@configs
def test_backward_is_the_derivative_of_forward(ops, config):
    x = distinct(config)
    y, winner = ops.max_pool2d_forward(x, config.K, config.stride)
    dy = cotangent(config, y)
    dx = ops.max_pool2d_backward(dy, winner, x.shape, config.K, config.stride)

    def loss():
        return np.vdot(ops.max_pool2d_forward(x, config.K, config.stride)[0], dy)

    assert sampled_error(loss, x, dx, np.random.default_rng(4)) <= 1e-6


@configs
def test_adjoint_with_these_winners(ops, config):
    x = distinct(config)
    y, winner = ops.max_pool2d_forward(x, config.K, config.stride)
    dy = cotangent(config, y)
    assert gap((y, dy), (x, ops.max_pool2d_backward(dy, winner, x.shape, config.K, config.stride))) <= 1e-12


@configs
def test_adjoint_with_obeyed_winners(config):
    ops, rng = backends.load("reference"), np.random.default_rng([4, *config])
    _, winner = ops.max_pool2d_forward(distinct(config), config.K, config.stride)
    x = rng.normal(size=config[:4])
    y, obeyed = ops.max_pool2d_forward(x, config.K, config.stride, winner=winner)
    dy = cotangent(config, y)
    assert obeyed is winner
    assert gap((y, dy), (x, ops.max_pool2d_backward(dy, winner, x.shape, config.K, config.stride))) <= 1e-12


@configs
def test_cpu_equals_reference_with_ties(config):
    reference, cpu = backends.load("reference"), backends.load("cpu")
    x = np.random.default_rng([5, *config]).integers(0, 3, config[:4]).astype(np.float64)
    y, winner = reference.max_pool2d_forward(x, config.K, config.stride)
    dy = cotangent(config, y)
    results = cpu.max_pool2d_forward(x, config.K, config.stride)
    np.testing.assert_array_equal(results[0], y, strict=True)
    np.testing.assert_array_equal(results[1], winner, strict=True)
    gradients = [o.max_pool2d_backward(dy, winner, x.shape, config.K, config.stride) for o in (cpu, reference)]
    assert error(*gradients) <= 1e-12


@pytest.mark.parametrize("config", [c for c in CONFIGS if (c.K, c.stride) in ((2, 2), (3, 2))], ids=str)
def test_float32_forward_is_bit_equal(config):
    x = dyadic(np.random.default_rng([6, *config]), config[:4])
    reference, cpu = (backends.load(name).max_pool2d_forward(x, config.K, config.stride) for name in ("reference", "cpu"))
    for actual, expected in zip(cpu, reference, strict=True):
        np.testing.assert_array_equal(actual, expected, strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_out_is_dtype_in(ops, dtype):
    x = distinct(Config(1, 4, 4, 3, 2, 2), dtype)
    y, winner = ops.max_pool2d_forward(x, 2, 2)
    dx = ops.max_pool2d_backward(y, winner, x.shape, 2, 2)
    assert (y.dtype, winner.dtype, dx.dtype) == (dtype, np.uint8, dtype)


@pytest.mark.parametrize(
    "window, first",
    [
        pytest.param([[5, 5], [5, 5]], [[1, 0], [0, 0]], id="all-equal"),
        pytest.param([[0, 5], [5, 0]], [[0, 1], [0, 0]], id="row-before-column"),
        pytest.param([[0, 0], [5, 5]], [[0, 0], [1, 0]], id="last-row"),
        pytest.param([[-5, -7], [-5, -9]], [[1, 0], [0, 0]], id="negative"),
        pytest.param([[-0.0, 0.0], [0.0, -0.0]], [[1, 0], [0, 0]], id="signed-zeros"),
        pytest.param([[-np.inf, -np.inf], [-np.inf, -np.inf]], [[1, 0], [0, 0]], id="minus-infinity"),
    ],
)
def test_first_maximum_in_row_major_order_takes_the_gradient(ops, window, first):
    np.testing.assert_array_equal(gradient(ops, np.array(window, float), 2, 2), first)


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)], ids=str)
def test_nan_wins(ops, place):
    x = np.array([[1.0, np.inf], [3.0, 2.0]])
    x[place] = np.nan
    y, _ = ops.max_pool2d_forward(x[None, :, :, None], 2, 2)
    assert np.isnan(y).all()
    expected = np.zeros((2, 2))
    expected[place] = 1
    np.testing.assert_array_equal(gradient(ops, x, 2, 2), expected)


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_of_several_nans_the_last_takes_the_gradient_as_in_torch(name):
    x = np.array([[np.nan, 1], [np.nan, 2]])
    np.testing.assert_array_equal(gradient(backends.load(name), x, 2, 2), [[0, 0], [1, 0]])


def test_overlapping_windows_add_up(ops):
    x = np.array([[0.0, 1, 0], [2, 9, 3], [0, 4, 0]])
    np.testing.assert_array_equal(gradient(ops, x, 2, 1), [[0, 0, 0], [0, 4, 0], [0, 0, 0]])
    rows = np.array([[7.0, 1, 7, 7, 2], [0, 0, 0, 0, 0], [7, 0, 0, 0, 8]])
    np.testing.assert_array_equal(gradient(ops, rows, 3, 2), [[1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]])


def test_windows_that_do_not_fit_are_dropped(ops):
    x = np.arange(25.0).reshape(5, 5)
    y, _ = ops.max_pool2d_forward(x[None, :, :, None], 2, 2)
    np.testing.assert_array_equal(y[0, :, :, 0], [[6, 8], [16, 18]])
    assert not gradient(ops, x, 2, 2)[4].any() and not gradient(ops, x, 2, 2)[:, 4].any()


def test_channels_and_images_do_not_mix(ops):
    x = distinct(Config(2, 4, 4, 3, 2, 2))
    y, winner = ops.max_pool2d_forward(x, 2, 2)
    for n, c in np.ndindex(2, 3):
        alone = ops.max_pool2d_forward(x[n : n + 1, :, :, c : c + 1].copy(), 2, 2)
        np.testing.assert_array_equal(y[n, :, :, c], alone[0][0, :, :, 0])
        np.testing.assert_array_equal(winner[n, :, :, c], alone[1][0, :, :, 0])


# ---------------------------------------------------------------------------------------------- spikes as words


@pytest.mark.parametrize("K, stride", [(2, 2), (3, 2)])
@pytest.mark.parametrize("T", [1, 65, 130])
@pytest.mark.parametrize("density", [0, 0.2, 0.7, 1])
def test_a_pool_of_words_is_the_pool_of_their_spikes(K, stride, T, density):
    """Windows are full of ties, between spikes and between silent neurons; gradients are dyadic: sums in any order are equal."""
    rng, cpu = np.random.default_rng(T), backends.load("cpu")
    spikes = draw_spikes(rng, (T, 2, 7, 6, 5), density)
    y, winner = cpu.max_pool2d_forward(merge(spikes), K, stride)
    words = cpu.max_pool2d_forward_words(pack(spikes), K, stride)
    assert words.num_steps == T
    np.testing.assert_array_equal(merge(words.dense(np.float32)), y, strict=True)

    dy = dyadic(rng, words.shape)
    dx = cpu.max_pool2d_backward_words(dy, pack(spikes), K, stride)
    expected = cpu.max_pool2d_backward(merge(dy), winner, merge(spikes).shape, K, stride)
    np.testing.assert_array_equal(merge(dx), expected, strict=True)

"""The convolution's products on the device, bit for bit the reference's where all sums are exact."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from dyadic_arrays import dyadic, merge, same_bits, spikes, words

from spikeflow.kernels.cuda import gemm, gpu
from spikeflow.kernels.cuda.gemm import Tile
from spikeflow.ops.conv2d import cuda, reference
from spikeflow.ops.events import Routed
from spikeflow.ops.pool2d import reference as pool2d


class Config(NamedTuple):
    T: int
    B: int
    H: int
    W: int
    C: int
    O: int
    K: int
    stride: int
    padding: int
    words: bool
    pool: int  # 0 for none

    def __str__(self) -> str:
        T, B, H, W, C, O, K, stride, padding, words, pool = self
        return f"{'words' if words else 'dense'}-{T}x{B}x{H}x{W}x{C}-O{O}-K{K}-s{stride}-p{padding}-pool{pool}"


CONFIGS = [
    Config(1, 3, 4, 3, 3, 9, 3, 1, 0, False, 0),
    Config(1, 1, 4, 5, 2, 3, 3, 1, 1, False, 2),  # the pool leaves a column
    Config(2, 1, 4, 5, 1, 5, 2, 2, 1, False, 0),
    Config(1, 1, 4, 5, 2, 3, 3, 3, 2, False, 0),
    Config(1, 2, 3, 3, 5, 2, 1, 2, 0, False, 0),
    Config(1, 1, 4, 4, 1, 3, 2, 1, 0, False, 3),
    Config(3, 2, 3, 3, 2, 9, 2, 1, 0, True, 2),
    Config(67, 1, 2, 2, 1, 2, 1, 1, 0, True, 2),
    Config(65, 1, 2, 2, 2, 2, 2, 1, 0, True, 0),
    Config(4, 1, 3, 2, 3, 5, 3, 1, 1, True, 0),
    Config(3, 2, 2, 3, 2, 3, 2, 1, 0, True, 0),
    Config(2, 1, 5, 5, 1, 2, 5, 2, 2, True, 0),
    Config(2, 1, 4, 4, 4, 3, 2, 1, 0, True, 2),
]
configs = pytest.mark.parametrize("config", CONFIGS, ids=str)


def arrays(config):
    """-> x (T, B, H, W, C), weight, bias."""
    shape, seed = config[:5], list(config)
    x = spikes([1, *seed], *shape) if config.words else dyadic([1, *seed], *shape)
    return x, dyadic([2, *seed], config.O, config.C, config.K, config.K), dyadic([3, *seed], config.O)


def on_device(config, x, weight):
    return words(x) if config.words else gpu.to_device(x), cuda.conv2d_pack(gpu.to_device(weight))


def expected_forward(config, x, weight, bias):
    """-> y (T, B, ...) and, pooled, its winner and shape."""
    y = reference.conv2d_forward(merge(x), weight, bias, config.stride, config.padding)
    unpooled = (config.T, config.B, *y.shape[1:])
    if not config.pool:
        return y.reshape(unpooled), None, unpooled
    y, winner = pool2d.max_pool2d_forward(y, config.pool, config.pool)
    return *(a.reshape(config.T, config.B, *a.shape[1:]) for a in (y, winner)), unpooled


def run_forward(config, bias):
    """-> what the kernels found and what the reference finds, each as (y, winner or None, unpooled shape)."""
    x, weight, shift = arrays(config)
    given, packed = on_device(config, x, weight)
    expected = expected_forward(config, x, weight, shift if bias else None)
    pool = (config.pool, config.pool) if config.pool else None
    shift = gpu.to_device(shift) if bias else None
    found = cuda.conv2d_forward_events(given, packed, shift, config.stride, config.padding, pool)
    return found if pool else (found, None, found.shape), expected


@configs
def test_forward(config):
    (y, winner, unpooled), expected = run_forward(config, bias=config.B + config.O > 4)
    assert same_bits(y, expected[0]) and unpooled == expected[2]
    assert winner is None or same_bits(winner, expected[1])


def run_backward(config, weights=True):
    """-> dx, dweight and dbias that the kernels found and that the reference finds; the latter two are added, if wanted."""
    x, weight, _ = arrays(config)
    given, packed = on_device(config, x, weight)
    y, winner, unpooled = expected_forward(config, x, weight, None)
    dy = dyadic(4, *y.shape)
    gradient = gpu.to_device(dy)
    if config.pool:
        gradient = Routed(gradient, gpu.to_device(winner), unpooled, config.pool, config.pool)
        dy = pool2d.max_pool2d_backward(merge(dy), merge(winner), merge(np.empty(unpooled)).shape, config.pool, config.pool)
    dy = dy.reshape(unpooled)
    expected = (dyadic(5, *weight.shape), dyadic(6, config.O)) if weights else (None, None)
    found = tuple(None if array is None else gpu.to_device(array) for array in expected)
    dx = reference.conv2d_backward(merge(dy), merge(x), weight, config.stride, config.padding, *expected, True)
    found_dx = cuda.conv2d_backward_events(gradient, given, packed, config.stride, config.padding, *found, True)
    return (found_dx, *found), (dx.reshape(x.shape), *expected)


@configs
def test_backward(config):
    for found, expected in zip(*run_backward(config), strict=True):
        assert same_bits(found, expected)


@configs
def test_input_gradient_as_a_product_of_windows(monkeypatch, config):
    monkeypatch.setattr(cuda, "FEW", 0)
    with gpu.launches() as launches:
        (found, *_), (expected, *_) = run_backward(config, weights=False)
    assert same_bits(found, expected) and "product" in launches[-1].kernel.name


# Each kind of tile that a card gets: threads that share columns and rows, that own all columns, that sum in groups.
@pytest.mark.parametrize("tile", [Tile(16, 64, 8, 8, 8, 1), Tile(16, 12, 8, 4, 12, 2), Tile(16, 64, 16, 8, 8, 2)], ids=str)
def test_tiles_of_a_card(monkeypatch, tile):
    monkeypatch.setattr(cuda, "tile_for", lambda *shape, **options: tile)
    config = Config(3, 1, 3, 4, 3, 12, 2, 1, 0, True, 0)
    (y, _, _), expected = run_forward(config, bias=True)
    assert same_bits(y, expected[0])
    for found, expected in zip(*run_backward(config), strict=True):
        assert same_bits(found, expected)


@pytest.mark.parametrize("together", [1, 4, 9, 16])
def test_what_kernels_take_for_granted_of_tiles(monkeypatch, together):
    monkeypatch.setattr(gpu, "SIMULATED", False)
    monkeypatch.setattr(gemm, "ENOUGH", 264)
    rng = np.random.default_rng(together)
    for _ in range(300):
        rows, columns, depth = (int(n) for n in 2 ** rng.uniform(0, (20, 13, 13)))
        tile = gemm.tile_for(rows, columns, depth, together, shares=together == 1 and bool(rng.integers(2)))
        assert tile.R % together == 0 and tile.C % 4 == 0 and tile.columns % tile.C == 0 and tile.threads <= 256
        assert tile.threads % tile.depth == 0 and tile.rows * tile.depth % tile.threads == 0
        assert tile.depth % (tile.groups * gemm.UNROLLED) == 0
        factors = tile.depth * (tile.rows + tile.columns + 2 * gemm.SKEW)
        swap, tables = tile.rows * tile.columns * (tile.groups > 1), 4 * tile.rows + 6 * tile.threads
        assert 4 * (factors + swap + tables) <= 48 * 1024


def test_plain_entries():
    config = CONFIGS[0]
    x, weight, bias = (array.reshape(-1, *array.shape[-3:]) if array.ndim == 5 else array for array in arrays(config))
    packed = cuda.conv2d_pack(gpu.to_device(weight))
    y = cuda.conv2d_forward(gpu.to_device(x), packed, gpu.to_device(bias), 1, 0)
    assert same_bits(y, reference.conv2d_forward(x, weight, bias, 1, 0))
    dy, dweight = dyadic(7, *y.shape), np.zeros_like(weight)
    found = gpu.to_device(dweight)
    dx = reference.conv2d_backward(dy, x, weight, 1, 0, dweight, None, True)
    assert same_bits(cuda.conv2d_backward(gpu.to_device(dy), gpu.to_device(x), packed, 1, 0, found, None, True), dx)
    assert same_bits(found, dweight)


def test_kernels_as_large_as_the_image():
    """A Linear layer behind a Flatten: rows and columns differ, and (4) has one window an image."""
    x, weight, bias = spikes(1, 3, 2, 2, 3, 2), dyadic(2, 5, 2, 2, 3), dyadic(3, 5)
    dense = merge(x).transpose(0, 3, 1, 2).reshape(6, 12)  # in the order of the weight's columns
    packed = cuda.conv2d_pack(gpu.to_device(weight))
    y = cuda.conv2d_forward_events(words(x), packed, gpu.to_device(bias), 1, 0)
    assert same_bits(y, (dense @ weight.reshape(5, 12).T + bias).reshape(3, 2, 1, 1, 5))
    dy, dweight = dyadic(4, 6, 5), gpu.to_device(np.zeros_like(weight))
    dx = cuda.conv2d_backward_events(gpu.to_device(dy.reshape(3, 2, 1, 1, 5)), words(x), packed, 1, 0, dweight, None, True)
    assert same_bits(dweight, (dy.T @ dense).reshape(weight.shape))
    assert same_bits(dx, (dy @ weight.reshape(5, 12)).reshape(6, 2, 2, 3).transpose(0, 2, 3, 1).reshape(x.shape))


def test_nothing_more_than_asked_for():
    config = CONFIGS[6]
    x, weight, bias = arrays(config)
    given, packed = on_device(config, x, weight)
    pooled = cuda.conv2d_forward_events(given, packed, gpu.to_device(bias), 1, 0, (2, 2))
    routed = Routed(pooled.y, pooled.winner, pooled.unpooled, 2, 2)
    with gpu.launches() as launches:
        assert cuda.conv2d_backward_events(routed, given, packed, 1, 0, None, None, False) is None
    assert not launches
    with gpu.launches() as launches:
        cuda.conv2d_backward_events(routed, given, packed, 1, 0, None, None, True)
    assert [launch.kernel.name.split("-")[:2] for launch in launches] == [["conv2d_dx_image", "3"]]


def test_wide_pools_are_kernels_of_their_own():
    x, weight = dyadic(1, 1, 1, 6, 5, 1), dyadic(2, 2, 1, 1, 1)
    found = cuda.conv2d_forward_events(gpu.to_device(x), cuda.conv2d_pack(gpu.to_device(weight)), None, 1, 0, (5, 5))
    y, winner = pool2d.max_pool2d_forward(reference.conv2d_forward(x[0], weight, None, 1, 0), 5, 5)
    assert same_bits(found.y, y[None]) and same_bits(found.winner, winner[None])


def test_not_a_number_wins():
    x = dyadic(1, 1, 1, 4, 4, 1)
    x[0, 0, [0, 0, 2], [1, 2, 3]] = np.nan
    weight = np.ones((1, 1, 1, 1), np.float32)
    found = cuda.conv2d_forward_events(gpu.to_device(x), cuda.conv2d_pack(gpu.to_device(weight)), None, 1, 0, (2, 2))
    y, winner = pool2d.max_pool2d_forward(x[0], 2, 2)
    assert np.array_equal(gpu.to_host(found.y)[0], y, equal_nan=True) and same_bits(found.winner, winner[None])


def test_overlapping_pools_are_refused():
    x, packed = words(spikes(1, 2, 1, 4, 4, 1)), cuda.conv2d_pack(gpu.to_device(dyadic(2, 1, 1, 1, 1)))
    with pytest.raises(ValueError, match="pool must have a stride equal to its kernel size"):
        cuda.conv2d_forward_events(x, packed, None, 1, 0, (3, 2))
    routed = Routed(x.words, x.words, (2, 1, 4, 4, 1), 3, 2)
    with pytest.raises(ValueError, match="dy must come from a max-pool whose stride is its kernel size"):
        cuda.conv2d_backward_events(routed, x, packed, 1, 0, None, None, True)


def test_too_many_numbers_are_refused():
    with gpu.dry(), pytest.raises(ValueError, match=r"fewer than 2\^31 numbers, got shape \(2, 32768, 32768\)"):
        cuda.flat(np.broadcast_to(np.float32(0), (2, 2**15, 2**15)))

"""Sums over rows on the device: every column, each row once, in an order that shapes alone decide."""

import numpy as np
import pytest

from spikeflow.kernels.cuda import gpu, sums

SHAPES = [(1, 1), (1, 19), (5, 1), (17, 3), (40, 1), (61, 4), (33, 5), (16, 11), (97, 2), (130, 7)]


def whole_numbers(*shape):
    return np.random.default_rng(sum(shape)).integers(-50, 50, shape).astype(np.float32)


@pytest.mark.parametrize("R, C", SHAPES)
def test_column_sums(R, C):
    x = whole_numbers(R, C)
    found = gpu.to_host(sums.column_sums(gpu.to_device(x)))
    assert found.dtype == np.float32 and np.array_equal(found, x.sum(0))


@pytest.mark.parametrize("R, C", SHAPES)
def test_column_sums_are_added(R, C):
    x, before = whole_numbers(R, C), whole_numbers(C)
    out = gpu.to_device(before)
    assert sums.column_sums(gpu.to_device(x), out) is out
    assert np.array_equal(gpu.to_host(out), before + x.sum(0))


@pytest.mark.parametrize("shape", [(1, 3), (7, 2, 5), (20, 3), (45, 2, 3)])
def test_partials_are_added(shape):
    parts, before = whole_numbers(*shape), whole_numbers(*shape[1:])
    out = gpu.to_device(before)
    with gpu.launches() as launches:
        sums.add_partials(gpu.to_device(parts), out)
    assert len(launches) == 1 and np.array_equal(gpu.to_host(out), before + parts.sum(0))


@pytest.mark.parametrize("shape", [(1, 3), (7, 2, 5), (45, 2, 3)])
def test_partials_are_summed(shape):
    parts = whole_numbers(*shape)
    assert np.array_equal(gpu.to_host(sums.sum_partials(gpu.to_device(parts))), parts.sum(0))


def test_equal_inputs_have_equal_sums():
    x = np.random.default_rng(0).standard_normal((150, 3)).astype(np.float32)
    first, second = (gpu.to_host(sums.column_sums(gpu.to_device(x))) for _ in range(2))
    assert np.array_equal(first, second)
    np.testing.assert_allclose(first, x.sum(0, dtype=np.float64), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "R, C", [(1, 1), (128 * 50 * 576, 12), (128 * 49, 2048), (3, 12_845_056), (6400, 10), (10**6, 1), (700, 90)]
)
def test_launches_are_few_and_cover_all(R, C):
    run = sums.rows_of_blocks(R, C)
    W, G = sums.tile(run, C)
    blocks = gpu.size(R, run)
    assert W * G <= gpu.THREADS and blocks * run >= R > (blocks - 1) * run
    assert blocks * gpu.size(C, W) <= max(sums.BLOCKS, gpu.size(C, W)) and blocks <= 65535


def test_blocks_as_large_as_on_a_card(monkeypatch):
    sizes = {"WIDE": 32, "BLOCKS": 1024, "FEW": 16, "EACH": 8}
    for name, number in sizes.items():
        monkeypatch.setattr(sums, name, number)
    monkeypatch.setattr(gpu, "THREADS", 256)
    sums.make_column_sums.cache_clear()
    try:
        for R, C in ((300, 3), (70, 65)):
            x = whole_numbers(R, C)
            assert np.array_equal(gpu.to_host(sums.column_sums(gpu.to_device(x))), x.sum(0))
    finally:
        sums.make_column_sums.cache_clear()

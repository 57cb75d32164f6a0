from __future__ import annotations

import zlib

import numpy as np
import pytest

from spikeflow import random

MASK = 2**64 - 1


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64 with ten rounds (Salmon et al. 2011): four words for a counter of four and a key of two."""
    (a, b, c, d), (left, right) = counter, key
    for _ in range(10):
        one, two = a * 0xD2E7470EE14C6C93, c * 0xCA5A826395121157
        a, b, c, d = (two >> 64) ^ b ^ left, two & MASK, (one >> 64) ^ d ^ right, one & MASK
        left, right = (left + 0x9E3779B97F4A7C15) & MASK, (right + 0xBB67AE8584CAA73B) & MASK
    return [a, b, c, d]


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
@pytest.mark.parametrize("epoch, step", [(0, 0), (3, 7)])
def test_raw_bits_are_those_of_philox(seed, epoch, step):
    key = [seed, zlib.crc32(b"shuffle")]
    expected = [word for block in (1, 2, 3) for word in philox([block, 0, step, epoch], key)]
    assert random.raw_bits(12, seed, "shuffle", epoch, step).tolist() == expected


def test_pinned_bits():
    bits = random.raw_bits(4, 0, "init/0.weight")
    assert bits.dtype == np.uint64
    assert bits.tolist() == [0x435EE49043EB2FE7, 0xD84158B20259CDAD, 0xED99E4176FDEA6B6, 0xCE31A38B0E0277E7]
    assert random.raw_bits(2, 12345, "shuffle", epoch=3, step=7).tolist() == [0xE69F0E06FB928BF1, 0x1E0B3B5F8DA152A2]


def test_pinned_uniforms():
    values = random.uniform((2, 2), -1, 1, 7, "a")
    assert values.dtype == np.float64
    assert values.tolist() == [[-0.5167105948346233, -0.2778201751526763], [-0.6672385097994145, -0.6825572139061982]]


def test_pinned_permutations():
    assert random.permutation(10, 3, "p").tolist() == [6, 4, 0, 7, 5, 8, 2, 3, 9, 1]
    assert random.permutation(10, 3, "p", epoch=1).tolist() == [5, 8, 2, 3, 0, 7, 6, 1, 4, 9]


def test_a_uniform_is_the_upper_53_bits():
    bits, values = random.raw_bits(1000, 5, "s"), random.uniform((1000,), 0, 1, 5, "s")
    np.testing.assert_array_equal(values * 2.0**53, bits >> np.uint64(11))
    assert 0 <= values.min() < 0.01 and 0.99 < values.max() < 1
    assert abs(values.mean() - 0.5) < 0.03


@pytest.mark.parametrize("size", [0, 1, 2, 1000])
def test_a_permutation_holds_everything_once(size):
    assert sorted(random.permutation(size, 0, "p").tolist()) == list(range(size))


KEYS = [(0, "a", 0, 0), (1, "a", 0, 0), (0, "b", 0, 0), (0, "a", 1, 0), (0, "a", 0, 1)]


def test_every_part_of_the_key_makes_another_stream():
    streams = {tuple(random.raw_bits(8, *key).tolist()) for key in KEYS}
    assert len(streams) == len(KEYS)
    assert len({word for stream in streams for word in stream}) == 8 * len(KEYS)


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_a_stream_can_be_entered_again_whatever_was_drawn_before(key):
    first = random.raw_bits(9, *key)
    random.raw_bits(100, 0, "other")
    np.random.default_rng().normal(size=3)
    np.testing.assert_array_equal(random.raw_bits(9, *key), first)
    np.testing.assert_array_equal(random.raw_bits(3, *key), first[:3])


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)], ids=str)
def test_shapes(shape):
    assert random.uniform(shape, 0, 1, 0, "s").shape == shape


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_bad_seed(seed):
    with pytest.raises(ValueError, match=r"seed must be an integer in \[0, 2\*\*64\)"):
        random.raw_bits(1, seed, "s")

"""Random numbers that depend on their key alone.

Every consumer (initial weights, shuffles, ...) has a stream of its own, and each stream can be entered at any epoch and
step: the numbers are a function of ``(seed, stream, epoch, step)``, never of what was drawn before. NumPy supplies only the
raw bits of the Philox4x64 counter generator, whose algorithm is fixed; the few lines that turn bits into numbers are here, so
that a NumPy release cannot change a result.
"""

from __future__ import annotations

import zlib

import numpy as np

__all__ = ["permutation", "raw_bits", "uniform"]


def raw_bits(size: int, seed: int, stream: str, epoch: int = 0, step: int = 0) -> np.ndarray:
    """-> (size,) uint64: Philox4x64 with key ``(seed, crc32(stream))`` and counter ``(0, 0, step, epoch)``."""
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be an integer in [0, 2**64), got {seed}")
    key = np.array([seed, zlib.crc32(stream.encode())], np.uint64)
    counter = np.array([0, 0, step, epoch], np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(size)


def uniform(shape: tuple[int, ...], low: float, high: float, seed: int, stream: str, epoch: int = 0, step: int = 0):
    """-> float64 of ``shape``, uniform in [low, high): the upper 53 bits of each word, as a fraction."""
    bits = raw_bits(int(np.prod(shape)), seed, stream, epoch, step)
    fraction = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return (low + (high - low) * fraction).reshape(shape)


def permutation(size: int, seed: int, stream: str, epoch: int = 0, step: int = 0) -> np.ndarray:
    """-> (size,) int64: a permutation of 0 ... size - 1, the order that sorts one random word an entry."""
    return np.argsort(raw_bits(size, seed, stream, epoch, step), kind="stable")

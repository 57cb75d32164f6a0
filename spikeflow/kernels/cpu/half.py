"""Numbers in two bytes, for what waits for a backward pass.

IEEE half precision: a sign, 5 bits of exponent and 10 of fraction, so that a number is off by at most 2^-11 of itself. Numba has
no such type on the CPU, so that kernels shift bits: they round to nearest, ties to even, put numbers below 2^-14 to 0 and those
beyond 65504 to that.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from ..jit import inline, kernel
from .simd import empty

__all__ = ["Halved", "halved"]

LEAST, MOST, LIMIT = 0x38800000, 0x477FE000, 0x7BFF  # bits of 2^-14 and of 65504 in float32; of 65504 in two bytes
BIAS, SHIFT = 0x38000000, 13  # 127 - 15 as a float32's exponent; the places of the fraction that are lost


@dataclass(frozen=True, eq=False)
class Halved:
    """An array of float32 in half the bytes."""

    bits: np.ndarray  # uint16
    nbytes = property(lambda self: self.bits.nbytes)
    shape = property(lambda self: self.bits.shape)

    def array(self) -> np.ndarray:
        """-> the numbers as float32."""
        x = empty(self.bits.shape, np.dtype(np.float32))
        make_widen()(self.bits.reshape(-1), x.reshape(-1).view(np.uint32))
        return x


def halved(x: np.ndarray, threshold: float | None = None, inclusive: bool = False) -> Halved | np.ndarray:
    """x float32 -> Halved; other numbers as they are.

    With a ``threshold`` above 0 no number is rounded across it: those above it (or, ``inclusive``, at it) stay there.
    """
    if x.dtype != np.float32 or (threshold is not None and threshold <= 0):
        return x
    bits = np.empty(x.shape, np.uint16)
    rows = x.reshape(-1)
    if threshold is None:
        make_halve()(rows.view(np.uint32), bits.reshape(-1))
    else:
        make_halve_beside()(rows, rows.view(np.uint32), np.float32(threshold), inclusive, bits.reshape(-1))
    return Halved(bits)


def narrow(b):
    """Bits of a float32 -> of the nearest half."""
    a = np.int64(b) & 0x7FFFFFFF
    rounded = (a - BIAS + 0xFFF + ((a >> SHIFT) & 1)) >> SHIFT
    rounded = 0 if a < LEAST else LIMIT if a > MOST else rounded
    return rounded | ((np.int64(b) >> 16) & 0x8000)


def widen(h):
    """Bits of a half -> of the same number as float32."""
    magnitude = np.int64(h) & 0x7FFF
    wide = (magnitude << SHIFT) + BIAS if magnitude != 0 else 0
    return wide | ((np.int64(h) & 0x8000) << 16)


@functools.cache
def make_halve():
    round_bits = inline(narrow)

    @kernel()
    def halve_kernel(x, bits):
        """x (N) uint32, bits of float32 -> bits (N) uint16."""
        for i in range(len(x)):
            bits[i] = round_bits(x[i])

    return halve_kernel


@functools.cache
def make_halve_beside():
    round_bits = inline(narrow)

    @kernel()
    def halve_beside_kernel(x, words, threshold, inclusive, bits):
        """x (N), words the same as uint32 -> bits (N) uint16, on the same side of the threshold, which is positive."""
        limit = np.empty(1, np.float32)
        limit[0] = threshold
        at = np.int64(limit.view(np.uint32)[0])
        up = (at - BIAS) >> SHIFT  # the largest half that is not above the threshold
        least = up if inclusive and at >> SHIFT << SHIFT == at else up + 1  # the least that fires
        for i in range(len(x)):
            h = round_bits(words[i])
            fires = x[i] >= threshold if inclusive else x[i] > threshold
            h = max(h, least) if fires else h
            bits[i] = min(h, least - 1) if not fires and x[i] > 0 else h

    return halve_beside_kernel


@functools.cache
def make_widen():
    wide_bits = inline(widen)

    @kernel()
    def widen_kernel(bits, x):
        """bits (N) uint16 -> x (N) uint32, bits of float32."""
        for i in range(len(bits)):
            x[i] = wide_bits(bits[i])

    return widen_kernel

"""Is every number of an array finite? One pass on all threads, where NumPy would write an array of answers first.

A float is NaN or infinite where all bits of its exponent are set, that is, where its exponent bits, read as an integer, have
their largest value. So the largest of all exponents tells: a maximum of integers, which vector instructions compute.
"""

from __future__ import annotations

import functools

import numpy as np

from ..kernels.cpu import parallel
from ..kernels.jit import kernel

__all__ = ["all_finite"]

PART = 2**18  # numbers in one task
EXPONENTS = {np.dtype(np.float32): np.uint32(0x7F800000), np.dtype(np.float64): np.uint64(0x7FF0000000000000)}


def all_finite(array: np.ndarray) -> bool:
    """-> False if a number of the array, of any shape and real type, is NaN or infinite."""
    array = np.asarray(array)
    mask = EXPONENTS.get(array.dtype)
    if mask is None or array.size < PART or not array.flags.c_contiguous:
        return bool(np.isfinite(array).all())
    bits = array.reshape(-1).view(mask.dtype)
    largest = make_largest()
    parts = parallel.run(lambda i: largest(bits[i * PART : (i + 1) * PART], mask), -(-bits.size // PART))
    return bool(max(parts) < mask)


@functools.cache
def make_largest():
    @kernel()
    def largest_kernel(bits, mask):
        """bits (N) unsigned -> the largest of bits & mask."""
        largest = bits[0] & mask
        for i in range(len(bits)):
            largest = max(largest, bits[i] & mask)
        return largest

    return largest_kernel

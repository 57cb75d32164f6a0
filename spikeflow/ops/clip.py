"""Norms of gradients, and their clipping: one pass over an array each.

Sums are in float64. Those of an array's parts are added up in order, and a part is summed in ``LANES`` lanes: in a single sum
each addition waits for the one before it. Parts and lanes do not depend on the number of threads, so neither does a sum.
"""

from __future__ import annotations

import functools

import numpy as np

from ..kernels.cpu import parallel
from ..kernels.cpu.simd import stack_array
from ..kernels.jit import inline, kernel
from .adam.cpu import PART

__all__ = ["clip", "largest", "power_sum", "scale"]

LANES = 16


def power_sum(array: np.ndarray, p: float) -> float:
    """-> the sum of |x|^p, p > 0."""
    add = make_power_sum(float(p))
    total = 0.0
    for part in _over_parts(array, add):
        total += part
    return total


def largest(array: np.ndarray) -> float:
    """-> the largest |x|, NaN if there is one; 0 of no numbers."""
    return float(np.max(_over_parts(array, make_largest()), initial=0.0))


def scale(array: np.ndarray, factor: float) -> None:
    """array *= factor, in the array's own precision."""
    multiply = make_scale()
    factor = array.dtype.type(factor)
    _over_parts(array, lambda part: multiply(part, factor))


def clip(array: np.ndarray, limit: float) -> None:
    """Each number to the nearest in [-limit, limit]; a NaN stays."""
    limit = array.dtype.type(limit)
    _over_parts(array, lambda part: np.clip(part, -limit, limit, out=part))


def _over_parts(array: np.ndarray, task) -> list:
    """-> what ``task`` returns for each part of the array, which must be C-contiguous."""
    flat = array.reshape(-1)
    return parallel.run(lambda i: task(flat[i * PART : (i + 1) * PART]), -(-flat.size // PART))


@functools.cache
def make_power_sum(p: float):
    allocate, power = stack_array(np.float64, LANES), inline(_power(p))

    @kernel(p)
    def power_sum_kernel(array):
        """array (N) -> sum |x|^p."""
        lanes = allocate()
        for k in range(LANES):
            lanes[k] = 0.0
        whole = len(array) // LANES * LANES
        for i in range(0, whole, LANES):
            for k in range(LANES):
                lanes[k] += power(np.float64(array[i + k]))
        for i in range(whole, len(array)):
            lanes[i - whole] += power(np.float64(array[i]))
        total = 0.0
        for k in range(LANES):
            total += lanes[k]
        return total

    return power_sum_kernel


def _power(p: float):
    if p == 2:
        return lambda x: x * x
    return (lambda x: abs(x)) if p == 1 else lambda x: abs(x) ** p


@functools.cache
def make_largest():
    @kernel()
    def largest_kernel(array):
        """array (N) -> max |x|."""
        found = 0.0
        for i in range(len(array)):
            x = np.float64(abs(array[i]))
            if x > found or x != x:  # once NaN, always NaN: no number is larger
                found = x
        return found

    return largest_kernel


@functools.cache
def make_scale():
    @kernel()
    def scale_kernel(array, factor):
        """array (N)."""
        for i in range(len(array)):
            array[i] *= factor

    return scale_kernel

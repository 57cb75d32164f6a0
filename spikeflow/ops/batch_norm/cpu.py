"""Batch normalisation on the CPU: passes over rows of channels, each a loop over whole vectors."""

from __future__ import annotations

import functools

import numpy as np

from ...kernels.cpu.simd import empty
from ...kernels.jit import kernel

U = np.uintp
ROWS = 64  # summed in the numbers' own precision, about the center, before they join the float64 sums
ZERO = np.float32(0)


def batch_norm_sums(x, center):
    """x (N, C), center (C) -> (2, C) float64: sum of x - center, and of its square; for (1) and (2)."""
    sums = np.zeros((2, len(center)))
    make_sums()(x.reshape(-1), center.astype(x.dtype), sums)
    return sums


def batch_norm_forward(x, scale, shift):
    """(4): x (N, C) -> y (N, C)."""
    y = empty(x.shape, x.dtype)
    make_forward()(x.reshape(-1), scale, shift, y.reshape(-1))
    return y


def batch_norm_backward_sums(dy, x, mean):
    """dy, x (N, C) -> (2, C) float64: sum of dy, and of dy (x - mean); for (5) and (6)."""
    sums = np.zeros((2, len(mean)))
    make_backward_sums()(dy.reshape(-1), x.reshape(-1), mean.astype(x.dtype), sums)
    return sums


def batch_norm_backward(dy, x, a, b, c):
    """(7): dy, x (N, C), a, b, c (C) -> dx (N, C)."""
    dx = empty(x.shape, x.dtype)
    make_backward()(dy.reshape(-1), x.reshape(-1), a, b, c, dx.reshape(-1))
    return dx


@functools.cache
def make_sums():
    @kernel()
    def batch_norm_sums_kernel(x, center, sums):
        """x flat (N C) -> adds into sums (2, C)."""
        C = len(center)
        first, second = np.empty(C, x.dtype), np.empty(C, x.dtype)
        for lo in range(0, len(x), ROWS * C):
            first[:], second[:] = 0, 0
            for at in range(lo, min(lo + ROWS * C, len(x)), C):
                for c in range(C):
                    away = x[U(at + c)] - center[c]
                    first[c] += away
                    second[c] += away * away
            for c in range(C):
                sums[0, c] += first[c]
                sums[1, c] += second[c]

    return batch_norm_sums_kernel


@functools.cache
def make_forward():
    @kernel()
    def batch_norm_forward_kernel(x, scale, shift, y):
        """x, y flat (N C)."""
        C = len(scale)
        for at in range(0, len(x), C):
            for c in range(C):
                y[U(at + c)] = x[U(at + c)] * scale[c] + shift[c]  # (4)

    return batch_norm_forward_kernel


@functools.cache
def make_backward_sums():
    @kernel()
    def batch_norm_backward_sums_kernel(dy, x, mean, sums):
        """dy, x flat (N C) -> adds into sums (2, C)."""
        C = len(mean)
        first, second = np.empty(C, x.dtype), np.empty(C, x.dtype)
        for lo in range(0, len(x), ROWS * C):
            first[:], second[:] = 0, 0
            for at in range(lo, min(lo + ROWS * C, len(x)), C):
                for c in range(C):
                    first[c] += dy[U(at + c)]
                    second[c] += dy[U(at + c)] * (x[U(at + c)] - mean[c])
            for c in range(C):
                sums[0, c] += first[c]
                sums[1, c] += second[c]

    return batch_norm_backward_sums_kernel


@functools.cache
def make_backward():
    @kernel()
    def batch_norm_backward_kernel(dy, x, a, b, c, dx):
        """dy, x, dx flat (N C)."""
        C = len(a)
        for at in range(0, len(x), C):
            for k in range(C):
                dx[U(at + k)] = a[k] * dy[U(at + k)] + b[k] * x[U(at + k)] + c[k]  # (7)

    return batch_norm_backward_kernel

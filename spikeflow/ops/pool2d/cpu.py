"""Max-pooling on the CPU: the innermost loop runs over the channels of one window, which compares whole vectors."""

from __future__ import annotations

import functools

import numpy as np

from ..jit import kernel
from ..simd import empty, zeros

ZERO = np.float32(0)  # the literal 0 would widen float32 to float64


def max_pool2d_forward(x, K, stride):
    """x (N, H, W, C) -> y (N, H', W', C), winner (N, H', W', C) uint8."""
    N, H, W, C = x.shape
    shape = (N, (H - K) // stride + 1, (W - K) // stride + 1, C)
    y, winner = empty(shape, x.dtype), empty(shape, np.uint8)
    make_forward(K, stride)(x, y, winner)
    return y, winner


def max_pool2d_backward(dy, winner, shape, K, stride):
    """dy, winner (N, H', W', C) -> dx of ``shape`` (N, H, W, C)."""
    dx = zeros(shape, dy.dtype)
    make_backward(K, stride)(dy, winner, dx)
    return dx


@functools.cache
def make_forward(K, stride):
    @kernel(K, stride)
    def max_pool2d_forward_kernel(x, y, winner):
        """x (N, H, W, C) -> y, winner (N, H', W', C)."""
        N, height, width, C = y.shape
        for n in range(N):
            for i in range(height):
                for j in range(width):
                    best, which = y[n, i, j], winner[n, i, j]
                    first = x[n, i * stride, j * stride]
                    for c in range(C):
                        best[c], which[c] = first[c], 0
                    for tap in range(1, K * K):
                        new = x[n, i * stride + tap // K, j * stride + tap % K]
                        for c in range(C):
                            # (1): strictly greater, so the first of equals stays; a NaN enters, and is never beaten
                            if new[c] > best[c] or new[c] != new[c]:
                                best[c], which[c] = new[c], tap

    return max_pool2d_forward_kernel


@functools.cache
def make_backward(K, stride):
    @kernel(K, stride)
    def max_pool2d_backward_kernel(dy, winner, dx):
        """dy, winner (N, H', W', C) -> adds into dx (N, H, W, C)."""
        N, height, width, C = dy.shape
        for n in range(N):
            for i in range(height):
                for j in range(width):
                    gradient, which = dy[n, i, j], winner[n, i, j]
                    for tap in range(K * K):
                        target = dx[n, i * stride + tap // K, j * stride + tap % K]
                        for c in range(C):
                            target[c] += gradient[c] if which[c] == tap else ZERO  # (2)

    return max_pool2d_backward_kernel

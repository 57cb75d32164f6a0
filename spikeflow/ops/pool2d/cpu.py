"""Pooling on the CPU: the innermost loop runs over the channels of one window: whole vectors."""

from __future__ import annotations

import functools

import numpy as np

from ...kernels.cpu.simd import empty, zeros
from ...kernels.jit import kernel
from ..events import WORD, SpikeWords

ONE, ALL = np.uint64(1), ~np.uint64(0)
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
    dx = empty(shape, dy.dtype)
    make_backward(K, stride)(dy, winner, dx)
    return dx


def max_pool2d_forward_words(x, K, stride):
    """x (T, B, H, W, C) as SpikeWords -> y (T, B, H', W', C) as SpikeWords: the greatest of some bits is their disjunction."""
    D, B, H, W, C = x.words.shape
    words = empty((D, B, (H - K) // stride + 1, (W - K) // stride + 1, C), np.uint64)
    make_forward_words(K, stride)(x.words, words)
    return SpikeWords(words, x.num_steps)


def max_pool2d_backward_words(dy, x, K, stride):
    """dy (T, B, H', W', C), x (T, B, H, W, C) as SpikeWords -> dx (T, B, H, W, C)."""
    dx = zeros(x.shape, dy.dtype)
    make_backward_words(K, stride)(dy, x.words, dx)
    return dx


def avg_pool2d_forward(x, K, stride):
    """x (N, H, W, C) -> y (N, H', W', C)."""
    N, H, W, C = x.shape
    y = empty((N, (H - K) // stride + 1, (W - K) // stride + 1, C), x.dtype)
    make_average()(x, K, stride, x.dtype.type(K * K), y)
    return y


def avg_pool2d_backward(dy, shape, K, stride):
    """dy (N, H', W', C) -> dx of ``shape`` (N, H, W, C)."""
    dx = zeros(shape, dy.dtype)
    make_average_backward()(dy, K, stride, dy.dtype.type(K * K), dx)
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
        """dy, winner (N, H', W', C) -> dx (N, H, W, C)."""
        N, height, width, C = dy.shape
        dx.fill(0)
        for n in range(N):
            for i in range(height):
                for j in range(width):
                    gradient, which = dy[n, i, j], winner[n, i, j]
                    for tap in range(K * K):
                        target = dx[n, i * stride + tap // K, j * stride + tap % K]
                        for c in range(C):
                            target[c] += gradient[c] if which[c] == tap else ZERO  # (2)

    return max_pool2d_backward_kernel


@functools.cache
def make_forward_words(K, stride):
    @kernel(K, stride)
    def max_pool2d_forward_words_kernel(x, y):
        """x (D, B, H, W, C) -> y (D, B, H', W', C)."""
        D, B, height, width, C = y.shape
        for d in range(D):
            for n in range(B):
                for i in range(height):
                    for j in range(width):
                        best = y[d, n, i, j]
                        best[:] = 0
                        for tap in range(K * K):
                            new = x[d, n, i * stride + tap // K, j * stride + tap % K]
                            for c in range(C):
                                best[c] |= new[c]  # (1)

    return max_pool2d_forward_words_kernel


@functools.cache
def make_backward_words(K, stride):
    @kernel(K, stride)
    def max_pool2d_backward_words_kernel(dy, x, dx):
        """dy (T, B, H', W', C), x (D, B, H, W, C) -> adds into dx (T, B, H, W, C)."""
        T, B, height, width, C = dy.shape
        won, lost = np.empty(C, np.uint64), np.empty(C, np.uint64)  # steps at which this tap wins; at which no earlier one fired
        for d in range(x.shape[0]):
            for n in range(B):
                for i in range(height):
                    for j in range(width):
                        lost[:] = ALL
                        for tap in range(1, K * K):
                            fires = x[d, n, i * stride + tap // K, j * stride + tap % K]
                            for c in range(C):
                                lost[c] &= ~fires[c]
                        # The first of equals wins: tap 0 where it fires, and where nobody does.
                        for tap in range(K * K):
                            top, left = i * stride + tap // K, j * stride + tap % K
                            fires = x[d, n, top, left]
                            for c in range(C):
                                won[c] = fires[c] | lost[c] if tap == 0 else fires[c] & lost[c]
                                lost[c] = ~won[c] if tap == 0 else lost[c] & ~fires[c]
                            for t in range(d * WORD, min(T, d * WORD + WORD)):
                                bit = np.uint64(t % WORD)
                                gradient, target = dy[t, n, i, j], dx[t, n, top, left]
                                for c in range(C):
                                    target[c] += gradient[c] if (won[c] >> bit) & ONE else ZERO  # (2)

    return max_pool2d_backward_words_kernel


@functools.cache
def make_average():
    @kernel()
    def avg_pool2d_forward_kernel(x, K, stride, area, y):
        """x (N, H, W, C) -> y (N, H', W', C)."""
        N, height, width, C = y.shape
        for n in range(N):
            for i in range(height):
                for j in range(width):
                    total = y[n, i, j]
                    total[:] = 0
                    for tap in range(K * K):
                        new = x[n, i * stride + tap // K, j * stride + tap % K]
                        for c in range(C):
                            total[c] += new[c]
                    for c in range(C):
                        total[c] /= area  # (3)

    return avg_pool2d_forward_kernel


@functools.cache
def make_average_backward():
    @kernel()
    def avg_pool2d_backward_kernel(dy, K, stride, area, dx):
        """dy (N, H', W', C) -> adds into dx (N, H, W, C)."""
        N, height, width, C = dy.shape
        for n in range(N):
            for i in range(height):
                for j in range(width):
                    gradient = dy[n, i, j]
                    for tap in range(K * K):
                        target = dx[n, i * stride + tap // K, j * stride + tap % K]
                        for c in range(C):
                            target[c] += gradient[c] / area  # (4)

    return avg_pool2d_backward_kernel

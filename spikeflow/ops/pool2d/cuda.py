"""Pooling on a GPU: forward a thread a window, backward a thread a pixel, neighbouring threads at neighbouring channels.

Backward, a pixel adds up the windows that cover it, in their order: nobody else writes it, so there is nothing to clear and no
atomic addition. With spikes as bits, a thread has 64 time steps of a place: it reads its windows' words once, and their gradients
step by step.
"""

from __future__ import annotations

import functools

import numpy as np

from ...kernels.cuda import gpu
from ...kernels.cuda.gemm import split
from ...kernels.cuda.gpu import cuda
from ...kernels.jit import inline
from ..events import WORD, SpikeWords

I, U = np.int32, np.uint32
ZERO = np.float32(0)
NOTHING, ONE, ALL = np.uint64(0), np.uint64(1), ~np.uint64(0)


def max_pool2d_forward(x, K, stride):
    """x (N, H, W, C) -> y (N, H', W', C), winner (N, H', W', C) uint8."""
    y = gpu.empty(_pooled(x.shape, K, stride))
    winner = gpu.empty(y.shape, np.uint8)
    _launch(make_forward(*x.shape[1:], K, stride), y.size, _flat(x), _flat(y), _flat(winner))
    return y, winner


def max_pool2d_backward(dy, winner, shape, K, stride):
    """dy, winner (N, H', W', C) -> dx of ``shape`` (N, H, W, C)."""
    dx = gpu.empty(shape)
    _launch(make_backward(*shape[1:], K, stride), dx.size, _flat(dy), _flat(winner), _flat(dx))
    return dx


def max_pool2d_forward_words(x, K, stride):
    """x (T, B, H, W, C) as SpikeWords -> y (T, B, H', W', C) as SpikeWords: the greatest of some bits is their disjunction."""
    D, *shape = x.words.shape
    words = gpu.empty((D, *_pooled(shape, K, stride)), np.uint64)
    _launch(make_forward_words(*shape[1:], K, stride), words.size, _flat(x.words), _flat(words))
    return SpikeWords(words, x.num_steps)


def max_pool2d_backward_words(dy, x, K, stride):
    """dy (T, B, H', W', C), x (T, B, H, W, C) as SpikeWords -> dx (T, B, H, W, C)."""
    dx = gpu.empty(x.shape)
    _launch(make_backward_words(*x.shape[2:], K, stride), x.words.size, _flat(dy), _flat(x.words), I(x.num_steps), _flat(dx))
    return dx


def avg_pool2d_forward(x, K, stride):
    """x (N, H, W, C) -> y (N, H', W', C)."""
    y = gpu.empty(_pooled(x.shape, K, stride))
    _launch(make_average(*x.shape[1:], K, stride), y.size, _flat(x), _flat(y))
    return y


def avg_pool2d_backward(dy, shape, K, stride):
    """dy (N, H', W', C) -> dx of ``shape`` (N, H, W, C)."""
    dx = gpu.empty(shape)
    _launch(make_average_backward(*shape[1:], K, stride), dx.size, _flat(dy), _flat(dx))
    return dx


def _pooled(shape, K, stride):
    N, H, W, C = shape
    return N, (H - K) // stride + 1, (W - K) // stride + 1, C


def _flat(array):
    if array.size >= 2**31:
        raise ValueError(f"arrays on a GPU must have fewer than 2^31 numbers, got shape {array.shape}: use smaller batches")
    return array.reshape(array.size)


def _launch(kernel, count, *arrays):
    """A thread for each of ``count`` numbers."""
    gpu.launch(kernel, gpu.size(count), gpu.THREADS, *arrays, I(count), flops=0)


def make_first_pixel(H, W, C, K, stride):
    """-> where in x flat (N, H, W, C) the window of a number of y flat (N, H', W', C) begins."""
    height, width = (H - K) // stride + 1, (W - K) // stride + 1

    def first_pixel(n):
        n, c = split(n, C)
        n, j = split(n, width)
        n, i = split(n, height)
        return U(((n * H + i * stride) * W + j * stride) * C + c)

    with gpu.scalars():
        return inline(first_pixel)


def make_covering(H, W, C, K, stride):
    """-> covering(n), for a number of x flat (N, H, W, C): its image and channel in y flat, its pixel, and who covers it.

    The last are the windows i <= ... < i2, j <= ... < j2.
    """
    height, width = (H - K) // stride + 1, (W - K) // stride + 1

    def covering(n):
        n, c = split(n, C)
        n, w = split(n, W)
        n, h = split(n, H)
        i, j = split(max(I(h - K + stride), I(0)), stride)[0], split(max(I(w - K + stride), I(0)), stride)[0]
        i2, j2 = min(I(split(h, stride)[0] + 1), I(height)), min(I(split(w, stride)[0] + 1), I(width))
        return I(n * (height * width * C) + c), h, w, i, i2, j, j2

    with gpu.scalars():
        return inline(covering)


@functools.cache
def make_forward(H, W, C, K, stride):
    first_pixel = make_first_pixel(H, W, C, K, stride)

    @gpu.kernel(H, W, C, K, stride)
    def max_pool2d_forward_kernel(x, y, winner, count):
        """x flat -> y, winner flat (count)."""
        n = I(cuda.grid(1))
        if n < count:
            at = first_pixel(n)
            best, which = x[at], I(0)
            for tap in range(1, K * K):
                new = x[at + U((tap // K * W + tap % K) * C)]
                # (1): strictly greater, so the first of equals stays; a NaN enters, and is never beaten
                if new > best or new != new:
                    best, which = new, I(tap)
            y[U(n)] = best
            winner[U(n)] = np.uint8(which)

    return max_pool2d_forward_kernel


@functools.cache
def make_backward(H, W, C, K, stride):
    covering, width = make_covering(H, W, C, K, stride), (W - K) // stride + 1

    @gpu.kernel(H, W, C, K, stride)
    def max_pool2d_backward_kernel(dy, winner, dx, count):
        """dy, winner flat -> dx flat (count)."""
        n = I(cuda.grid(1))
        if n < count:
            base, h, w, i0, i1, j0, j1 = covering(n)
            total = ZERO
            for i in range(i0, i1):
                for j in range(j0, j1):
                    at = U(base + (i * width + j) * C)
                    if I(winner[at]) == I((h - i * stride) * K + (w - j * stride)):
                        total += dy[at]  # (2)
            dx[U(n)] = total

    return max_pool2d_backward_kernel


@functools.cache
def make_forward_words(H, W, C, K, stride):
    first_pixel = make_first_pixel(H, W, C, K, stride)

    @gpu.kernel(H, W, C, K, stride)
    def max_pool2d_forward_words_kernel(x, y, count):
        """x flat (D B, H, W, C) -> y flat (count)."""
        n = I(cuda.grid(1))
        if n < count:
            at, word = first_pixel(n), NOTHING
            for tap in range(K * K):
                word |= x[at + U((tap // K * W + tap % K) * C)]  # (1)
            y[U(n)] = word

    return max_pool2d_forward_words_kernel


@functools.cache
def make_backward_words(H, W, C, K, stride):
    covering = make_covering(H, W, C, K, stride)
    height, width = (H - K) // stride + 1, (W - K) // stride + 1

    @gpu.kernel(H, W, C, K, stride)
    def max_pool2d_backward_words_kernel(dy, x, T, dx, count):
        """dy flat (T, B, H', W', C), x flat (D, B, H, W, C), of ``count`` words -> dx flat (T, B, H, W, C)."""
        n = I(cuda.grid(1))
        if n >= count:
            return
        D, _ = split(T + WORD - 1, WORD)
        size, _ = split(count, D)
        windows = I(split(size, H * W * C)[0] * (height * width * C))
        d, m = split(n, size)
        base, h, w, i0, i1, j0, j1 = covering(m)
        corner = I(n - (h * W + w) * C)
        end = min(T, I(d * WORD + WORD))
        if i0 >= i1 or j0 >= j1:
            for t in range(d * WORD, end):
                dx[U(t * size + m)] = ZERO
        for i in range(i0, i1):
            for j in range(j0, j1):
                # The first that fires wins, and the window's first pixel where nobody does.
                me = I((h - i * stride) * K + (w - j * stride))
                before, behind = NOTHING, NOTHING
                for tap in range(K * K):
                    word = x[U(corner + ((i * stride + tap // K) * W + j * stride + tap % K) * C)]
                    if tap < me:
                        before |= word
                    elif tap > me:
                        behind |= word
                fires = x[U(n)]
                won = fires | ~behind if me == 0 else fires & ~before
                first = i == i0 and j == j0
                for t in range(d * WORD, end):
                    total = ZERO if first else dx[U(t * size + m)]
                    if (won >> np.uint64(t - d * WORD)) & ONE:
                        total += dy[U(t * windows + base + (i * width + j) * C)]  # (2)
                    dx[U(t * size + m)] = total

    return max_pool2d_backward_words_kernel


@functools.cache
def make_average(H, W, C, K, stride):
    first_pixel, area = make_first_pixel(H, W, C, K, stride), np.float32(K * K)

    @gpu.kernel(H, W, C, K, stride)
    def avg_pool2d_forward_kernel(x, y, count):
        """x flat -> y flat (count)."""
        n = I(cuda.grid(1))
        if n < count:
            at, total = first_pixel(n), ZERO
            for tap in range(K * K):
                total += x[at + U((tap // K * W + tap % K) * C)]
            y[U(n)] = total / area  # (3)

    return avg_pool2d_forward_kernel


@functools.cache
def make_average_backward(H, W, C, K, stride):
    covering, width, area = make_covering(H, W, C, K, stride), (W - K) // stride + 1, np.float32(K * K)

    @gpu.kernel(H, W, C, K, stride)
    def avg_pool2d_backward_kernel(dy, dx, count):
        """dy flat -> dx flat (count)."""
        n = I(cuda.grid(1))
        if n < count:
            base, _, _, i0, i1, j0, j1 = covering(n)
            total = ZERO
            for i in range(i0, i1):
                for j in range(j0, j1):
                    total += dy[U(base + (i * width + j) * C)] / area  # (4)
            dx[U(n)] = total

    return avg_pool2d_backward_kernel

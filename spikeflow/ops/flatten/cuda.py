"""Flatten on a GPU: a block transposes a square of pixels by channels in shared memory, and reads and writes whole lines."""

from __future__ import annotations

import functools

import numpy as np

from ...kernels.cuda import gpu
from ...kernels.cuda.gemm import split
from ...kernels.cuda.gpu import cuda

I, U = np.int32, np.uint32
SIDE, ROWS = (4, 2) if gpu.SMALL else (32, 8)  # of a square; its rows that threads move at a time


def flatten_forward(x):
    """x (N, H, W, C) -> y (N, C H W); samples of any other rank have no channel to move."""
    if x.ndim != 4:
        return x.reshape(x.shape[0], x.size // max(1, x.shape[0]))
    N, H, W, C = x.shape
    return _transposed(x, N, H * W, C).reshape(N, H * W * C)  # (1)


def flatten_backward(dy, shape):
    """dy (N, C H W) -> dx of ``shape`` (N, H, W, C)."""
    if len(shape) != 4:
        return dy.reshape(*shape)
    N, H, W, C = shape
    return _transposed(dy, N, C, H * W).reshape(*shape)  # (2)


def _transposed(x, N, P, Q):
    """x (N, P, Q) -> (N, Q, P) in any shape; the same array where that moves nothing."""
    if P == 1 or Q == 1:
        return x
    if x.size >= 2**31:
        raise ValueError(f"arrays on a GPU must have fewer than 2^31 numbers, got shape {x.shape}: use smaller batches")
    y = gpu.empty(x.shape)
    gpu.launch(make_transpose(P, Q), N * gpu.size(P, SIDE) * gpu.size(Q, SIDE), SIDE * ROWS, x.reshape(x.size), y.reshape(x.size))
    return y


@functools.cache
def make_transpose(P, Q):
    down, across, ODD = gpu.size(P, SIDE), gpu.size(Q, SIDE), SIDE + 1

    @gpu.kernel(P, Q, threads=SIDE * ROWS)
    def flatten_transpose_kernel(x, y):
        """x flat (N, P, Q) -> y flat (N, Q, P)."""
        square = cuda.shared.array((SIDE, ODD), np.float32)  # the odd length keeps a column in different banks
        block, q0 = split(cuda.blockIdx.x, across)
        n, p0 = split(block, down)
        p0, q0 = I(p0 * SIDE), I(q0 * SIDE)
        a, b = split(cuda.threadIdx.x, SIDE)
        for r in range(a, SIDE, ROWS):
            if p0 + r < P and q0 + b < Q:
                square[U(r), U(b)] = x[U((n * P + p0 + r) * Q + q0 + b)]
        cuda.syncthreads()
        for r in range(a, SIDE, ROWS):
            if p0 + b < P and q0 + r < Q:
                y[U((n * Q + q0 + r) * P + p0 + b)] = square[U(b), U(r)]

    return flatten_transpose_kernel

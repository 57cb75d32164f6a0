"""The columns of a matrix times a number each, on the device: for dropout, and for batch normalisation in evaluation."""

from __future__ import annotations

import functools

import numpy as np

from ..kernels.cuda import gpu, sums
from ..kernels.cuda.gpu import cuda

__all__ = ["rows_of_blocks", "scale_columns"]

MOST = 65535  # blocks along a grid's second axis


def scale_columns(x, scale):
    """x (R, C), scale (C,) -> their product (R, C)."""
    (R, C), y = x.shape, gpu.empty(x.shape)
    run, grid, threads = rows_of_blocks(R, C)
    arrays = x.reshape(x.size), scale, np.int32(R), np.int32(C), np.int32(run), y.reshape(x.size)
    gpu.launch(make_scale(), grid, threads, *arrays, flops=x.size)
    return y


def rows_of_blocks(R: int, C: int) -> tuple[int, tuple[int, int], tuple[int, int]]:
    """-> rows of a block, grid and threads of a pass over a matrix (R, C) in which a thread stays with its column."""
    W, G = sums.tile(R, C)
    run = max(sums.EACH * G, gpu.size(R, MOST))
    return run, (gpu.size(C, W), gpu.size(R, run)), (W, G)


@functools.cache
def make_scale():
    @gpu.kernel()
    def scale_columns_kernel(x, scale, R, C, run, y):
        """x, y flat (R C), scale (C,)."""
        c, s = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, cuda.blockIdx.y
        if c < C:
            by = scale[c]
            at, end, step = (s * run + cuda.threadIdx.y) * C + c, min((s + 1) * run, R) * C, cuda.blockDim.y * C
            while at < end:
                y[at] = x[at] * by
                at += step

    return scale_columns_kernel

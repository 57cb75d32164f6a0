"""Sums over the rows of a matrix on the device: what every reduction of the backend ends with.

No atomics: a sum is taken in an order that the shapes alone decide, so equal inputs have equal bits.

A block takes W neighbouring columns and a run of rows. Its threads are G rows of W, so that a warp reads neighbouring numbers:
thread (c, g) sums the rows g, g + G, ... of column c in a register, and the G sums of a column are added in shared memory,
halving their number each time. Few columns: W is all of them, and a block reads one stretch of memory. Many: W is 32 or somewhat
less, about a line of the cache. Where the rows are many, several blocks share a column, and a second launch adds what they found.
"""

from __future__ import annotations

import functools

import numpy as np

from . import gpu
from .gpu import cuda

__all__ = ["BLOCKS", "add_partials", "column_sums", "make_block_sum", "rows_of_blocks", "sum_partials", "tile"]

ZERO = np.float32(0)
WIDE = 3 if gpu.SMALL else 32  # columns of a block, at most
BLOCKS = 6 if gpu.SMALL else 1024  # of a launch, about: enough to fill any card, few enough to add up in a second launch
FEW = 3 if gpu.SMALL else 16  # rows that a thread sums alone
EACH = 2 if gpu.SMALL else 8  # rows for which a thread is worth its while


def add_partials(parts, out) -> None:
    """out += the sum of parts over its first axis; parts (S, ...), out as many numbers as parts[0]. One launch."""
    S = parts.shape[0]
    _sum(parts.reshape(S, parts.size // S), S, out.reshape(1, out.size), adds=True)


def sum_partials(parts):
    """parts (S, ...) -> the sum over its first axis, a new array (...). One launch."""
    S = parts.shape[0]
    return _sum(parts.reshape(S, parts.size // S), S, gpu.empty((1, parts.size // S))).reshape(parts.shape[1:])


def column_sums(x, out=None):
    """x (R, C) -> its sums over R (C,), in a new array, or added to ``out``. One launch or two."""
    R, C = x.shape
    target = gpu.empty(C) if out is None else out
    run = rows_of_blocks(R, C)
    if run < R:
        x, R, run = _sum(x, run, gpu.empty((gpu.size(R, run), C))), gpu.size(R, run), gpu.size(R, run)
    _sum(x, run, target.reshape(1, C), adds=out is not None)
    return target


def tile(R: int, C: int) -> tuple[int, int]:
    """-> W, G: the threads of a block that sums R rows."""
    if R <= FEW:
        return gpu.THREADS, 1
    W = gpu.size(C, gpu.size(C, WIDE))
    return W, gpu.THREADS // W


def rows_of_blocks(R: int, C: int) -> int:
    """-> how many of the R rows a block should take, such that there are no more than BLOCKS blocks of enough to do."""
    W, G = tile(R, C)
    return max(gpu.size(R, max(1, BLOCKS // gpu.size(C, W))), min(EACH * G, R))


def _sum(x, run: int, out, adds: bool = False):
    """x (R, C) -> out (S, C): row s is the sum of the rows [s run, (s + 1) run)."""
    (R, C), (W, G) = x.shape, tile(run, x.shape[1])
    arrays = x.reshape(x.size), np.int32(R), np.int32(C), np.int32(run), out.reshape(out.size)
    gpu.launch(make_column_sums(adds), (gpu.size(C, W), out.shape[0]), (W, G), *arrays, flops=x.size)
    return out


@functools.cache
def make_block_sum():
    """The function with which the threads of a block add up what they have."""

    @cuda.jit(device=True)
    def block_sum(shared, mine, columns, rows):
        """Threads (columns, rows), in order -> the sum of ``mine`` over a column, for those of the first row.

        (1, threads) gives the first thread the sum over the block. ``shared`` has a number for each thread.
        """
        me, left = cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x, rows
        cuda.syncthreads()  # an earlier sum may still be read
        shared[me] = mine
        while left > 1:
            cuda.syncthreads()
            half = (left + 1) >> 1
            if me + half * columns < left * columns:
                shared[me] += shared[me + half * columns]
            left = half
        return shared[me]

    return block_sum


@functools.cache
def make_column_sums(adds: bool):
    SIZE, block_sum = gpu.THREADS, make_block_sum()

    @gpu.kernel("add" if adds else "set", threads=SIZE)
    def column_sums_kernel(x, R, C, run, out):
        """x flat (R C) -> out flat (S C)."""
        shared = cuda.shared.array(SIZE, np.float32)
        g, s = cuda.threadIdx.y, cuda.blockIdx.y
        c = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        total, at, end, step = ZERO, (s * run + g) * C + c, min((s + 1) * run, R) * C, cuda.blockDim.y * C
        if c < C:
            while at + 3 * step < end:  # four loads in flight
                total += (x[at] + x[at + step]) + (x[at + 2 * step] + x[at + 3 * step])
                at += 4 * step
            while at < end:
                total += x[at]
                at += step
        total = block_sum(shared, total, cuda.blockDim.x, cuda.blockDim.y)
        if g == 0 and c < C:
            if adds:
                out[s * C + c] += total
            else:
                out[s * C + c] = total

    return column_sums_kernel

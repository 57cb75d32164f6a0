"""What the tiled matrix products of the CUDA backend have in common: the shape of a tile, and the sums of a tile.

A block makes ``rows`` x ``columns`` numbers of the product. It walks along the summed axis, ``depth`` terms at a time: its
threads bring the two factors' terms into shared memory, left (depth, rows) and right (depth, columns), and from there each thread
takes R numbers of the left and C numbers of the right factor to the R C products that it adds up in registers. At 8 x 8 that is
64 multiply-adds for four loads of 128 bits from shared memory; at fewer the loads would set the pace.

While a chunk is multiplied, the next one is on its way from memory to registers.

R rows of a thread lie next to each other, so that a warp, which shares few rows, reads them as broadcasts. Its C columns come in
fours, each four beside those of the neighbouring thread: 8 threads read 128 consecutive bytes, without a bank conflict.

Where a product has few tiles, ``groups`` of threads share one: each takes its part of every chunk, and in the end their sums are
added in shared memory, in order. No atomics: the order of every sum follows from the shapes alone.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from ..jit import inline
from . import gpu

__all__ = ["ALIGN", "SKEW", "UNROLLED", "Tile", "make_columns", "make_multiply", "make_swap", "split", "tile_for"]

U = np.uint32
UNROLLED = 2  # terms whose loads and multiply-adds the compiler may mix
ALIGN = None if gpu.SIMULATED else 16  # bytes, for loads of 128 bits
SKEW = 4  # numbers between rows of a tile in shared memory, so that those who write a column meet different banks
ENOUGH = 2 if gpu.SMALL else 264  # blocks that keep a card busy: two on each of 132 multiprocessors


def split(n, d):
    """n, d >= 0 below 2^31 -> n // d, n % d as int32: one division of 32 bits, where Numba's own two would have 64."""
    quotient = np.uint32(n) // np.uint32(d)
    return np.int32(quotient), np.int32(np.uint32(n) - quotient * np.uint32(d))


with gpu.scalars():
    split = inline(split)


class Tile(NamedTuple):
    """The tile of a block."""

    rows: int
    columns: int
    depth: int  # terms of a chunk
    R: int  # rows of a thread
    C: int  # columns of a thread, a multiple of 4
    groups: int

    @property
    def across(self) -> int:
        """Threads beside each other."""
        return self.columns // self.C

    @property
    def threads(self) -> int:
        return self.rows // self.R * self.across * self.groups

    @property
    def bounds(self) -> tuple[int, int]:
        """The threads, and blocks of a multiprocessor: of its 65,536 registers, 128 are for each thread."""
        return self.threads, 512 // self.threads


def tile_for(rows: int, columns: int, depth: int, together: int = 1, shares: bool = False) -> Tile:
    """-> the tile for a product (rows, depth) x (depth, columns), of whose rows so many ``together`` belong to one thread.

    ``shares``: several blocks share the depth of a tile, so that tiles may be as few as they like.

    The kernels take for granted that the threads are a multiple of a chunk's terms, the numbers of the left factor's chunk one of
    the threads, and a group's terms of a chunk one of UNROLLED.
    """
    if gpu.SMALL:
        R, groups = together * max(1, 4 // together), 2 if depth > 16 else 1
        return Tile(2 // groups * R, 8, 4, R, 4, groups)
    if columns <= 16 and together <= 4:
        return _narrow(rows, -(-columns // 4) * 4, together, shares)
    R = together * max(1, 8 // together)
    C = 8 if R <= 9 else 4
    tall, least = -(-rows // (16 * R)), 1 if shares else ENOUGH
    if rows <= 2 * R and R % 8 == 0:
        return Tile(2 * R, 8 * C, 8, R, C, 4)
    if not shares or tall * 16 * R <= 1.2 * rows:
        if columns % (16 * C) == 0 and tall * columns >= 16 * C * least and R % 8 == 0:
            return Tile(16 * R, 16 * C, 8, R, C, 1)
        if tall * -(-columns // (8 * C)) >= least:
            return Tile(16 * R, 8 * C, 8, R, C, 1)
    return Tile(8 * R, 8 * C, 16, R, C, 2) if shares or depth <= 16 else Tile(8 * R, 8 * C, 32, R, C, 4)


def _narrow(rows, C, together, shares):
    """-> a tile whose C columns one thread has all."""
    if rows >= 512 * ENOUGH:
        return Tile(512, C, 4, 4, C, 1)
    R = 4 if shares or 16 * rows >= 512 * ENOUGH else together
    return Tile(16 * R, C, 32, R, C, 8)


@functools.cache
def make_columns(tile: Tile):
    """-> column(x, j): where in the tile the j-th column of thread x lies."""
    across = tile.across

    def column(x, j):
        return U(j // 4 * (4 * across) + j % 4) + U(x) * U(4)

    with gpu.scalars():
        return inline(column)


@functools.cache
def make_multiply(tile: Tile):
    """-> the product of two chunks in shared memory, added to a thread's sums."""
    R, C, groups, depth = tile.R, tile.C, tile.groups, tile.depth
    column = make_columns(tile)

    def multiply(left, right, x, y, group, sums, ours, theirs):
        """left (depth, rows), right (depth, columns) -> sums (R, C) of thread (x, y); ours (R) and theirs (C) are registers."""
        for first in range(0, depth // groups, UNROLLED):
            for d in range(UNROLLED):
                at = U(first + d) * U(groups) + U(group)
                for i in range(R):
                    ours[i] = left[at, y * U(R) + U(i)]
                for j in range(C):
                    theirs[j] = right[at, column(x, j)]
                for i in range(R):
                    for j in range(C):
                        sums[i, j] += ours[i] * theirs[j]

    with gpu.scalars():
        return inline(multiply)


def make_swap(tile: Tile):
    """-> put and take: a group's sums to shared memory, and from there to those of another group."""
    R, C, columns = tile.R, tile.C, tile.columns
    column = make_columns(tile)

    def put(shared, x, y, sums):
        for i in range(R):
            for j in range(C):
                shared[(y * R + i) * columns + column(x, j)] = sums[i, j]

    def take(shared, x, y, sums):
        for i in range(R):
            for j in range(C):
                sums[i, j] += shared[(y * R + i) * columns + column(x, j)]

    with gpu.scalars():
        return inline(put), inline(take)

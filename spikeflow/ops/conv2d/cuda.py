"""Convolution on a GPU: three matrix products that gather their left factor while they bring it into shared memory, no im2col.

With one row for each position of the output and one term for each tap and input channel, (1) is the product of the gathered
windows with the weights. So is (4), where the windows lie in dy: a pixel of dx sees, at tap (k, l), the position whose window has
it at (K - 1 - k, L - 1 - l), if there is one; with a stride, dy is an image with gaps. (3) is the product of the transposed
windows with dy. The tiles are those of gemm.py.

Where the pixel behind a row or a term lies is worked out once a block, for each of its rows, or once for some hundred positions
in (3), and kept in shared memory; which tap a term is, by the thread that reads it, once a chunk. What the windows read is
    an image of numbers,
    spikes, whose bits become 0 or 1 on their way to shared memory: rows of the time steps of one position follow each other, so
        that a warp reads the same few words,
    or a gradient behind a max-pool: a pooled number where the winner is the pixel asked for, else 0.

Forward, a max-pool needs no memory: the positions of a window are neighbouring rows, which one thread owns.

(4) of small images with few channels goes another way, see ``make_dx_image``.

A linear layer is the case K = L = H = W = 1, see linear/cuda.py. Behind a Flatten it is a convolution whose kernel, of K = H rows
and L = W columns, covers the whole image; its (4) has one window, with a channel for each number of the image.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from ...kernels.cuda import gpu, sums
from ...kernels.cuda.gemm import ALIGN, SKEW, UNROLLED, Tile, make_columns, make_multiply, make_swap, split, tile_for
from ...kernels.cuda.gpu import cuda
from ...kernels.jit import inline
from ..events import WORD, Pooled, Routed, SpikeWords
from ..pool2d.cuda import max_pool2d_forward

I, U = np.int32, np.uint32
ZERO, ONE = np.float32(0), np.float32(1)
BIT = np.uint64(1)
MOST = 2**31  # numbers of an array that 32-bit indices can tell apart
LARGEST = 16  # positions of a pool's window that a thread can own
MANY = 16 if gpu.SMALL else 2**17  # threads of (3) at most, about: its sums are long and its tiles few
SHORTEST = 12 if gpu.SMALL else 512  # positions that a block of (3) should sum at least
SQUARE = 8 if gpu.SMALL else 64  # positions, and terms, of which a block of ``dx_image`` makes the products
BATCH = 8  # loads of a thread that are under way together
FEW = 5 if gpu.SMALL else 32  # channels of an image at most, for ``dx_image`` to be the better way
SHARED = 48 * 1024  # bytes of shared memory that a kernel may have without asking
SIDE, ROWS = (4, 2) if gpu.SMALL else (32, 8)  # of a tile to transpose; its rows that threads move at a time


class Packed(NamedTuple):
    """Weights as the kernels read them."""

    weight: Any  # (O, C, K, L)
    terms: Any  # (K L C, O): a row for each term of (1)


class Windows(NamedTuple):
    """Where windows lie in an image; what a kernel is compiled for."""

    image: tuple[int, int, int]  # H, W, C
    size: tuple[int, int]  # K, L
    stride: int
    start: tuple[int, int]  # the first window's pixel
    gaps: int  # every so many pixels there is one; elsewhere 0
    positions: tuple[int, int]  # H', W'
    source: str  # "numbers", "words" or "routed"
    pool: int  # of routed gradients: the side of a max-pool's window; else 1

    @property
    def terms(self) -> int:
        return self.size[0] * self.size[1] * self.image[2]

    @property
    def inside(self) -> bool:
        """Does no window reach beyond the image?"""
        ends = [a + (n - 1) * self.stride + k for a, n, k in zip(self.start, self.positions, self.size, strict=True)]
        return min(self.start) >= 0 and ends[0] <= self.image[0] and ends[1] <= self.image[1]


def conv2d_pack(weight):
    """weight (O, C, K, L) -> Packed; one launch."""
    O, C, K, L = weight.shape
    terms = gpu.empty((K * L * C, O))
    _transpose(weight, terms, False)
    return Packed(weight, terms)


def conv2d_forward(x, packed, bias, stride, padding):
    """x (N, H, W, C), bias (O) or None -> y (N, H', W', O)."""
    y = conv2d_forward_events(x.reshape(1, *x.shape), packed, bias, stride, padding)
    return y.reshape(*y.shape[1:])


def conv2d_backward(dy, x, packed, stride, padding, dweight, dbias, input_grad):
    """dy (N, H', W', O), x (N, H, W, C) -> dx (N, H, W, C) or None; adds into dweight and dbias, each an array or None."""
    whole = dy.reshape(1, *dy.shape), x.reshape(1, *x.shape)
    dx = conv2d_backward_events(*whole, packed, stride, padding, dweight, dbias, input_grad)
    return dx.reshape(x.shape) if input_grad else None


def conv2d_forward_events(x, packed, bias, stride, padding, pool=None, fires=None):
    """x (T, B, H, W, C), an array or SpikeWords -> y (T, B, H', W', O), or Pooled with ``pool`` = (K, K) of a max-pool.

    ``fires`` makes no difference: the neuron behind a pool needs all time steps of a place in order, in one thread's registers,
    and a tile has them in as many rows, of which a block holds a part.
    """
    O, _, K, L = packed.weight.shape
    T, B, H, W, C = x.shape
    height, width = (H + 2 * padding - K) // stride + 1, (W + 2 * padding - L) // stride + 1
    side = 0
    if pool is not None:
        side = pool[0]
        if pool[1] != side:
            raise ValueError(f"pool must have a stride equal to its kernel size, got {pool}")
        if side * side > LARGEST:
            y = conv2d_forward_events(x, packed, bias, stride, padding)
            pooled, winner = max_pool2d_forward(y.reshape(T * B, height, width, O), *pool)
            shape = T, B, *pooled.shape[1:]
            return Pooled(pooled.reshape(shape), winner.reshape(shape), y.shape)
    windows = Windows((H, W, C), (K, L), stride, (-padding, -padding), 1, (height, width), _source(x), 1)
    y, winner = product(x, windows, T, B, packed.terms, O, False, bias, side)
    return y if pool is None else Pooled(y, winner, (T, B, height, width, O))


def conv2d_backward_events(dy, x, packed, stride, padding, dweight, dbias, input_grad):
    """dy (T, B, H', W', O) or Routed, x (T, B, H, W, C), an array or SpikeWords -> dx or None; adds into dweight and dbias."""
    routed = isinstance(dy, Routed)
    if routed and dy.kernel_size != dy.stride:
        raise ValueError(f"dy must come from a max-pool whose stride is its kernel size, got {dy.stride} and {dy.kernel_size}")
    T, B, H, W, C = x.shape
    O, _, K, L = packed.weight.shape
    positions = (dy.unpooled if routed else dy.shape)[2:4]
    if dweight is not None:
        windows = Windows((H, W, C), (K, L), stride, (-padding, -padding), 1, positions, _source(x), 1)
        parts = dweight_parts(dy, x, windows)
        if len(parts) > 1:
            parts = sums.column_sums(parts.reshape(len(parts), K * L * C * O))
        _transpose(dweight, parts, True)
    if dbias is not None:
        gradient = dy.dy if routed else dy
        sums.column_sums(gradient.reshape(gradient.size // O, O), dbias)  # (2)
    if not input_grad:
        return None
    if positions == (1, 1) and not padding and not routed:
        windows = Windows((1, 1, O), (1, 1), 1, (0, 0), 1, (1, 1), "numbers", 1)
        return product(dy, windows, T, B, packed.terms, K * L * C, True)[0].reshape(x.shape)
    if fits_a_block(x.shape, positions, packed.weight.shape):
        return _dx_by_image(dy, x.shape, positions, packed, stride, padding)
    start, side = (padding - K + 1, padding - L + 1), dy.kernel_size if routed else 1
    windows = Windows((*positions, O), (K, L), 1, start, stride, (H, W), _source(dy), side)
    return product(dy, windows, T, B, packed.terms, C, True)[0]


def _source(x) -> str:
    return "words" if isinstance(x, SpikeWords) else "routed" if isinstance(x, Routed) else "numbers"


def _arrays(x, T, B):
    """-> the numbers of an image or gradient, its winners, and as how many steps and images a kernel sees it; arrays flat."""
    if isinstance(x, SpikeWords):
        return flat(x.words), flat(x.words), T, B
    if isinstance(x, Routed):
        return flat(x.dy), flat(x.winner), 1, T * B
    return flat(x), flat(x), 1, T * B


def flat(array):
    """-> the same numbers in a row; ValueError where there are too many for the kernels' indices."""
    if array.size >= MOST:
        raise ValueError(f"arrays on a GPU must have fewer than 2^31 numbers, got shape {array.shape}: use smaller batches")
    return array.reshape(array.size)


def product(x, windows, T, B, factor, columns, turned, bias=None, side=0):
    """(1) or (4) -> y (T, B, *positions, columns), and the winner of a max-pool of ``side``, or of None (0)."""
    numbers, winners, steps, images = _arrays(x, T, B)
    height, width = (n // max(side, 1) for n in windows.positions)
    y = gpu.empty((T, B, height, width, columns))
    winner = gpu.empty(y.shape, np.uint8) if side else y
    rows, taps = T * B * height * width, max(side, 1) ** 2
    tile = tile_for(rows * taps, columns, windows.terms, taps)
    kernel = make_product(tile, windows, columns, turned, bias is not None, side)
    grid = gpu.size(rows * taps, tile.rows) * gpu.size(columns, tile.columns)
    factor = flat(factor)
    arrays = numbers, winners, factor, factor if bias is None else bias
    flops = 2 * rows * taps * windows.terms * columns
    gpu.launch(kernel, grid, tile.threads, *arrays, I(steps), I(images), flat(y), flat(winner), flops=flops)
    return y, winner


def dweight_parts(dy, x, windows):
    """(3): dy (T, B, H', W', O) or Routed, x (T, B, H, W, C) -> (S, K L C, O), to be summed over S."""
    T, B = x.shape[:2]
    numbers, _, steps, images = _arrays(x, T, B)
    gradient, winners, _, _ = _arrays(dy, T, B)
    O, side = (dy.unpooled[4], dy.kernel_size) if isinstance(dy, Routed) else (dy.shape[4], 0)
    positions = T * B * windows.positions[0] * windows.positions[1]
    tile = tile_for(windows.terms, O, positions, shares=True)
    tiles = gpu.size(windows.terms, tile.rows) * gpu.size(O, tile.columns)
    run = max(gpu.size(positions, max(1, MANY // (tiles * tile.threads))), SHORTEST)
    parts = gpu.empty((max(1, gpu.size(positions, run)), windows.terms, O))
    kernel = make_dweight(tile, windows, O, side)
    arrays = numbers, gradient, winners, I(steps), I(images), I(run), flat(parts)
    gpu.launch(kernel, (tiles, len(parts)), tile.threads, *arrays, flops=2 * positions * windows.terms * O)
    return parts


def fits_a_block(shape, positions, weight_shape) -> bool:
    """Does an image of dx, with what it is made from, fit into 48 KB of shared memory, and is it of few channels?"""
    (*_, H, W, C), (O, _, _, _) = shape, weight_shape
    numbers = (O + 1 + max(O + 1, SQUARE)) * (SQUARE + SKEW) + H * W * C
    return C <= FEW and 4 * numbers <= SHARED


def _dx_by_image(dy, shape, positions, packed, stride, padding):
    """(4) -> dx of ``shape`` (T, B, H, W, C)."""
    T, B, H, W, C = shape
    O, _, K, L = packed.weight.shape
    dx, (gradient, winners, _, images) = gpu.empty(shape), _arrays(dy, T, B)
    side = dy.kernel_size if isinstance(dy, Routed) else 0
    kernel = make_dx_image((H, W, C), (K, L), stride, padding, positions, O, side)
    flops = 2 * images * positions[0] * positions[1] * packed.terms.size
    arrays = gradient, winners, flat(packed.terms), flat(dx)
    gpu.launch(kernel, images, kernel.threads[0], *arrays, I(_even(O) * SQUARE), flops=flops)
    return dx


def _even(O) -> int:
    """-> the next multiple of UNROLLED."""
    return -(-O // UNROLLED) * UNROLLED


def _transpose(weight, terms, adds):
    """weight (O, C, K, L), terms (K L C, O): makes the second of the first, or adds the second into the first."""
    O, C, K, L = weight.shape
    grid = gpu.size(O, SIDE) * gpu.size(C * K * L, SIDE)
    gpu.launch(make_transpose(adds), grid, SIDE * ROWS, flat(weight), flat(terms), I(O), I(C), I(K * L), flops=weight.size * adds)


@functools.cache
def make_transpose(adds):
    """-> the kernel of ``_transpose``: a block reads and writes SIDE x SIDE weights, both in the order in which they lie."""

    ODD = SIDE + 1

    @gpu.kernel("add" if adds else "set", threads=SIDE * ROWS)
    def conv2d_transpose_kernel(weight, terms, O, C, taps):
        """weight (O C taps) flat, terms (taps C O) flat."""
        tile = cuda.shared.array((SIDE, ODD), np.float32)  # the odd length keeps a column in different banks
        size = I(C * taps)
        blocks, _ = split(size + SIDE - 1, SIDE)
        first_o, first_q = split(cuda.blockIdx.x, blocks)
        first_o, first_q = I(first_o * SIDE), I(first_q * SIDE)
        y, x = split(cuda.threadIdx.x, SIDE)
        for r in range(y, SIDE, ROWS):
            o, q = (I(first_o + x), I(first_q + r)) if adds else (I(first_o + r), I(first_q + x))
            if o < O and q < size:
                c, tap = split(q, taps)
                tile[U(r), U(x)] = terms[U((tap * C + c) * O + o)] if adds else weight[U(o * size + q)]
        cuda.syncthreads()
        for r in range(y, SIDE, ROWS):
            o, q = (I(first_o + r), I(first_q + x)) if adds else (I(first_o + x), I(first_q + r))
            if o < O and q < size:
                if adds:
                    weight[U(o * size + q)] += tile[U(x), U(r)]
                else:
                    c, tap = split(q, taps)
                    terms[U((tap * C + c) * O + o)] = tile[U(x), U(r)]

    return conv2d_transpose_kernel


def make_place(windows: Windows, side: int):
    """-> where a row's window lies: image n, the pixel of its corner, the bit of its step, its position.

    The rows: image, position, step, and the last first the positions of a max-pool's window of ``side`` (or 1).
    """
    (H, W, C), (top, left), stride, P = windows.image, windows.start, windows.stride, max(side, 1)
    height, width = (n // P for n in windows.positions)
    folds = windows.gaps == 1 and windows.source != "routed"
    if windows.source == "routed":
        H, W = H // windows.pool, W // windows.pool

    def place(row, T, images):
        row, tap = split(row, P * P)
        row, t = split(row, T)
        row, j = split(row, width)
        n, i = split(row, height)
        down, across = split(tap, P)
        i, j = I(i * P + down), I(j * P + across)
        y, z = I(i * stride + top), I(j * stride + left)
        base = I((t // WORD * images + n) * (H * W * C))
        if folds:
            base = I(base + (y * W + z) * C)
        return base, y, z, I(t % WORD), I(i), I(j)

    with gpu.scalars():
        return inline(place)


def make_gather(windows: Windows):
    """-> the number that a window sees at tap (k, l) and channel c; 0 unless ``seen``.

    It has no branches, so that all loads of a thread's chunk are on their way before the first is waited for.
    """
    (H, W, C), P, gaps = windows.image, windows.pool, windows.gaps
    words, routed, inside = windows.source == "words", windows.source == "routed", windows.inside
    height, width = H // P, W // P  # of a pooled gradient; what lies beyond its windows gets none

    def gather(numbers, winners, base, y, z, bit, k, l, c, seen):
        y, z = I(y + k), I(z + l)
        if gaps > 1:
            seen = seen & (y >= 0) & (z >= 0)
            (y, rest), (z, beside) = split(y if seen else 0, gaps), split(z if seen else 0, gaps)
            seen = seen & (rest == 0) & (beside == 0)
        if not inside:
            seen = seen & (U(y) < U(H)) & (U(z) < U(W))
        if routed:
            (i, y), (j, z) = split(y if seen else 0, P), split(z if seen else 0, P)
            seen = seen & (i < height) & (j < width)
            at = U(base + (i * width + j) * C + c) if seen else U(0)
            number, won = numbers[at], I(winners[at]) == I(y * P + z)
            return number if seen & won else ZERO
        at = I(base + (y * W + z) * C + c) if gaps > 1 else I(base + (k * W + l) * C + c)
        at = U(at) if seen else U(0)
        if words:
            return ONE if seen & ((numbers[at] >> np.uint64(bit)) & BIT != 0) else ZERO
        number = numbers[at]
        return number if seen else ZERO

    with gpu.scalars():
        return inline(gather)


def make_factor(windows: Windows, columns: int, turned: bool):
    """-> the number of the right factor in a column of the term (k, l, c), the ``term``-th."""
    (_, _, C), taps = windows.image, windows.size[0] * windows.size[1]

    def factor_at(factor, term, column):
        """``turned``: of (taps, columns, C), with the taps in reverse; else of (terms, columns)."""
        if turned:
            tap, c = split(term, C)
            return factor[U(((taps - 1 - tap) * columns + column) * C + c)]
        return factor[U(term * columns + column)]

    with gpu.scalars():
        return inline(factor_at)


@functools.cache
def make_product(tile: Tile, windows: Windows, columns: int, turned: bool, biased: bool, side: int):
    """-> the kernel of (1) and (4): the product of ``windows`` with a factor of so many columns.

    A thread brings terms of one kind to the tile: its place in a chunk is its number modulo the chunk's length.
    """
    HIGH, COLUMNS, DEPTH, R, C, GROUPS = tile
    LEFT_SHAPE, RIGHT_SHAPE, SUMS_SHAPE = (DEPTH, HIGH + SKEW), (DEPTH, COLUMNS + SKEW), (R, C)
    THREADS, ACROSS, SWAP = tile.threads, tile.across, HIGH * COLUMNS if GROUPS > 1 else 1
    LEFT, RIGHT, TERMS = HIGH * DEPTH // THREADS, -(-COLUMNS * DEPTH // THREADS), windows.terms
    EVEN = COLUMNS * DEPTH % THREADS == 0  # do the threads come out even?
    (_, _, CHANNELS), (_, L) = windows.image, windows.size
    height, width = (n // max(side, 1) for n in windows.positions)
    place, gather, factor_at = make_place(windows, side), make_gather(windows), make_factor(windows, columns, turned)
    multiply, (put, take) = make_multiply(tile), make_swap(tile)
    store = make_store_pooled(tile, columns, biased, side) if side else make_store(tile, columns, biased)
    tiles = -(-columns // COLUMNS)
    bounds = THREADS if windows.source == "routed" else tile.bounds  # two loads for a number: more than 128 registers hold
    area = max(side, 1) ** 2 * height * width

    @gpu.kernel(windows.source, windows.terms, columns, f"{HIGH}x{COLUMNS}", threads=bounds)
    def conv2d_product_kernel(numbers, winners, factor, bias, T, images, y, winner):
        """numbers: image, words, or pooled gradient with its winners -> y flat (T, images, positions, columns), winner."""
        left = cuda.shared.array(LEFT_SHAPE, np.float32, alignment=ALIGN)
        right = cuda.shared.array(RIGHT_SHAPE, np.float32, alignment=ALIGN)
        swap = cuda.shared.array(SWAP, np.float32)
        base = cuda.shared.array(HIGH, np.int32)
        tops = cuda.shared.array(HIGH, np.int32)
        starts = cuda.shared.array(HIGH, np.int32)
        bits = cuda.shared.array(HIGH, np.int32)
        sums = cuda.local.array(SUMS_SHAPE, np.float32)
        ours = cuda.local.array(R, np.float32)
        theirs = cuda.local.array(C, np.float32)
        next_left = cuda.local.array(LEFT, np.float32)
        next_right = cuda.local.array(RIGHT, np.float32)
        me, block = U(cuda.threadIdx.x), I(cuda.blockIdx.x)
        x, line, group = U(me % U(ACROSS)), U(me // U(ACROSS) % U(HIGH // R)), I(me // U(ACROSS * (HIGH // R)))
        first_row, first_column = I(block // tiles * HIGH), I(block % tiles * COLUMNS)
        M = I(T * images * area)
        for r in range(me, HIGH, THREADS):  # rows behind the last one repeat it; nobody stores them
            base[r], tops[r], starts[r], bits[r], _, _ = place(min(I(first_row + r), I(M - 1)), T, images)
        for i in range(R):
            for j in range(C):
                sums[i, j] = ZERO
        cuda.syncthreads()
        for first in range(0, TERMS + DEPTH, DEPTH):
            if first < TERMS:
                term = I(first + me % U(DEPTH))
                tap, c = split(term, CHANNELS)
                k, l = split(tap, L)
                for i in range(LEFT):
                    r = me // U(DEPTH) + U(i * (THREADS // DEPTH))
                    window = base[r], tops[r], starts[r], bits[r]
                    next_left[i] = gather(numbers, winners, *window, k, l, c, term < TERMS)
                for i in range(RIGHT):
                    e = me + U(i * THREADS)
                    d, n = (e % U(DEPTH), e // U(DEPTH)) if turned else (e // U(COLUMNS), e % U(COLUMNS))
                    term, column = I(first + d), I(first_column + n)
                    within = (EVEN or e < COLUMNS * DEPTH) & (term < TERMS) & (column < columns)
                    number = factor_at(factor, term if within else 0, column if within else 0)
                    next_right[i] = number if within else ZERO
            if first > 0:
                multiply(left, right, x, line, group, sums, ours, theirs)
            cuda.syncthreads()
            for i in range(LEFT):
                left[me % U(DEPTH), me // U(DEPTH) + U(i * (THREADS // DEPTH))] = next_left[i]
            for i in range(RIGHT):
                e = me + U(i * THREADS)
                d, n = (e % U(DEPTH), e // U(DEPTH)) if turned else (e // U(COLUMNS), e % U(COLUMNS))
                if EVEN or e < COLUMNS * DEPTH:
                    right[d, n] = next_right[i]
            cuda.syncthreads()
        for g in range(1, GROUPS):
            if group == g:
                put(swap, x, line, sums)
            cuda.syncthreads()
            if group == 0:
                take(swap, x, line, sums)
            cuda.syncthreads()
        if group == 0:
            store(sums, I(first_row + line * R), first_column, x, T, M, bias, y, winner)

    return conv2d_product_kernel


def make_store(tile: Tile, columns: int, biased: bool):
    """-> how a thread writes its rows."""
    R, C, column = tile.R, tile.C, make_columns(tile)

    def store(sums, row, first_column, x, T, M, bias, y, winner):
        rows, _ = split(M, T)
        for i in range(R):
            m = I(row + i)
            if m < M:
                q, t = split(m, T)
                at = I((t * rows + q) * columns)
                for j in range(C):
                    n = I(first_column + column(x, j))
                    if n < columns:
                        y[U(at + n)] = sums[i, j] + bias[U(n)] if biased else sums[i, j]

    with gpu.scalars():
        return inline(store)


def make_store_pooled(tile: Tile, columns: int, biased: bool, side: int):
    """-> how a thread writes the maxima of its windows, of side x side rows each, and which rows they are."""
    R, C, column, taps = tile.R, tile.C, make_columns(tile), side * side

    def store(sums, row, first_column, x, T, M, bias, y, winner):
        last, _ = split(M, taps)
        rows, _ = split(last, T)
        for w in range(R // taps):
            m = I(split(row, taps)[0] + w)
            if m < last:
                q, t = split(m, T)
                at = I((t * rows + q) * columns)
                for j in range(C):
                    n = I(first_column + column(x, j))
                    if n < columns:
                        # Bias before the comparison: rounding could make unequal sums equal.
                        shift = bias[U(n)] if biased else ZERO
                        best, which = sums[w * taps, j] + shift, I(0)
                        for tap in range(1, taps):
                            new = sums[w * taps + tap, j] + shift
                            if new > best or new != new:  # the first of equals stays
                                best, which = new, I(tap)
                        y[U(at + n)] = best
                        winner[U(at + n)] = np.uint8(which)

    with gpu.scalars():
        return inline(store)


@functools.cache
def make_dweight(tile: Tile, windows: Windows, columns: int, side: int):
    """-> the kernel of (3): terms of windows by columns of dy, over a run of positions; ``side`` of the pool behind, or 0."""
    HIGH, COLUMNS, DEPTH, R, C, GROUPS = tile
    LEFT_SHAPE, RIGHT_SHAPE, SUMS_SHAPE = (DEPTH, HIGH + SKEW), (DEPTH, COLUMNS + SKEW), (R, C)
    THREADS, ACROSS, SWAP = tile.threads, tile.across, HIGH * COLUMNS if GROUPS > 1 else 1
    LEFT, RIGHT, TERMS = -(-HIGH * DEPTH // THREADS), -(-COLUMNS * DEPTH // THREADS), windows.terms
    EVEN_LEFT, EVEN = HIGH * DEPTH % THREADS == 0, COLUMNS * DEPTH % THREADS == 0  # do the threads come out even?
    (_, _, CHANNELS), (_, L) = windows.image, windows.size
    height, width = windows.positions
    P, tiles, area = max(side, 1), -(-columns // COLUMNS), height * width
    across, pooled = width // P, (height // P) * (width // P)
    place, gather = make_place(windows, 0), make_gather(windows)
    multiply, (put, take), column_of = make_multiply(tile), make_swap(tile), make_columns(tile)
    NOWHERE = -1

    @gpu.kernel(windows.source, windows.terms, columns, f"{HIGH}x{COLUMNS}", threads=tile.bounds)
    def conv2d_dweight_kernel(numbers, gradient, winners, T, images, run, parts):
        """numbers: image or words, gradient flat (T, images, positions, columns) or pooled -> parts (S, terms, columns) flat."""
        left = cuda.shared.array(LEFT_SHAPE, np.float32, alignment=ALIGN)
        right = cuda.shared.array(RIGHT_SHAPE, np.float32, alignment=ALIGN)
        swap = cuda.shared.array(SWAP, np.float32)
        base = cuda.shared.array(THREADS, np.int32)
        tops = cuda.shared.array(THREADS, np.int32)
        starts = cuda.shared.array(THREADS, np.int32)
        bits = cuda.shared.array(THREADS, np.int32)
        places = cuda.shared.array(THREADS, np.int32)
        taps = cuda.shared.array(THREADS, np.int32)
        sums = cuda.local.array(SUMS_SHAPE, np.float32)
        ours = cuda.local.array(R, np.float32)
        theirs = cuda.local.array(C, np.float32)
        next_left = cuda.local.array(LEFT, np.float32)
        next_right = cuda.local.array(RIGHT, np.float32)
        me, block, share = U(cuda.threadIdx.x), I(cuda.blockIdx.x), I(cuda.blockIdx.y)
        x, line, group = U(me % U(ACROSS)), U(me // U(ACROSS) % U(HIGH // R)), I(me // U(ACROSS * (HIGH // R)))
        first_row, first_column = I(block // tiles * HIGH), I(block % tiles * COLUMNS)
        M = I(T * images * area)
        begin = I(share * run)
        end = min(I(begin + run), M)
        for i in range(R):
            for j in range(C):
                sums[i, j] = ZERO
        for first in range(begin, end + DEPTH, DEPTH):
            if first < end:
                if (first - begin) % THREADS == 0:
                    p = I(first + me)
                    base[me], tops[me], starts[me], bits[me], i, j = place(min(p, I(M - 1)), T, images)
                    q, t = split(p, T)
                    if side == 0:
                        places[me] = I((t * images * area + q) * columns)
                    else:
                        (a, i), (b, j), (image, _) = split(i, P), split(j, P), split(q, area)
                        places[me] = I(((t * images + image) * pooled + a * across + b) * columns)
                        taps[me] = I(i * P + j)
                        if a >= height // P or b >= across:
                            places[me] = I(NOWHERE)
                    if p >= end:
                        places[me] = I(NOWHERE)
                    cuda.syncthreads()
                ahead = U((first - begin) % THREADS)
                for i in range(LEFT):
                    e = me + U(i * THREADS)
                    term, p = I(first_row + e % U(HIGH)), e // U(HIGH) + ahead
                    (tap, c), p = split(term, CHANNELS), U(p) if EVEN_LEFT or e < HIGH * DEPTH else U(0)
                    k, l = split(tap, L)
                    window = base[p], tops[p], starts[p], bits[p]
                    next_left[i] = gather(numbers, numbers, *window, k, l, c, term < TERMS)
                for i in range(RIGHT):
                    e = me + U(i * THREADS)
                    column, p = I(first_column + e % U(COLUMNS)), e // U(COLUMNS) + ahead
                    p = U(p) if EVEN or e < COLUMNS * DEPTH else U(0)
                    within = (column < columns) & (places[p] != NOWHERE)
                    at = U(places[p] + column) if within else U(0)
                    number = gradient[at]
                    if side:
                        within = within & (I(winners[at]) == taps[p])
                    next_right[i] = number if within else ZERO
            if first > begin:
                multiply(left, right, x, line, group, sums, ours, theirs)
            cuda.syncthreads()
            for i in range(LEFT):
                e = me + U(i * THREADS)
                if EVEN_LEFT or e < HIGH * DEPTH:
                    left[e // U(HIGH), e % U(HIGH)] = next_left[i]
            for i in range(RIGHT):
                e = me + U(i * THREADS)
                if EVEN or e < COLUMNS * DEPTH:
                    right[e // U(COLUMNS), e % U(COLUMNS)] = next_right[i]
            cuda.syncthreads()
        for g in range(1, GROUPS):
            if group == g:
                put(swap, x, line, sums)
            cuda.syncthreads()
            if group == 0:
                take(swap, x, line, sums)
            cuda.syncthreads()
        if group == 0:
            for i in range(R):
                row = I(first_row + line * R + i)
                for j in range(C):
                    column = I(first_column + column_of(x, j))
                    if row < TERMS and column < columns:
                        parts[U((share * TERMS + row) * columns + column)] = sums[i, j]

    return conv2d_dweight_kernel


@functools.cache
def make_dx_image(image, size, stride, padding, positions, O, side):
    """-> the kernel of (4) for small images: a block makes one image of dx; ``side`` of the pool behind, or 0.

    The product of dy (positions, O) with the weights (O, taps C) has the numbers that (4) adds up: each position's patch. The
    block makes it for SQUARE positions and as many taps as fit into SQUARE columns at a time, and puts it into shared memory;
    from there, each thread fetches what its numbers of dx get. Each number of dy is looked up once for all taps, and no tap
    of a position is missed or made in vain, as they are at the edges by a product of windows.
    """
    (H, W, C), (K, L), (height, width) = image, size, positions
    DEPTH = _even(O)
    tile = Tile(SQUARE, SQUARE, DEPTH, *((4, 4) if gpu.SMALL else (8, 8)), 1)
    R, COLUMNS, THREADS, ACROSS = tile.R, tile.C, tile.threads, tile.across
    LEFT_SHAPE, RIGHT_SHAPE, SUMS_SHAPE = (DEPTH, SQUARE + SKEW), (max(DEPTH, SQUARE), SQUARE + SKEW), (R, COLUMNS)
    NUMBERS, AREA, TAPS, V = H * W * C, height * width, SQUARE // C, 1 if C % 4 else 4  # V channels of a pixel at a time
    EVEN = DEPTH * SQUARE % (BATCH * THREADS) == 0  # do the threads come out even?
    P, multiply, column = max(side, 1), make_multiply(tile), make_columns(tile)
    down, across = height // P, width // P

    def dy(gradient, winners, n, p, o):
        within = (p < AREA) & (o < O)
        if side == 0:
            number = gradient[U((n * AREA + p) * O + o) if within else U(0)]
            return number if within else ZERO
        i, j = split(p, width)
        (a, i), (b, j) = split(i, P), split(j, P)
        within = within & (a < down) & (b < across)
        at = U(((n * down + a) * across + b) * O + o) if within else U(0)
        number, won = gradient[at], I(winners[at]) == I(i * P + j)
        return number if within & won else ZERO

    def weight(terms, first_tap, q, o):
        term = I(first_tap * C + q)
        within = (q < TAPS * C) & (term < K * L * C) & (o < O)
        number = terms[U(term * O + o) if within else U(0)]
        return number if within else ZERO

    def fetch(patches, first, first_tap, h, w, c, part):
        """patches (positions, taps C), from a position and a tap on -> adds to part, V channels of a pixel, what is for them."""
        for t in range(TAPS):
            k, l = split(first_tap + t, L)
            i, j = I(h + padding - k), I(w + padding - l)
            if k < K and i >= 0 and j >= 0:
                (i, beside), (j, below) = split(i, stride), split(j, stride)
                p = I(i * width + j - first)
                if beside == 0 and below == 0 and i < height and j < width and p >= 0 and p < SQUARE:
                    for v in range(V):
                        part[v] += patches[U(p), U(t * C + c) + U(v)]  # (4)

    with gpu.scalars():
        dy, weight, fetch = inline(dy), inline(weight), inline(fetch)

    @gpu.kernel(*image, *size, O, "routed" if side else "numbers", threads=(THREADS, 8))  # of at most 128 registers
    def conv2d_dx_image_kernel(gradient, winners, terms, dx, room):
        """gradient flat (N, positions, O) or pooled with its winners, terms (K L C, O) flat -> dx flat (N, H, W, C).

        ``room``: numbers of a factor in shared memory. As a constant it would tempt the compiler to have all of them under way.
        """
        left = cuda.shared.array(LEFT_SHAPE, np.float32, alignment=ALIGN)
        right = cuda.shared.array(RIGHT_SHAPE, np.float32, alignment=ALIGN)  # the weights, and then the patches
        image = cuda.shared.array(NUMBERS, np.float32, alignment=ALIGN)
        part = cuda.local.array(V, np.float32)
        coming = cuda.local.array(BATCH, np.float32)
        sums = cuda.local.array(SUMS_SHAPE, np.float32)
        ours = cuda.local.array(R, np.float32)
        theirs = cuda.local.array(COLUMNS, np.float32)
        me, n = U(cuda.threadIdx.x), I(cuda.blockIdx.x)
        x, line = U(me % U(ACROSS)), U(me // U(ACROSS))
        for e in range(me, NUMBERS, THREADS):
            image[U(e)] = ZERO
        for first in range(0, AREA, SQUARE):
            for batch in range(0, room, BATCH * THREADS):
                for i in range(BATCH):
                    p, o = split(batch + i * THREADS + me, DEPTH)
                    coming[i] = dy(gradient, winners, n, I(first + p), o)
                for i in range(BATCH):
                    p, o = split(batch + i * THREADS + me, DEPTH)
                    if EVEN or p < SQUARE:
                        left[U(o), U(p)] = coming[i]
            for first_tap in range(0, K * L, TAPS):
                cuda.syncthreads()
                for batch in range(0, room, BATCH * THREADS):
                    for i in range(BATCH):
                        q, o = split(batch + i * THREADS + me, DEPTH)
                        coming[i] = weight(terms, first_tap, q, o)
                    for i in range(BATCH):
                        q, o = split(batch + i * THREADS + me, DEPTH)
                        if EVEN or q < SQUARE:
                            right[U(o), U(q)] = coming[i]
                cuda.syncthreads()
                for i in range(R):
                    for j in range(COLUMNS):
                        sums[i, j] = ZERO
                multiply(left, right, x, line, I(0), sums, ours, theirs)
                cuda.syncthreads()
                for i in range(R):
                    for j in range(COLUMNS):
                        right[line * U(R) + U(i), column(x, j)] = sums[i, j]
                cuda.syncthreads()
                for e in range(me, NUMBERS // V, THREADS):
                    pixel, c = split(e, C // V)
                    h, w = split(pixel, W)
                    for v in range(V):
                        part[v] = image[U(e * V) + U(v)]
                    fetch(right, first, first_tap, h, w, I(c * V), part)
                    for v in range(V):
                        image[U(e * V) + U(v)] = part[v]
        cuda.syncthreads()
        for e in range(me, NUMBERS, THREADS):
            dx[U(n * NUMBERS + e)] = image[U(e)]

    return conv2d_dx_image_kernel

"""Convolution on the CPU: three matrix products that read the image in place, no im2col.

With channels last, row k of a position's window is one run of K C consecutive numbers, at ``offset(position) + k W C``. So (1),
(3) and (4) are products of a gathered matrix "positions x runs" with the packed weights or with dy. Each keeps a tile of the
result in registers (simd.tile_shape) while it walks along the summed axis: per step one row of the right factor is loaded, and
each number of the left factor is broadcast against it. The order of summation in (1) is kernel row, kernel column, channel.

A linear layer is the case K = H = W = 1; linear/cpu.py calls these kernels too. Behind a Flatten it is a convolution whose
kernel of K = H rows and L = W columns covers the whole image. Elsewhere L = K.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numba import carray

from ...kernels.cpu.simd import (
    Layout,
    empty,
    lasting_zeros,
    stack_array,
    taken,
    tile_shape,
    vector_lanes,
    vector_operations,
    zeros,
)
from ...kernels.jit import inline, kernel
from ...kernels.lazy import lazy

U = np.uintp  # unsigned indices: a signed one costs wrap-around code in the innermost loop
PLANS = 1024  # shapes of which a function remembers what follows from them
LARGE_PLANS = 64  # the same, where that is as large as an image
CHUNK = 128  # positions of (3) summed in registers, from zero, then added: keeps x and dy in L1, and the float32 sums short


@dataclass(frozen=True)
class Packed:
    """Weights as the kernels read them: columns padded with zeros to whole tiles, each layout made when it is first asked for."""

    weight: np.ndarray  # (O, C, K, L): a kernel of K rows and L columns

    @lazy
    def forward(self) -> np.ndarray:
        """(O / V, K, L C, V): a row for each term of (1)."""
        O, C, K, L = self.weight.shape
        V = tile_shape(self.weight.dtype, O)[1]
        packed = lasting_zeros((-(-O // V), K, L * C, V), self.weight.dtype)
        make_pack()(self.weight, packed)
        return packed

    @lazy
    def flat_forward(self) -> np.ndarray:
        """``forward`` as (O / V, K L C V)."""
        return self.forward.reshape(len(self.forward), -1)

    @lazy
    def units(self) -> tuple[np.ndarray, np.ndarray]:
        """(O / V, K, L C, V) whole numbers, and scale (O') per output: a weight is number times scale, see ``whole_numbers``."""
        O, C, K, L = self.weight.shape
        V = tile_shape(self.weight.dtype, O)[1]
        units, scale = whole_numbers(self.weight.reshape(O, -1))
        packed = lasting_zeros((-(-O // V), K, L * C, V), units.dtype)
        make_pack()(units.reshape(self.weight.shape), packed)
        padded = np.ones(len(packed) * V, scale.dtype)
        padded[:O] = scale
        return packed, padded

    def event_weights(self, bias: np.ndarray | None) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        """-> V, ``units`` (O / V, K L C V), scale, and the bias with zeros up to whole tiles, (O')."""
        known = self.__dict__.get("_event_weights")
        if known is None or known[0] is not bias:
            units, scale = self.units
            padded = np.zeros(len(scale), self.weight.dtype)
            if bias is not None:
                padded[: len(bias)] = bias
            known = self.__dict__["_event_weights"] = bias, (units.shape[3], units.reshape(len(units), -1), scale, padded)
        return known[1]

    @lazy
    def flat_patches(self) -> np.ndarray:
        """``patches`` as (L C / V, O K V)."""
        patches = self.patches
        return patches.reshape(-1, math.prod(patches.shape[2:]))

    @lazy
    def backward(self) -> np.ndarray:
        """(K, L C / V, O, V): a row for each output of (4)."""
        _, C, _, L = self.weight.shape
        return self._pieces(1, tile_shape(self.weight.dtype, L * C)[1])[:, :, :, 0]

    @lazy
    def flat_backward(self) -> np.ndarray:
        """``backward`` as (K, L C / V, O V)."""
        return self.backward.reshape(*self.backward.shape[:2], -1)

    @lazy
    def patches(self) -> np.ndarray:
        """(1, L C / V, O, K, V): pieces of whole kernel columns for each output, of at most 10 vectors where K allows."""
        _, C, K, L = self.weight.shape
        lanes = vector_lanes(self.weight.dtype.itemsize)
        return self._pieces(K, min(max(1, 10 // K), -(-L * C // lanes)) * lanes)

    def _pieces(self, R, V):
        O, C, K, L = self.weight.shape
        rows = self.weight.transpose(0, 2, 3, 1).reshape(O, K, L * C)
        packed = lasting_zeros((-(-K // R), -(-L * C // V), O, R, V), self.weight.dtype)
        for k in range(K):
            for b in range(packed.shape[1]):
                part = rows[:, k, b * V : (b + 1) * V]
                packed[k // R, b, :, k % R, : part.shape[1]] = part
        return packed


def whole_numbers(weight):
    """weight (O, n) -> units (O, n), int32 or float64, and scale (O): a weight is number times scale, a power of two.

    No sum of an output's numbers leaves 31 bits, or 52 where 31 would be too coarse. Rounding moves a weight by at most half a
    scale, that is by 2^-31 of the sum S of all magnitudes. An output takes 31 bits if at least half of its weights are 2^-14 S
    or larger, which then keep 17 bits; not if it has more inputs, or a few huge weights. The choice, and with it every sum,
    depends on the output's own weights alone: the same bits in units of either type, and for any part of a weight.

    Sums of m out of n weights of either sign and of typical size w: the errors of the weights add up to about
    2^-30.5 n w sqrt(m / 12). Sums in float32, one weight after the other, are off by about 2^-26 m w. The ratio of the two,
    n / (80 sqrt(m)), is 0.75 for a third of 1152 inputs and 1.75 for a third of 6272.
    """
    O, n = weight.shape
    size = empty((O,), np.float64)
    make_sizes()(weight, size)
    scale, narrow = _power_of_two(size, n, 31, weight.dtype), 0
    if weight.dtype == np.float32:
        units, fits = empty(weight.shape, np.int32), empty((O,), np.bool_)
        narrow = make_round()(weight, size, scale, units, fits)
    if narrow < O:
        wide = _power_of_two(size, n, 52, weight.dtype)
        scale = np.where(fits, scale, wide) if narrow else wide
        units = weight / scale[:, None]
        np.rint(units, out=units, where=np.isfinite(size)[:, None])  # not a number reaches who reads it
    return units, scale.astype(weight.dtype)


def _power_of_two(size, n, bits, dtype):
    """-> scale (O) float64 with which no sum of n rounded numbers exceeds 2^bits; 1 where ``size`` is 0 or no number."""
    limits = np.finfo(dtype)
    exponent = np.frexp(size * (1 + 1e-6 + n * 2.0**-bits))[1] - bits
    scale = np.ldexp(1.0, np.minimum(np.maximum(exponent, limits.minexp - limits.nmant), limits.maxexp - 1))
    scale[~np.isfinite(size) | (size == 0)] = 1
    return scale


def conv2d_pack(weight):
    """weight (O, C, K, L) -> Packed, of a copy: backward must see what forward saw."""
    return Packed(weight.copy())


def conv2d_forward(x, packed, bias, stride, padding):
    """x (N, H, W, C), bias (O) or None -> y (N, H', W', O)."""
    x = _pad(x, padding)
    product, row, offsets, layout = _forward_plan(x.shape, packed.weight.shape, x.dtype, stride)
    y, rows = taken(layout)
    if bias is None:
        bias = np.zeros(len(packed.weight), x.dtype)
    product(x.reshape(-1), packed.flat_forward, bias, offsets, *row, rows)
    return y


@functools.lru_cache(maxsize=LARGE_PLANS)
def _forward_plan(shape, weight_shape, dtype, stride):
    """What depends on shapes alone -> kernel, numbers of a row and a run, offsets, layout of y as it is and as (P, O)."""
    (N, H, W, C), (O, _, K, L) = shape, weight_shape
    height, width = (H - K) // stride + 1, (W - L) // stride + 1
    layout = Layout(((N, height, width, O), dtype), finish=lambda y: (y, y.reshape(-1, O)))
    return make_forward(dtype, *tile_shape(dtype, O)), (W * C, L * C), _offsets(shape, height, width, stride), layout


def conv2d_backward(dy, x, packed, stride, padding, dweight, dbias, input_grad):
    """dy (N, H', W', O), x (N, H, W, C) -> dx (N, H, W, C) or None; adds into dweight and dbias, each an array or None."""
    if dweight is not None:
        _dweight(dy, x, packed, stride, padding, dweight)
    if dbias is not None:
        add_channel_sums(dy, dbias)
    return conv2d_dx(dy, x.shape, packed, stride, padding) if input_grad else None


def add_channel_sums(dy, dbias):
    """(2): dy (..., O) -> adds into dbias (O)."""
    make_channel_sums()(dy.reshape(-1, len(dbias)), dbias)


def _dweight(dy, x, packed, stride, padding, dweight):
    """(3): dy (N, H', W', O), x (N, H, W, C) -> adds into dweight (O, C, K, L)."""
    x = _pad(x, padding)
    product, columns, offsets, layout = _dweight_plan(x.shape, dy.shape, packed.weight.shape, x.dtype, stride)
    wide = _pad_columns(dy.reshape(-1, dy.shape[3]), columns)
    (sums,) = taken(layout)
    sums.fill(0)
    product(wide.reshape(-1), x.reshape(-1), offsets, x.shape[2] * x.shape[3], sums)
    make_unpack()(sums, dweight)


@functools.lru_cache(maxsize=LARGE_PLANS)
def _dweight_plan(shape, dy_shape, weight_shape, dtype, stride):
    """What depends on shapes alone -> kernel, columns of its tile, offsets, layout of the sums (K, L C, O')."""
    O, C, K, L = weight_shape
    rows, columns = tile_shape(dtype, O)
    if L * C < rows:
        rows = 4 if L * C >= 4 else 1
    layout = Layout(((K, L * C, -(-O // columns) * columns), dtype))
    return make_dweight(dtype, rows, columns), columns, _offsets(shape, *dy_shape[1:3], stride), layout


def conv2d_dx(dy, shape, packed, stride, padding):
    """(4): dy (N, H', W', O) -> dx of ``shape`` (N, H, W, C)."""
    weight = packed.flat_backward
    shapes = shape, dy.shape, packed.backward.shape, packed.weight.shape
    product, row, offsets, layout = _dx_plan(*shapes, dy.dtype, stride, padding)
    framed, flat = taken(layout)
    flat.fill(0)
    product(dy.reshape(-1, dy.shape[3]), weight, offsets, row, flat)
    return unframed(framed, padding)


@functools.lru_cache(maxsize=LARGE_PLANS)
def _dx_plan(shape, dy_shape, packed_shape, weight_shape, dtype, stride, padding):
    """What depends on shapes alone -> kernel, numbers of a row, offsets, layout of the framed image."""
    N, H, W, C = shape
    image = N, H + 2 * padding, W + 2 * padding, C
    product = make_dx(dtype, *tile_shape(dtype, weight_shape[3] * C))
    layout = framed_layout(image, packed_shape[3], dtype)
    return product, image[2] * C, _offsets(image, *dy_shape[1:3], stride), layout


@functools.lru_cache(maxsize=PLANS)
def framed_layout(image, slack, dtype):
    """-> layout of an image (N, H, W, C), and the same memory flat with ``slack`` more numbers: whole vectors may be written."""
    size = math.prod(image)
    return Layout(((size + slack,), dtype), finish=lambda flat: (flat[:size].reshape(image), flat))


def unframed(x, padding):
    """x (N, H + 2 padding, W + 2 padding, C) -> (N, H, W, C), contiguous."""
    return x if padding == 0 else np.ascontiguousarray(x[:, padding:-padding, padding:-padding])


def _pad(x, padding):
    """x (N, H, W, C) -> (N, H + 2 padding, W + 2 padding, C), a copy framed by zeros."""
    if padding == 0:
        return x
    N, H, W, C = x.shape
    framed = zeros((N, H + 2 * padding, W + 2 * padding, C), x.dtype)
    framed[:, padding : padding + H, padding : padding + W] = x
    return framed


def _pad_columns(a, multiple):
    """a (N, O) -> (N, O'), O' the next multiple, so that rows are whole vectors."""
    N, O = a.shape
    if O % multiple == 0:
        return a
    wide = zeros((N, -(-O // multiple) * multiple), a.dtype)
    wide[:, :O] = a
    return wide


@functools.lru_cache(maxsize=LARGE_PLANS)
def _offsets(shape, height, width, stride):
    """shape (N, H, W, C) of a padded image -> (N height width) where each position's window begins in the flat image."""
    N, H, W, C = shape
    image = np.arange(N, dtype=U) * U(H * W * C)
    row = np.arange(height, dtype=U) * U(stride * W * C)
    column = np.arange(width, dtype=U) * U(stride * C)
    return (image[:, None, None] + row[:, None] + column).reshape(-1)


@functools.cache
def make_pack():
    @kernel()
    def conv2d_pack_kernel(weight, packed):
        """weight (O, C, K, L) -> packed (O / V, K, L C, V), whose padding stays as it is."""
        O, C, K, L = weight.shape
        V = packed.shape[3]
        for block in range(len(packed)):
            for c in range(C):
                for k in range(K):
                    for l in range(L):
                        for o in range(min(V, O - block * V)):
                            packed[block, k, l * C + c, o] = weight[block * V + o, c, k, l]

    return conv2d_pack_kernel


@functools.cache
def make_sizes():
    parts, P = stack_array(np.dtype(np.float64), 64), 64  # partial sums: a single one would be waited for at every step

    @kernel()
    def weight_sizes_kernel(weight, size):
        """weight (O, n) -> size (O) float64: the sum of its magnitudes, of which no sum of (1) is larger."""
        O, n = weight.shape
        part, whole = carray(parts(), (P,)), n // P * P
        for o in range(O):
            row = weight[o]
            for i in range(P):
                part[i] = 0
            for first in range(0, whole, P):
                for i in range(P):
                    part[i] += abs(row[U(first + i)])
            for i in range(n - whole):
                part[i] += abs(row[U(whole + i)])
            size[o] = part.sum()

    return weight_sizes_kernel


@functools.cache
def make_round():
    @kernel()
    def round_weights_kernel(weight, size, scale, units, fits):
        """weight (O, n), size, scale (O) -> units (O, n), fits (O): are there enough large weights? And how many outputs fit."""
        O, n = weight.shape
        narrow = 0
        for o in range(O):
            row, out, factor, bound = weight[o], units[o], 1 / scale[o], size[o] * 2.0**-14
            large = 0
            for i in range(n):
                out[i] = np.rint(row[i] * factor)
                large += abs(row[i]) >= bound
            fits[o] = np.isfinite(size[o]) and 2 * large >= n
            narrow += fits[o]
        return narrow

    return round_weights_kernel


@functools.cache
def make_unpack():
    @kernel()
    def conv2d_unpack_kernel(sums, dweight):
        """sums (K, L C, O') -> adds into dweight (O, C, K, L)."""
        O, C, K, L = dweight.shape
        for first in range(0, O, 64):  # a cache line of each of these rows stays at hand
            for c in range(C):
                for k in range(K):
                    for l in range(L):
                        for o in range(first, min(first + 64, O)):
                            dweight[o, c, k, l] += sums[k, l * C + c, o]

    return conv2d_unpack_kernel


@functools.cache
def make_channel_sums():
    @kernel()
    def channel_sums_kernel(dy, total):
        """dy (P, O) -> adds into total (O) sums in float64, since the axis is long."""
        sums = np.zeros(len(total))
        for p in range(dy.shape[0]):
            row = dy[p]
            for o in range(len(sums)):
                sums[o] += row[o]
        for o in range(len(sums)):
            total[o] += dy.dtype.type(sums[o])

    return channel_sums_kernel


@functools.cache
def make_forward(dtype, R, V):
    """-> the kernel of (1) with a register tile of R positions x V outputs."""
    tile, single = _make_forward_tile(dtype, R, V), _make_forward_tile(dtype, 1, V)

    @kernel(dtype, R, V)
    def conv2d_forward_kernel(x, weight, bias, offsets, row, run, y):
        """x flat, weight (O / V, K L C V), bias (O), offsets (P) -> y (P, O)."""
        out = np.empty(R * V, y.dtype)
        P, O = y.shape
        for block in range(len(weight)):
            first = block * V
            count = min(V, O - first)
            p = 0
            while p < P:
                taken = R if P - p >= R else 1
                if taken == R:
                    tile(x, weight[block], offsets, p, row, run, out)
                else:
                    single(x, weight[block], offsets, p, row, run, out)
                for m in range(taken):
                    for j in range(count):
                        y[p + m, first + j] = out[m * V + j] + bias[first + j]
                p += taken

    return conv2d_forward_kernel


def _make_forward_tile(dtype, R, V):
    registers, starts, vectors = stack_array(dtype, R * V), stack_array(np.dtype(U), R), vector_operations(dtype)
    lanes, clear, copy, add_scaled = vectors.lanes, vectors.clear, vectors.copy, vectors.add_scaled

    def forward_tile(x, weight, offsets, p, row, run, out):
        """out (R V) = the sums of (1) at positions p ... p + R - 1; weight (K L C V) of one block of outputs."""
        acc, start = registers(), carray(starts(), (R,))
        for m in range(R):
            start[m] = offsets[p + m]
            for j in range(0, V, lanes):
                clear(acc, U(m * V + j))
        for first in range(0, len(weight), run * V):  # kernel rows
            for i in range(run):
                for m in range(R):
                    a = x[start[m] + U(i)]
                    for j in range(0, V, lanes):
                        add_scaled(acc, U(m * V + j), a, weight, U(first + i * V + j))
            for m in range(R):
                start[m] += U(row)
        for m in range(R):
            for j in range(0, V, lanes):
                copy(out, U(m * V + j), acc, U(m * V + j))

    return inline(forward_tile)


@functools.cache
def make_dweight(dtype, R, V):
    """-> the kernel of (3) with a register tile of R numbers of the run x V outputs."""
    tile, single = _make_dweight_tile(dtype, R, V), _make_dweight_tile(dtype, 1, V)

    @kernel(dtype, R, V)
    def conv2d_dweight_kernel(dy, x, offsets, row, dweight):
        """dy (P O') flat, x flat, offsets (P) -> adds into dweight (K, L C, O'), O' whole tiles."""
        K, run, O = dweight.shape
        sums = dweight.reshape(-1)
        for lo in range(0, len(offsets), CHUNK):
            part = offsets[lo : lo + CHUNK]
            for k in range(K):
                for first in range(0, O, V):
                    i = 0
                    while i < run:
                        taken = R if run - i >= R else 1
                        if taken == R:
                            tile(dy, lo * O + first, O, x, part, k * row + i, sums, (k * run + i) * O + first)
                        else:
                            single(dy, lo * O + first, O, x, part, k * row + i, sums, (k * run + i) * O + first)
                        i += taken

    return conv2d_dweight_kernel


def _make_dweight_tile(dtype, R, V):
    registers, vectors = stack_array(dtype, R * V), vector_operations(dtype)
    lanes, clear, add, add_scaled = vectors.lanes, vectors.clear, vectors.add, vectors.add_scaled

    def dweight_tile(dy, at, O, x, offsets, tap, sums, to):
        """Adds (3) over the given positions to R rows of ``sums``, from place ``to``; dy's first row begins at ``at``."""
        acc = registers()
        for m in range(R):
            for j in range(0, V, lanes):
                clear(acc, U(m * V + j))
        for p in range(len(offsets)):
            start, gradient = offsets[p] + U(tap), U(at + p * O)
            for m in range(R):
                a = x[start + U(m)]
                for j in range(0, V, lanes):
                    add_scaled(acc, U(m * V + j), a, dy, gradient + U(j))
        for m in range(R):
            for j in range(0, V, lanes):
                add(sums, U(to + m * O + j), acc, U(m * V + j))

    return inline(dweight_tile)


@functools.cache
def make_dx(dtype, R, V):
    """-> the kernel of (4) with a register tile of R positions x V numbers of the run."""
    tile, single = _make_dx_tile(dtype, R, V), _make_dx_tile(dtype, 1, V)

    @kernel(dtype, R, V)
    def conv2d_dx_kernel(dy, weight, offsets, row, dx):
        """dy (P, O), weight (K, L C / V, O V), offsets (P) -> adds into dx, flat.

        The last vector of a run may reach beyond it. Its surplus lanes hold zeros, the weights' padding; dx has room behind.
        """
        P = len(offsets)
        p = 0
        while p < P:
            taken = R if P - p >= R else 1
            for k in range(weight.shape[0]):
                for block in range(weight.shape[1]):
                    if taken == R:
                        tile(dy, weight[k, block], p, offsets, k * row + block * V, dx)
                    else:
                        single(dy, weight[k, block], p, offsets, k * row + block * V, dx)
            p += taken

    return conv2d_dx_kernel


def _make_dx_tile(dtype, R, V):
    registers, vectors = stack_array(dtype, R * V), vector_operations(dtype)
    lanes, clear, add, add_scaled = vectors.lanes, vectors.clear, vectors.add, vectors.add_scaled

    def dx_tile(dy, weight, p, offsets, tap, dx):
        """Adds the sums over o of (4) at positions p ... p + R - 1, V numbers of a run that begins ``tap`` into the window."""
        acc = registers()
        for m in range(R):
            for j in range(0, V, lanes):
                clear(acc, U(m * V + j))
        for o in range(dy.shape[1]):
            for m in range(R):
                a = dy[U(p + m), U(o)]
                for j in range(0, V, lanes):
                    add_scaled(acc, U(m * V + j), a, weight, U(o * V + j))
        for m in range(R):  # windows overlap: positions add one after the other
            for j in range(0, V, lanes):
                add(dx, offsets[p + m] + U(tap + j), acc, U(m * V + j))

    return inline(dx_tile)

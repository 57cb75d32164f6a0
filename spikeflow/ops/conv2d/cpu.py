"""Convolution on the CPU: three matrix products that read the image in place, no im2col.

With channels last, row k of a position's window is one run of K C consecutive numbers, at ``offset(position) + k W C``. So (1),
(3) and (4) are products of a gathered matrix "positions x runs" with the packed weights or with dy. Each keeps a tile of the
result in registers (simd.tile_shape) while it walks along the summed axis: per step one row of the right factor is loaded, and
each number of the left factor is broadcast against it. The order of summation in (1) is kernel row, kernel column, channel.

A linear layer is the case K = H = W = 1; linear/cpu.py calls these kernels too.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numba import carray

from ..jit import CONTRACT, inline, kernel
from ..simd import empty, stack_array, tile_shape, zeros

U = np.uintp  # unsigned indices: a signed one costs wrap-around code in the innermost loop
CHUNK = 128  # positions of (3) summed in registers before they reach memory: keeps x and dy in L1, and the float32 sums short


class Packed(NamedTuple):
    """Weights as the kernels read them: columns padded with zeros to whole tiles."""

    weight: np.ndarray  # (O, C, K, K), the layer's own
    forward: np.ndarray  # (O / V, K, K C, V): a row for each term of (1)
    backward: np.ndarray | None  # (K, K C / V, O, V): a row for each output of (4)


def conv2d_pack(weight, input_grad=True):
    """weight (O, C, K, K) -> Packed; ``backward`` only if the input's gradient will be asked for."""
    O, C, K, _ = weight.shape
    run = K * C
    terms = weight.transpose(2, 3, 1, 0).reshape(K, run, O)
    columns = tile_shape(weight.dtype, O)[1]
    blocks = -(-O // columns)
    forward = zeros((blocks, K, run, columns), weight.dtype)
    for b in range(blocks):
        part = terms[:, :, b * columns : (b + 1) * columns]
        forward[b, :, :, : part.shape[2]] = part
    backward = None
    if input_grad:
        columns = tile_shape(weight.dtype, run)[1]
        backward = zeros((K, -(-run // columns), O, columns), weight.dtype)
        for b in range(backward.shape[1]):
            part = terms[:, b * columns : (b + 1) * columns]
            backward[:, b, :, : part.shape[1]] = part.transpose(0, 2, 1)
    return Packed(weight, forward, backward)


def conv2d_forward(x, packed, bias, stride, padding):
    """x (N, H, W, C), bias (O) or None -> y (N, H', W', O)."""
    O, _, K, _ = packed.weight.shape
    x = _pad(x, padding)
    N, H, W, C = x.shape
    height, width = (H - K) // stride + 1, (W - K) // stride + 1
    y = empty((N, height, width, O), x.dtype)
    if bias is None:
        bias = np.zeros(O, x.dtype)
    rows, columns = tile_shape(x.dtype, O)
    product = make_forward(x.dtype, rows, columns)
    product(x.reshape(-1), packed.forward, bias, _offsets(x.shape, height, width, stride), W * C, y.reshape(-1, O))
    return y


def conv2d_backward(dy, x, packed, stride, padding, dweight, dbias, input_grad):
    """dy (N, H', W', O), x (N, H, W, C) -> dx (N, H, W, C) or None; adds into dweight and dbias."""
    O, C, K, _ = packed.weight.shape
    _, H, W, _ = x.shape
    x = _pad(x, padding)
    offsets = _offsets(x.shape, dy.shape[1], dy.shape[2], stride)
    row, run = x.shape[2] * C, K * C
    flat_dy = dy.reshape(-1, O)

    columns = tile_shape(x.dtype, O)[1]
    padded_dy = _pad_columns(flat_dy, columns)
    sums = zeros((K, run, padded_dy.shape[1]), x.dtype)
    make_dweight(x.dtype, *tile_shape(x.dtype, O))(padded_dy, x.reshape(-1), offsets, row, sums)
    dweight += sums[:, :, :O].reshape(K, K, C, O).transpose(3, 2, 0, 1)
    if dbias is not None:
        dbias += flat_dy.sum(0, dtype=np.float64).astype(x.dtype)  # (2)
    if not input_grad:
        return None
    dx = zeros(x.shape, x.dtype)
    make_dx(x.dtype, *tile_shape(x.dtype, run))(flat_dy, packed.backward, offsets, row, run, dx.reshape(-1))
    return dx if padding == 0 else np.ascontiguousarray(dx[:, padding : padding + H, padding : padding + W])


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


def _offsets(shape, height, width, stride):
    """shape (N, H, W, C) of a padded image -> (N height width) where each position's window begins in the flat image."""
    N, H, W, C = shape
    image = np.arange(N, dtype=U) * U(H * W * C)
    row = np.arange(height, dtype=U) * U(stride * W * C)
    column = np.arange(width, dtype=U) * U(stride * C)
    return (image[:, None, None] + row[:, None] + column).reshape(-1)


@functools.cache
def make_forward(dtype, rows, columns):
    """-> the kernel of (1) with a register tile of rows x columns."""
    tile, single = _make_forward_tile(dtype, rows, columns), _make_forward_tile(dtype, 1, columns)

    @kernel(dtype, rows, columns, fastmath=CONTRACT)
    def conv2d_forward_kernel(x, weight, bias, offsets, row, y):
        """x flat, weight (O / V, K, K C, V), bias (O), offsets (P) -> y (P, O)."""
        out = np.empty((rows, columns), y.dtype)
        P, O = y.shape
        whole = P - P % rows
        for block in range(weight.shape[0]):
            first = block * columns
            count = min(columns, O - first)
            for p in range(0, P, rows):
                taken = rows if p < whole else P - p
                if p < whole:
                    tile(x, weight, block, offsets, p, row, out)
                else:
                    for m in range(taken):
                        single(x, weight, block, offsets, p + m, row, out[m:])
                for m in range(taken):
                    for j in range(count):
                        y[p + m, first + j] = out[m, j] + bias[first + j]

    return conv2d_forward_kernel


def _make_forward_tile(dtype, rows, columns):
    accumulators, starts = stack_array(dtype, rows * columns), stack_array(np.dtype(U), rows)

    def forward_tile(x, weight, block, offsets, p, row, out):
        """out (rows, V) = the sum of (1) at positions p ... p + rows - 1, one block of V outputs."""
        acc, start = carray(accumulators(), (rows, columns)), carray(starts(), (rows,))
        for m in range(rows):
            start[m] = offsets[p + m]
            for j in range(columns):
                acc[m, j] = 0
        for k in range(weight.shape[1]):
            for i in range(weight.shape[2]):
                for m in range(rows):
                    a = x[start[m] + U(i)]
                    for j in range(columns):
                        acc[m, j] += a * weight[block, k, i, j]
            for m in range(rows):
                start[m] += U(row)
        for m in range(rows):
            for j in range(columns):
                out[m, j] = acc[m, j]

    return inline(forward_tile, fastmath=CONTRACT)


@functools.cache
def make_dweight(dtype, rows, columns):
    """-> the kernel of (3) with a register tile of rows x columns: rows along the run, columns along the outputs."""
    tile, single = _make_dweight_tile(dtype, rows, columns), _make_dweight_tile(dtype, 1, columns)

    @kernel(dtype, rows, columns, fastmath=CONTRACT)
    def conv2d_dweight_kernel(dy, x, offsets, row, dweight):
        """dy (P, O'), x flat, offsets (P) -> adds into dweight (K, K C, O'), O' whole tiles."""
        K, run, O = dweight.shape
        for lo in range(0, len(offsets), CHUNK):
            hi = min(lo + CHUNK, len(offsets))
            for k in range(K):
                for first in range(0, O, columns):
                    whole = run - run % rows
                    for i in range(0, whole, rows):
                        tile(dy, x, offsets, lo, hi, U(k * row + i), first, dweight[k, i:])
                    for i in range(whole, run):
                        single(dy, x, offsets, lo, hi, U(k * row + i), first, dweight[k, i:])

    return conv2d_dweight_kernel


def _make_dweight_tile(dtype, rows, columns):
    accumulators = stack_array(dtype, rows * columns)

    def dweight_tile(dy, x, offsets, lo, hi, shift, first, out):
        """Adds (3) over positions lo ... hi - 1 into out[:rows, first : first + V]; ``shift`` is the run's first tap."""
        acc = carray(accumulators(), (rows, columns))
        for m in range(rows):
            for j in range(columns):
                acc[m, j] = out[m, first + j]
        for p in range(lo, hi):
            start = offsets[p] + shift
            for m in range(rows):
                a = x[start + U(m)]
                for j in range(columns):
                    acc[m, j] += a * dy[U(p), U(first + j)]
        for m in range(rows):
            for j in range(columns):
                out[m, first + j] = acc[m, j]

    return inline(dweight_tile, fastmath=CONTRACT)


@functools.cache
def make_dx(dtype, rows, columns):
    """-> the kernel of (4) with a register tile of rows x columns: rows are positions, columns lie along the run."""
    tile, single = _make_dx_tile(dtype, rows, columns), _make_dx_tile(dtype, 1, columns)

    @kernel(dtype, rows, columns, fastmath=CONTRACT)
    def conv2d_dx_kernel(dy, weight, offsets, row, run, dx):
        """dy (P, O), weight (K, K C / V, O, V), offsets (P) -> adds into dx, flat."""
        out = np.empty((rows, columns), dx.dtype)
        P = len(offsets)
        whole = P - P % rows
        for p in range(0, P, rows):
            taken = rows if p < whole else P - p
            for k in range(weight.shape[0]):
                for block in range(weight.shape[1]):
                    if p < whole:
                        tile(dy, weight, k, block, p, out)
                    else:
                        for m in range(taken):
                            single(dy, weight, k, block, p + m, out[m:])
                    first = block * columns
                    count = min(columns, run - first)
                    for m in range(taken):
                        start = offsets[p + m] + U(k * row + first)
                        for j in range(count):  # windows overlap: positions add one after the other
                            dx[start + U(j)] += out[m, j]

    return conv2d_dx_kernel


def _make_dx_tile(dtype, rows, columns):
    accumulators = stack_array(dtype, rows * columns)

    def dx_tile(dy, weight, k, block, p, out):
        """out (rows, V) = the sum over o of (4) at positions p ... p + rows - 1, V numbers of run k."""
        acc = carray(accumulators(), (rows, columns))
        for m in range(rows):
            for j in range(columns):
                acc[m, j] = 0
        for o in range(weight.shape[2]):
            for m in range(rows):
                a = dy[p + m, o]
                for j in range(columns):
                    acc[m, j] += a * weight[k, block, o, j]
        for m in range(rows):
            for j in range(columns):
                out[m, j] = acc[m, j]

    return inline(dx_tile, fastmath=CONTRACT)

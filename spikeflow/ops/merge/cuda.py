"""The equations of ``__init__.py`` on a GPU: a thread is a number."""

from __future__ import annotations

import functools

import numpy as np

from ...kernels.cuda import gpu
from ...kernels.cuda.gemm import split
from ...kernels.cuda.gpu import cuda
from ...kernels.rounding import times
from ..rows.cuda import rows_add, rows_copy

ONE = np.float32(1)


def merge_add(a, b):
    """a, b (...) -> y (...), equation (1); and the sum of two gradients, equation (5)."""
    return rows_add(a, b)


def merge_and(a, b):
    """a, b (...) -> y (...), equation (2)."""
    y = gpu.empty(a.shape)
    _launch(make_and(), a, b, y)
    return y


def merge_and_backward(dy, a, b):
    """dy, a, b (...) -> da, db (...)."""
    return merge_and(dy, b), merge_and(dy, a)


def merge_iand(a, b):
    """a, b (...) -> y (...), equation (3)."""
    y = gpu.empty(a.shape)
    _launch(make_iand(), a, b, y)
    return y


def merge_iand_backward(dy, a, b):
    """dy, a, b (...) -> da, db (...)."""
    da, db = gpu.empty(dy.shape), gpu.empty(dy.shape)
    _launch(make_iand_backward(), dy, a, b, da, db)
    return da, db


def merge_concat(parts):
    """Arrays (..., C) that differ in C alone -> y (..., sum of C), equation (4)."""
    *outer, _ = parts[0].shape
    y, first = gpu.empty((*outer, sum(map(_channels, parts)))), 0
    for part in parts:
        _columns(part, first, y, put=True)
        first += _channels(part)
    return y


def merge_split(dy, sizes):
    """dy (..., sum of C), the C -> arrays (..., C)."""
    parts, first = [], 0
    *outer, _ = dy.shape
    for size in sizes:
        parts.append(gpu.empty((*outer, size)))
        _columns(parts[-1], first, dy, put=False)
        first += size
    return parts


def merge_repeat(x, num_steps):
    """x (1, ...) -> y (T, ...), equation (6); its backward pass is ``rows_sum``."""
    y = gpu.empty((num_steps, *x.shape[1:]))
    for t in range(num_steps):
        rows_copy(x, y[t : t + 1])
    return y


def _channels(x) -> int:
    *_, C = x.shape
    return C


def _columns(part, first, whole, put: bool):
    """part (..., C) to, or from, the columns of whole (..., C') from ``first`` on."""
    sizes = (np.int32(n) for n in (_channels(part), _channels(whole), first))
    arrays = part.reshape(part.size), whole.reshape(whole.size)
    gpu.launch(make_columns(put), gpu.size(part.size), gpu.THREADS, *arrays, *sizes)


def _launch(kernel, *arrays):
    N = arrays[0].size
    gpu.launch(kernel, gpu.size(N), gpu.THREADS, *(array.reshape(N) for array in arrays), flops=N)


@functools.cache
def make_and():
    @gpu.kernel(threads=gpu.THREADS)
    def merge_and_kernel(a, b, y):
        """a, b -> y, flat."""
        i = cuda.grid(1)
        if i < y.size:
            y[i] = a[i] * b[i]  # (2)

    return merge_and_kernel


@functools.cache
def make_iand():
    @gpu.kernel(threads=gpu.THREADS)
    def merge_iand_kernel(a, b, y):
        """a, b -> y, flat."""
        i = cuda.grid(1)
        if i < y.size:
            y[i] = times(b[i], ONE - a[i])  # (3)

    return merge_iand_kernel


@functools.cache
def make_iand_backward():
    @gpu.kernel(threads=gpu.THREADS)
    def merge_iand_backward_kernel(dy, a, b, da, db):
        """dy, a, b -> da, db, flat."""
        i = cuda.grid(1)
        if i < dy.size:
            da[i], db[i] = times(-dy[i], b[i]), times(dy[i], ONE - a[i])  # (3)

    return merge_iand_backward_kernel


@functools.cache
def make_columns(put):
    @gpu.kernel(put, threads=gpu.THREADS)
    def merge_columns_kernel(part, whole, C, across, first):
        """part flat (N, C), whole flat (N, C'): columns from ``first`` on."""
        i = cuda.grid(1)
        if i < part.size:
            n, c = split(i, C)
            if put:
                whole[n * across + first + c] = part[i]  # (4)
            else:
                part[i] = whole[n * across + first + c]

    return merge_columns_kernel

"""The equations of ``__init__.py`` on the CPU: a pass over numbers, which are flat to the kernels."""

from __future__ import annotations

import functools

import numpy as np

from ...kernels.cpu.simd import empty
from ...kernels.jit import kernel


def merge_add(a, b):
    """a, b (...) -> y (...), equation (1); and the sum of two gradients, equation (5)."""
    return _elementwise(make_add(), a, b)


def merge_and(a, b):
    """a, b (...) -> y (...), equation (2)."""
    return _elementwise(make_and(), a, b)


def merge_and_backward(dy, a, b):
    """dy, a, b (...) -> da, db (...)."""
    return _elementwise(make_and(), dy, b), _elementwise(make_and(), dy, a)


def merge_iand(a, b):
    """a, b (...) -> y (...), equation (3)."""
    return _elementwise(make_iand(), a, b)


def merge_iand_backward(dy, a, b):
    """dy, a, b (...) -> da, db (...)."""
    da, db = empty(dy.shape, dy.dtype), empty(dy.shape, dy.dtype)
    make_iand_backward()(*(_flat(array) for array in (dy, a, b, da, db)))
    return da, db


def merge_concat(parts):
    """Arrays (..., C) that differ in C alone -> y (..., sum of C), equation (4)."""
    *outer, _ = parts[0].shape
    y, first = empty((*outer, sum(part.shape[-1] for part in parts)), parts[0].dtype), 0
    for part in parts:
        make_put()(_rows(part), first, _rows(y))
        first += part.shape[-1]
    return y


def merge_split(dy, sizes):
    """dy (..., sum of C), the C -> arrays (..., C)."""
    parts, first = [], 0
    for size in sizes:
        part = empty((*dy.shape[:-1], size), dy.dtype)
        make_take()(_rows(dy), first, _rows(part))
        parts.append(part)
        first += size
    return parts


def merge_repeat(x, num_steps):
    """x (1, ...) -> y (T, ...), equation (6); its backward pass is ``rows_sum``."""
    y = empty((num_steps, *x.shape[1:]), x.dtype)
    y[...] = x
    return y


def _elementwise(function, a, b):
    y = empty(a.shape, a.dtype)
    function(_flat(a), _flat(b), _flat(y))
    return y


def _flat(x):
    return np.ascontiguousarray(x).reshape(-1)


def _rows(x):
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])


@functools.cache
def make_add():
    @kernel()
    def merge_add_kernel(a, b, y):
        """a, b (N) -> y (N)."""
        for i in range(len(y)):
            y[i] = a[i] + b[i]  # (1)

    return merge_add_kernel


@functools.cache
def make_and():
    @kernel()
    def merge_and_kernel(a, b, y):
        """a, b (N) -> y (N)."""
        for i in range(len(y)):
            y[i] = a[i] * b[i]  # (2)

    return merge_and_kernel


@functools.cache
def make_iand():
    @kernel()
    def merge_iand_kernel(a, b, y):
        """a, b (N) -> y (N)."""
        one = y.dtype.type(1)
        for i in range(len(y)):
            y[i] = b[i] * (one - a[i])  # (3)

    return merge_iand_kernel


@functools.cache
def make_iand_backward():
    @kernel()
    def merge_iand_backward_kernel(dy, a, b, da, db):
        """dy, a, b (N) -> da, db (N)."""
        one = dy.dtype.type(1)
        for i in range(len(dy)):
            da[i], db[i] = -dy[i] * b[i], dy[i] * (one - a[i])  # (3)

    return merge_iand_backward_kernel


@functools.cache
def make_put():
    @kernel()
    def merge_put_kernel(x, first, y):
        """x (N, C) -> columns of y (N, C') from ``first`` on."""
        for n in range(len(x)):
            for c in range(x.shape[1]):
                y[n, first + c] = x[n, c]  # (4)

    return merge_put_kernel


@functools.cache
def make_take():
    @kernel()
    def merge_take_kernel(y, first, x):
        """Columns of y (N, C') from ``first`` on -> x (N, C)."""
        for n in range(len(x)):
            for c in range(x.shape[1]):
                x[n, c] = y[n, first + c]  # (4)

    return merge_take_kernel

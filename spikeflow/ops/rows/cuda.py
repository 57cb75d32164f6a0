"""Steps of a sequence on a GPU: a thread is a number."""

from __future__ import annotations

import functools

from ...kernels.cuda import gpu
from ...kernels.cuda.gpu import cuda
from ...kernels.cuda.sums import column_sums
from ..scale import scale_columns


def rows_zeros(shape, dtype):
    """-> zeros."""
    y = gpu.empty(shape, dtype)
    gpu.fill(y, 0)
    return y


def rows_add(a, b):
    """a, b of one shape -> their sum."""
    y = gpu.empty(a.shape)
    gpu.launch(make_add(), gpu.size(y.size), gpu.THREADS, *(array.reshape(array.size) for array in (a, b, y)), flops=y.size)
    return y


def rows_join(parts):
    """Arrays (t, ...) -> one (T, ...), T the sum of all t."""
    y, first = gpu.empty((sum(part.shape[0] for part in parts), *parts[0].shape[1:])), 0
    for part in parts:
        rows_copy(part, y[first : first + part.shape[0]])
        first += part.shape[0]
    return y


def rows_copy(x, y):
    """x -> y, as many numbers."""
    gpu.launch(make_copy(), gpu.size(y.size), gpu.THREADS, x.reshape(x.size), y.reshape(y.size))


def rows_sum(x):
    """x (T, ...) -> its sum over T, (1, ...)."""
    return column_sums(x.reshape(x.shape[0], x.size // x.shape[0])).reshape(1, *x.shape[1:])


def rows_of(x):
    """x on the host -> the same on the device."""
    return gpu.to_device(x)


def rows_constant(x):
    """x on the host, which never changes -> the same on the device, copied once."""
    return gpu.constant(x)


def rows_scale(x, factor):
    """x (T, ...), factor (...) -> their product at each step."""
    return scale_columns(x.reshape(x.shape[0], factor.size), factor.reshape(factor.size)).reshape(x.shape)


@functools.cache
def make_add():
    @gpu.kernel(threads=gpu.THREADS)
    def rows_add_kernel(a, b, y):
        """a, b -> y, flat."""
        i = cuda.grid(1)
        if i < y.size:
            y[i] = a[i] + b[i]

    return rows_add_kernel


@functools.cache
def make_copy():
    @gpu.kernel(threads=gpu.THREADS)
    def rows_copy_kernel(x, y):
        """x -> y, flat."""
        i = cuda.grid(1)
        if i < y.size:
            y[i] = x[i]

    return rows_copy_kernel

"""Steps of a sequence in NumPy; the CPU backend uses the same functions."""

from __future__ import annotations

import numpy as np


def rows_zeros(shape, dtype):
    """-> zeros."""
    return np.zeros(shape, dtype)


def rows_add(a, b):
    """a, b of one shape -> their sum."""
    return a + b


def rows_join(parts):
    """Arrays (t, ...) -> one (T, ...), T the sum of all t."""
    return np.concatenate(parts)


def rows_copy(x, y):
    """x -> y, as many numbers."""
    y[...] = x.reshape(y.shape)


def rows_sum(x):
    """x (T, ...) -> its sum over T, (1, ...)."""
    return x.sum(0, keepdims=True)


def rows_of(x):
    """x on the host -> the same where the arrays live."""
    return x


def rows_constant(x):
    """x on the host, which never changes -> the same where the arrays live."""
    return x


def rows_scale(x, factor):
    """x (T, ...), factor (...) -> their product at each step."""
    return x * factor

"""The equations of ``__init__.py`` in NumPy."""

from __future__ import annotations

import numpy as np


def merge_add(a, b):
    """a, b (...) -> y (...), equation (1); and the sum of two gradients, equation (5)."""
    return a + b


def merge_and(a, b):
    """a, b (...) -> y (...), equation (2)."""
    return a * b


def merge_and_backward(dy, a, b):
    """dy, a, b (...) -> da, db (...)."""
    return dy * b, dy * a


def merge_iand(a, b):
    """a, b (...) -> y (...), equation (3)."""
    return b * (1 - a)


def merge_iand_backward(dy, a, b):
    """dy, a, b (...) -> da, db (...)."""
    return -dy * b, dy * (1 - a)


def merge_concat(parts):
    """Arrays (..., C) that differ in C alone -> y (..., sum of C), equation (4)."""
    return np.concatenate(parts, axis=-1)


def merge_split(dy, sizes):
    """dy (..., sum of C), the C -> arrays (..., C)."""
    return [np.ascontiguousarray(part) for part in np.split(dy, np.cumsum(sizes)[:-1], axis=-1)]


def merge_repeat(x, num_steps):
    """x (1, ...) -> y (T, ...), equation (6); its backward pass is ``rows_sum``."""
    return np.repeat(x, num_steps, axis=0)

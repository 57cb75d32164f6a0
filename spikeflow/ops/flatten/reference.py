"""Flatten in NumPy; the CPU backend uses the same two functions, a copy each."""

from __future__ import annotations

import numpy as np


def flatten_forward(x):
    """x (N, H, W, C) -> y (N, C H W); samples of any other rank have no channel to move."""
    if x.ndim != 4:
        return x.reshape(len(x), -1)
    return np.ascontiguousarray(np.moveaxis(x, -1, 1)).reshape(len(x), -1)  # (1)


def flatten_backward(dy, shape):
    """dy (N, C H W) -> dx of ``shape`` (N, H, W, C)."""
    if len(shape) != 4:
        return dy.reshape(shape)
    N, *image, C = shape
    return np.ascontiguousarray(np.moveaxis(dy.reshape(N, C, *image), 1, -1))  # (2)

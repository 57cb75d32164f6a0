"""Adam's step in NumPy."""

from __future__ import annotations

import numpy as np


def adam_step(value, grad, mean, square, b1, b2, step_size, root, eps, keep=1.0, decay=0.0):
    """(1) to (4): changes value, mean and square in place, arrays of one shape."""
    value *= keep
    g = grad + decay * value  # (1)
    mean += (1 - b1) * (g - mean)  # (2)
    square[...] = b2 * square + (1 - b2) * g**2  # (3)
    value -= step_size * mean / (np.sqrt(square) / root + eps)  # (4)

"""Linear layer in NumPy."""

from __future__ import annotations

import numpy as np


def linear_pack(weight):
    """weight (O, F) -> a copy."""
    return weight.copy()


def linear_forward(x, packed, bias):
    """x (N, F), packed (O, F), bias (O) or None -> y (N, O)."""
    y = x @ packed.T  # (1)
    return y if bias is None else y + bias


def linear_backward(dy, x, packed, dweight, dbias, input_grad):
    """dy (N, O), x (N, F) -> dx (N, F) or None; adds into dweight and dbias, where given."""
    if dbias is not None:
        dbias += dy.sum(0, dtype=np.float64).astype(dy.dtype)  # (2)
    if dweight is not None:
        dweight += dy.T.astype(np.float64) @ x  # (3)
    return dy @ packed if input_grad else None  # (4)

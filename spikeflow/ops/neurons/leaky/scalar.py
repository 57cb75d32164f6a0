"""One time step of one leaky neuron and its backward, as scalar functions of scalars; equations in ``__init__.py``.

cpu.py (and every later backend) compiles these same lines. ``previous`` is m[t-1]. A step returns m[t]; a step's backward takes
``g`` of (4) and returns dL/dm[t-1] along (2), the terms of (6) and (7) that come with g, in this order.
"""

from __future__ import annotations

import numpy as np

ZERO, ONE = np.float32(0), np.float32(1)  # a Python literal would turn float32 arithmetic into float64


def step_subtract(previous, x, beta, threshold):
    """m[t-1], x[t] -> m[t]."""
    m = beta * previous + x
    return m - threshold if previous > threshold else m  # (1), (2a)


def step_subtract_backward(g, previous, beta, threshold):
    """g[t], m[t-1] -> carry to t - 1, dbeta, dthreshold."""
    return beta * g, g * previous, -g if previous > threshold else ZERO  # (4), (6), (7)


def step_zero(previous, x, beta, threshold):
    """m[t-1], x[t] -> m[t]."""
    kept = ZERO if previous > threshold else previous  # (1)
    return beta * kept + x  # (2b)


def step_zero_backward(g, previous, beta, threshold):
    """g[t], m[t-1] -> carry to t - 1, dbeta, dthreshold."""
    k = ZERO if previous > threshold else ONE
    return beta * k * g, g * k * previous, ZERO  # (4), (6), (7)


def step_none(previous, x, beta, threshold):
    """m[t-1], x[t] -> m[t]."""
    return beta * previous + x  # (2c)


def step_none_backward(g, previous, beta, threshold):
    """g[t], m[t-1] -> carry to t - 1, dbeta, dthreshold."""
    return beta * g, g * previous, ZERO  # (4), (6), (7)


RESETS = {
    "subtract": (step_subtract, step_subtract_backward),
    "zero": (step_zero, step_zero_backward),
    "none": (step_none, step_none_backward),
}

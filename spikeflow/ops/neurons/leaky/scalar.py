"""One time step of one leaky neuron and its backward, as scalar functions of scalars; equations in ``__init__.py``.

cpu.py and cuda.py compile these same lines. The state is (m[t-1],), ``p`` is (beta,), r the reset flag of (1).
"""

from __future__ import annotations

import numpy as np

from ....kernels.rounding import times
from ..resets import as_written, delayed

STATES, PARAMS, READS_INPUT = ("membrane",), ("beta",), False

ZERO = np.float32(0)  # a Python literal would turn float32 arithmetic into float64


def step(state, x, p):
    """(m[t-1],), x[t] -> (m[t],) without a reset."""
    (m,), (beta,) = state, p
    return (times(beta, m) + x,)  # (2c); (2a) by (R1) of resets.py


def step_backward(g, state, x, p):
    """(g[t],), (m[t-1],) -> (carry to t - 1,), dx, (dbeta,)."""
    (g_m,), (m,), (beta,) = g, state, p
    return (beta * g_m,), g_m, (g_m * m,)  # (4), (5), (6)


def step_zero(state, x, r, threshold, p):
    """(m[t-1],), x[t] -> (m[t],)."""
    (m,), (beta,) = state, p
    return (times(beta, ZERO if r else m) + x,)  # (2b)


def step_zero_backward(g, state, x, r, threshold, p):
    """(g[t],), (m[t-1],) -> (carry to t - 1,), dx, dthreshold, (dbeta,)."""
    (g_m,), (m,), (beta,) = g, state, p
    kept = ZERO if r else g_m
    return (beta * kept,), g_m, ZERO, (kept * m,)  # (4), (5), (6)


RESETS = {**delayed(step, step_backward), "zero": as_written(step_zero, step_zero_backward)}

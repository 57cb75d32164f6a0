"""One time step of one alpha neuron and its backward; equations in ``__init__.py``.

The state is (e[t-1], h[t-1], m[t-1]), ``p`` is (alpha, beta, tau).
"""

from __future__ import annotations

import numpy as np

from ....kernels.rounding import times
from ..resets import as_written

STATES, PARAMS, READS_INPUT = ("syn_exc", "syn_inh", "membrane"), ("alpha", "beta", "tau"), True

ZERO = np.float32(0)  # a Python literal would turn float32 arithmetic into float64


def step_none(state, x, r, threshold, p):
    """(e[t-1], h[t-1], m[t-1]), x[t] -> (e[t], h[t], m[t])."""
    (e, h, _), (alpha, beta, tau) = state, p
    e, h = times(alpha, e) + x, times(beta, h) - x  # (1), (2)
    return e, h, times(tau, e + h)  # (3)


def step_none_backward(g, state, x, r, threshold, p):
    """g[t] of (e, h, m) -> (carry to t - 1), dx, dthreshold, (dalpha, dbeta, dtau)."""
    (g_e, g_h, g_m), (e, h, _), (alpha, beta, tau) = g, state, p
    total = alpha * e + x + (beta * h - x)
    g_e, g_h = g_e + tau * g_m, g_h + tau * g_m  # (6)
    return (alpha * g_e, beta * g_h, ZERO), g_e - g_h, ZERO, (g_e * e, g_h * h, g_m * total)  # (7), (8)


def step_zero(state, x, r, threshold, p):
    """(e[t-1], h[t-1], m[t-1]), x[t] -> (e[t], h[t], m[t])."""
    (e, h, _), (alpha, beta, tau) = state, p
    e, h = times(alpha, e) + x, times(beta, h) - x
    m = times(tau, e + h)
    return ZERO if r else e, ZERO if r else h, ZERO if r else m  # (4b)


def step_zero_backward(g, state, x, r, threshold, p):
    """g[t] of (e, h, m) -> (carry to t - 1), dx, dthreshold, (dalpha, dbeta, dtau)."""
    (g_e, g_h, g_m), (e, h, _), (alpha, beta, tau) = g, state, p
    total = alpha * e + x + (beta * h - x)
    g_e, g_h, g_m = ZERO if r else g_e, ZERO if r else g_h, ZERO if r else g_m
    g_e, g_h = g_e + tau * g_m, g_h + tau * g_m
    return (alpha * g_e, beta * g_h, ZERO), g_e - g_h, ZERO, (g_e * e, g_h * h, g_m * total)


def step_subtract(state, x, r, threshold, p):
    """(e[t-1], h[t-1], m[t-1]), x[t] -> (e[t], h[t], m[t])."""
    (before_e, before_h, _), (alpha, beta, tau) = state, p
    e, h = times(alpha, before_e) + x, times(beta, before_h) - x
    m = times(tau, e + h)
    return e - threshold if r else e, ZERO if r else h, m + before_h if r else m  # (4a)


def step_subtract_backward(g, state, x, r, threshold, p):
    """g[t] of (e, h, m) -> (carry to t - 1), dx, dthreshold, (dalpha, dbeta, dtau)."""
    (g_e, g_h, g_m), (e, h, _), (alpha, beta, tau) = g, state, p
    total = alpha * e + x + (beta * h - x)
    dthreshold, past = -g_e if r else ZERO, g_m if r else ZERO
    g_e, g_h = g_e + tau * g_m, (ZERO if r else g_h) + tau * g_m
    return (alpha * g_e, beta * g_h + past, ZERO), g_e - g_h, dthreshold, (g_e * e, g_h * h, g_m * total)


RESETS = {
    "subtract": as_written(step_subtract, step_subtract_backward),
    "zero": as_written(step_zero, step_zero_backward),
    "none": as_written(step_none, step_none_backward),
}

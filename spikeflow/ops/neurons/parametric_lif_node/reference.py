"""One step of the parametric leaky integrate-and-fire node in NumPy, line by line as in ``__init__.py``; shares nothing with
``scalar.py``."""

from __future__ import annotations


def step(state, x, r, threshold, own, reset):
    """[m[t-1]] (M,), x[t] (M,), own = [v_reset, q] -> [u[t]]."""
    (m,), (v_reset, q) = state, own
    return [m + (x - (m - v_reset)) * q]  # (1a)


def step_backward(g, state, x, r, threshold, own, reset):
    """[du[t]] (M,) -> [carry to t - 1], dx, dthreshold, [0, dq], each (M,)."""
    (du,), (m,), (v_reset, q) = g, state, own
    return [(1 - q) * du], q * du, 0 * du, [0 * du, (x + v_reset - m) * du]  # (4), (6a), (7a)


def step_undecayed(state, x, r, threshold, own, reset):
    """[m[t-1]] (M,), x[t] (M,), own = [v_reset, q] -> [u[t]]."""
    (m,), (v_reset, q) = state, own
    return [m - (m - v_reset) * q + x]  # (1b)


def step_undecayed_backward(g, state, x, r, threshold, own, reset):
    """[du[t]] (M,) -> [carry to t - 1], dx, dthreshold, [0, dq], each (M,)."""
    (du,), (m,), (v_reset, q) = g, state, own
    return [(1 - q) * du], du, 0 * du, [0 * du, (v_reset - m) * du]  # (4), (6b), (7b)

"""One step of the leaky integrate-and-fire node in NumPy, line by line as in ``__init__.py``; shares nothing with
``scalar.py``."""

from __future__ import annotations


def step(state, x, r, threshold, own, reset):
    """[m[t-1]] (M,), x[t] (M,), own = [v_reset, tau] -> [u[t]]."""
    (m,), (v_reset, tau) = state, own
    return [m + (x - (m - v_reset)) / tau]  # (1a)


def step_backward(g, state, x, r, threshold, own, reset):
    """[du[t]] (M,) -> [carry to t - 1], dx, dthreshold, [0, 0], each (M,)."""
    (du,), (_, tau) = g, own
    return [(1 - 1 / tau) * du], du / tau, 0 * du, [0 * du, 0 * du]  # (4), (6a)


def step_undecayed(state, x, r, threshold, own, reset):
    """[m[t-1]] (M,), x[t] (M,), own = [v_reset, tau] -> [u[t]]."""
    (m,), (v_reset, tau) = state, own
    return [m - (m - v_reset) / tau + x]  # (1b)


def step_undecayed_backward(g, state, x, r, threshold, own, reset):
    """[du[t]] (M,) -> [carry to t - 1], dx, dthreshold, [0, 0], each (M,)."""
    (du,), (_, tau) = g, own
    return [(1 - 1 / tau) * du], du, 0 * du, [0 * du, 0 * du]  # (4), (6b)

"""One step of the integrate-and-fire neuron in NumPy, line by line as in ``__init__.py``; shares nothing with ``scalar.py``."""

from __future__ import annotations


def step(state, x, r, threshold, own, reset):
    """[m[t-1]] (M,), x[t] (M,) -> [u[t]]."""
    (m,) = state
    return [m + x]  # (1)


def step_backward(g, state, x, r, threshold, own, reset):
    """[du[t]] (M,) -> [carry to t - 1], dx, dthreshold, [0], each (M,)."""
    (du,) = g
    return [du], du, 0 * du, [0 * du]  # (4), (6)

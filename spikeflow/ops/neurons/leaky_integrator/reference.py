"""One step of the leaky integrator in NumPy, line by line as in ``__init__.py``; shares nothing with ``scalar.py``."""

from __future__ import annotations


def step(state, x, r, threshold, own, reset):
    """[m[t-1]] (M,), x[t] (M,), own = [beta] -> [m[t]]."""
    (m,), (beta,) = state, own
    return [beta * m + x]  # (1)


def step_backward(g, state, x, r, threshold, own, reset):
    """[g[t]] (M,) -> [carry to t - 1], dx, dthreshold, [dbeta], each (M,)."""
    (g,), (m,), (beta,) = g, state, own
    return [beta * g], g, 0 * g, [g * m]  # (2) to (4)

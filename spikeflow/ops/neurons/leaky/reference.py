"""One step of the leaky neuron in NumPy, line by line as in ``__init__.py``; shares nothing with ``scalar.py``."""

from __future__ import annotations

import numpy as np


def step(state, x, r, threshold, own, reset):
    """[m[t-1]] (M,), x[t] (M,), r[t] 0 or 1, own = [beta] -> [m[t]]."""
    (m,), (beta,) = state, own
    if reset == "subtract":
        return [beta * m + x - threshold * r]  # (2a)
    if reset == "zero":
        return [beta * ((1 - r) * m) + x]  # (2b)
    return [beta * m + x]  # (2c)


def step_backward(g, state, x, r, threshold, own, reset):
    """[g[t]] (M,) -> [carry to t - 1], dx, dthreshold, [dbeta], each (M,)."""
    (g,), (m,), (beta,) = g, state, own
    k = 1 - r if reset == "zero" else np.ones_like(r)
    dthreshold = -g * r if reset == "subtract" else 0 * g
    return [beta * k * g], g, dthreshold, [g * k * m]  # (4) to (7)

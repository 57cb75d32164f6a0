"""One step of the synaptic neuron in NumPy, line by line as in ``__init__.py``; shares nothing with ``scalar.py``."""

from __future__ import annotations


def step(state, x, r, threshold, own, reset):
    """[i[t-1], m[t-1]] (M,), x[t] (M,), r[t] 0 or 1, own = [alpha, beta] -> [i[t], m[t]]."""
    (i, m), (alpha, beta) = state, own
    i = alpha * i + x  # (1)
    base = beta * m + i
    if reset == "subtract":
        return [i, base - threshold * r]  # (2a)
    if reset == "zero":
        return [i, (1 - r) * base]  # (2b)
    return [i, base]  # (2c)


def step_backward(g, state, x, r, threshold, own, reset):
    """[carried dL/di[t], g[t]] (M,) -> [carries to t - 1], dx, dthreshold, [dalpha, dbeta], each (M,)."""
    (carried, g), (i, m), (alpha, beta) = g, state, own
    dbase = (1 - r) * g if reset == "zero" else g
    dthreshold = -g * r if reset == "subtract" else 0 * g
    di = carried + dbase
    return [alpha * di, beta * dbase], di, dthreshold, [di * i, dbase * m]

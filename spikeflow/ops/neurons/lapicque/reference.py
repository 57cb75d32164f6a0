"""One step of the Lapicque neuron in NumPy, line by line as in ``__init__.py``; shares nothing with ``scalar.py``."""

from __future__ import annotations


def step(state, x, r, threshold, own, reset):
    """[m[t-1]] (M,), x[t] (M,), r[t] 0 or 1, own = [beta, gain] -> [m[t]]."""
    (m,), (beta, gain) = state, own
    base = gain * x + beta * m
    if reset == "subtract":
        return [base - threshold * r]  # (2a)
    if reset == "zero":
        return [(1 - r) * base]  # (2b)
    return [base]  # (2c)


def step_backward(g, state, x, r, threshold, own, reset):
    """[g[t]] (M,) -> [carry to t - 1], dx, dthreshold, [dbeta, dgain], each (M,)."""
    (g,), (m,), (beta, gain) = g, state, own
    dbase = (1 - r) * g if reset == "zero" else g
    dthreshold = -g * r if reset == "subtract" else 0 * g
    return [beta * dbase], gain * dbase, dthreshold, [dbase * m, dbase * x]

"""One step of the recurrent leaky neuron in NumPy, line by line as in ``__init__.py``; shares nothing with ``scalar.py``."""

from __future__ import annotations


def step(state, i, r, threshold, own, reset):
    """[m[t-1]] (M,), i[t] (M,), r[t] 0 or 1, own = [beta] -> [m[t]]."""
    (m,), (beta,) = state, own
    base = beta * m + i  # (2)
    if reset == "subtract":
        return [base - threshold * r]  # (3a)
    return [(1 - r) * base if reset == "zero" else base]  # (3b), (3c)


def step_backward(g, state, i, r, threshold, own, reset):
    """[g[t]] (M,) -> [carry to t - 1], di, dthreshold, [dbeta], each (M,)."""
    (g,), (m,), (beta,) = g, state, own
    dbase = (1 - r) * g if reset == "zero" else g
    return [beta * dbase], dbase, -g * r if reset == "subtract" else 0 * g, [dbase * m]

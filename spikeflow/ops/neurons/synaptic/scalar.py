"""One time step of one synaptic neuron and its backward; equations in ``__init__.py``.

The state is (i[t-1], m[t-1]), ``p`` is (alpha, beta).
"""

from __future__ import annotations

from ....kernels.rounding import times
from ..resets import delayed

STATES, PARAMS, READS_INPUT = ("syn", "membrane"), ("alpha", "beta"), False


def step(state, x, p):
    """(i[t-1], m[t-1]), x[t] -> (i[t], m[t]) without a reset."""
    (i, m), (alpha, beta) = state, p
    i = times(alpha, i) + x  # (1)
    return i, times(beta, m) + i  # (2)


def step_backward(g, state, x, p):
    """(alpha j[t+1], k g[t]), (i[t-1], m[t-1]) -> (carry to t - 1), dx, (dalpha, dbeta)."""
    (carried, g_m), (i, m), (alpha, beta) = g, state, p
    j = g_m + carried  # (5)
    return (alpha * j, beta * g_m), j, (j * i, g_m * m)  # (4) to (7)


RESETS = delayed(step, step_backward)

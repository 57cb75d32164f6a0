"""One time step of one Lapicque neuron and its backward; equations in ``__init__.py``.

The state is (m[t-1],), ``p`` is (beta, gain).
"""

from __future__ import annotations

from ....kernels.rounding import times
from ..resets import delayed

STATES, PARAMS, READS_INPUT = ("membrane",), ("beta", "gain"), True


def step(state, x, p):
    """(m[t-1],), x[t] -> (m[t],) without a reset."""
    (m,), (beta, gain) = state, p
    return (times(gain, x) + times(beta, m),)  # (2)


def step_backward(g, state, x, p):
    """(g[t],), (m[t-1],), x[t] -> (carry to t - 1,), dx, (dbeta, dgain)."""
    (g_m,), (m,), (beta, gain) = g, state, p
    return (beta * g_m,), gain * g_m, (g_m * m, g_m * x)  # (4), (5), (6)


RESETS = delayed(step, step_backward)

"""One time step of one parametric leaky integrate-and-fire node and its backward, up to the reset; equations in ``__init__.py``.

The state is (m[t-1],), ``p`` is (v_reset, q).
"""

from __future__ import annotations

import numpy as np

from ....kernels.rounding import times
from ..resets import in_own_step

STATES, PARAMS, READS_INPUT = ("membrane",), ("v_reset", "q"), True

ZERO = np.float32(0)


def step(state, x, p):
    """(m[t-1],), x[t] -> (u[t],)."""
    (m,), (v_reset, q) = state, p
    return (m + times(x - (m - v_reset), q),)  # (1a)


def step_backward(g, state, x, p):
    """(du[t],), (m[t-1],), x[t] -> (carry to t - 1,), dx, (0, dq)."""
    (du,), (m,), (v_reset, q) = g, state, p
    share = du * q
    return (du - share,), share, (ZERO, du * (x - (m - v_reset)))  # (4), (6a), (7a)


def step_undecayed(state, x, p):
    """(m[t-1],), x[t] -> (u[t],)."""
    (m,), (v_reset, q) = state, p
    return (m - times(m - v_reset, q) + x,)  # (1b)


def step_undecayed_backward(g, state, x, p):
    """(du[t],), (m[t-1],) -> (carry to t - 1,), dx, (0, dq)."""
    (du,), (m,), (v_reset, q) = g, state, p
    return (du - du * q,), du, (ZERO, -du * (m - v_reset))  # (4), (6b), (7b)


RESETS = in_own_step(step, step_backward)
UNDECAYED = in_own_step(step_undecayed, step_undecayed_backward)

"""One time step of one leaky integrate-and-fire node and its backward, up to the reset; equations in ``__init__.py``.

The state is (m[t-1],), ``p`` is (v_reset, tau). Divided is by tau, as SpikingJelly does it on a CPU: a product with 1 / tau would
round otherwise.
"""

from __future__ import annotations

import numpy as np

from ..resets import in_own_step

STATES, PARAMS, READS_INPUT = ("membrane",), ("v_reset", "tau"), False

ZERO = np.float32(0)


def step(state, x, p):
    """(m[t-1],), x[t] -> (u[t],)."""
    (m,), (v_reset, tau) = state, p
    return (m + (x - (m - v_reset)) / tau,)  # (1a)


def step_backward(g, state, x, p):
    """(du[t],) -> (carry to t - 1,), dx, (0, 0)."""
    (du,), (_, tau) = g, p
    share = du / tau
    return (du - share,), share, (ZERO, ZERO)  # (4), (6a)


def step_undecayed(state, x, p):
    """(m[t-1],), x[t] -> (u[t],)."""
    (m,), (v_reset, tau) = state, p
    return (m - (m - v_reset) / tau + x,)  # (1b)


def step_undecayed_backward(g, state, x, p):
    """(du[t],) -> (carry to t - 1,), dx, (0, 0)."""
    (du,), (_, tau) = g, p
    return (du - du / tau,), du, (ZERO, ZERO)  # (4), (6b)


RESETS = in_own_step(step, step_backward)
UNDECAYED = in_own_step(step_undecayed, step_undecayed_backward)

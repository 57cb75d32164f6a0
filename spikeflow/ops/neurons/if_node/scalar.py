"""One time step of one integrate-and-fire neuron and its backward, up to the reset; equations in ``__init__.py``.

The state is (m[t-1],), ``p`` is (v_reset,).
"""

from __future__ import annotations

import numpy as np

from ..resets import in_own_step

STATES, PARAMS, READS_INPUT = ("membrane",), ("v_reset",), False

ZERO = np.float32(0)


def step(state, x, p):
    """(m[t-1],), x[t] -> (u[t],)."""
    return (state[0] + x,)  # (1)


def step_backward(g, state, x, p):
    """(du[t],) -> (carry to t - 1,), dx, (0,)."""
    return g, g[0], (ZERO,)  # (4), (6)


RESETS = in_own_step(step, step_backward)

"""How a spike resets the membrane: shared by all neurons, as scalar functions of scalars.

Threshold theta, reset flag r[t] = H(m[t-1] - theta), detached; u[t] the membrane that is compared with theta, s[t] = H(u[t] -
theta).

One step later (``delayed``).  From the membrane b[t] that a neuron's own step gives,

    subtract   u[t] = b[t] - theta r[t]             db = du             dtheta -= r du                                  (R1)
    zero       u[t] = (1 - r[t]) b[t]               db = (1 - r) du                                                     (R2)
    none       u[t] = b[t]                          db = du                                                             (R3)

and u[t] is the membrane m[t] that is given out and carried on.

In the same step (``at_once``, snnTorch's ``reset_delay=False``).  The rules above stay: what is still above threshold after its
reset is reset once more at the next step. So r, which has been dealt with, is left out now:

    subtract   m[t] = u[t] - (s[t] - r[t]) theta                                                                        (R4)
    zero       m[t] = u[t] - (s[t] - r[t]) u[t]                                                                         (R5)

Here s is not detached. With n = dL/dm[t], ds = dL/ds[t] and slope = P'(u[t] - theta), the derivative of s,

    delayed, none   du = n + slope ds                              dtheta -= slope ds                                   (R6)
    subtract        du = n + slope (ds - theta n)                  dtheta -= slope (ds - theta n) + (s - r) n           (R7)
    zero            du = (1 - s + r) n + slope (ds - u n)          dtheta -= slope (ds - u n)                           (R8)

In the same step and in no other: nodes, SpikingJelly's neurons.  Here H(0) = 1, and the step knows no flag r.

    hard       m[t] = s[t] v_reset + (1 - s[t]) u[t]                                                                    (R9)
    soft       m[t] = u[t] - s[t] theta                                                                                (R10)

    hard       du = (1 - s) n + slope (ds + (v_reset - u) n)       dtheta -= slope (ds + (v_reset - u) n)              (R11)
    soft       du = n + slope (ds - theta n)                       dtheta -= slope (ds - theta n) + s n                (R12)

With ``detach`` the s of (R9) and (R10) is a constant, H's in the smooth twin too, and no n is multiplied by slope:

    hard       du = (1 - s) n + slope ds                           dtheta -= slope ds                                  (R13)
    soft       du = n + slope ds                                   dtheta -= slope ds + s n                            (R14)
"""

from __future__ import annotations

import functools

import numpy as np

from ...kernels.jit import inline
from ...kernels.rounding import times

__all__ = ["as_written", "at_once", "delayed", "in_own_step"]

ZERO, ONE = np.float32(0), np.float32(1)  # a Python literal would turn float32 arithmetic into float64


# A neuron's RESETS are {reset: make}, make() -> step, step_backward:  (state, x, r, threshold, p) -> new state;
# (g, state, x, r, threshold, p) -> dstate, dx, dthreshold, dp. They are made when they are asked for, since kernels that run in
# Python need other ones than compiled kernels do.


def as_written(step, step_backward):
    """-> make, for functions that know the reset."""
    return lambda: (step, step_backward)


def delayed(step, step_backward):
    """-> RESETS of a neuron whose own step knows no reset: step(state, x, p), step_backward(g, state, x, p) -> dstate, dx, dp."""
    return {reset: functools.partial(_delayed, reset, step, step_backward) for reset in ("subtract", "zero", "none")}


def _delayed(reset, step, step_backward):
    step, step_backward = inline(step), inline(step_backward)

    def step_subtract(state, x, r, threshold, p):
        new = step(state, x, p)
        return new[:-1] + (new[-1] - threshold if r else new[-1],)  # (R1)

    def step_subtract_backward(g, state, x, r, threshold, p):
        dstate, dx, dp = step_backward(g, state, x, p)
        return dstate, dx, -g[-1] if r else ZERO, dp  # (R1)

    def step_zero(state, x, r, threshold, p):
        new = step(state, x, p)
        return new[:-1] + (ZERO if r else new[-1],)  # (R2)

    def step_zero_backward(g, state, x, r, threshold, p):
        dstate, dx, dp = step_backward(g[:-1] + (ZERO if r else g[-1],), state, x, p)  # (R2)
        return dstate, dx, ZERO, dp

    def step_none(state, x, r, threshold, p):
        return step(state, x, p)  # (R3)

    def step_none_backward(g, state, x, r, threshold, p):
        dstate, dx, dp = step_backward(g, state, x, p)  # (R3)
        return dstate, dx, ZERO, dp

    return {
        "subtract": (step_subtract, step_subtract_backward),
        "zero": (step_zero, step_zero_backward),
        "none": (step_none, step_none_backward),
    }[reset]


def in_own_step(step, step_backward):
    """-> RESETS for a node's own step, which ends before the reset; arguments as in ``delayed``."""
    charge = delayed(step, step_backward)["none"]
    return {"hard": charge, "soft": charge}


# Resets in the spike's own step; ``own`` holds the neuron's own parameters, a node's v_reset first.


def keep(u, s, r, threshold, own):
    """u[t], s[t], r[t] -> m[t]."""
    return u


def keep_backward(n, ds, u, s, r, threshold, slope, own):
    """dL/dm[t], dL/ds[t] -> du, dthreshold."""
    return n + slope * ds, -slope * ds  # (R6)


def subtract(u, s, r, threshold, own):
    """u[t], s[t], r[t] -> m[t]."""
    return u - times(s - (ONE if r else ZERO), threshold)  # (R4)


def subtract_backward(n, ds, u, s, r, threshold, slope, own):
    """dL/dm[t], dL/ds[t] -> du, dthreshold."""
    through_spike = slope * (ds - threshold * n)
    return n + through_spike, -through_spike - (s - (ONE if r else ZERO)) * n  # (R7)


def zero(u, s, r, threshold, own):
    """u[t], s[t], r[t] -> m[t]."""
    return u - times(s - (ONE if r else ZERO), u)  # (R5)


def zero_backward(n, ds, u, s, r, threshold, slope, own):
    """dL/dm[t], dL/ds[t] -> du, dthreshold."""
    through_spike = slope * (ds - u * n)
    return (ONE - s + (ONE if r else ZERO)) * n + through_spike, -through_spike  # (R8)


def hard(u, s, r, threshold, own):
    """u[t], s[t] -> m[t]."""
    return times(s, own[0]) + times(ONE - s, u)  # (R9)


def hard_backward(n, ds, u, s, r, threshold, slope, own):
    """dL/dm[t], dL/ds[t] -> du, dthreshold."""
    through_spike = slope * (ds + (own[0] - u) * n)
    return (ONE - s) * n + through_spike, -through_spike  # (R11)


def hard_detached_backward(n, ds, u, s, r, threshold, slope, own):
    """dL/dm[t], dL/ds[t] -> du, dthreshold."""
    return (ONE - s) * n + slope * ds, -slope * ds  # (R13)


def soft(u, s, r, threshold, own):
    """u[t], s[t] -> m[t]."""
    return u - times(s, threshold)  # (R10)


def soft_backward(n, ds, u, s, r, threshold, slope, own):
    """dL/dm[t], dL/ds[t] -> du, dthreshold."""
    through_spike = slope * (ds - threshold * n)
    return n + through_spike, -through_spike - s * n  # (R12)


def soft_detached_backward(n, ds, u, s, r, threshold, slope, own):
    """dL/dm[t], dL/ds[t] -> du, dthreshold."""
    return n + slope * ds, -slope * ds - s * n  # (R14)


ATTACHED = {
    "subtract": (subtract, subtract_backward),
    "zero": (zero, zero_backward),
    "none": (keep, keep_backward),
    "hard": (hard, hard_backward),
    "soft": (soft, soft_backward),
}
DETACHED = {"hard": (hard, hard_detached_backward), "soft": (soft, soft_detached_backward)}


def at_once(reset, detach):
    """-> (reset, its backward) in the spike's own step."""
    return (DETACHED if detach else ATTACHED)[reset]

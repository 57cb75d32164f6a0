"""One step of one neuron with all that its options add to its own step: recurrence, threshold, inhibition, grading, reset.

    i[t]   = x[t] + V z[t-1]                    the current, with ``feedback``                                          (S1)
    r[t]   = H(m[t-1] - theta)                  the reset flag, which a node does not have                              (S2)
    u[t]   = the neuron's own step from i[t] and r[t]                                                                   (S3)
    s[t]   = H(u[t] - theta)                    with ``inhibition`` 0 unless u[t] - theta is the sample's largest;
                                                H(0) = 0, of a node 1                                                   (S4)
    z[t]   = f s[t]                             what is given out; f = graded_spikes_factor, 1 unless ``graded``        (S5)
    m[t]   = u[t], or (R4), (R5), of a node (R9), (R10)                                                                 (S6)

Backward, dz[t] = dL/dz[t] from outside, n[t] = dL/dm[t] with what is carried from t + 1, di[t+1] the current's gradient there:

    dz[t] += V di[t+1],     dV += di[t+1] z[t]                                                                          (S7)
    ds[t]  = f dz[t],       df += dz[t] s[t]                                                                            (S8)
    du[t], dtheta           from n[t] and ds[t], by (R6) to (R8), of a node (R11) to (R14)                              (S9)
    di[t], what is carried to t - 1, dtheta, and the gradients of its own parameters: the neuron's own step backward   (S10)

r and the choice of the winner are constants for the derivative. ``p`` holds theta, f and V, then the neuron's own parameters.
Before the first step all states are 0, but a node's membrane is m[-1] = v_reset.
"""

from __future__ import annotations

import numpy as np

from ...kernels.jit import inline
from ...kernels.rounding import times
from .model import COMMON, Key, scalar
from .resets import at_once

__all__ = ["make_forced_step", "make_start", "make_step", "make_step_backward", "resets_at_once"]

ZERO, ONE = np.float32(0), np.float32(1)
OWN = len(COMMON)


def resets_at_once(key: Key) -> bool:
    """Does a spike reset the membrane in its own step?"""
    return key.node or (key.fires and not key.reset_delay and key.reset != "none")


def make_start(key: Key):
    """-> start(p): the state before the first step."""
    zeros = (ZERO,) * len(scalar(key.neuron).STATES)
    return inline((lambda p: (p[OWN],)) if key.node else (lambda p: zeros))


def own_step(key: Key):
    """-> step, step_backward: the neuron's own, as in its folder."""
    module = scalar(key.neuron)
    return (module.RESETS if key.decay_input else module.UNDECAYED)[key.reset]()


def settling(key: Key):
    """-> (reset, its backward) in the spike's own step."""
    return at_once(key.reset if resets_at_once(key) else "none", key.detach)


def make_step(key: Key, smooth, primitive):
    """-> advance(state, x, z, wins, p, constants): the new state, u[t], whether the neuron fires, z[t]; ``z`` is z[t-1]."""
    inhibits, feedback, graded, detach, inclusive = key.inhibition, key.feedback, key.graded, key.detach, key.node
    own, settle, primitive = inline(own_step(key)[0]), inline(settling(key)[0]), inline(primitive)
    settles = resets_at_once(key)

    def advance(state, x, z, wins, p, constants):
        threshold = p[0]
        current = x + times(p[2], z) if feedback else x  # (S1)
        r = state[-1] > threshold  # (S2)
        new = own(state, current, r, threshold, p[OWN:])  # (S3)
        u = new[-1]
        fired = u >= threshold if inclusive else u > threshold  # (S4)
        if inhibits:
            fired = fired and wins
        spike = ONE if fired else ZERO
        if smooth:
            spike = primitive(u - threshold, constants)
            if inhibits:
                spike = spike if wins else ZERO
        if settles:
            resetting = (ONE if fired else ZERO) if detach else spike
            new = new[:-1] + (settle(u, resetting, r, threshold, p[OWN:]),)  # (S6)
        if graded:
            spike = times(p[1], spike)  # (S5)
        return new, u, fired, spike

    def integrate(state, x, z, wins, p, constants):
        new = own(state, x, False, p[0], p[OWN:])  # (S3)
        return new, new[-1], False, ZERO

    return inline(advance if key.fires else integrate)


def make_forced_step(key: Key):
    """-> force(state, x, fires, edges, p): the new state and u[t] of a neuron that fires as ``fires`` says.

    For a run from rounded currents. u[t] is moved where need be: to at least edges[0], the lowest u that fires, or to at most
    edges[1], the highest that does not.
    """
    own, settle, settles = inline(own_step(key)[0]), inline(settling(key)[0]), resets_at_once(key)

    def force(state, x, fires, edges, p):
        threshold = p[0]
        r = state[-1] > threshold  # (S2)
        new = own(state, x, r, threshold, p[OWN:])  # (S3)
        u = max(new[-1], edges[0]) if fires else min(new[-1], edges[1])
        last = settle(u, ONE if fires else ZERO, r, threshold, p[OWN:]) if settles else u  # (S6)
        return new[:-1] + (last,), u

    return inline(force)


def make_step_backward(key: Key, smooth, primitive, derivative):
    """-> retreat(g, dz, dback, cut, state, x, u, wins, p, constants): dstate, dx, gradients of all params.

    g is dL/dstate[t] as given out, dback = di[t+1]; ``cut``: it is not carried on to z[t], the state having been detached.
    """
    inhibits, feedback, graded, detach, inclusive = key.inhibition, key.feedback, key.graded, key.detach, key.node
    own_backward, settle_backward = inline(own_step(key)[1]), inline(settling(key)[1])
    primitive, derivative = inline(primitive), inline(derivative)

    def retreat(g, dz, dback, cut, state, x, u, wins, p, constants):
        threshold, dfactor, dV = p[0], ZERO, ZERO
        r, slope = state[-1] > threshold, derivative(u - threshold, constants)
        flag = ONE if (u >= threshold if inclusive else u > threshold) else ZERO
        spike = flag
        if smooth:
            spike = primitive(u - threshold, constants)
        if inhibits:
            slope, spike = slope if wins else ZERO, spike if wins else ZERO
        if feedback:
            dV = dback * (p[1] * spike if graded else spike)
            dz = dz + (ZERO if cut else p[2] * dback)  # (S7)
        if graded:
            dfactor = dz * spike
            dz = p[1] * dz  # (S8)
        resetting = flag if detach else spike
        du, dfired = settle_backward(g[-1], dz, u, resetting, r, threshold, slope, p[OWN:])  # (S9)
        dstate, dx, dthreshold, down = own_backward(g[:-1] + (du,), state, x, r, threshold, p[OWN:])  # (S10)
        return dstate, dx, (dfired + dthreshold, dfactor, dV) + down

    def integrate_backward(g, dz, dback, cut, state, x, u, wins, p, constants):
        dstate, dx, dthreshold, down = own_backward(g, state, x, False, p[0], p[OWN:])
        return dstate, dx, (ZERO, ZERO, ZERO) + down

    return inline(retreat if key.fires else integrate_backward)

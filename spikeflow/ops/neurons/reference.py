"""The loops over time in NumPy, line by line as (S1) to (S10) of ``step.py``; they share no line with it, nor with any
scalar.py."""

from __future__ import annotations

import numpy as np

from .model import COMMON, Model, Trajectory

OWN = len(COMMON)


def neuron_forward(
    model: Model, x, num_steps, params, state=None, smooth=False, words=False, keep=True, keep_states=True, flags=None,
    winners=None
):  # fmt: skip
    """x (T or 1, M) -> spikes (T, M), Trajectory.

    One row of x is a constant current. params (P, 1), or (P, F) for M / F samples of F features. ``state`` (S, M), by default
    ``model.initial_state``, is what is carried into the first step, and then, in place, out of the last. ``smooth`` runs the
    surrogate's primitive in place of H in (S4): the smooth twin. Given ``flags`` (T, M) replace the reset flags of (S2), or the
    spikes of a node's detached reset, and given ``winners`` (T, M) the choice of (S4), all of which finite differences must hold
    fixed. ``words``, ``keep`` and ``keep_states`` are accepted and ignored.
    """
    T, M, S = num_steps, x.shape[1], len(model.states)
    step = model.reference.step if model.decay_input else model.reference.step_undecayed
    (threshold, factor, V), own = _columns(params, M)
    carried = np.tile(model.initial_state(params), M // params.shape[1]) if state is None else state.copy()
    rows, before, spikes = np.zeros((S, T + 1, M), x.dtype), np.zeros((T, M), x.dtype), np.zeros((T, M), x.dtype)
    rows[:, 0] = carried
    last = S - 2 if model.feedback else S - 1  # the membrane's row
    for t in range(T):
        states, current = list(rows[:, t]), x[min(t, len(x) - 1)]
        m = states[last]
        if model.feedback:
            current = current + V * states.pop()  # (S1)
        r = (m > threshold if flags is None else flags[t]).astype(x.dtype)  # (S2)
        if not model.fires or _is_node(model):
            r = np.zeros_like(r)
        new = step(states, current, r, threshold, own, model.reset)  # (S3)
        u = before[t] = new[-1]
        if model.fires:
            fired = _fired(model, u, threshold)
            s = model.surrogate.of_array(model.surrogate.primitive, u - threshold) if smooth else fired
            if model.inhibition:
                s = s * (_winners(u - threshold, params.shape[1]) if winners is None else winners[t])  # (S4)
            spikes[t] = factor * s if model.graded else s  # (S5)
            if not model.reset_delay and model.reset == "subtract":
                new[-1] = u - (s - r) * threshold  # (S6)
            elif not model.reset_delay and model.reset == "zero":
                new[-1] = u - (s - r) * u  # (S6)
            elif _is_node(model):
                resetting = s if not model.detach else fired if flags is None else flags[t].astype(x.dtype)
                new[-1] = _node_reset(model, u, resetting, threshold, own)  # (S6)
        rows[: last + 1, t + 1] = new
        if model.feedback:
            rows[S - 1, t + 1] = spikes[t]
    if state is not None:
        state[...] = rows[:, T]
    fed_back = rows[S - 1, 0] if model.feedback else np.zeros(0, x.dtype)
    return spikes, Trajectory(rows[last], before, rows[:last], fed_back)


def neuron_backward(
    model: Model, dspikes, dmembrane, trajectory, input_steps, params, x=None, learns=(), truncate=None, carry=None, smooth=False,
    trace=None,
):  # fmt: skip
    """dspikes, dmembrane (T, M) or None -> dx (input_steps, M), dparams (P, 1 or F) float64.

    ``learns``: which rows of dparams are wanted, P flags; none without it, and dparams is None. x is the forward pass's, for
    neurons whose own parameters' gradients read it. ``carry`` (S, M) is what comes back in time from the step behind the last,
    zeros by default, and then, in place, what goes to the step before the first. ``truncate`` = K: nothing is carried across the
    steps K, 2 K, ... ``trace`` (T, M) is filled with dL/du, of the membranes that are compared with the threshold.
    """
    membrane, before, states, fed_back = trajectory
    T, M, dtype = len(membrane) - 1, membrane.shape[1], membrane.dtype
    step_backward = model.reference.step_backward if model.decay_input else model.reference.step_undecayed_backward
    (threshold, factor, V), own = _columns(params, M)
    zeros = np.zeros(M, dtype)
    g = [zeros] * (len(model.states) - model.feedback) if carry is None else list(carry[: len(model.states) - model.feedback])
    dback = carry[-1].copy() if carry is not None and model.feedback else zeros
    dx, sums = np.zeros((input_steps, M), dtype), np.zeros((len(params), M))
    for t in reversed(range(T)):
        m, u = membrane[t], before[t] if before is not None and len(before) else membrane[t + 1]
        r = (m > threshold).astype(dtype) if model.fires and not _is_node(model) else zeros
        cut = truncate is not None and t + 1 < T and (t + 1) % truncate == 0
        if cut:
            g = [zeros] * len(g)
        n = g[-1] if dmembrane is None else g[-1] + dmembrane[t]
        du = n
        if model.fires:
            dz = zeros if dspikes is None else dspikes[t]
            slope = model.surrogate.of_array(model.surrogate.derivative, u - threshold)
            fired = _fired(model, u, threshold)
            s = model.surrogate.of_array(model.surrogate.primitive, u - threshold) if smooth else fired
            if model.inhibition:
                wins = _winners(u - threshold, params.shape[1])
                slope, s = slope * wins, s * wins
            if model.feedback:
                sums[2] += dback * s * factor if model.graded else dback * s  # (S7)
                dz = dz if cut else dz + V * dback
            ds = dz
            if model.graded:
                ds = factor * dz  # (S8)
                sums[1] += dz * s
            if _is_node(model):
                du, dthreshold = _node_reset_backward(model, n, ds, u, fired if model.detach else s, slope, threshold, own)
                sums[0] += dthreshold
            elif model.reset_delay or model.reset == "none":
                du = n + slope * ds  # (R6)
                sums[0] -= slope * ds
            elif model.reset == "subtract":
                du = n + slope * (ds - threshold * n)  # (R7)
                sums[0] -= slope * (ds - threshold * n) + (s - r) * n
            else:
                du = (1 - s + r) * n + slope * (ds - u * n)  # (R8)
                sums[0] -= slope * (ds - u * n)
        if trace is not None:
            trace[t] = du
        state = [*(states[:, t] if states is not None and len(states) else [zeros] * (len(g) - 1)), m]
        current = zeros if x is None else x[min(t, len(x) - 1)]
        g, dback, dthreshold, down = step_backward([*g[:-1], du], state, current, r, threshold, own, model.reset)  # (S10)
        dx[min(t, input_steps - 1)] += dback
        sums[0] += dthreshold
        for row, gradient in zip(sums[OWN:], down, strict=True):
            row += gradient
    if model.feedback and carry is None:
        sums[2] += dback * fed_back  # (S7) before the first step, unless carried there
    if carry is not None:
        carry[...] = [*g, dback] if model.feedback else g
    return dx, sums.reshape(len(params), -1, params.shape[1]).sum(1) * np.reshape(learns, (-1, 1)) if any(learns) else None


def _is_node(model):
    return model.reset in ("hard", "soft")


def _fired(model, u, threshold):
    """u, threshold (M,) -> H(u - threshold) of (S4)."""
    return (u >= threshold if _is_node(model) else u > threshold).astype(u.dtype)


def _node_reset(model, u, s, threshold, own):
    """u, s (M,) -> m (M,)."""
    if model.reset == "soft":
        return u - s * threshold  # (R10)
    return s * own[0] + (1 - s) * u  # (R9)


def _node_reset_backward(model, n, ds, u, s, slope, threshold, own):
    """dL/dm, dL/ds, u, s (M,) -> du, dthreshold (M,)."""
    jump = -threshold if model.reset == "soft" else own[0] - u  # dm/ds
    ds = ds if model.detach else ds + jump * n
    du = n + slope * ds if model.reset == "soft" else (1 - s) * n + slope * ds  # (R11) to (R14)
    return du, -slope * ds - (s * n if model.reset == "soft" else 0)


def _columns(params, M):
    """params (P, 1 or F) -> the common ones, the neuron's own, each (M,)."""
    rows = [np.tile(row, M // len(row)) for row in params]
    return rows[:OWN], rows[OWN:]


def _winners(above, features):
    """u - threshold (M,) of samples of so many features -> 1 for the largest of each sample (the first of equals), else 0."""
    samples = above.reshape(-1, features)
    return (np.arange(features) == samples.argmax(1)[:, None]).astype(above.dtype).reshape(-1)

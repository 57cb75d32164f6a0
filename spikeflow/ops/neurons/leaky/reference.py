"""The leaky neuron in NumPy, line by line as in ``__init__.py``; shares nothing with ``scalar.py``."""

from __future__ import annotations

import numpy as np


def leaky_forward(x, num_steps, beta, threshold, reset, surrogate, smooth=False, flags=None):
    """x (T or 1, M) -> spikes (T, M), membrane (T + 1, M) whose row t + 1 is m[t] and row 0 is m[-1] = 0.

    One row of x is a constant current. ``smooth`` runs the surrogate's primitive in place of H in (3): the smooth twin. Given
    ``flags`` (T, M) replace the reset flags of (1), which finite differences must hold fixed.
    """
    T, M = num_steps, x.shape[1]
    membrane, spikes = np.zeros((T + 1, M), x.dtype), np.zeros((T, M), x.dtype)
    for t in range(T):
        current, m = x[min(t, len(x) - 1)], membrane[t]
        r = (m > threshold if flags is None else flags[t]).astype(x.dtype)  # (1)
        if reset == "subtract":
            m = beta * m + current - threshold * r  # (2a)
        elif reset == "zero":
            m = beta * ((1 - r) * m) + current  # (2b)
        else:
            m = beta * m + current  # (2c)
        membrane[t + 1] = m
        spikes[t] = _apply(surrogate.primitive, m - threshold, surrogate) if smooth else m > threshold  # (3)
    return spikes, membrane


def leaky_backward(dspikes, dmembrane, membrane, input_steps, beta, threshold, reset, surrogate, dbeta, dthreshold):
    """dspikes, dmembrane (T, M) or None, membrane (T + 1, M) -> dx (input_steps, M); adds into dbeta, dthreshold (1,) or None."""
    T, M = len(membrane) - 1, membrane.shape[1]
    dx, carry = np.zeros((input_steps, M), membrane.dtype), np.zeros(M, membrane.dtype)
    for t in reversed(range(T)):
        m, previous = membrane[t + 1], membrane[t]
        r = (previous > threshold).astype(m.dtype)
        k = 1 - r if reset == "zero" else np.ones_like(r)
        through_spike = np.zeros(M, m.dtype)
        if dspikes is not None:
            through_spike = dspikes[t] * _apply(surrogate.derivative, m - threshold, surrogate)
        g = through_spike + carry if dmembrane is None else through_spike + dmembrane[t] + carry  # (4)
        dx[min(t, input_steps - 1)] += g  # (5)
        if dbeta is not None:
            dbeta += (g * k * previous).sum(dtype=np.float64)  # (6)
        if dthreshold is not None:
            dthreshold -= (through_spike + (g * r if reset == "subtract" else 0)).sum(dtype=np.float64)  # (7)
        carry = beta * k * g
    return dx


def _apply(function, x, surrogate):
    """A surrogate's function over an array, in the array's own precision."""
    return function(x, tuple(x.dtype.type(value) for value in surrogate.constants))

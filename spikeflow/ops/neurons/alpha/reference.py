"""One step of the alpha neuron in NumPy, line by line as in ``__init__.py``; shares nothing with ``scalar.py``."""

from __future__ import annotations


def step(state, x, r, threshold, own, reset):
    """[e[t-1], h[t-1], m[t-1]] (M,), x[t] (M,), r[t] 0 or 1, own = [alpha, beta, tau] -> [e[t], h[t], m[t]]."""
    (e0, h0, _), (alpha, beta, tau) = state, own
    e = alpha * e0 + x  # (1)
    h = beta * h0 - x  # (2)
    m = tau * (e + h)  # (3)
    if reset == "subtract":
        return [e - threshold * r, h - h * r, m + h0 * r]  # (4a)
    if reset == "zero":
        return [(1 - r) * e, (1 - r) * h, (1 - r) * m]  # (4b)
    return [e, h, m]


def step_backward(g, state, x, r, threshold, own, reset):
    """[g_e, g_h, g_m] (M,) -> [carries to t - 1], dx, dthreshold, [dalpha, dbeta, dtau], each (M,)."""
    (g_e, g_h, g_m), (e0, h0, _), (alpha, beta, tau) = g, state, own
    dthreshold, past = 0 * g_e, 0 * g_e
    if reset == "subtract":
        dthreshold, past, g_h = -g_e * r, g_m * r, g_h * (1 - r)
    elif reset == "zero":
        g_e, g_h, g_m = g_e * (1 - r), g_h * (1 - r), g_m * (1 - r)
    de = g_e + tau * g_m
    dh = g_h + tau * g_m
    dtau = g_m * (alpha * e0 + x + beta * h0 - x)
    return [alpha * de, beta * dh + past, 0 * g_m], de - dh, dthreshold, [de * e0, dh * h0, dtau]

"""Backpropagation through time by hand: one leaky neuron, eight time steps, every number printed.

    python examples/bptt_by_hand.py

The equation numbers are those of ``spikeflow/ops/neurons/leaky/__init__.py``. The loss is L = sum_t w[t] s[t] with fixed weights
w, so that dL/ds[t] = w[t]. The smooth twin runs the surrogate's primitive P in place of the step; hand-derived gradients are
then exact, and finite differences show it.
"""

import numpy as np

from spikeflow import surrogate
from spikeflow.ops.neurons.model import Model
from spikeflow.ops.neurons.reference import neuron_forward

BETA, THRESHOLD, RESET = 0.8, 1.0, "subtract"
SURROGATE = surrogate.atan(alpha=2)
x = np.array([0.5, 0.7, 0.4, 0.9, 0.2, 0.6, 0.8, 0.3])  # input current
w = np.array([0.1, -0.4, 0.3, 0.8, -0.2, 0.5, -0.6, 0.7])  # dL/ds[t]


def run(x, beta=BETA, threshold=THRESHOLD, smooth=True, flags=None):
    """x (T) -> spikes (T), membrane (T + 1), of one neuron."""
    params = np.array([[threshold], [1.0], [1.0], [beta]])  # the factors of graded spikes and of feedback are not used
    spikes, kept = neuron_forward(Model("leaky", RESET, SURROGATE), x[:, None], len(x), params, smooth=smooth, flags=flags)
    return spikes[:, 0], kept.membrane[:, 0]


def by_hand(membrane):
    """membrane (T + 1) -> dx (T), dbeta, dthreshold, by equations (4) to (7), printed from the last step to the first."""
    dx, dbeta, dthreshold, carry = np.zeros_like(x), 0.0, 0.0, 0.0
    print("  t    m[t]   r[t]  P'(m-th)   ds P'    carry     g[t]")
    for t in reversed(range(len(x))):
        m, previous = membrane[t + 1], membrane[t]
        r = float(previous > THRESHOLD)  # (1)
        slope = SURROGATE.derivative(m - THRESHOLD, SURROGATE.constants)
        through_spike = w[t] * slope
        g = through_spike + carry  # (4)
        print(f"{t:3d} {m:8.4f} {r:5.0f} {slope:9.4f} {through_spike:8.4f} {carry:8.4f} {g:8.4f}")
        dx[t] = g  # (5)
        dbeta += g * previous  # (6)
        dthreshold -= through_spike + g * r  # (7)
        carry = BETA * g
    return dx, dbeta, dthreshold


def difference(change, h=1e-5):
    """dL/d(...) by central differences; ``change(h)`` runs the twin with one number moved by h."""
    return (w @ change(h)[0] - w @ change(-h)[0]) / (2 * h)


spikes, _ = run(x, smooth=False)
print("input    ", x)
print("spikes   ", spikes.astype(int), " of the real neuron")
smooth, membrane = run(x)
print("P(m - th)", smooth.round(3), " of its smooth twin\n")
dx, dbeta, dthreshold = by_hand(membrane)

flags = (membrane[:-1] > THRESHOLD)[:, None]  # the reset is detached: its flags stay as they were
unit = np.eye(len(x))
rows = [(f"dx[{t}]", dx[t], difference(lambda h, t=t: run(x + h * unit[t], flags=flags))) for t in range(len(x))]
rows.append(("dbeta", dbeta, difference(lambda h: run(x, beta=BETA + h, flags=flags))))
rows.append(("dthreshold", dthreshold, difference(lambda h: run(x, threshold=THRESHOLD + h, flags=flags))))
print("\ngradient      by hand   finite differences   difference")
for name, hand, numeric in rows:
    print(f"{name:<11} {hand:10.7f} {numeric:17.7f} {abs(hand - numeric):15.1e}")

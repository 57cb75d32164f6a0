"""SGD's step in NumPy."""

from __future__ import annotations


def sgd_step(value, grad, velocity, lr, momentum=0.0, share=1.0, decay=0.0, nesterov=False):
    """(1) to (3): changes value and velocity in place, arrays of one shape; velocity may be None without momentum."""
    g = grad + decay * value if decay else grad  # (1); 0 times an infinite value would be NaN
    if velocity is None:
        value -= lr * g
        return
    velocity[...] = velocity * momentum + share * g  # (2)
    value -= lr * (g + momentum * velocity if nesterov else velocity)  # (3)

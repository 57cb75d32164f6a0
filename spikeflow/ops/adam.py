"""One step of Adam or AdamW on one parameter: a single pass over its four arrays, where NumPy would take ten."""

from __future__ import annotations

import functools

import numpy as np

from .. import parallel
from .jit import kernel

__all__ = ["adam_step"]

PART = 2**16  # numbers in one task


def adam_step(value, grad, mean, square, b1, b2, step_size, root, eps, keep=1.0, decay=0.0):
    """Changes value, mean and square in place; equations in ``spikeflow.optim.Adam``; root = sqrt(1 - b2^k).

    First value = keep value, then grad + decay value takes the place of grad.
    """
    arrays = [array.reshape(-1) for array in (value, grad, mean, square)]
    numbers = np.array((1 - b1, b2, 1 - b2, step_size, root, eps, keep, decay), value.dtype)
    step = make_adam()

    def task(i):
        step(*(array[i * PART : (i + 1) * PART] for array in arrays), numbers)

    parallel.run(task, -(-value.size // PART))


@functools.cache
def make_adam():
    @kernel()
    def adam_kernel(value, grad, mean, square, numbers):
        """value, grad, mean, square (N); c = 1 - b."""
        c1, b2, c2, step_size = numbers[0], numbers[1], numbers[2], numbers[3]
        root, eps, keep, decay = numbers[4], numbers[5], numbers[6], numbers[7]
        for i in range(len(value)):
            kept = keep * value[i]
            g = grad[i] + decay * kept
            mean[i] += c1 * (g - mean[i])
            square[i] = square[i] * b2 + c2 * g * g
            value[i] = kept - step_size * mean[i] / (np.sqrt(square[i]) / root + eps)

    return adam_kernel

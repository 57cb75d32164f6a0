"""One step of Adam on one parameter: a single pass over its four arrays, where NumPy would take ten."""

from __future__ import annotations

import functools

import numpy as np

from .. import parallel
from .jit import kernel

__all__ = ["adam_step"]

PART = 2**16  # numbers in one task


def adam_step(value, grad, mean, square, b1, b2, step_size, root, eps):
    """Changes value, mean and square in place; equations in ``spikeflow.optim.Adam``; root = sqrt(1 - b2^k)."""
    arrays = [array.reshape(-1) for array in (value, grad, mean, square)]
    numbers = [value.dtype.type(number) for number in (1 - b1, b2, 1 - b2, step_size, root, eps)]
    step = make_adam()

    def task(i):
        step(*(array[i * PART : (i + 1) * PART] for array in arrays), *numbers)

    parallel.run(task, -(-value.size // PART))


@functools.cache
def make_adam():
    @kernel()
    def adam_kernel(value, grad, mean, square, c1, b2, c2, step_size, root, eps):
        """value, grad, mean, square (N); c = 1 - b."""
        for i in range(len(value)):
            mean[i] += c1 * (grad[i] - mean[i])
            square[i] = square[i] * b2 + c2 * grad[i] * grad[i]
            value[i] -= step_size * mean[i] / (np.sqrt(square[i]) / root + eps)

    return adam_kernel

"""Adam's step on the CPU: a single pass over four arrays, where NumPy would take ten."""

from __future__ import annotations

import functools

import numpy as np

from ...kernels.cpu import parallel
from ...kernels.jit import kernel

PART = 2**16  # numbers in one task


def adam_step(value, grad, mean, square, b1, b2, step_size, root, eps, keep=1.0, decay=0.0):
    """(1) to (4): changes value, mean and square in place, arrays of one shape."""
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
            g = grad[i] + decay * kept  # (1)
            mean[i] += c1 * (g - mean[i])  # (2)
            square[i] = square[i] * b2 + c2 * g * g  # (3)
            value[i] = kept - step_size * mean[i] / (np.sqrt(square[i]) / root + eps)  # (4)

    return adam_kernel

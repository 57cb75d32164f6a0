"""SGD's step on the CPU: a single pass over the arrays, where NumPy would take up to eight."""

from __future__ import annotations

import functools

import numpy as np

from ...kernels.cpu import parallel
from ...kernels.jit import kernel
from ..adam.cpu import PART


def sgd_step(value, grad, velocity, lr, momentum=0.0, share=1.0, decay=0.0, nesterov=False):
    """(1) to (3): changes value and velocity in place, arrays of one shape; velocity may be None without momentum.

    Every operation is rounded as NumPy's, in the same order: the bits are those of the formulas in array arithmetic.
    """
    arrays = [array.reshape(-1) for array in ((value, grad) if velocity is None else (value, grad, velocity))]
    numbers = np.array((lr, momentum, share, decay), value.dtype)
    step = make_sgd(velocity is not None, bool(nesterov), decay != 0)

    def task(i):
        step(*(array[i * PART : (i + 1) * PART] for array in arrays), numbers)

    parallel.run(task, -(-value.size // PART))


@functools.cache
def make_sgd(moves: bool, nesterov: bool, decays: bool):
    """The kernel of one kind of step: what it does not do costs nothing, and changes no bit."""
    if not moves:

        @kernel(decays)
        def plain_kernel(value, grad, numbers):
            """value, grad (N)."""
            lr, decay = numbers[0], numbers[3]
            for i in range(len(value)):
                g = grad[i] + decay * value[i] if decays else grad[i]
                value[i] -= lr * g

        return plain_kernel

    @kernel(nesterov, decays)
    def momentum_kernel(value, grad, velocity, numbers):
        """value, grad, velocity (N)."""
        lr, momentum, share, decay = numbers[0], numbers[1], numbers[2], numbers[3]
        for i in range(len(value)):
            g = grad[i] + decay * value[i] if decays else grad[i]
            v = velocity[i] * momentum + share * g
            velocity[i] = v
            value[i] -= lr * (g + momentum * v if nesterov else v)

    return momentum_kernel

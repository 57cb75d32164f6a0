"""Adam's step on the device: a thread for each number.

What changes from step to step is read from memory, so that a captured launch can be run again with other numbers there.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from ...kernels.cuda import gpu
from ...kernels.cuda.gpu import cuda


def adam_step(value, grad, mean, square, b1, b2, step_size, root, eps, keep=1.0, decay=0.0):
    """(1) to (4): changes value, mean and square in place, arrays of one shape."""
    numbers = gpu.to_device(np.array((1 - b1, b2, 1 - b2, step_size, root, eps, keep, decay), np.float32))
    arrays = [array.reshape(array.size) for array in (value, grad, mean, square)]
    gpu.launch(make_adam(), gpu.size(value.size), gpu.THREADS, *arrays, numbers, flops=14 * value.size)


@functools.cache
def make_adam():
    @gpu.kernel()
    def adam_kernel(value, grad, mean, square, numbers):
        """value, grad, mean, square (N); c = 1 - b."""
        i = cuda.grid(1)
        if i < value.size:
            c1, b2, c2, step_size = numbers[0], numbers[1], numbers[2], numbers[3]
            root, eps, keep, decay = numbers[4], numbers[5], numbers[6], numbers[7]
            kept = keep * value[i]
            g = grad[i] + decay * kept  # (1)
            m = mean[i] + c1 * (g - mean[i])  # (2)
            v = square[i] * b2 + c2 * g * g  # (3)
            mean[i], square[i] = m, v
            value[i] = kept - step_size * m / (math.sqrt(v) / root + eps)  # (4)

    return adam_kernel

"""SGD's step on the device: a thread for each number.

What changes from step to step is read from memory, so that a captured launch can be run again with other numbers there.
"""

from __future__ import annotations

import functools

import numpy as np

from ...kernels.cuda import gpu
from ...kernels.cuda.gpu import cuda


def sgd_step(value, grad, velocity, lr, momentum=0.0, share=1.0, decay=0.0, nesterov=False):
    """(1) to (3): changes value and velocity in place, arrays of one shape; velocity may be None without momentum."""
    numbers = gpu.to_device(np.array((lr, momentum, share, decay), np.float32))
    arrays = [array.reshape(array.size) for array in ((value, grad) if velocity is None else (value, grad, velocity))]
    kernel = make_sgd(velocity is not None, bool(nesterov), decay != 0)
    gpu.launch(kernel, gpu.size(value.size), gpu.THREADS, *arrays, numbers, flops=(2 + 2 * len(arrays)) * value.size)


@functools.cache
def make_sgd(moves: bool, nesterov: bool, decays: bool):
    """The kernel of one kind of step; without decay nothing is added, since 0 times an infinite value would be NaN."""
    kind = [name for name, on in (("nesterov", nesterov), ("decay", decays)) if on]
    if not moves:

        @gpu.kernel(*kind)
        def sgd_kernel(value, grad, numbers):
            """value, grad (N)."""
            i = cuda.grid(1)
            if i < value.size:
                lr, decay = numbers[0], numbers[3]
                g = grad[i] + decay * value[i] if decays else grad[i]  # (1)
                value[i] -= lr * g  # (3)

        return sgd_kernel

    @gpu.kernel(*kind)
    def momentum_kernel(value, grad, velocity, numbers):
        """value, grad, velocity (N)."""
        i = cuda.grid(1)
        if i < value.size:
            lr, momentum, share, decay = numbers[0], numbers[1], numbers[2], numbers[3]
            g = grad[i] + decay * value[i] if decays else grad[i]  # (1)
            v = velocity[i] * momentum + share * g  # (2)
            velocity[i] = v
            value[i] -= lr * (g + momentum * v if nesterov else v)  # (3)

    return momentum_kernel

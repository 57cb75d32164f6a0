"""Is every number finite? ``spikeflow.ops.finite`` on the device."""

from __future__ import annotations

import functools

import numpy as np

from ..kernels.cuda import gpu, sums
from ..kernels.cuda.gpu import cuda

__all__ = ["count_not_finite"]

ZERO, ONE = np.float32(0), np.float32(1)
BLOCKS = 3 if gpu.SMALL else 256


def count_not_finite(*arrays):
    """Flat arrays on the device -> how many NaNs and infinities they hold, one float32 there: 0 is exact, more is enough."""
    threads = BLOCKS * gpu.THREADS
    counts = gpu.empty((threads * len(arrays), 1))
    for i, array in enumerate(arrays):
        part = counts[i * threads : (i + 1) * threads].reshape(threads)
        gpu.launch(make_count(), BLOCKS, gpu.THREADS, array, part, flops=array.size)
    return sums.column_sums(counts)


@functools.cache
def make_count():
    @gpu.kernel()
    def count_not_finite_kernel(values, counts):
        """values (N,) -> counts, one of each thread."""
        i, step = cuda.grid(1), cuda.gridsize(1)
        total, at = ZERO, i
        while at < values.size:
            if not (abs(values[at]) < np.float32(np.inf)):
                total += ONE
            at += step
        counts[i] = total

    return count_not_finite_kernel

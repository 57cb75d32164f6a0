"""The cross-entropy of what a loss reads of a record, and its gradient there, in one pass on the device.

A block has W threads for each of G samples: thread (x, g) reads the classes x, x + W, ... of its sample into memory that the
block shares through its cache, and when all have, it works out the maximum and the sum of the exponentials, each thread by
itself: there are few classes. Then it writes the gradients of its classes back to the record. The losses of a block are added up;
a later launch adds those of all blocks.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from ...kernels.cuda import gpu, sums
from ...kernels.cuda.gpu import cuda
from .statistics import make_statistic

__all__ = ["cross_entropy_of", "losses_of", "rows_of_samples"]

ZERO, ONE = np.float32(0), np.float32(1)
WIDE = 2 if gpu.SMALL else 32  # threads of a sample, at most


def rows_of_samples(batch: int, classes: int) -> tuple[int, int, int]:
    """-> W, G, and how many blocks there are for a row of a statistic."""
    W = min(classes, WIDE)
    G = gpu.THREADS // W
    return W, G, gpu.size(batch, G)


def losses_of(batch: int, classes: int, rows: int) -> int:
    """-> how many partial losses a launch over all samples and this many rows leaves."""
    return rows_of_samples(batch, classes)[2] * rows


def cross_entropy_of(record, labels, weight, statistic, own, share, drecord, losses, adds) -> None:
    """Of a statistic (``statistics``) of the record (T, B, C), for K classes, the rows' sum of (1) and (2) with class weights w:

        sum_b own w[y_b] CE(z_b, y_b) + sum_k share w[k] CE(z_b, k)

    labels (B,) int32, weight (K,), own and share numbers -> its gradient in drecord (T, B, C), or added to it with ``adds``;
    partial losses (``losses_of``).
    """
    (T, B, C), K = record.shape, weight.shape[0]
    S = T if statistic == "steps" else 1
    W, G, blocks = rows_of_samples(B, K)
    scratch = gpu.empty(2 * S * B * K)  # the values and their steps
    arrays = record.reshape(record.size), labels, weight, scratch, drecord.reshape(record.size), losses
    numbers = *(np.int32(n) for n in (T, B, K, C // K)), np.float32(own), np.float32(share)
    gpu.launch(make_cross_entropy(statistic, share != 0, adds), (blocks, S), (W, G), *arrays, *numbers, flops=8 * S * B * K)


@functools.cache
def make_cross_entropy(statistic: str, smooths: bool, adds: bool):
    SIZE, block_sum = gpu.THREADS, sums.make_block_sum()
    read, write = make_statistic(statistic, adds)

    @gpu.kernel(statistic, *(["smooth"] if smooths else []), *(["add"] if adds else []))
    def cross_entropy_kernel(record, labels, weight, scratch, drecord, losses, T, B, K, group, own, share):
        """record, drecord flat (T B K group), labels (B,), weight (K,), scratch flat (2 S B K) -> losses (blocks,)."""
        shared = cuda.shared.array(SIZE, np.float32)
        x, W, s = cuda.threadIdx.x, cuda.blockDim.x, cuda.blockIdx.y
        b = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
        first, stride, steps = (s * B + b) * K, B * K * group, scratch.size >> 1
        k = x
        while b < B and k < K:
            scratch[first + k], scratch[steps + first + k] = read(record, T, stride, group, s, (b * K + k) * group)
            k += W
        cuda.syncthreads()
        loss = ZERO
        if b < B:
            largest, total, all_shares = scratch[first], ZERO, ZERO
            for k in range(1, K):
                largest = max(largest, scratch[first + k])
            for k in range(K):
                total += math.exp(scratch[first + k] - largest)
                if smooths:
                    all_shares += share * weight[k]
            log_total, y = math.log(total), labels[b]
            mine = own * weight[y]
            k = x
            while k < K:
                z = scratch[first + k] - largest
                p, target = math.exp(z) / total, ZERO
                gradient = mine * (p - ONE) if k == y else mine * p  # (1)
                if k == y:
                    target = mine
                if smooths:
                    target += share * weight[k]
                    gradient += all_shares * p - share * weight[k]  # (2)
                if target > ZERO or target < ZERO:
                    loss += target * (log_total - z)
                write(drecord, T, stride, group, s, (b * K + k) * group, scratch[steps + first + k], gradient)
                k += W
        loss = block_sum(shared, loss, 1, W * cuda.blockDim.y)
        if x == 0 and cuda.threadIdx.y == 0:
            losses[s * cuda.gridDim.x + cuda.blockIdx.x] = loss

    return cross_entropy_kernel

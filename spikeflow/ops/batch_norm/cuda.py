"""Batch normalisation on the device: passes over rows of channels, and what lies between them without asking the host.

A block takes some neighbouring channels and a run of rows (``ops.sums``): a thread stays with one channel, so that what belongs
to the channel is in its registers and no index is divided. Sums are taken in float32 about a row of the batch, over few rows a
thread, and then pairwise; the second launch of a reduction works out what the next pass needs of each channel with the sums.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from ...kernels.cuda import gpu, sums
from ...kernels.cuda.gpu import cuda
from ...kernels.rounding import times
from ..scale import rows_of_blocks

ZERO, ONE = np.float32(0), np.float32(1)


def batch_norm_sums(x, center):
    """x (N, C), center (C) -> (2, C) float32: sum of x - center, and of its square; for (1) and (2)."""
    return sums.sum_partials(_partial_sums(x, x, center, False))


def batch_norm_forward(x, scale, shift):
    """(4): x (N, C) -> y (N, C)."""
    y = gpu.empty(x.shape)
    run, grid, threads = rows_of_blocks(*x.shape)
    numbers = np.int32(x.shape[0]), np.int32(x.shape[1]), np.int32(run)
    gpu.launch(make_forward(), grid, threads, _flat(x), scale, shift, *numbers, _flat(y), flops=2 * x.size)
    return y


def batch_norm_backward_sums(dy, x, mean):
    """dy, x (N, C) -> (2, C) float32: sum of dy, and of dy (x - mean); for (5) and (6)."""
    return sums.sum_partials(batch_norm_backward_partials(dy, x, mean))


def batch_norm_backward(dy, x, a, b, c):
    """(7): dy, x (N, C), a, b, c (C) -> dx (N, C)."""
    dx = gpu.empty(x.shape)
    run, grid, threads = rows_of_blocks(*x.shape)
    numbers = np.int32(x.shape[0]), np.int32(x.shape[1]), np.int32(run)
    gpu.launch(make_backward(), grid, threads, _flat(dy), _flat(x), a, b, c, *numbers, _flat(dx), flops=4 * x.size)
    return dx


def batch_norm_backward_partials(dy, x, mean):
    """dy, x (N, C) -> (S, 2, C), whose sum over S is ``batch_norm_backward_sums``: one launch less where S sums will do."""
    return _partial_sums(dy, x, mean, True)


def batch_norm_training(x, gamma, beta, running_mean, running_var, tracked, eps, momentum, repeats, updates):
    """The statistics of a batch, (1) and (2), and what the running estimates become.

    Parameters
    ----------
    x : (N, C)
    gamma, beta, running_mean, running_var : (C,)
    tracked : (1,) int64
        The number of batches that the estimates have seen.
    eps : float
    momentum : float or None
        Of the estimates; None for the mean of all batches.
    repeats : int
        Time steps that x stands for.
    updates : bool
        Change the estimates and their counter.

    Returns
    -------
    scale, shift, mean, 1 / sqrt(var + eps) : (C,)
    """
    N, C = x.shape
    n, counts = N * repeats, tracked if updates else None
    parts = _partial_sums(x, x, _flat(x), False, counts)  # the center is the first row
    S, found = parts.shape[0], [gpu.empty(C) for _ in range(4)]
    W, G = sums.tile(S, C)
    shapes = np.int32(S), np.int32(C)
    numbers = np.float32(1 / N), np.float32(n / max(n - 1, 1)), np.float32(eps), np.float32(0 if momentum is None else momentum)
    arrays = _flat(parts), _flat(x), gamma, beta, running_mean, running_var, tracked
    kernel = make_statistics(bool(updates), momentum is None)
    gpu.launch(kernel, gpu.size(C, W), (W, G), *arrays, *shapes, *numbers, *found, flops=parts.size)
    return tuple(found)


def batch_norm_evaluation(gamma, beta, running_mean, running_var, eps):
    """As ``batch_norm_training``, from the running estimates."""
    (C,) = gamma.shape
    found = [gpu.empty(C) for _ in range(4)]
    arrays = gamma, beta, running_mean, running_var, np.float32(eps), *found
    gpu.launch(make_evaluation(), gpu.size(C), gpu.THREADS, *arrays, flops=6 * C)
    return tuple(found)


def batch_norm_gradients(sums_, inverse, scale, mean, n, dgamma, dbeta):
    """(5) to (7) from the sums (2, C), or from partial ones (S, 2, C) -> a, b, c (C).

    Adds into dgamma and dbeta (C) unless they are None; n is the number of rows.
    """
    C = inverse.shape[0]
    parts = _flat(sums_)
    S, found = parts.size // (2 * C), [gpu.empty(C) for _ in range(3)]
    W, G = sums.tile(S, C)
    learned = dgamma is not None
    gradients = (dgamma, dbeta) if learned else (inverse, inverse)  # not written
    arrays = parts, inverse, scale, mean, *gradients, np.int32(S), np.int32(C), np.float32(1 / n), *found
    gpu.launch(make_gradients(learned), gpu.size(C, W), (W, G), *arrays, flops=parts.size)
    return tuple(found)


def _flat(x):
    return x.reshape(x.size)


def _partial_sums(dy, x, center, backward: bool, counts=None):
    """-> (S, 2, C): two sums of each block of rows; ``counts`` (1,) is increased by one."""
    N, C = x.shape
    run = sums.rows_of_blocks(N, C)
    W, G = sums.tile(run, C)
    parts = gpu.empty((gpu.size(N, run), 2, C))
    arrays = _flat(dy), _flat(x), center, np.int32(N), np.int32(C), np.int32(run), _flat(parts)
    kernel, grid = make_partial_sums(backward, counts is not None), (gpu.size(C, W), parts.shape[0])
    gpu.launch(kernel, grid, (W, G), *arrays, *(() if counts is None else (counts,)), flops=4 * x.size)
    return parts


@functools.cache
def make_partial_sums(backward: bool, counts: bool):
    SIZE, block_sum = gpu.THREADS, sums.make_block_sum()

    @cuda.jit(device=True)
    def two_sums(dy, x, center, N, C, run, parts):
        """dy, x flat (N C), center (C) -> parts flat (S 2 C): the sums of block s are those of its rows."""
        shared = cuda.shared.array(SIZE, np.float32)
        g, s = cuda.threadIdx.y, cuda.blockIdx.y
        c = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        first, second, middle = ZERO, ZERO, ZERO
        at, end, step = (s * run + g) * C + c, min((s + 1) * run, N) * C, cuda.blockDim.y * C
        if c < C:
            middle = center[c]
            while at + 3 * step < end:
                for u in range(4):  # loads in flight
                    away = x[at + u * step] - middle
                    value = dy[at + u * step] if backward else away
                    first += value
                    second += value * away
                at += 4 * step
            while at < end:
                away = x[at] - middle
                value = dy[at] if backward else away
                first += value
                second += value * away
                at += step
        first = block_sum(shared, first, cuda.blockDim.x, cuda.blockDim.y)
        second = block_sum(shared, second, cuda.blockDim.x, cuda.blockDim.y)
        if g == 0 and c < C:
            parts[2 * s * C + c], parts[(2 * s + 1) * C + c] = first, second

    if counts:

        @gpu.kernel("counting")
        def batch_norm_partial_sums_kernel(dy, x, center, N, C, run, parts, count):
            if cuda.blockIdx.x == 0 and cuda.blockIdx.y == 0 and cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
                count[0] += 1
            two_sums(dy, x, center, N, C, run, parts)

        return batch_norm_partial_sums_kernel

    @gpu.kernel("backward" if backward else "forward")
    def batch_norm_partial_sums_kernel(dy, x, center, N, C, run, parts):
        two_sums(dy, x, center, N, C, run, parts)

    return batch_norm_partial_sums_kernel


@functools.cache
def make_total():
    """The function that ends both reductions."""
    block_sum = sums.make_block_sum()

    @cuda.jit(device=True)
    def total(shared, parts, S, C, c):
        """parts flat (S 2 C) -> for threads (c, 0) the two sums of channel c over S."""
        first, second = ZERO, ZERO
        if c < C:
            at, step = 2 * C * cuda.threadIdx.y + c, 2 * C * cuda.blockDim.y
            while at < 2 * C * S:
                first += parts[at]
                second += parts[at + C]
                at += step
        first = block_sum(shared, first, cuda.blockDim.x, cuda.blockDim.y)
        return first, block_sum(shared, second, cuda.blockDim.x, cuda.blockDim.y)

    return total


@functools.cache
def make_statistics(updates: bool, averages: bool):
    SIZE, total = gpu.THREADS, make_total()

    @gpu.kernel("updating" if updates else "fixed", "average" if averages else "momentum")
    def batch_norm_statistics_kernel(
        parts, center, gamma, beta, running_mean, running_var, tracked, S, C, share, unbiased, eps, momentum,
        scale, shift, mean, inverse,
    ):  # fmt: skip
        """parts flat (S 2 C); the first C numbers of center; share = 1 / N, unbiased = n / (n - 1) -> the last four (C)."""
        shared = cuda.shared.array(SIZE, np.float32)
        c = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        first, second = total(shared, parts, S, C, c)
        if cuda.threadIdx.y == 0 and c < C:
            away = first * share
            mu, var = center[c] + away, max(second * share - away * away, ZERO)  # (1), (2)
            if updates:
                new = ONE / np.float32(tracked[0]) if averages else momentum
                running_mean[c] = (ONE - new) * running_mean[c] + new * mu
                running_var[c] = (ONE - new) * running_var[c] + new * (var * unbiased)
            inverse[c] = ONE / math.sqrt(var + eps)
            scale[c] = gamma[c] * inverse[c]
            shift[c] = beta[c] - scale[c] * mu
            mean[c] = mu

    return batch_norm_statistics_kernel


@functools.cache
def make_evaluation():
    @gpu.kernel()
    def batch_norm_evaluation_kernel(gamma, beta, running_mean, running_var, eps, scale, shift, mean, inverse):
        """All (C)."""
        c = cuda.grid(1)
        if c < gamma.size:
            mean[c] = running_mean[c]
            inverse[c] = ONE / math.sqrt(running_var[c] + eps)
            scale[c] = gamma[c] * inverse[c]
            shift[c] = beta[c] - scale[c] * mean[c]

    return batch_norm_evaluation_kernel


@functools.cache
def make_gradients(learned: bool):
    SIZE, total = gpu.THREADS, make_total()

    @gpu.kernel("learned" if learned else "fixed")
    def batch_norm_gradients_kernel(parts, inverse, scale, mean, dgamma, dbeta, S, C, share, a, b, c0):
        """parts flat (S 2 C), share = 1 / n -> a, b, c0 (C); adds into dgamma, dbeta (C) where they are learned."""
        shared = cuda.shared.array(SIZE, np.float32)
        c = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        first, second = total(shared, parts, S, C, c)
        if cuda.threadIdx.y == 0 and c < C:
            second *= inverse[c]
            if learned:
                dbeta[c] += first  # (5)
                dgamma[c] += second  # (6)
            a[c] = scale[c]  # (7)
            b[c] = -scale[c] * inverse[c] * second * share
            c0[c] = -scale[c] * first * share - b[c] * mean[c]

    return batch_norm_gradients_kernel


@functools.cache
def make_forward():
    @gpu.kernel()
    def batch_norm_forward_kernel(x, scale, shift, N, C, run, y):
        """x, y flat (N C)."""
        c, s = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, cuda.blockIdx.y
        if c < C:
            by, plus = scale[c], shift[c]
            at, end, step = (s * run + cuda.threadIdx.y) * C + c, min((s + 1) * run, N) * C, cuda.blockDim.y * C
            while at < end:
                y[at] = times(x[at], by) + plus  # (4)
                at += step

    return batch_norm_forward_kernel


@functools.cache
def make_backward():
    @gpu.kernel()
    def batch_norm_backward_kernel(dy, x, a, b, c0, N, C, run, dx):
        """dy, x, dx flat (N C)."""
        c, s = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, cuda.blockIdx.y
        if c < C:
            by, share, plus = a[c], b[c], c0[c]
            at, end, step = (s * run + cuda.threadIdx.y) * C + c, min((s + 1) * run, N) * C, cuda.blockDim.y * C
            while at < end:
                dx[at] = by * dy[at] + share * x[at] + plus  # (7)
                at += step

    return batch_norm_backward_kernel

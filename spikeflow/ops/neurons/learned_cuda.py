"""Rows of ``params`` that a layer's parameters give, and the gradients of these parameters, on the device.

A parameter has the shape of its option, (C, 1, 1) for one number of each channel; a row has an entry for each neuron of a sample,
channel last, or one for all of them. Neurons that share a number have entries that are equal.

Forward, a thread is an entry. Backward, the threads of a block are G rows of K numbers: thread (k, g) sums the entries
g, g + G, ... of those that share number k, and the G sums of a number are added in shared memory. No atomics: the order is fixed.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from ...kernels.cuda import gpu
from ...kernels.cuda.gpu import THREADS, cuda
from ...kernels.cuda.sums import make_block_sum
from ...kernels.jit import inline

__all__ = ["MAPS", "add_gradient", "set_row"]

ZERO, ONE = np.float32(0), np.float32(1)
N, U = np.uint32, np.uint64  # of places, which are divided; of counts of them


def itself(w, at_zero):
    return w


def itself_slope(w, at_zero):
    return ONE


def clamped(w, at_zero):
    """-> w within [0, 1]."""
    return ZERO if w < ZERO else ONE if w > ONE else w


def clamped_slope(w, at_zero):
    """-> 1 inside, bounds included."""
    return ONE if w >= ZERO and w <= ONE else ZERO


def complement(w, at_zero):
    """-> at_zero (1 - w), w within [0, 1]."""
    return at_zero * (ONE - (ZERO if w < ZERO else ONE if w > ONE else w))


def complement_slope(w, at_zero):
    return -at_zero if w >= ZERO and w <= ONE else ZERO


def sigmoid(w, at_zero):
    """-> 1 / (1 + exp(-w)), without overflow and without cancellation."""
    e = math.exp(-abs(w))
    return (ONE if w >= ZERO else e) / (ONE + e)


def sigmoid_slope(w, at_zero):
    """-> q (1 - q), q the sigmoid."""
    e = math.exp(-abs(w))
    return e / ((ONE + e) * (ONE + e))


# How an entry of a row follows from its option's number w, and the derivative; ``at_zero`` is what the entry is for w = 0.
MAPS = {
    "itself": (itself, itself_slope),
    "clamped": (clamped, clamped_slope),
    "complement": (complement, complement_slope),
    "sigmoid": (sigmoid, sigmoid_slope),
}


def set_row(how: str, w, at_zero, shape: tuple[int, ...], row) -> None:
    """w, an option's numbers, at_zero (F,) -> row (F,): of the neurons of a sample of ``shape``, or of all of them for F = 1."""
    arrays = w.reshape(w.size), at_zero, row
    gpu.launch(make_row(how), gpu.size(row.size), THREADS, *_sizes(shape, w.shape), *arrays, flops=row.size)


def add_gradient(how: str, drow, w, at_zero, shape: tuple[int, ...], dw) -> None:
    """drow (F,), the gradient of what ``set_row`` has worked out -> added into dw, of w's shape."""
    G = min(THREADS, drow.size // w.size)
    K = min(THREADS // G, w.size)
    arrays = drow, w.reshape(w.size), at_zero, dw.reshape(w.size)
    gpu.launch(make_gradient(how), gpu.size(w.size, K), (K, G), *_sizes(shape, w.shape), *arrays, flops=4 * drow.size)


def _sizes(shape, option) -> list[np.uint32]:
    """-> C, H, W of a sample, (1, 1, F) where it is a row, and as many axes of the option that is broadcast to it."""
    return [N(n) for axes in (shape, option) for n in (*(1,) * (3 - len(axes)), *axes)]


@functools.cache
def make_row(how):
    with gpu.scalars():
        entry = inline(MAPS[how][0])

    @gpu.kernel(how)
    def learned_row_kernel(C, H, W, OC, OH, OW, w, at_zero, row):
        """w (OC, OH, OW) -> row (H, W, C), flat."""
        f = cuda.grid(1)
        if f < row.size:
            pixel, c = N(f) // C, N(f) % C
            y, x = pixel // W, pixel % W
            row[f] = entry(w[(c % OC * OH + y % OH) * OW + x % OW], at_zero[f])

    return learned_row_kernel


@functools.cache
def make_gradient(how):
    SIZE, block_sum = THREADS, make_block_sum()
    with gpu.scalars():
        slope = inline(MAPS[how][1])

    @gpu.kernel(how, threads=SIZE)
    def learned_gradient_kernel(C, H, W, OC, OH, OW, drow, w, at_zero, dw):
        """drow (H, W, C), w (OC, OH, OW) -> added into dw, flat."""
        shared = cuda.shared.array(SIZE, np.float32)
        k, g = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, cuda.threadIdx.y
        columns, channels, count = W // OW, C // OC, H // OH * (W // OW) * (C // OC)  # of the entries that share a number
        total, e = ZERO, U(g)
        if k < dw.size:
            line = N(k) // OW
            while e < count:  # of several numbers along an axis, each has one entry there
                pixel = N(e) // channels
                c, y, x = line // OH + N(e) % channels, line % OH + pixel // columns, N(k) % OW + pixel % columns
                f = (y * W + x) * C + c
                total += drow[f] * slope(w[k], at_zero[f])
                e += U(cuda.blockDim.y)
        total = block_sum(shared, total, cuda.blockDim.x, cuda.blockDim.y)
        if g == 0 and k < dw.size:
            dw[k] += total

    return learned_gradient_kernel

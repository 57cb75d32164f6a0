"""Cross-entropy of rows of logits with a label each, and its gradient: the loop that the losses share.

    CE(z, y) = log sum_c exp(z_c - max z) - (z_y - max z),        dCE/dz = softmax(z) - onehot(y)                       (1)

Shifted by the maximum, no exponential overflows.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from .jit import kernel

__all__ = ["cross_entropy"]


def cross_entropy(logits, labels, factors):
    """logits (T, b, C), labels (b,) intp, factors (b,) -> factors CE (T, b), its gradient (T, b, C), both float64."""
    losses, gradient = np.empty(logits.shape[:2]), np.empty(logits.shape)
    make_cross_entropy()(np.ascontiguousarray(logits), np.ascontiguousarray(labels), factors, losses, gradient)
    return losses, gradient


@functools.cache
def make_cross_entropy():
    @kernel()
    def cross_entropy_kernel(logits, labels, factors, losses, gradient):
        """logits (T, b, C), labels, factors (b,) -> losses (T, b), gradient (T, b, C)."""
        T, B, C = logits.shape
        for t in range(T):
            for b in range(B):
                largest = np.float64(logits[t, b, 0])
                for c in range(1, C):
                    largest = max(largest, np.float64(logits[t, b, c]))
                total = 0.0
                for c in range(C):
                    e = math.exp(logits[t, b, c] - largest)
                    gradient[t, b, c] = e
                    total += e
                for c in range(C):
                    gradient[t, b, c] /= total
                gradient[t, b, labels[b]] -= 1
                for c in range(C):
                    gradient[t, b, c] *= factors[b]
                losses[t, b] = factors[b] * (math.log(total) - (logits[t, b, labels[b]] - largest))

    return cross_entropy_kernel

"""The cross-entropy on the CPU: one loop over the rows."""

from __future__ import annotations

import functools
import math

import numpy as np

from ...kernels.jit import kernel


def cross_entropy(logits, labels, factors, shares=None):
    """Factors times the cross-entropy of the labels (1), plus that of all classes with their shares (2).

    logits (T, b, C), labels (b,) intp, factors (b,), shares (C,) or None -> losses (T, b), gradient (T, b, C), both float64.
    """
    losses, gradient = np.empty(logits.shape[:2]), np.empty(logits.shape)
    shares = np.zeros(logits.shape[2]) if shares is None else shares
    make_cross_entropy()(np.ascontiguousarray(logits), np.ascontiguousarray(labels), factors, shares, losses, gradient)
    return losses, gradient


@functools.cache
def make_cross_entropy():
    @kernel()
    def cross_entropy_kernel(logits, labels, factors, shares, losses, gradient):
        """logits (T, b, C), labels, factors (b,), shares (C,) -> losses (T, b), gradient (T, b, C)."""
        T, B, C = logits.shape
        smoothing = shares.sum()
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
                    p = gradient[t, b, c] / total
                    gradient[t, b, c] = factors[b] * (p - (c == labels[b])) + (smoothing * p - shares[c])
                log_total = math.log(total)
                losses[t, b] = factors[b] * (log_total - (logits[t, b, labels[b]] - largest))
                if smoothing > 0:
                    for c in range(C):
                        losses[t, b] += shares[c] * (log_total - (logits[t, b, c] - largest))

    return cross_entropy_kernel

"""The cross-entropy in NumPy."""

from __future__ import annotations

import numpy as np


def cross_entropy(logits, labels, factors, shares=None):
    """Factors times the cross-entropy of the labels (1), plus that of all classes with their shares (2).

    logits (T, b, C), labels (b,) intp, factors (b,), shares (C,) or None -> losses (T, b), gradient (T, b, C), both float64.
    """
    C = logits.shape[2]
    target = factors[:, None] * (labels[:, None] == np.arange(C)) + (0 if shares is None else shares)  # (b, C)
    z = logits - logits.max(2, keepdims=True).astype(np.float64)
    log_total = np.log(np.exp(z).sum(2, keepdims=True))
    losses = (target * (log_total - z)).sum(2)
    return losses, target.sum(1, keepdims=True) * np.exp(z - log_total) - target

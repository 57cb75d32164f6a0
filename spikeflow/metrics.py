"""Metrics of recorded outputs."""

from __future__ import annotations

import numpy as np

from .losses import check_labels

__all__ = ["accuracy_rate"]


def accuracy_rate(spikes: np.ndarray, labels: np.ndarray) -> float:
    """The share of samples whose label's neuron spiked most; of equals the lowest index counts, as in snnTorch.

    Parameters
    ----------
    spikes : (T, B, C), or counts (B, C)
    labels : (B,) integers
    """
    spikes = np.asarray(spikes)
    if spikes.ndim not in (2, 3) or 0 in spikes.shape:
        raise ValueError(f"spikes must be (T, B, C), or counts (B, C), got shape {spikes.shape}")
    counts = spikes.sum(0) if spikes.ndim == 3 else spikes
    labels = check_labels(labels, *counts.shape)
    return float(np.mean(counts.argmax(-1) == labels))

"""Metrics of recorded outputs."""

from __future__ import annotations

import numpy as np

from .losses import check_labels
from .losses.rate import add_groups, check_groups
from .losses.temporal import spike_times

__all__ = ["accuracy_rate", "accuracy_temporal"]


def accuracy_rate(spikes: np.ndarray, labels: np.ndarray, population_code: bool = False, num_classes: int | None = None) -> float:
    """The share of samples whose label's neurons spiked most; of equals the lowest index counts, as in snnTorch.

    Parameters
    ----------
    spikes : (T, B, C), or counts (B, C)
    labels : (B,) integers
    population_code : bool
        Whether groups of C / num_classes neurons stand for the classes.
    num_classes : int
        Needed for a population code; without one, every output is a class.
    """
    spikes = np.asarray(spikes)
    if spikes.ndim not in (2, 3) or 0 in spikes.shape:
        raise ValueError(f"spikes must be (T, B, C), or counts (B, C), got shape {spikes.shape}")
    counts = spikes.sum(0) if spikes.ndim == 3 else spikes
    if population_code:
        check_groups(counts.shape[1], num_classes)
        counts = add_groups(counts, num_classes)
    labels = check_labels(labels, *counts.shape)
    return float(np.mean(counts.argmax(-1) == labels))


def accuracy_temporal(spikes: np.ndarray, labels: np.ndarray) -> float:
    """The share of samples whose label's neuron spiked first; of equals the lowest index counts, as in snnTorch.

    A neuron that never spikes counts as if it did at the last step.

    Parameters
    ----------
    spikes : (T, B, C)
    labels : (B,) integers
    """
    spikes = np.asarray(spikes)
    if spikes.ndim != 3 or 0 in spikes.shape:
        raise ValueError(f"spikes must be (T, B, C), got shape {spikes.shape}")
    labels = check_labels(labels, *spikes.shape[1:])
    return float(np.mean(spike_times(spikes, 1)[0].argmin(-1) == labels))

"""Losses of a recorded output and the labels, with their gradients.

A loss declares whether it reads the output neurons' ``"spikes"`` or ``"membrane"``, computes in float64, and returns dL/drecord
in the record's dtype. ``partial`` is its share over some of the samples, given the normaliser of the whole batch, so that shares
over the blocks of a batch add up to the loss of the batch.

C classes, y a sample's label, z a row of logits; every cross-entropy is  CE(z, y) = log sum_c exp(z_c - max z) - (z_y - max z),
finite for any finite logits, with gradient softmax(z) - onehot(y).
"""

from __future__ import annotations

import numpy as np

from .ops.cross_entropy import cross_entropy

__all__ = ["Loss", "ce_count_loss", "ce_membrane_loss", "ce_rate_loss", "check_labels"]


class Loss:
    """Base of the losses: ``loss, drecord = loss_fn(record, labels)`` with ``record`` (T, B, C), ``labels`` (B,) integers."""

    inputs = "spikes"

    def normaliser(self, labels: np.ndarray) -> float:
        """What the sum over samples is divided by: the batch size."""
        return float(len(labels))

    def classes(self, features: tuple[int, ...]) -> int:
        """The number of classes that outputs of shape ``features`` stand for."""
        if len(features) != 1:
            raise ValueError(f"{type(self).__name__} needs outputs of shape (C,) per sample, got {features}")
        return features[0]

    def partial(self, record: np.ndarray, labels: np.ndarray, normaliser: float) -> tuple[float, np.ndarray]:
        """record (T, b, C), labels (b,) -> share of the loss, drecord (T, b, C)."""
        raise NotImplementedError("a loss must define partial")

    def __call__(self, record: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
        record = np.asarray(record)
        if record.ndim != 3 or 0 in record.shape or not np.issubdtype(record.dtype, np.floating):
            raise ValueError(f"{self.inputs} must be a float array (T, B, C), got {record.dtype} {record.shape}")
        labels = check_labels(labels, record.shape[1], self.classes(record.shape[2:]))
        return self.partial(record, labels, self.normaliser(labels))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class ce_rate_loss(Loss):
    """Cross-entropy of the spikes at each step, averaged over time and batch:  1/(T B) sum_{t, b} CE(spikes[t, b], y_b)."""

    def partial(self, record, labels, normaliser):
        """record (T, b, C), labels (b,) -> share of the loss, dspikes (T, b, C)."""
        scale = 1 / (len(record) * normaliser)
        losses, gradient = cross_entropy(record, labels)
        return float(losses.sum() * scale), (gradient * scale).astype(record.dtype)


class ce_count_loss(Loss):
    """Cross-entropy of the spike counts, averaged over the batch:  1/B sum_b CE(sum_t spikes[t, b], y_b)."""

    def partial(self, record, labels, normaliser):
        """record (T, b, C), labels (b,) -> share of the loss, dspikes (T, b, C)."""
        losses, gradient = cross_entropy(record.sum(0, dtype=np.float64)[None], labels)
        every_step = np.broadcast_to((gradient / normaliser).astype(record.dtype), record.shape)
        return float(losses.sum() / normaliser), np.ascontiguousarray(every_step)


class ce_membrane_loss(Loss):
    """Cross-entropy of the membranes, summed over time and averaged over the batch:  1/B sum_{t, b} CE(membrane[t, b], y_b).

    The loss of snnTorch's Tutorial 5.
    """

    inputs = "membrane"

    def partial(self, record, labels, normaliser):
        """record (T, b, C), labels (b,) -> share of the loss, dmembrane (T, b, C)."""
        losses, gradient = cross_entropy(record, labels)
        return float(losses.sum() / normaliser), (gradient / normaliser).astype(record.dtype)


def check_labels(labels, batch: int, classes: int) -> np.ndarray:
    """-> labels (B,) as intp; TypeError or ValueError if they are not integers, not ``batch`` many, or not in [0, classes)."""
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    if labels.shape != (batch,):
        raise ValueError(f"labels must have shape ({batch},), one for each sample, got {labels.shape}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must be in [0, {classes}), got values from {labels.min()} to {labels.max()}")
    return labels.astype(np.intp)

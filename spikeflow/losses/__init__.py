"""Losses of a recorded output and its targets, with their gradients.

A loss declares whether it reads the output neurons' ``"spikes"``, their ``"membrane"`` or ``"both"``, computes in float64, and
returns dL/drecord in the record's dtype. Its share over some of the samples, given the normaliser of the whole batch, is a term
of a sum: shares over the blocks of a batch add up to the loss of the batch. Losses add up, and numbers scale them:
``ce_rate_loss() + 0.5 * l1_rate_sparsity(1e-5)`` is a loss.

The names, options and numbers are those of ``snntorch.functional``, except where a docstring says otherwise; ``label_smoothing``
is PyTorch's. An option out of its range, and targets that do not fit the record, raise a TypeError or ValueError that names the
argument.

Common to the formulas: T steps, B samples, C outputs; K classes, C of them unless there is a population code; y_b a sample's
label, w the class weights, 1 by default; N = sum_b w[y_b] with ``reduction="mean"``, so that a mean over samples is a weighted
mean as PyTorch takes it (snnTorch divides by B), and N = 1 with ``reduction="sum"``.
"""

from __future__ import annotations

from .base import Loss, LossSum, check_labels
from .membrane import ce_max_membrane_loss, ce_membrane_loss, mse_membrane_loss, tet_loss
from .rate import ce_count_loss, ce_rate_loss, l1_rate_sparsity, mse_count_loss, mse_rate_loss
from .temporal import ce_temporal_loss, mse_temporal_loss

__all__ = [
    "Loss",
    "LossSum",
    "ce_count_loss",
    "ce_max_membrane_loss",
    "ce_membrane_loss",
    "ce_rate_loss",
    "ce_temporal_loss",
    "check_labels",
    "l1_rate_sparsity",
    "mse_count_loss",
    "mse_membrane_loss",
    "mse_rate_loss",
    "mse_temporal_loss",
    "tet_loss",
]

"""Losses of the output neurons' membranes, and one of membranes or spikes."""

from __future__ import annotations

import math

import numpy as np

from .base import ReducedLoss, check_choice, check_number, check_reals, one_hot

__all__ = ["ce_max_membrane_loss", "ce_membrane_loss", "mse_membrane_loss", "tet_loss"]


class ce_membrane_loss(ReducedLoss):
    """Cross-entropy of the membranes, summed over time:  1/N sum_{t, b} w[y_b] CE(membrane[t, b], y_b).

    The loss of snnTorch's Tutorial 5.

    Parameters
    ----------
    reduction, weight, label_smoothing
        See ``ReducedLoss``.
    """

    inputs = "membrane"

    def partial(self, record, targets, normaliser):
        """record (T, b, C), labels (b,) -> share of the loss, dmembrane (T, b, C)."""
        loss, gradient = self._cross_entropy(record, targets, normaliser)
        return loss, gradient.astype(record.dtype)


class ce_max_membrane_loss(ReducedLoss):
    """Cross-entropy of each membrane's maximum over time:  1/N sum_b w[y_b] CE(max_t membrane[t, b], y_b).

    The gradient goes to the first step at which a membrane is at its maximum.

    Parameters
    ----------
    reduction, weight, label_smoothing
        See ``ReducedLoss``.
    """

    inputs = "membrane"

    def partial(self, record, targets, normaliser):
        """record (T, b, C), labels (b,) -> share of the loss, dmembrane (T, b, C)."""
        steps = record.argmax(0)[None]
        loss, gradient = self._cross_entropy(np.take_along_axis(record, steps, 0), targets, normaliser)
        dmembrane = np.zeros_like(record)
        np.put_along_axis(dmembrane, steps, gradient.astype(record.dtype), 0)
        return loss, dmembrane


class tet_loss(ReducedLoss):
    """Temporal efficient training: the cross-entropy of the outputs O at each step, averaged over time, and a pull towards phi.

    (1 - lambda_)/(T N) sum_{t, b} w[y_b] CE(O[t, b], y_b) + lambda_/(T N C) sum_{t, b, c} w[y_b] (O[t, b, c] - phi)^2. In a "sum"
    the pull is not divided by C, but by T. Deng et al. (2022). Without the pull, as by default, it is SpikingJelly's
    ``temporal_efficient_training_cross_entropy``, and of spikes ``ce_rate_loss``.

    Parameters
    ----------
    lambda_ : float
        Share of the pull, in [0, 1].
    phi : float
        Where it pulls all outputs: the paper takes the threshold.
    inputs : "membrane" or "spikes"
        What O is.
    reduction, weight, label_smoothing
        See ``ReducedLoss``.
    """

    def __init__(
        self,
        lambda_: float = 0,
        phi: float = 1,
        inputs: str = "membrane",
        reduction: str = "mean",
        weight=None,
        label_smoothing: float = 0,
    ):
        super().__init__(reduction, weight, label_smoothing)
        self.lambda_ = check_number("lambda_", lambda_, 0, 1)
        self.phi = check_number("phi", phi, -math.inf)
        self.inputs = check_choice("inputs", inputs, ("membrane", "spikes"))

    def partial(self, record, targets, normaliser):
        """record (T, b, C), labels (b,) -> share of the loss, drecord (T, b, C)."""
        T, _, C = record.shape
        loss, gradient = self._cross_entropy(record, targets, T * normaliser)
        if self.lambda_:
            difference = np.subtract(record, self.phi, dtype=np.float64)
            pull, dpull = self._square_error(difference, targets, T * normaliser, C)
            loss = (1 - self.lambda_) * loss + self.lambda_ * pull
            gradient = (1 - self.lambda_) * gradient + self.lambda_ * dpull
        return loss, gradient.astype(record.dtype)


class mse_membrane_loss(ReducedLoss):
    """Square error of the membranes, averaged over time:  1/(T N C) sum_{t, b, c} w[y_b] (membrane[t, b, c] - target)^2.

    The target is ``on_target`` for the label's neuron and ``off_target`` for the others, or the targets are membranes (T, B, C)
    themselves. A "sum" does not divide by C, but by T. snnTorch raises for time-varying targets, takes a negative ``off_target``
    below ``on_target`` for 0, and multiplies errors (B, C) by w[y] (B,), which takes the samples for the classes.

    Parameters
    ----------
    time_var_targets : bool
        Whether targets are (T, B, C) real numbers rather than labels. There are no class weights then.
    on_target, off_target : float
    reduction, weight
        See ``ReducedLoss``.
    """

    inputs = "membrane"

    def __init__(
        self,
        time_var_targets: bool = False,
        on_target: float = 1,
        off_target: float = 0,
        reduction: str = "mean",
        weight=None,
    ):
        super().__init__(reduction, weight)
        self.time_var_targets = bool(time_var_targets)
        if self.time_var_targets:
            self.target_kind = "membranes"
            if weight is not None:
                raise ValueError("weight needs labels: time_var_targets=True has none")
        self.on_target = check_number("on_target", on_target, -math.inf)
        self.off_target = check_number("off_target", off_target, -math.inf)

    def check(self, targets, num_steps, batch, features):
        """-> labels (B,), or membranes (B, T, C)."""
        if not self.time_var_targets:
            return super().check(targets, num_steps, batch, features)
        targets, shape = check_reals("targets", targets), (num_steps, batch, self.classes(features))
        if targets.shape != shape:
            raise ValueError(f"targets must have the shape {shape} of the membranes, got {targets.shape}")
        return targets.swapaxes(0, 1)

    def partial(self, record, targets, normaliser):
        """record (T, b, C), labels (b,) or membranes (b, T, C) -> share of the loss, dmembrane (T, b, C)."""
        if self.time_var_targets:
            wanted = targets.swapaxes(0, 1)
        else:
            wanted = one_hot(targets, record.shape[2], self.on_target, self.off_target)
        loss, gradient = self._square_error(record - wanted, targets, normaliser * len(record), record.shape[2])
        return loss, gradient.astype(record.dtype)

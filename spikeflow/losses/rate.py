"""Losses of how many spikes the output neurons emit.

With a population code, C outputs stand for K classes: neurons k C/K to (k + 1) C/K - 1 for class k, whose spikes are added.
"""

from __future__ import annotations

import numbers

import numpy as np

from .base import Loss, ReducedLoss, check_number, one_hot

__all__ = ["add_groups", "ce_count_loss", "ce_rate_loss", "check_groups", "l1_rate_sparsity", "mse_count_loss", "mse_rate_loss"]


class RateLoss(ReducedLoss):
    """Base of the losses of spike counts.

    Parameters
    ----------
    population_code : bool
        Whether groups of neurons stand for the classes.
    num_classes : int
        Number K of the classes, needed for a population code; without one, every output is a class.
    reduction, weight, label_smoothing
        See ``ReducedLoss``.
    """

    def __init__(
        self,
        population_code: bool = False,
        num_classes: int | None = None,
        reduction: str = "mean",
        weight=None,
        label_smoothing: float = 0,
    ):
        super().__init__(reduction, weight, label_smoothing)
        if population_code:
            check_num_classes(num_classes)
        self.population_code, self.num_classes = bool(population_code), num_classes

    def classes(self, features):
        """The number of classes that outputs of shape ``features`` stand for; ValueError if they do not divide among them."""
        if self.population_code and len(features) == 1:
            check_groups(features[0], self.num_classes)
            features = (self.num_classes,)
        return super().classes(features)

    def _counts(self, record) -> np.ndarray:
        """record (T, b, C) -> spikes of each class over time (b, K), float64."""
        return self._grouped(record.sum(0, dtype=np.float64))

    def _grouped(self, record):
        """record (..., C) -> (..., K)."""
        return add_groups(record, self.num_classes) if self.population_code else record

    def _spread(self, gradient, record) -> np.ndarray:
        """dL/dcounts (b, K), or by step (T, b, K) -> drecord (T, b, C): each neuron of a group has its class's gradient."""
        drecord = np.empty_like(record, order="C")
        drecord[...] = np.repeat(gradient, record.shape[2] // gradient.shape[-1], -1) if self.population_code else gradient
        return drecord


class ce_rate_loss(RateLoss):
    """Cross-entropy of the spikes at each step, averaged over time:  1/(T N) sum_{t, b} w[y_b] CE(spikes[t, b], y_b).

    With a population code the logits of a step are the spikes of each class's group at that step, where snnTorch computes the
    groups and then does not use them.
    """

    def partial(self, record, targets, normaliser):
        """record (T, b, C), labels (b,) -> share of the loss, dspikes (T, b, C)."""
        loss, gradient = self._cross_entropy(self._grouped(record), targets, len(record) * normaliser)
        return loss, self._spread(gradient, record)


class ce_count_loss(RateLoss):
    """Cross-entropy of the spike counts of the classes:  1/N sum_b w[y_b] CE(counts[b], y_b)."""

    def partial(self, record, targets, normaliser):
        """record (T, b, C), labels (b,) -> share of the loss, dspikes (T, b, C)."""
        loss, gradient = self._cross_entropy(self._counts(record)[None], targets, normaliser)
        return loss, self._spread(gradient[0], record)


class TargetRateLoss(RateLoss):
    """Base of the losses with a target for the spikes of each class.

    Parameters
    ----------
    correct_rate, incorrect_rate : float
        Of the label's class and of the others: spikes per neuron and step, in [0, 1].
    population_code, num_classes, reduction, weight
        See ``RateLoss``.
    """

    def __init__(
        self,
        correct_rate: float = 1,
        incorrect_rate: float = 0,
        population_code: bool = False,
        num_classes: int | None = None,
        reduction: str = "mean",
        weight=None,
    ):
        super().__init__(population_code, num_classes, reduction, weight)
        self.correct_rate = check_number("correct_rate", correct_rate, 0, 1)
        self.incorrect_rate = check_number("incorrect_rate", incorrect_rate, 0, 1)


class mse_count_loss(TargetRateLoss):
    """Square error of the spike counts of the classes:  1/(T N K) sum_{b, k} w[y_b] (counts[b, k] - target[b, k])^2.

    The target is int(T C/K correct_rate) spikes for the label's class and int(T C/K incorrect_rate) for the others. A "sum" does
    not divide by K, but by T. A sample has the weight of its label, where snnTorch multiplies errors (B, K) by w[y] (B,), which
    takes the samples for the classes.

    Parameters
    ----------
    correct_rate, incorrect_rate, population_code, num_classes, reduction, weight
        See ``TargetRateLoss``.
    """

    def partial(self, record, targets, normaliser):
        """record (T, b, C), labels (b,) -> share of the loss, dspikes (T, b, C)."""
        T, _, C = record.shape
        counts = self._counts(record)
        K = counts.shape[1]
        on, off = (int(T * rate * (C / K)) for rate in (self.correct_rate, self.incorrect_rate))
        difference = counts - one_hot(targets, K, on, off)
        loss, gradient = self._square_error(difference[None], targets, normaliser * T, K)
        return loss, self._spread(gradient[0], record)


class mse_rate_loss(TargetRateLoss):
    """Square error of the firing rates of the classes:  1/(N K) sum_{b, k} w[y_b] (rate[b, k] - target[b, k])^2.

    A class's rate is its spikes per neuron and step; its target is ``correct_rate`` for the label's class and ``incorrect_rate``
    for the others. These are the one-hot labels by default: the loss of SpikingJelly's Fashion-MNIST example. A "sum" does not
    divide by K.

    Parameters
    ----------
    correct_rate, incorrect_rate, population_code, num_classes, reduction, weight
        See ``TargetRateLoss``.
    """

    def partial(self, record, targets, normaliser):
        """record (T, b, C), labels (b,) -> share of the loss, dspikes (T, b, C)."""
        T, _, C = record.shape
        counts = self._counts(record)
        K = counts.shape[1]
        most = T * C // K  # spikes of a class
        difference = counts / most - one_hot(targets, K, self.correct_rate, self.incorrect_rate)
        loss, gradient = self._square_error(difference[None], targets, normaliser, K)
        return loss, self._spread(gradient[0] / most, record)


class l1_rate_sparsity(Loss):
    """Lambda times the number of output spikes, over all steps, samples and neurons of any shape; reads no targets.

    A sum over the batch, not a mean, as in snnTorch.

    Parameters
    ----------
    Lambda : float
        At least 0.
    """

    target_kind = None

    def __init__(self, Lambda: float = 1e-5):
        self.Lambda = check_number("Lambda", Lambda, 0)

    def check(self, targets, num_steps, batch, features):
        """-> (B, 0), whatever the targets."""
        return np.empty((batch, 0))

    def partial(self, record, targets, normaliser):
        """record (T, b, ...) -> share of the loss, dspikes (T, b, ...)."""
        return float(self.Lambda * record.sum(dtype=np.float64)), np.full_like(record, self.Lambda)


def check_num_classes(num_classes) -> None:
    """ValueError if ``num_classes`` is not an integer of at least 1."""
    if isinstance(num_classes, bool) or not isinstance(num_classes, numbers.Integral) or num_classes < 1:
        raise ValueError(f"num_classes must be an integer of at least 1 with a population code, got {num_classes!r}")


def check_groups(outputs: int, num_classes: int) -> None:
    """ValueError if ``outputs`` neurons do not divide evenly among ``num_classes`` classes."""
    check_num_classes(num_classes)
    if outputs % num_classes:
        raise ValueError(f"num_classes must divide the number of outputs, got {num_classes} for {outputs} outputs")


def add_groups(record: np.ndarray, num_classes: int) -> np.ndarray:
    """record (..., C) -> the sums over each class's neurons (..., K), float64 of floats."""
    groups = record.reshape(*record.shape[:-1], num_classes, -1)
    return groups.sum(-1, dtype=np.float64 if np.issubdtype(record.dtype, np.floating) else None)

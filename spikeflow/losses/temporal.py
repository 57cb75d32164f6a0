"""Losses of when the output neurons spike.

A spike is any number that is not 0; a neuron that never spikes counts as if it did at the last step, T - 1. A spike time has no
derivative. In its place dtime/dspikes[t] = -1 at the step t of that time (T - 1 for a silent neuron) and 0 at any other step: a
spike that gets larger comes earlier.
"""

from __future__ import annotations

import numpy as np

from .base import ReducedLoss, check_choice, check_number, check_reals, one_hot

__all__ = ["ce_temporal_loss", "mse_temporal_loss", "spike_times"]


class ce_temporal_loss(ReducedLoss):
    """Cross-entropy of the inverted times t_b (C,) of the first spikes:  1/N sum_b w[y_b] CE(inverse(t_b), y_b).

    Parameters
    ----------
    inverse : "negate" or "reciprocal"
        -t, or 1/(t + 1).
    reduction, weight, label_smoothing
        See ``ReducedLoss``.
    """

    def __init__(self, inverse: str = "negate", reduction: str = "mean", weight=None, label_smoothing: float = 0):
        super().__init__(reduction, weight, label_smoothing)
        self.inverse = check_choice("inverse", inverse, ("negate", "reciprocal"))

    def partial(self, record, targets, normaliser):
        """record (T, b, C), labels (b,) -> share of the loss, dspikes (T, b, C)."""
        times = spike_times(record, 1)
        loss, dtimes = self._loss_of_times(times.astype(np.float64), targets, normaliser)
        return loss, _spikes_gradient(dtimes, times, record)

    def _loss_of_times(self, times, labels, normaliser):
        """times (1, b, C) -> share of the loss, dtimes (1, b, C)."""
        if self.inverse == "negate":
            loss, gradient = self._cross_entropy(-times, labels, normaliser)
            return loss, -gradient
        logits = 1 / (times + 1)
        loss, gradient = self._cross_entropy(logits, labels, normaliser)
        return loss, -gradient * logits * logits


class mse_temporal_loss(ReducedLoss):
    """Square error of the spike times as parts of T:  1/(N F C) sum_{f, b, c} w[y_b] ((t[f, b, c] - target) / T)^2.

    t are the times of each neuron's F first spikes, one without ``multi_spike``; missing ones count as T - 1. A "sum" does not
    divide by F C. Of several missing spikes each sends its own gradient to step T - 1.

    snnTorch turns negative targets below ``on_target``, its own default included, into 0; clears whole steps, of all neurons and
    samples, when it looks for the next spike; keeps one of several gradients at a step; changes times given as targets in place;
    and multiplies errors (B, C) by w[y] (B,), which takes the samples for the classes.

    Parameters
    ----------
    target_is_time : bool
        Whether targets are times (B, C), or (F, B, C) with ``multi_spike``, rather than labels. There are no class weights then.
    on_target, off_target : number, or F numbers with ``multi_spike``
        Times of the label's neuron and of the others, in [-T, T - 1]; negative ones count from the end, -1 is the last step.
    tolerance : float
        A time that is less than this many steps from its target counts as its target.
    multi_spike : bool
    reduction, weight
        See ``ReducedLoss``.
    """

    def __init__(
        self,
        target_is_time: bool = False,
        on_target=0,
        off_target=-1,
        tolerance: float = 0,
        multi_spike: bool = False,
        reduction: str = "mean",
        weight=None,
    ):
        super().__init__(reduction, weight)
        self.target_is_time, self.multi_spike = bool(target_is_time), bool(multi_spike)
        self.tolerance = check_number("tolerance", tolerance, 0)
        self.on_target, self.off_target = on_target, off_target
        if not target_is_time:
            self._check_on_off()
            return
        self.target_kind = "spike times"
        if weight is not None:
            raise ValueError("weight needs labels: target_is_time=True has none")

    def _check_on_off(self) -> None:
        for name in ("on_target", "off_target"):
            times = np.asarray(getattr(self, name))
            check_reals(name, times)
            if self.multi_spike and (times.ndim != 1 or not times.size):
                raise ValueError(f"{name} must be a list of spike times with multi_spike=True, got {times.tolist()}")
            if not self.multi_spike and times.ndim:
                raise ValueError(f"{name} must be one spike time without multi_spike=True, got {times.tolist()}")
            setattr(self, name, times.tolist())
        if np.size(self.on_target) != np.size(self.off_target):
            lengths = f"{len(self.on_target)} and {len(self.off_target)}"
            raise ValueError(f"on_target and off_target must have the same length, got {lengths}")

    def check(self, targets, num_steps, batch, features):
        """-> labels (B,), or times (B, C), with ``multi_spike`` (B, F, C), from 0 on."""
        if not self.target_is_time:
            for name in ("on_target", "off_target"):
                _check_times(name, getattr(self, name), num_steps)
            return super().check(targets, num_steps, batch, features)
        targets, C = check_reals("targets", targets), self.classes(features)
        if targets.ndim != 2 + self.multi_spike or targets.shape[-2:] != (batch, C) or not targets.size:
            shape = f"(F, {batch}, {C})" if self.multi_spike else f"({batch}, {C})"
            raise ValueError(f"targets must be spike times of shape {shape}, got {targets.shape}")
        targets = _check_times("targets", targets, num_steps)
        return targets.swapaxes(0, 1) if self.multi_spike else targets

    def partial(self, record, targets, normaliser):
        """record (T, b, C), labels (b,) or times (b, C) or (b, F, C) -> share of the loss, dspikes (T, b, C)."""
        T, _, C = record.shape
        wanted = self._wanted_times(targets, T, C)
        times = spike_times(record, len(wanted))
        difference = times - wanted
        difference[np.abs(difference) < self.tolerance] = 0
        loss, dtimes = self._square_error(difference / T, targets, normaliser, len(wanted) * C)
        return loss, _spikes_gradient(dtimes / T, times, record)

    def _wanted_times(self, targets, T, C):
        """labels (b,) or times -> (F, b, C)."""
        if self.target_is_time:
            return targets.swapaxes(0, 1) if self.multi_spike else targets[None]
        on, off = (from_start(np.atleast_1d(times), T) for times in (self.on_target, self.off_target))
        return one_hot(targets, C, on, off)


def spike_times(record: np.ndarray, number: int) -> np.ndarray:
    """record (T, b, C) -> steps of each neuron's first ``number`` spikes (number, b, C), in order; T - 1 for a missing one."""
    T = len(record)
    steps = np.where(record != 0, np.arange(T)[:, None, None], T - 1)
    if number == 1:
        return steps.min(0, keepdims=True)
    steps.sort(0)
    return steps[np.minimum(np.arange(number), T - 1)]  # the last of the T is T - 1 in any case


def _spikes_gradient(dtimes, times, record) -> np.ndarray:
    """dtimes, times (F, b, C) -> dspikes (T, b, C): -dtime at each time."""
    gradient = np.zeros(record.shape)
    _, b, c = np.indices(times.shape, sparse=True)
    np.subtract.at(gradient, (times, b, c), dtimes)
    return gradient.astype(record.dtype)


def from_start(times, num_steps) -> np.ndarray:
    """Negative times count from the end."""
    return np.where(times < 0, times + num_steps, times)


def _check_times(name, times, num_steps) -> np.ndarray:
    """-> the times from the start; ValueError if one is not in [-T, T - 1]."""
    times = np.asarray(times, np.float64)
    steps = from_start(times, num_steps)
    if (steps < 0).any() or (steps > num_steps - 1).any():
        limits = f"[{-num_steps}, {num_steps - 1}]"
        raise ValueError(f"{name} must be spike times in {limits}, got values from {times.min():g} to {times.max():g}")
    return steps

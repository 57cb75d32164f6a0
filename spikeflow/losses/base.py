"""What every loss shares: the interface, sums of losses, and losses with a reduction and class weights."""

from __future__ import annotations

import functools
import inspect
import math
import numbers

import numpy as np

from ..ops.cross_entropy.cpu import cross_entropy

__all__ = ["Loss", "LossSum", "ReducedLoss", "check_choice", "check_labels", "check_number", "check_reals"]


class Loss:
    """Base of the losses: ``loss, drecord = loss_fn(record, targets)`` with ``record`` (T, B, C).

    A subclass defines ``partial``, or ``gradients`` if it reads both records.

    Attributes
    ----------
    inputs : "spikes", "membrane" or "both"
        What the loss reads.
    target_kind : str or None
        What the targets are, ``"labels"`` (B,) by default; None if there are none. Losses add up only if these agree.
    """

    inputs = "spikes"
    target_kind: str | None = "labels"

    def classes(self, features: tuple[int, ...]) -> int:
        """The number of classes that outputs of shape ``features`` stand for."""
        if len(features) != 1:
            raise ValueError(f"{type(self).__name__} needs outputs of shape (C,) per sample, got {features}")
        return features[0]

    def check(self, targets, num_steps: int, batch: int, features: tuple[int, ...]) -> np.ndarray:
        """-> the targets as an array whose first axis is the batch; TypeError or ValueError if they do not fit the outputs."""
        return check_labels(targets, batch, self.classes(features))

    def normaliser(self, targets: np.ndarray) -> float:
        """What the sum over the samples is divided by, from checked targets: the batch size."""
        return float(len(targets))

    def partial(self, record: np.ndarray, targets: np.ndarray, normaliser: float) -> tuple[float, np.ndarray]:
        """record (T, b, ...), checked targets (b, ...) -> share of the loss, drecord (T, b, ...)."""
        raise NotImplementedError("a loss must define partial")

    def gradients(self, spikes, membrane, targets, normaliser) -> tuple[float, np.ndarray | None, np.ndarray | None]:
        """The share of the loss over some samples.

        Parameters
        ----------
        spikes, membrane : (T, b, ...)
            One that the loss does not read may be None.
        targets : (b, ...)
            Of these samples, from ``check``.
        normaliser
            Of the whole batch, from ``normaliser``.

        Returns
        -------
        loss : float
        dspikes, dmembrane : (T, b, ...), None for one that the loss does not read
        """
        if self.inputs not in ("spikes", "membrane"):
            raise ValueError(f'{self!r}.inputs must be "spikes" or "membrane", got {self.inputs!r}')
        record = spikes if self.inputs == "spikes" else membrane
        loss, gradient = self.partial(record, targets, normaliser)
        if np.shape(gradient) != record.shape:
            raise ValueError(f"{self!r} must return a gradient of shape {record.shape}, got {np.shape(gradient)}")
        return (loss, gradient, None) if self.inputs == "spikes" else (loss, None, gradient)

    def evaluate(self, spikes, membrane, targets=None) -> tuple[float, np.ndarray | None, np.ndarray | None]:
        """The loss of a whole batch: spikes, membrane (T, B, ...), unchecked targets -> loss, dspikes, dmembrane.

        As ``gradients``, with all checks.
        """
        spikes = None if self.inputs == "membrane" else _check_record("spikes", spikes)
        membrane = None if self.inputs == "spikes" else _check_record("membrane", membrane)
        record = membrane if spikes is None else spikes
        if membrane is not None and membrane.shape != record.shape:
            raise ValueError(f"spikes and membrane must have one shape, got {spikes.shape} and {membrane.shape}")
        targets = self.check(targets, *record.shape[:2], record.shape[2:])
        return self.gradients(spikes, membrane, targets, self.normaliser(targets))

    def __call__(self, record: np.ndarray, targets=None) -> tuple[float, np.ndarray]:
        if self.inputs == "both":
            raise TypeError(f"{self!r} reads spikes and membranes: call evaluate(spikes, membrane, targets)")
        loss, dspikes, dmembrane = self.evaluate(record, record, targets)
        return loss, dmembrane if dspikes is None else dspikes

    def __add__(self, other: Loss) -> LossSum:
        return LossSum(self.terms() + other.terms()) if isinstance(other, Loss) else NotImplemented

    def __mul__(self, factor: float) -> LossSum:
        if not isinstance(factor, numbers.Real):
            return NotImplemented
        factor = float(check_number("factor", factor, -math.inf))
        return LossSum([(factor * scale, loss) for scale, loss in self.terms()])

    __rmul__ = __mul__

    def terms(self) -> list[tuple[float, Loss]]:
        """The loss as a sum of factors times losses."""
        return [(1, self)]

    def __repr__(self) -> str:
        """The call that makes this loss, with the options that differ from their defaults."""
        options = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            value = getattr(self, name, parameter.default)
            value = value.tolist() if isinstance(value, np.ndarray) else value
            if value != parameter.default:
                options.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(options)})"


class LossSum(Loss):
    """A sum of factors times losses that read the same targets, as ``+`` and ``*`` make it.

    Parameters
    ----------
    parts : list of (factor, Loss)

    Raises
    ------
    ValueError
        The losses read targets of different kinds.
    """

    def __init__(self, parts: list[tuple[float, Loss]]):
        self.parts = tuple(parts)
        kinds = {loss.target_kind for _, loss in parts} - {None}
        if len(kinds) > 1:
            raise ValueError(f"losses with different targets do not add up, got {', '.join(sorted(kinds))}")
        self.target_kind = kinds.pop() if kinds else None
        inputs = {loss.inputs for _, loss in parts}
        self.inputs = inputs.pop() if len(inputs) == 1 else "both"

    def terms(self):
        return list(self.parts)

    def check(self, targets, num_steps, batch, features):
        """-> the targets as the parts that have any return them, which is the same for all."""
        checked = None
        for _, loss in self.parts:
            part = loss.check(targets, num_steps, batch, features)
            checked = part if checked is None or loss.target_kind is not None else checked
        return checked

    def normaliser(self, targets):
        """The normalisers of the parts, a tuple."""
        return tuple(loss.normaliser(targets) for _, loss in self.parts)

    def partial(self, record, targets, normaliser):
        """record (T, b, ...), which all parts read, checked targets (b, ...) -> share of the loss, drecord (T, b, ...)."""
        loss, dspikes, dmembrane = self.gradients(record, record, targets, normaliser)
        return loss, dmembrane if dspikes is None else dspikes

    def gradients(self, spikes, membrane, targets, normaliser):
        """As ``Loss.gradients``, with a tuple of normalisers; the parts' gradients are added in float64."""
        total, sums = 0.0, [None, None]
        for (factor, loss), part in zip(self.parts, normaliser, strict=True):
            share, *gradients = loss.gradients(spikes, membrane, targets, part)
            total += factor * share
            for i, gradient in enumerate(gradients):
                if gradient is not None:
                    term = np.multiply(gradient, factor, dtype=np.float64)
                    sums[i] = term if sums[i] is None else sums[i] + term
        dspikes, dmembrane = (
            None if gradient is None else gradient.astype(record.dtype)
            for gradient, record in zip(sums, (spikes, membrane), strict=True)
        )
        return total, dspikes, dmembrane

    def __repr__(self) -> str:
        return " + ".join(repr(loss) if factor == 1 else f"{factor} * {loss!r}" for factor, loss in self.parts)


class ReducedLoss(Loss):
    """Base of the losses that sum or average over the samples, with a weight for each class.

    Parameters
    ----------
    reduction : "mean" or "sum"
        Over the samples; a mean-square error takes it over the outputs too.
    weight : (K,) or None
        Sample b counts w[y_b] times; "mean" divides by the sum of these, not by B.
    label_smoothing : float
        Part e of the target of a cross-entropy that goes to all classes alike, in [0, 1). As PyTorch has it, CE(z, y) with its
        weight w[y] becomes (1 - e) w[y] CE(z, y) + e/K sum_k w[k] CE(z, k).
    """

    def __init__(self, reduction: str = "mean", weight=None, label_smoothing: float = 0):
        self.reduction = check_choice("reduction", reduction, ("mean", "sum"))
        self.weight = None if weight is None else _check_weight(weight)
        self.label_smoothing = _check_smoothing(label_smoothing)

    def classes(self, features):
        """The number of classes that outputs of shape ``features`` stand for; ValueError if there are not as many weights."""
        classes = super().classes(features)
        self._check_weight_length(classes)
        return classes

    def normaliser(self, targets):
        """N of the batch: the sum of w[y_b], or 1 for a sum."""
        if self.reduction == "sum":
            return 1.0
        if self.weight is None:
            return float(len(targets))
        total = float(self.weight[targets].sum())
        if total == 0:
            raise ValueError("weight must not be 0 for the labels of every sample: their mean is not defined")
        return total

    def _check_weight_length(self, classes: int) -> None:
        if self.weight is not None and len(self.weight) != classes:
            raise ValueError(f"weight must have one number for each of {classes} classes, got {len(self.weight)}")

    def _factors(self, targets, divisor) -> np.ndarray:
        """-> (b,) what each sample's own loss counts, w[y_b] / divisor."""
        return _alike(len(targets), 1 / divisor) if self.weight is None else self.weight[targets] / divisor

    def _cross_entropy(self, logits, labels, divisor) -> tuple[float, np.ndarray]:
        """logits (S, b, K) -> sum_{s, b} w[y_b] CE(logits[s, b], y_b) / divisor, its gradient (S, b, K) in float64.

        With smoothed labels if that is chosen.
        """
        e, K = self.label_smoothing, logits.shape[-1]
        factors = self._factors(labels, divisor)
        factors = (1 - e) * factors if e else factors
        shares = self._factors(np.arange(K), divisor) * (e / K) if e else None
        losses, gradient = cross_entropy(logits, labels, factors, shares)
        return float(losses.sum()), gradient

    def _square_error(self, difference, targets, divisor, outputs) -> tuple[float, np.ndarray]:
        """difference (S, b, K) float64 -> sum w[y_b] difference^2 / divisor, its gradient; a mean divides by outputs as well."""
        if self.reduction == "mean":
            divisor *= outputs
        gradient = difference * self._factors(targets, divisor)[:, None]
        loss = float((gradient * difference).sum())
        gradient *= 2
        return loss, gradient


@functools.lru_cache(maxsize=64)
def _alike(count: int, value: float) -> np.ndarray:
    """-> (count,) of one value; nobody writes to it."""
    return np.full(count, value)


def one_hot(labels: np.ndarray, classes: int, on, off) -> np.ndarray:
    """labels (b,); on, off numbers, or one for each of F -> (b, classes), or (F, b, classes): on at the label, off elsewhere."""
    on, off = np.asarray(on, np.float64)[..., None, None], np.asarray(off, np.float64)[..., None, None]
    return np.where(labels[:, None] == np.arange(classes), on, off)


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


def check_reals(name: str, values) -> np.ndarray:
    """-> values as float64; TypeError if they are not real numbers, ValueError if one is not finite."""
    values = np.asarray(values)
    if not (np.issubdtype(values.dtype, np.integer) or np.issubdtype(values.dtype, np.floating)):
        raise TypeError(f"{name} must be real numbers, got {values.dtype}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite")
    return values.astype(np.float64)


def check_number(name: str, value, least: float, most: float = math.inf):
    """-> the number ``value``; ValueError if it is none, not finite, or not in [least, most]."""
    if not (isinstance(value, numbers.Real) and math.isfinite(value) and least <= value <= most):
        limit = "" if least == -math.inf else f" of at least {least}" if most == math.inf else f" in [{least}, {most}]"
        raise ValueError(f"{name} must be a finite number{limit}, got {value!r}")
    return value


def check_choice(name: str, value, choices: tuple[str, ...]) -> str:
    """-> ``value``; ValueError if it is not one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, got {value!r}")
    return value


def _check_record(name, record) -> np.ndarray:
    record = np.asarray(record)
    if record.ndim < 3 or 0 in record.shape or not np.issubdtype(record.dtype, np.floating):
        raise ValueError(f"{name} must be a float array (T, B, C), got {record.dtype} {record.shape}")
    return record


def _check_smoothing(value) -> float:
    if not (isinstance(value, numbers.Real) and 0 <= value < 1):
        raise ValueError(f"label_smoothing must be a number in [0, 1), got {value!r}")
    return float(value)


def _check_weight(weight) -> np.ndarray:
    weight = check_reals("weight", weight)
    if weight.ndim != 1 or (weight < 0).any():
        raise ValueError(f"weight must have one number of at least 0 for each class, got {weight.tolist()}")
    return weight

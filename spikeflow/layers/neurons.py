"""Spiking neurons as layers: the only layers that know about time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..ops.events import Awaited, Fired, SpikeWords
from ..ops.surrogate import Surrogate, atan, from_config
from .base import Layer

__all__ = ["Leaky", "Neuron"]

RESETS = ("subtract", "zero", "none")


class Kept(NamedTuple):
    """What a neuron keeps of its forward pass."""

    membrane: np.ndarray | None  # (T + 1, M): row t + 1 is m[t], row 0 the initial state; None where current is kept
    input_shape: tuple[int, ...]  # (T or 1, B, ...)
    current: np.ndarray | None = None  # (1, M): a constant input, from which backward computes the membrane again


class Neuron(Layer):
    """Base of the spiking neurons: turns an input current ``(T, B, ...)``, or one that is constant in time, into spikes."""

    def output_shape(self, shape):
        return shape

    def snntorch_constants(self) -> dict[str, float]:
        """What snnTorch's state dict holds for such a neuron, parameters aside."""
        return {}


class Leaky(Neuron):
    """Leaky integrate-and-fire neuron, as snnTorch's ``Leaky`` with ``reset_delay=True``.

    The recurrences, forward and backward, are derived in ``spikeflow.ops.neurons.leaky``.

    Parameters
    ----------
    beta : float
        Decay of the membrane per time step, clamped to [0, 1] in forward.
    threshold : float
        The neuron fires when its membrane is strictly greater.
    spike_grad : Surrogate, optional
        From ``spikeflow.surrogate``; ``atan(alpha=2)`` by default.
    reset_mechanism : {"subtract", "zero", "none"}
        What a spike does to the membrane, one time step later.
    learn_beta, learn_threshold : bool
        Train them: they become parameters, scalars shared by the layer.
    """

    def __init__(
        self, beta: float, threshold: float = 1.0, spike_grad: Surrogate | None = None,
        reset_mechanism: str = "subtract", learn_beta: bool = False, learn_threshold: bool = False,
    ):  # fmt: skip
        super().__init__()
        for name, value in (("beta", beta), ("threshold", threshold)):
            if not isinstance(value, (int, float, np.floating, np.integer)) or not np.isfinite(value):
                raise ValueError(f"{name} must be a finite number, got {value!r}")
        if not 0 <= beta <= 1:
            raise ValueError(f"beta must be in [0, 1], got {beta}")
        if isinstance(spike_grad, dict):
            spike_grad = from_config(spike_grad)
        elif spike_grad is None:
            spike_grad = atan()
        elif not isinstance(spike_grad, Surrogate):
            raise TypeError(f"spike_grad must come from spikeflow.surrogate, such as atan(), got {spike_grad!r}")
        if reset_mechanism not in RESETS:
            raise ValueError(f"reset_mechanism must be one of {', '.join(RESETS)}, got {reset_mechanism!r}")
        self.beta, self.threshold = float(beta), float(threshold)
        self.spike_grad, self.reset_mechanism = spike_grad, reset_mechanism
        self.learn_beta, self.learn_threshold = bool(learn_beta), bool(learn_threshold)

    def initial_values(self, dtype, seed):
        learned = {"beta": self.learn_beta, "threshold": self.learn_threshold}
        return {key: np.array(getattr(self, key), dtype) for key, learns in learned.items() if learns}

    def current(self, key: str) -> float:
        """The value of ``"beta"`` or ``"threshold"`` now: learned, or as given."""
        return float(self.params[key].value) if key in self.params else getattr(self, key)

    def snntorch_constants(self) -> dict[str, float]:
        """What snnTorch's state dict holds for such a neuron, parameters aside."""
        constants = {
            "beta": self.beta,
            "threshold": self.threshold,
            "graded_spikes_factor": 1.0,
            "reset_mechanism_val": float(RESETS.index(self.reset_mechanism)),
        }
        return {key: value for key, value in constants.items() if key not in self.params}

    def recomputes(self, static: bool) -> bool:
        """May backward compute the membrane again, by (8), instead of keeping it? ``static``: the current is constant."""
        return static and not self.params

    def options(self) -> tuple[float, float, str, Surrogate]:
        """-> beta, threshold, reset and surrogate as the operations take them."""
        return min(max(self.current("beta"), 0.0), 1.0), self.current("threshold"), self.reset_mechanism, self.spike_grad

    def prepare(self, ops, plan):
        return plan.packs, self.options()

    def forward(self, ops, prepared, x, run):
        if isinstance(x, Fired):
            return x.spikes, Kept(x.membrane, x.spikes.shape)
        packs, options = prepared
        T, shape = run.num_steps, x.shape[1:]
        if packs:
            current = x.reshape(len(x), -1)
            keep = not self.recomputes(len(x) == 1) or run.records
            words, membrane = ops.leaky_forward_words(current, T, *options, keep)
            kept = Kept(membrane, x.shape) if keep else Kept(None, x.shape, current)
            return SpikeWords(words.reshape(len(words), *shape), T), kept
        spikes, membrane = ops.leaky_forward(x.reshape(len(x), -1), T, *options, smooth=run.smooth, **run.frozen(self))
        return spikes.reshape(T, *shape), Kept(membrane, x.shape)

    def backward(self, ops, prepared, dy, kept, grads, input_grad, dmembrane=None):
        """As in ``Layer``; ``dmembrane`` (T, B, ...) or None is dL/dmembrane from outside, and ``dy`` may be None then."""
        if isinstance(dy, Awaited):
            return ops.conv2d_leaky_backward(dy, kept.current, *prepared[1]).reshape(kept.input_shape)
        if kept.current is not None:
            rows = dy.reshape(len(dy), -1)
            return ops.leaky_backward_static(rows, kept.current, *prepared[1]).reshape(kept.input_shape)
        steps = kept.input_shape[0]
        rows = [None if d is None else d.reshape(len(d), -1) for d in (dy, dmembrane)]
        dbeta = grads.get("beta")
        if dbeta is not None and not 0 <= self.current("beta") <= 1:
            dbeta = None  # outside, the clamp is flat
        gradients = dbeta, grads.get("threshold")
        return ops.leaky_backward(*rows, kept.membrane, steps, *prepared[1], *gradients).reshape(kept.input_shape)

    def choices(self, kept):
        return {"flags": kept.membrane[:-1] > kept.membrane.dtype.type(self.current("threshold"))}

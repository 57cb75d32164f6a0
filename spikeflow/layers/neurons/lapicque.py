"""Lapicque's neuron: a resistor and a capacitor."""

from __future__ import annotations

import numpy as np

from ...ops.surrogate import Surrogate
from .base import Neuron

__all__ = ["Lapicque"]


class Lapicque(Neuron):
    """Lapicque's neuron, a resistor and a capacitor, snnTorch's ``Lapicque``; derived in ``spikeflow.ops.neurons.lapicque``.

    Parameters
    ----------
    beta : float or array, optional
        Decay of the membrane per time step, clamped to [0, 1] in forward; 1 - time_step / (R C) by default.
    R, C : float, optional
        Resistance in ohm and capacitance in farad. Both without ``beta``; of the two with it, the missing one follows, and R is 1
        without either.
    time_step : float
        In seconds.
    threshold, spike_grad, reset_mechanism, **common
        As for every ``Neuron``.
    learn_beta : bool
        R stays what it is, and C follows.

    Raises
    ------
    ValueError
        Neither ``beta`` nor R and C; three that contradict each other; a decay outside [0, 1].
    """

    neuron, own_names, decays = "lapicque", ("beta",), ("beta",)

    def __init__(
        self, beta=None, R: float | None = None, C: float | None = None, time_step: float = 1.0, threshold=1.0,
        spike_grad: Surrogate | None = None, reset_mechanism: str = "subtract", learn_beta: bool = False, **common,
    ):  # fmt: skip
        super().__init__(threshold, spike_grad, reset_mechanism, **common)
        for name, value in (("R", R), ("C", C), ("time_step", time_step)):
            setattr(self, name, _positive(name, value, optional=name != "time_step"))
        both = R is not None and C is not None
        if beta is None and not both:
            raise ValueError(f"beta is needed, or R and C; got R={R!r}, C={C!r}")
        self._numbers("beta", 1 - self.time_step / (R * C) if beta is None else beta, learn_beta, 0, 1)
        self._check_beta(both)
        self.resistance = 1.0 if R is None else self.R  # in ohm
        if R is None and C is not None:
            self.resistance = self.time_step / (self.C * (1 - np.asarray(self.beta)))

    def _check_beta(self, both: bool) -> None:
        """ValueError where beta does not go with R and C; ``both``: they are both given."""
        if both and not np.allclose(self.beta, 1 - self.time_step / (self.R * self.C), rtol=0, atol=1e-6):
            implied = 1 - self.time_step / (self.R * self.C)
            raise ValueError(f"beta={self.beta} contradicts 1 - time_step / (R C) = {implied:g}; leave one out")
        if self.C is not None and np.any(np.asarray(self.beta) == 1):
            raise ValueError("beta must be below 1 where C is given: R = time_step / (C (1 - beta))")

    def number_names(self):
        return [*super().number_names(), "resistance"]

    def own(self, values):
        beta = np.clip(values["beta"], 0, 1)
        return [beta, values["resistance"] * (1 - beta)]

    def own_backward(self, values, down):
        dbeta, dgain = down
        return {"beta": (dbeta - values["resistance"] * dgain) * self._inside(values, "beta")}

    def learned_rows(self):
        return super().learned_rows() | ({"gain": ("complement", "beta")} if "beta" in self.learned else {})

    def snntorch_constants(self):
        constants = super().snntorch_constants()
        del constants["resistance"]
        beta, dt = np.asarray(self.beta), self.time_step
        if self.R is not None and self.C is not None:
            return constants | {"R": self.R, "C": self.C, "time_step": dt, "beta": np.exp(-dt / (self.R * self.C))}
        with np.errstate(divide="ignore"):
            product = dt / np.log(1 / beta)  # snnTorch's R C
        R = self.R or (1.0 if self.C is None else product / self.C)
        return constants | {"R": R, "C": product / R if self.C is None else self.C, "time_step": dt}


def _positive(name: str, value, optional: bool) -> float | None:
    """-> value as a float, or None where it may be left out; ValueError, naming the option, if it is not above 0 and finite."""
    if value is None and optional:
        return None
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not (number and np.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a positive finite number, got {value!r}")
    return float(value)

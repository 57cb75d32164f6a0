"""Leaky integrate-and-fire neurons, and the membrane that integrates alone."""

from __future__ import annotations

from ...ops.neurons.model import Model
from ...ops.surrogate import Surrogate
from .base import Neuron

__all__ = ["Leaky", "LeakyIntegrator"]


class Leaky(Neuron):
    """Leaky integrate-and-fire neuron, snnTorch's ``Leaky``; derived in ``spikeflow.ops.neurons.leaky``.

    Parameters
    ----------
    beta : float or array
        Decay of the membrane per time step, clamped to [0, 1] in forward.
    threshold, spike_grad, reset_mechanism, **common
        As for every ``Neuron``.
    learn_beta : bool
    reset_delay : bool
        A spike resets the membrane one step later (True), or in its own step.
    """

    neuron, own_names, decays = "leaky", ("beta",), ("beta",)

    def __init__(
        self, beta, threshold=1.0, spike_grad: Surrogate | None = None, reset_mechanism: str = "subtract",
        learn_beta: bool = False, learn_threshold: bool = False, reset_delay: bool = True, **common,
    ):  # fmt: skip
        super().__init__(threshold, spike_grad, reset_mechanism, learn_threshold, **common)
        self._numbers("beta", beta, learn_beta, 0, 1)
        self.reset_delay = bool(reset_delay)

    def plain(self):
        if self.learned or self.graded or self.inhibition or not self.reset_delay:
            return None
        numbers = [self.current(name) for name in ("beta", "threshold")]
        if any(number.ndim for number in numbers):
            return None
        return float(numbers[0]), float(numbers[1]), self.reset_mechanism, self.spike_grad


class LeakyIntegrator(Neuron):
    """A membrane that leaks and integrates and never fires, to be read out; derived in
    ``spikeflow.ops.neurons.leaky_integrator``.

    Its spikes are zeros. It can only be the last layer.

    Parameters
    ----------
    beta : float or array
        Decay of the membrane per time step, clamped to [0, 1] in forward.
    learn_beta : bool
    """

    neuron, own_names, decays = "leaky_integrator", ("beta",), ("beta",)

    def __init__(self, beta, learn_beta: bool = False):
        super().__init__(reset_mechanism="none")
        self._numbers("beta", beta, learn_beta, 0, 1)

    @property
    def model(self):
        return Model(self.neuron, "none", self.spike_grad, fires=False)

    @property
    def binary(self):
        return False

    def choices(self, kept):
        return {}

    def snntorch_constants(self):
        return {}

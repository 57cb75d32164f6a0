"""Neurons with a synaptic current."""

from __future__ import annotations

from ...ops.surrogate import Surrogate
from .base import Neuron

__all__ = ["Synaptic"]


class Synaptic(Neuron):
    """Neuron with a synaptic current that decays on its own, snnTorch's ``Synaptic``; see ``spikeflow.ops.neurons.synaptic``.

    Parameters
    ----------
    alpha, beta : float or array
        Decay of the synaptic current, and of the membrane, per time step; clamped to [0, 1] in forward.
    threshold, spike_grad, reset_mechanism, **common
        As for every ``Neuron``.
    learn_alpha, learn_beta : bool
    reset_delay : bool
        A spike resets the membrane one step later (True), or in its own step.
    """

    neuron, own_names, decays = "synaptic", ("alpha", "beta"), ("alpha", "beta")

    def __init__(
        self, alpha, beta, threshold=1.0, spike_grad: Surrogate | None = None, reset_mechanism: str = "subtract",
        learn_alpha: bool = False, learn_beta: bool = False, reset_delay: bool = True, **common,
    ):  # fmt: skip
        super().__init__(threshold, spike_grad, reset_mechanism, **common)
        self._numbers("alpha", alpha, learn_alpha, 0, 1)
        self._numbers("beta", beta, learn_beta, 0, 1)
        self.reset_delay = bool(reset_delay)

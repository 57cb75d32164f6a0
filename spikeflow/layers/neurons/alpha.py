"""Neurons that answer a spike by an alpha function."""

from __future__ import annotations

import numpy as np

from ...ops.neurons.model import COMMON
from ...ops.surrogate import Surrogate
from .base import Neuron

__all__ = ["Alpha"]


class Alpha(Neuron):
    """Neuron whose membrane answers a spike by an alpha function, snnTorch's ``Alpha``; see ``spikeflow.ops.neurons.alpha``.

    Parameters
    ----------
    alpha, beta : float or array
        Decay of the exciting and of the inhibiting current per time step: 0 <= beta < alpha <= 1.
    threshold, spike_grad, reset_mechanism, **common
        As for every ``Neuron``, but for the default reset, "zero".
    learn_alpha, learn_beta : bool

    Raises
    ------
    ValueError
        alpha is not above beta, here or, where they are learned, when the network runs.
    """

    neuron, own_names, decays = "alpha", ("alpha", "beta"), ("alpha", "beta")

    def __init__(
        self, alpha, beta, threshold=1.0, spike_grad: Surrogate | None = None, reset_mechanism: str = "zero",
        learn_alpha: bool = False, learn_beta: bool = False, **common,
    ):  # fmt: skip
        super().__init__(threshold, spike_grad, reset_mechanism, **common)
        self._numbers("alpha", alpha, learn_alpha, 0, 1)
        self._numbers("beta", beta, learn_beta, 0, 1)
        self._check_order(np.asarray(self.alpha), np.asarray(self.beta))

    def _check_order(self, alpha, beta) -> None:
        try:
            ordered = (alpha > beta).all()
        except ValueError:
            raise ValueError(f"alpha and beta must fit together, got shapes {alpha.shape} and {beta.shape}") from None
        if not ordered:
            raise ValueError(f"alpha must be greater than beta, got alpha={alpha}, beta={beta}")

    def prepare(self, ops, shape, dtype, numbers=None):
        prepared = super().prepare(ops, shape, dtype, numbers)
        self._check_order(*prepared.params[len(COMMON) : len(COMMON) + 2])  # in the network's precision
        return prepared

    def learned_rows(self):
        """Decays that are learned must be asked for: they are refused once they have passed each other."""
        return None if self.learns_own else super().learned_rows()

    def own(self, values):
        alpha, beta = (np.clip(values[name], 0, 1) for name in self.own_names)
        with np.errstate(divide="ignore", invalid="ignore"):  # at beta = 0, where tau = 1; equal decays are refused afterwards
            return [alpha, beta, np.log(alpha) / (np.log(beta) - np.log(alpha)) + 1]

    def own_backward(self, values, down):
        dalpha, dbeta, dtau = down
        alpha, beta = (np.clip(values[name], 0, 1) for name in self.own_names)
        with np.errstate(divide="ignore", invalid="ignore"):
            a, b = np.log(alpha), np.log(beta)
            slopes = b / (alpha * (b - a) ** 2), np.where(beta > 0, -a / (beta * (b - a) ** 2), 0.0)  # (9) of alpha
        return {
            "alpha": (dalpha + dtau * np.nan_to_num(slopes[0])) * self._inside(values, "alpha"),
            "beta": (dbeta + dtau * slopes[1]) * self._inside(values, "beta"),
        }

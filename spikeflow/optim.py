"""Optimizers, with PyTorch's formulas.

``step`` changes ``value`` in place and leaves ``grad`` alone.
"""

from __future__ import annotations

import math

import numpy as np

from .layers import Parameter
from .ops.adam import adam_step
from .ops.sgd import sgd_step

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "checked"]


class Optimizer:
    """Base of the optimizers: the list of parameters, the step count, and their state."""

    def __init__(self, parameters: list[Parameter], lr: float):
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("parameters must hold at least one Parameter; got none")
        self.lr = checked("lr", lr, 0, math.inf)
        self.steps = 0
        self.state: list[dict[str, np.ndarray]] = [{} for _ in self.parameters]  # one for each parameter

    def step(self) -> None:
        """Update every parameter from its gradient."""
        self.steps += 1
        for parameter, state in zip(self.parameters, self.state, strict=True):
            self.update(parameter.value, parameter.grad, state)

    def update(self, value: np.ndarray, grad: np.ndarray, state: dict[str, np.ndarray]) -> None:
        """Change ``value`` in place by one step; ``state`` is this parameter's own."""
        raise NotImplementedError("an optimizer must define update")

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        for parameter in self.parameters:
            parameter.grad.fill(0)


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as ``torch.optim.SGD`` computes it.

    g = g + weight_decay p
    v = momentum v + (1 - dampening) g                                    v = g at the first step
    p = p - lr v,  with ``nesterov``  p = p - lr (g + momentum v)

    Raises
    ------
    ValueError
        An option is negative, or ``nesterov`` comes without momentum or with dampening.
    """

    def __init__(
        self,
        parameters: list[Parameter],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        super().__init__(parameters, lr)
        self.momentum = checked("momentum", momentum, 0, math.inf)
        self.dampening = checked("dampening", dampening, 0, math.inf)
        self.weight_decay = checked("weight_decay", weight_decay, 0, math.inf)
        self.nesterov = bool(nesterov)
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            given = f"momentum {self.momentum:g} and dampening {self.dampening:g}"
            raise ValueError(f"nesterov needs a momentum above 0 and a dampening of 0, got {given}")

    def update(self, value, grad, state):
        velocity = None
        share = 1 - self.dampening
        if self.momentum != 0:
            if "velocity" not in state:
                share = 1.0
                state["velocity"] = np.full_like(value, -0.0)  # to which v = momentum v + g adds g exactly, a -0 too
            velocity = state["velocity"]
        sgd_step(value, grad, velocity, self.lr, self.momentum, share, self.weight_decay, self.nesterov)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015), as ``torch.optim.Adam`` computes it.

    g = g + weight_decay p
    m = m + (1 - b1) (g - m)
    v = b2 v + (1 - b2) g^2
    p = p - lr / (1 - b1^k)  m / (sqrt(v) / sqrt(1 - b2^k) + eps)         at step k = 1, 2, ...
    """

    def __init__(
        self,
        parameters: list[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(parameters, lr)
        self.betas = checked("betas[0]", betas[0], 0, 1), checked("betas[1]", betas[1], 0, 1)
        self.eps = checked("eps", eps, 0, math.inf)
        self.weight_decay = checked("weight_decay", weight_decay, 0, math.inf)

    def update(self, value, grad, state):
        if not state:
            state.update(mean=np.zeros_like(value), square=np.zeros_like(value))
        b1, b2 = self.betas
        step_size, root = self.lr / (1 - b1**self.steps), math.sqrt(1 - b2**self.steps)
        adam_step(value, grad, state["mean"], state["square"], b1, b2, step_size, root, self.eps, *self._decay())

    def _decay(self) -> tuple[float, float]:
        """What the value is multiplied by first, and the value's share in the gradient."""
        return 1.0, self.weight_decay


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), as ``torch.optim.AdamW`` computes it.

    p = (1 - lr weight_decay) p, then Adam's step with the gradient as it is.
    """

    def __init__(
        self,
        parameters: list[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ):
        super().__init__(parameters, lr, betas, eps, weight_decay)

    def _decay(self):
        return 1 - self.lr * self.weight_decay, 0.0


def checked(name, value, least, below) -> float:
    if not (isinstance(value, (int, float, np.number)) and least <= value < below):
        limit = f"at least {least}" if below == math.inf else f"in [{least}, {below})"
        raise ValueError(f"{name} must be a number {limit}, got {value!r}")
    return float(value)

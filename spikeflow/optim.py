"""Optimizers, with PyTorch's formulas.

``step`` changes ``value`` in place and leaves ``grad`` alone.
"""

from __future__ import annotations

import math

import numpy as np

from .layers import Parameter
from .ops.adam import adam_step

__all__ = ["SGD", "Adam", "Optimizer"]


class Optimizer:
    """Base of the optimizers: the list of parameters, the step count, and their state."""

    def __init__(self, parameters: list[Parameter], lr: float):
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("parameters must hold at least one Parameter; got none")
        self.lr = _checked("lr", lr, 0, math.inf)
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
    """Stochastic gradient descent with momentum:  v = momentum v + g,  p = p - lr v  (v = g at the first step)."""

    def __init__(self, parameters: list[Parameter], lr: float = 1e-3, momentum: float = 0.0):
        super().__init__(parameters, lr)
        self.momentum = _checked("momentum", momentum, 0, math.inf)

    def update(self, value, grad, state):
        if self.momentum == 0:
            value -= self.lr * grad
            return
        if "velocity" not in state:
            state["velocity"] = grad.copy()
        else:
            state["velocity"] *= self.momentum
            state["velocity"] += grad
        value -= self.lr * state["velocity"]


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015), as ``torch.optim.Adam`` computes it.

    m = m + (1 - b1) (g - m)
    v = b2 v + (1 - b2) g^2
    p = p - lr / (1 - b1^k)  m / (sqrt(v) / sqrt(1 - b2^k) + eps)         at step k = 1, 2, ...
    """

    def __init__(
        self, parameters: list[Parameter], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ):
        super().__init__(parameters, lr)
        self.betas = _checked("betas[0]", betas[0], 0, 1), _checked("betas[1]", betas[1], 0, 1)
        self.eps = _checked("eps", eps, 0, math.inf)

    def update(self, value, grad, state):
        if not state:
            state.update(mean=np.zeros_like(value), square=np.zeros_like(value))
        b1, b2 = self.betas
        step_size, root = self.lr / (1 - b1**self.steps), math.sqrt(1 - b2**self.steps)
        adam_step(value, grad, state["mean"], state["square"], b1, b2, step_size, root, self.eps)


def _checked(name, value, least, below) -> float:
    if not (isinstance(value, (int, float, np.number)) and least <= value < below):
        limit = f"at least {least}" if below == math.inf else f"in [{least}, {below})"
        raise ValueError(f"{name} must be a number {limit}, got {value!r}")
    return float(value)

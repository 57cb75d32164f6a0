"""Learning-rate schedules, with PyTorch's formulas.

``step`` moves a schedule on by an epoch (or by whatever one counts) and writes the optimizer's ``lr``, after ``optimizer.step``:

    scheduler = CosineAnnealingLR(optimizer, T_max=64)
    for epoch in range(64):
        for images, labels in loader: ...; optimizer.step()
        scheduler.step()

Each computes the new rate from the present one, so that several act on one optimizer together.
"""

from __future__ import annotations

import math
from typing import Any

from .layers.base import positive_int
from .optim import Optimizer, checked

__all__ = ["CosineAnnealingLR", "Scheduler", "StepLR"]


class Scheduler:
    """Base of the schedules: a subclass sets its options, calls this ``__init__``, and defines ``get_lr``.

    Parameters
    ----------
    optimizer : Optimizer

    Attributes
    ----------
    last_epoch : int
        Number of ``step`` calls.
    base_lr : float
        The learning rate that the optimizer had at first.
    """

    options: tuple[str, ...] = ()  # names of the attributes that a subclass sets

    def __init__(self, optimizer: Optimizer):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be a spikeflow optimizer, got {optimizer!r}")
        self.optimizer = optimizer
        self.base_lr = optimizer.lr
        self.last_epoch = 0
        optimizer.lr = self.get_lr()

    def get_lr(self) -> float:
        """-> the learning rate of ``last_epoch``, from that of the epoch before."""
        raise NotImplementedError("a scheduler must define get_lr")

    def step(self) -> None:
        """Set the optimizer's learning rate for the next epoch."""
        self.last_epoch += 1
        self.optimizer.lr = self.get_lr()

    def get_last_lr(self) -> list[float]:
        """-> the present learning rate, in a list of one as PyTorch has it: an optimizer here has no parameter groups."""
        return [self.optimizer.lr]

    def state_dict(self) -> dict[str, Any]:
        """-> all that ``load_state_dict`` needs to go on from here, the learning rate and the options included."""
        own = {name: getattr(self, name) for name in ("base_lr", "last_epoch", *self.options)}
        return {**own, "lr": self.optimizer.lr}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the schedule was that ``state`` is of, with its options; ValueError if it is of another kind."""
        expected = set(self.state_dict())
        if not isinstance(state, dict) or set(state) != expected:
            raise ValueError(f"state must hold {', '.join(sorted(expected))}, got {state!r:.200}")
        numbers = {name: checked(name, value, 0, math.inf) for name, value in state.items() if name in ("lr", "base_lr")}
        numbers["last_epoch"] = positive_int("last_epoch", state["last_epoch"], least=0)
        self.set_options(**{name: state[name] for name in self.options})
        self.optimizer.lr = numbers.pop("lr")
        vars(self).update(numbers)

    def set_options(self) -> None:
        """Check and set the options of a subclass."""


class StepLR(Scheduler):
    """Multiply the learning rate by gamma every ``step_size`` epochs:  lr_k = gamma^floor(k / step_size) lr_0.

    Parameters
    ----------
    optimizer : Optimizer
    step_size : int
        At least 1.
    gamma : float
        At least 0.
    """

    options = ("step_size", "gamma")

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1):
        self.set_options(step_size, gamma)
        super().__init__(optimizer)

    def set_options(self, step_size, gamma):
        self.step_size, self.gamma = positive_int("step_size", step_size), checked("gamma", gamma, 0, math.inf)

    def get_lr(self):
        ends = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        return self.optimizer.lr * (self.gamma if ends else 1.0)


class CosineAnnealingLR(Scheduler):
    """Half a cosine from the first learning rate down to ``eta_min`` (Loshchilov and Hutter 2017, without restarts).

    lr_k = eta_min + (lr_0 - eta_min) (1 + cos(pi k / T_max)) / 2

    after which it rises again: the period is 2 T_max epochs. Computed from lr_{k-1} as PyTorch does, by the ratio of the two
    cosine terms, and where the former is 0 by their difference.

    Parameters
    ----------
    optimizer : Optimizer
    T_max : int
        Epochs from the highest learning rate to the lowest, at least 1.
    eta_min : float
        The lowest, at least 0.
    """

    options = ("T_max", "eta_min")

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0):
        self.set_options(T_max, eta_min)
        super().__init__(optimizer)

    def set_options(self, T_max, eta_min):
        self.T_max, self.eta_min = positive_int("T_max", T_max), checked("eta_min", eta_min, 0, math.inf)

    def get_lr(self):
        lr, k = self.optimizer.lr, self.last_epoch
        if k == 0:
            return lr
        if (k - 1 - self.T_max) % (2 * self.T_max) == 0:
            return lr + (self.base_lr - self.eta_min) * (1 - math.cos(math.pi / self.T_max)) / 2
        ratio = (1 + math.cos(math.pi * k / self.T_max)) / (1 + math.cos(math.pi * (k - 1) / self.T_max))
        return ratio * (lr - self.eta_min) + self.eta_min

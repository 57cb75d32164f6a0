"""Learning-rate schedules, with PyTorch's formulas.

``step`` moves a schedule on by an epoch (or by whatever one counts) and writes the optimizer's learning rates, after
``optimizer.step``:

    scheduler = warmup(CosineAnnealingLR(optimizer, T_max=64), total_iters=4)
    for epoch in range(64):
        for images, labels in loader: ...; optimizer.step()
        scheduler.step()

Each group of the optimizer's parameters has a rate of its own. Most schedules compute the new rate from the present one, so that
several act on one optimizer together.
"""

from __future__ import annotations

import bisect
import math
from typing import Any

from .layers.base import positive_int
from .optim import Optimizer, checked

__all__ = [
    "CosineAnnealingLR",
    "ExponentialLR",
    "LinearLR",
    "OneCycleLR",
    "Scheduler",
    "SequentialLR",
    "StepLR",
    "warmup",
]


class Scheduler:
    """Base of the schedules: a subclass defines ``get_lr``, and if it has options passes them here and defines ``check``.

    Parameters
    ----------
    optimizer : Optimizer
    **options
        Become attributes, and part of ``state_dict``.

    Attributes
    ----------
    last_epoch : int
        Number of ``step`` calls.
    base_lrs : list of float
        The learning rate that each group had before its first schedule.
    by_iteration : bool
        Is it meant to be stepped after each iteration, rather than each epoch? For whoever runs the loop.
    """

    by_iteration = False

    def __init__(self, optimizer: Optimizer, **options: Any):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be a spikeflow optimizer, got {optimizer!r}")
        self.optimizer = optimizer
        vars(self).update(self.check(**options))
        self._names = tuple(options)
        self.base_lrs = self._first_lrs()
        self.last_epoch = 0
        self._write()

    def check(self, **options: Any) -> dict[str, Any]:
        """Options -> the same as they are to be kept; an exception if one is out of range."""
        return options

    def _first_lrs(self) -> list[float]:
        return [group.setdefault("initial_lr", group["lr"]) for group in self.optimizer.param_groups]

    def get_lr(self) -> list[float]:
        """-> the learning rate of each group in ``last_epoch``, from those of the epoch before (``get_last_lr``)."""
        raise NotImplementedError("a scheduler must define get_lr")

    def step(self) -> None:
        """Set the optimizer's learning rates for the next epoch."""
        self.last_epoch += 1
        self._write()

    def restart(self) -> None:
        """Set the learning rates of epoch 0, whatever they are now."""
        self.last_epoch = 0
        self._set_rates(self.base_lrs)
        self._write()

    def get_last_lr(self) -> list[float]:
        """-> the present learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """-> all that ``load_state_dict`` needs to go on from here, learning rates and options included, as JSON can hold it."""
        counts = {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs), "lrs": [float(lr) for lr in self.get_last_lr()]}
        return {"type": type(self).__name__, **counts, **{name: getattr(self, name) for name in self._names}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the schedule was that ``state`` is of, with its options.

        Raises
        ------
        TypeError, ValueError
            It is that of another kind of schedule, or for another number of groups; nothing is changed.
        """
        self._restore(self._checked(state))

    def _checked(self, state) -> dict[str, Any]:
        """-> the attributes that a state stands for, and ``lrs``."""
        expected = set(self.state_dict())
        if not isinstance(state, dict) or set(state) != expected:
            raise ValueError(f"state must hold {', '.join(sorted(expected))}, got {state!r:.200}")
        if state["type"] != type(self).__name__:
            raise ValueError(f"state is that of {state['type']!r}, this schedule is {type(self).__name__}")
        groups = self.optimizer.param_groups
        rates = {name: _each(name, state[name], groups, least=0) for name in ("base_lrs", "lrs")}
        last_epoch = positive_int("last_epoch", state["last_epoch"], least=0)
        return {**rates, "last_epoch": last_epoch, **self.check(**{name: state[name] for name in self._names})}

    def _restore(self, values: dict[str, Any]) -> None:
        self._set_rates(values.pop("lrs"))
        vars(self).update(values)

    def _write(self) -> None:
        self._set_rates(self.get_lr())

    def _set_rates(self, rates: list[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = lr


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

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1):
        super().__init__(optimizer, step_size=step_size, gamma=gamma)

    def check(self, step_size, gamma):
        return {"step_size": positive_int("step_size", step_size), "gamma": checked("gamma", gamma, 0, math.inf)}

    def get_lr(self):
        ends = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        return [lr * (self.gamma if ends else 1.0) for lr in self.get_last_lr()]


class ExponentialLR(Scheduler):
    """Multiply the learning rate by gamma every epoch:  lr_k = gamma^k lr_0.

    Parameters
    ----------
    optimizer : Optimizer
    gamma : float
        At least 0.
    """

    def __init__(self, optimizer: Optimizer, gamma: float):
        super().__init__(optimizer, gamma=gamma)

    def check(self, gamma):
        return {"gamma": checked("gamma", gamma, 0, math.inf)}

    def get_lr(self):
        return [lr * (self.gamma if self.last_epoch > 0 else 1.0) for lr in self.get_last_lr()]


class LinearLR(Scheduler):
    """A factor of the learning rate that moves from ``start_factor`` to ``end_factor`` on a line: warm-up, above all.

    lr_k = lr_0 (start_factor + (end_factor - start_factor) min(k, total_iters) / total_iters)

    Computed from lr_{k-1} as PyTorch does.

    Parameters
    ----------
    optimizer : Optimizer
    start_factor : float
        Above 0, at most 1.
    end_factor : float
        From 0 to 1.
    total_iters : int
        Epochs from the first factor to the last, at least 1.
    """

    def __init__(self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5):
        super().__init__(optimizer, start_factor=start_factor, end_factor=end_factor, total_iters=total_iters)

    def check(self, start_factor, end_factor, total_iters):
        start = _positive("start_factor", start_factor, most=1)
        end = _fraction("end_factor", end_factor)
        return {"start_factor": start, "end_factor": end, "total_iters": positive_int("total_iters", total_iters)}

    def get_lr(self):
        start, change, k = self.start_factor, self.end_factor - self.start_factor, self.last_epoch
        factor = 1.0
        if k == 0:
            factor = start
        elif k <= self.total_iters:
            factor = 1.0 + change / (self.total_iters * start + (k - 1) * change)
        return [lr * factor for lr in self.get_last_lr()]


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

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0):
        super().__init__(optimizer, T_max=T_max, eta_min=eta_min)

    def check(self, T_max, eta_min):
        return {"T_max": positive_int("T_max", T_max), "eta_min": checked("eta_min", eta_min, 0, math.inf)}

    def get_lr(self):
        rates, k = self.get_last_lr(), self.last_epoch
        if k == 0:
            return rates
        if (k - 1 - self.T_max) % (2 * self.T_max) == 0:
            rise = (1 - math.cos(math.pi / self.T_max)) / 2
            return [lr + (base_lr - self.eta_min) * rise for lr, base_lr in zip(rates, self.base_lrs, strict=True)]
        ratio = (1 + math.cos(math.pi * k / self.T_max)) / (1 + math.cos(math.pi * (k - 1) / self.T_max))
        return [ratio * (lr - self.eta_min) + self.eta_min for lr in rates]


class OneCycleLR(Scheduler):
    """One rise of the learning rate to ``max_lr``, one fall far below its start (Smith and Topin 2019); stepped each iteration.

    The rate goes from max_lr / div_factor to max_lr in the first ``pct_start`` of the steps, and from there to
    max_lr / div_factor / final_div_factor in the others; with ``three_phase`` it falls as fast as it rose, and to its last value
    in the rest. Momentum (of Adam, the first beta) goes the other way, from ``max_momentum`` to ``base_momentum`` and back.

    The optimizer's own learning rate and momentum are not used.

    Parameters
    ----------
    optimizer : Optimizer
    max_lr : float, or list of float
        Above 0; a list has one for each group of parameters. So have those of the momenta.
    total_steps : int
        Steps of the whole cycle, at least 1. ``step`` can be called so many times.
    pct_start : float
        From 0 to 1.
    anneal_strategy : {"cos", "linear"}
        The way from one value to another: half a cosine, or a line.
    cycle_momentum : bool
    base_momentum, max_momentum : float, or list of float
        The lowest and the highest, in [0, 1).
    div_factor, final_div_factor : float
        Above 0.
    three_phase : bool

    Raises
    ------
    ValueError
        An option out of range; ``cycle_momentum`` with an optimizer that has none; from ``step``, more than ``total_steps``.
    """

    by_iteration = True

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ):
        super().__init__(
            optimizer, max_lr=max_lr, total_steps=total_steps, pct_start=pct_start, anneal_strategy=anneal_strategy,
            cycle_momentum=cycle_momentum, base_momentum=base_momentum, max_momentum=max_momentum,
            div_factor=div_factor, final_div_factor=final_div_factor, three_phase=three_phase,
        )  # fmt: skip

    def check(self, max_lr, total_steps, pct_start, anneal_strategy, cycle_momentum, base_momentum, max_momentum,
              div_factor, final_div_factor, three_phase):  # fmt: skip
        groups = self.optimizer.param_groups
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be cos or linear, got {anneal_strategy!r}")
        if cycle_momentum and not all("momentum" in group or "betas" in group for group in groups):
            raise ValueError(f"cycle_momentum must be false: {type(self.optimizer).__name__} has no momentum and no betas")
        return {
            "max_lr": [_positive("max_lr", lr) for lr in _each("max_lr", max_lr, groups)],
            "total_steps": positive_int("total_steps", total_steps),
            "pct_start": _fraction("pct_start", pct_start),
            "anneal_strategy": anneal_strategy,
            "cycle_momentum": bool(cycle_momentum),
            "base_momentum": _each("base_momentum", base_momentum, groups, below=1),
            "max_momentum": _each("max_momentum", max_momentum, groups, below=1),
            "div_factor": _positive("div_factor", div_factor),
            "final_div_factor": _positive("final_div_factor", final_div_factor),
            "three_phase": bool(three_phase),
        }

    def _first_lrs(self):
        for group, lr in zip(self.optimizer.param_groups, self.max_lr, strict=True):
            group["initial_lr"] = lr / self.div_factor
        return super()._first_lrs()

    def step(self):
        if self.last_epoch >= self.total_steps:
            raise ValueError(f"step must be called at most total_steps = {self.total_steps} times")
        super().step()

    def get_lr(self):
        lows = [lr / self.final_div_factor for lr in self.base_lrs]
        turns = [self.base_lrs, self.max_lr, *([self.base_lrs] if self.three_phase else []), lows]
        return self._between(turns)

    def _write(self):
        super()._write()
        if self.cycle_momentum:
            low, high = self.base_momentum, self.max_momentum
            self._set_momenta(self._between([high, low, high, *([high] if self.three_phase else [])]))

    def _momenta(self) -> list[float]:
        """-> the present momentum of each group, if this is what it cycles."""
        groups = self.optimizer.param_groups if self.cycle_momentum else []
        return [float(group["betas"][0] if "betas" in group else group["momentum"]) for group in groups]

    def _set_momenta(self, momenta: list[float]) -> None:
        for group, momentum in zip(self.optimizer.param_groups, momenta, strict=True):
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum

    def state_dict(self):
        return {**super().state_dict(), "momenta": self._momenta()}

    def _checked(self, state):
        values = super()._checked(state)
        groups = self.optimizer.param_groups if values["cycle_momentum"] else []
        return {**values, "momenta": _each("momenta", state["momenta"], groups, below=1)}

    def _restore(self, values):
        momenta = values.pop("momenta")
        super()._restore(values)
        if self.cycle_momentum:
            self._set_momenta(momenta)

    def _between(self, turns: list[list[float]]) -> list[float]:
        """What each group's value is now on its way from turn to turn."""
        first = self.pct_start * self.total_steps - 1
        ends = [0, first, *([2 * first] if self.three_phase else []), self.total_steps - 1]
        phase = next((i for i in range(1, len(ends)) if self.last_epoch <= ends[i]), len(ends) - 1)
        length = ends[phase] - ends[phase - 1]
        share = (self.last_epoch - ends[phase - 1]) / length if length else 1.0
        return [self._anneal(start, end, share) for start, end in zip(turns[phase - 1], turns[phase], strict=True)]

    def _anneal(self, start: float, end: float, share: float) -> float:
        if self.anneal_strategy == "linear":
            return (end - start) * share + start
        return end + (start - end) / 2 * (math.cos(math.pi * share) + 1)


class SequentialLR(Scheduler):
    """Schedules one after the other: each begins, at its milestone, as if it had been the only one.

    Parameters
    ----------
    optimizer : Optimizer
    schedulers : list of Scheduler
        Of this optimizer, made beforehand; none of them is to be stepped by itself.
    milestones : list of int
        The epochs at which the second, the third, ... begin; at least 1 and increasing.

    Raises
    ------
    TypeError, ValueError
        The schedules are not as above, or the milestones not one fewer.
    """

    def __init__(self, optimizer: Optimizer, schedulers: list[Scheduler], milestones: list[int]):
        self.schedulers = _checked_schedulers(optimizer, schedulers)
        self.by_iteration = any(scheduler.by_iteration for scheduler in self.schedulers)
        super().__init__(optimizer, milestones=milestones)

    def check(self, milestones):
        found = [positive_int("milestones", milestone) for milestone in milestones]
        if len(found) != len(self.schedulers) - 1 or sorted(set(found)) != found:
            expected = f"{len(self.schedulers) - 1} increasing epochs, one for each schedule but the first"
            raise ValueError(f"milestones must be {expected}, got {milestones}")
        return {"milestones": found}

    def step(self):
        self.last_epoch += 1
        current = self.schedulers[bisect.bisect_right(self.milestones, self.last_epoch)]
        if self.last_epoch in self.milestones:
            current.restart()
        else:
            current.step()

    def restart(self):
        self.last_epoch = 0
        self.schedulers[0].restart()

    def _write(self):
        # The rates before any schedule, which need not be those that the first of them began with: OneCycleLR sets its own.
        self._set_rates([group["initial_lr"] for group in self.optimizer.param_groups])
        first = self.schedulers[0]
        first.last_epoch = 0
        first._write()

    def state_dict(self):
        return {**super().state_dict(), "schedulers": [scheduler.state_dict() for scheduler in self.schedulers]}

    def _checked(self, state):
        values = super()._checked(state)
        states = state["schedulers"]
        if not isinstance(states, list) or len(states) != len(self.schedulers):
            raise ValueError(f"state must hold a list of {len(self.schedulers)} states as schedulers, got {states!r:.200}")
        parts = [scheduler._checked(part) for scheduler, part in zip(self.schedulers, states, strict=True)]
        return {**values, "schedulers": parts}

    def _restore(self, values):
        for scheduler, part in zip(self.schedulers, values.pop("schedulers"), strict=True):
            scheduler._restore(part)
        super()._restore(values)


def warmup(scheduler: Scheduler, total_iters: int, start_factor: float = 1 / 3) -> SequentialLR:
    """Put a linear warm-up before a schedule, which then begins when the learning rate has reached its first value.

    Parameters
    ----------
    scheduler : Scheduler
        Not stepped yet; afterwards to be stepped through the one returned alone.
    total_iters : int
        Length of the warm-up, at least 1, in the steps that the schedule counts.
    start_factor : float
        What the first learning rate is multiplied by at the beginning, above 0, at most 1.

    Returns
    -------
    SequentialLR
        Of a ``LinearLR`` and ``scheduler``.
    """
    if not isinstance(scheduler, Scheduler):
        raise TypeError(f"scheduler must be a Scheduler, got {scheduler!r}")
    first = LinearLR(scheduler.optimizer, start_factor, 1.0, total_iters)
    return SequentialLR(scheduler.optimizer, [first, scheduler], [first.total_iters])


def _checked_schedulers(optimizer, schedulers) -> list[Scheduler]:
    schedulers = list(schedulers)
    if not schedulers:
        raise ValueError("schedulers must hold at least one Scheduler, got none")
    for i, scheduler in enumerate(schedulers):
        if not isinstance(scheduler, Scheduler):
            raise TypeError(f"schedulers[{i}] must be a Scheduler, got {scheduler!r}")
        if scheduler.optimizer is not optimizer:
            raise ValueError(f"schedulers[{i}] must be a schedule of this optimizer, it is one of another")
    return schedulers


def _each(name: str, value, groups: list, least: float = 0, below: float = math.inf) -> list[float]:
    """-> a number for each group, from a list of so many or from one number for all."""
    values = list(value) if isinstance(value, (list, tuple)) else [value] * len(groups)
    if len(values) != len(groups):
        raise ValueError(f"{name} must be a number, or a list of {len(groups)}, one for each group of parameters, got {value!r}")
    return [checked(name, number, least, below) for number in values]


def _positive(name: str, value, most: float = math.inf) -> float:
    number = checked(name, value, 0, math.inf)
    if not 0 < number <= most:
        raise ValueError(f"{name} must be a number above 0{'' if most == math.inf else f', at most {most}'}, got {value!r}")
    return number


def _fraction(name: str, value) -> float:
    number = checked(name, value, 0, math.inf)
    if number > 1:
        raise ValueError(f"{name} must be a number from 0 to 1, got {value!r}")
    return number

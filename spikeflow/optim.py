"""Optimizers, with PyTorch's formulas, and gradient clipping.

``step`` changes ``value`` in place and leaves ``grad`` alone. Parameters may come in groups with options of their own:

    optimizer = SGD([{"params": weights, "weight_decay": 1e-4}, {"params": thresholds, "lr": 1e-3}], lr=0.1, momentum=0.9)
    loss, spikes = net.loss_and_grad(images, labels, loss_fn)
    clip_grad_norm_(net.parameters(), max_norm=1.0)
    optimizer.step()
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np

from .layers import Parameter
from .layers.base import positive_int, zero_grads
from .ops.adam.cpu import adam_step
from .ops.clip import clip, largest, power_sum, scale
from .ops.sgd.cpu import sgd_step

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "State", "checked", "clip_grad_norm_", "clip_grad_value_"]


class Option:
    """An option of the groups as an attribute of their optimizer."""

    def __set_name__(self, owner, name: str):
        self.name = name

    def __get__(self, optimizer: Optimizer | None, owner=None):
        if optimizer is None:
            return self
        values = [group[self.name] for group in optimizer.param_groups]
        if any(value != values[0] for value in values):
            raise ValueError(f"{self.name} differs between the groups: {values}; see param_groups")
        return values[0]

    def __set__(self, optimizer: Optimizer, value) -> None:
        found = [optimizer.check({**_options(group), self.name: value})[self.name] for group in optimizer.param_groups]
        for group, new in zip(optimizer.param_groups, found, strict=True):
            group[self.name] = new


class State(dict):
    """The moments of a parameter by name, from its first step on, and the operations for arrays that live where they do."""

    ops = SimpleNamespace(adam_step=adam_step, sgd_step=sgd_step)

    def moment(self, name: str, value: np.ndarray, start: float = 0.0) -> np.ndarray:
        """-> the moment of a value; at first all numbers are ``start``."""
        if name not in self:
            self[name] = np.full_like(value, start)
        return self[name]

    def copies(self, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """-> copies of the moments on the host."""
        return {name: array.copy() for name, array in self.items()}


class Optimizer:
    """Base of the optimizers: the parameters in their groups, the step count, and their state.

    A subclass passes its options to this ``__init__``, and defines ``update``, and ``check`` if it has options. With
    ``on_device = True`` its ``update`` gets flat arrays on the device where parameters live there, those of neighbours as one;
    otherwise it works on the host's copies.

    Parameters
    ----------
    parameters : list of Parameter, or list of dict
        All in one group, or a dict for each group: its Parameters under ``"params"``, and options of its own under their names.
    lr : float
        Learning rate, at least 0.
    **options
        Of the groups that do not have their own.

    Attributes
    ----------
    param_groups : list of dict
        The groups, each with ``"params"`` and every option. What is written here holds from the next step on.
    parameters : list of Parameter
        Those of all groups.
    steps : int
        Number of ``step`` calls.

    Each option is an attribute, too: that of all groups. Setting it sets it for every group, and ValueError is raised on reading
    it where they differ.

    Raises
    ------
    TypeError
        ``parameters`` hold anything else.
    ValueError
        No parameters, one of them twice, an unknown option, or an option out of range.
    """

    lr = Option()
    on_device = False
    moments: tuple[str, ...] = ()  # the arrays that a parameter has in ``state`` once it has any

    def __init__(self, parameters: Iterable[Parameter] | Iterable[dict[str, Any]], lr: float, **options: Any):
        self.steps = 0
        self.defaults = self.check({"lr": lr, **options})
        self.param_groups = self._grouped(list(parameters))
        self.parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        if len({id(parameter) for parameter in self.parameters}) < len(self.parameters):
            raise ValueError("parameters must hold each Parameter once")
        self.state = [State() for _ in self.parameters]  # one for each parameter
        self._device: Any = None

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        if "update" in vars(cls):  # another update than that of the class above may know nothing of the device
            cls.on_device = vars(cls).get("on_device", False)

    def _grouped(self, parameters: list) -> list[dict[str, Any]]:
        if not parameters:
            raise ValueError("parameters must hold at least one Parameter; got none")
        if not any(isinstance(entry, dict) for entry in parameters):
            return [{"params": _checked_parameters("parameters", parameters), **self.defaults}]
        return [self._group(f"parameters[{i}]", entry) for i, entry in enumerate(parameters)]

    def _group(self, place: str, given) -> dict[str, Any]:
        if not isinstance(given, dict) or "params" not in given:
            raise TypeError(f'{place} must be a dict with "params", as other groups are, got {given!r:.80}')
        options = {name: value for name, value in given.items() if name != "params"}
        if unknown := [name for name in options if name not in self.defaults]:
            raise ValueError(f"{place}: {unknown[0]!r} is no option of {type(self).__name__}; it has {', '.join(self.defaults)}")
        try:
            options = self.check({**self.defaults, **options})
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        params = given["params"]
        return {"params": _checked_parameters(place, [params] if isinstance(params, Parameter) else list(params)), **options}

    def check(self, options: dict[str, Any]) -> dict[str, Any]:
        """All options of a group -> the same, their numbers as floats; ValueError if one is out of range."""
        rates = {name: checked(name, options[name], 0, math.inf) for name in ("lr", "initial_lr") if name in options}
        return {**options, **rates}

    def step(self) -> None:
        """Update every parameter from its gradient."""
        self.steps += 1
        states = iter(self.state)
        for group in self.param_groups:
            for parameter in group["params"]:
                state = next(states)
                if not (self.on_device and parameter.place):
                    self.update(parameter.value, parameter.grad, state, group)
        if self.on_device and any(parameter.place for parameter in self.parameters):
            self._step_on_device()

    def _step_on_device(self) -> None:
        if self._device is None:
            from .optim_device import Moments

            self._device = Moments()
        self._device.step(self)

    def update(self, value: np.ndarray, grad: np.ndarray, state: State, group: dict[str, Any]) -> None:
        """Change ``value`` in place by one step; ``state`` is this parameter's own, ``group`` has the options."""
        raise NotImplementedError("an optimizer must define update")

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        zero_grads(self.parameters)

    def state_dict(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """All that ``load_state_dict`` needs to go on from here, to the bit.

        Returns
        -------
        state : dict
            What JSON can hold: the kind of optimizer, the step count, the groups with their parameters' names, and the names
            of the arrays.
        arrays : dict of str to ndarray
            Copies of the moments: ``"0.weight/mean"``.

        Raises
        ------
        ValueError
            Two parameters have one name.
        """
        copies = [state.copies(parameter.value.shape) for parameter, state in zip(self.parameters, self.state, strict=True)]
        arrays = {
            f"{name}/{key}": array for name, state in zip(self._names(), copies, strict=True) for key, array in state.items()
        }
        groups = [{"params": _names(group), **_plain(self.check(_options(group)))} for group in self.param_groups]
        return {"type": type(self).__name__, "steps": self.steps, "param_groups": groups, "arrays": list(arrays)}, arrays

    def load_state_dict(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Go on where the optimizer was whose ``state_dict()`` this is; nothing is changed unless everything fits.

        Raises
        ------
        TypeError, ValueError
            It is that of another kind of optimizer, of other groups, or of parameters of other names, shapes or types.
        """
        names = self._names()
        if not isinstance(state, dict) or set(state) != {"type", "steps", "param_groups", "arrays"}:
            raise ValueError(f"state must hold type, steps, param_groups and arrays, got {state!r:.200}")
        if state["type"] != type(self).__name__:
            raise ValueError(f"state is that of {state['type']!r}, this optimizer is {type(self).__name__}")
        if set(arrays) != set(state["arrays"]):
            raise ValueError(f"arrays must be those that state names, {state['arrays']!r:.200}, got {list(arrays)!r:.200}")
        steps = positive_int("steps", state["steps"], least=0)
        groups = self._fitting_groups(state["param_groups"])
        moments = self._fitting_moments(dict(zip(names, self.parameters, strict=True)), arrays)
        self.steps = steps
        for group, options in zip(self.param_groups, groups, strict=True):
            group.update(options)
        self.state = [State(moments[name]) for name in names]

    def _names(self) -> list[str]:
        names = [parameter.name for parameter in self.parameters]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"parameters must have different names to be saved by, two are called {twice!r}")
        return names

    def _fitting_groups(self, groups) -> list[dict[str, Any]]:
        """-> the options of a state's groups, if those are this optimizer's."""
        own, known = [_names(group) for group in self.param_groups], ", ".join(self.defaults)
        if not isinstance(groups, list) or [isinstance(group, dict) and group.get("params") for group in groups] != own:
            raise ValueError(f"state must have the groups of parameters {own!r:.200}, got {groups!r:.200}")
        for options in map(_options, groups):
            if set(options) - {"initial_lr"} != set(self.defaults):
                raise ValueError(f"state must have the options {known} in each group, got {', '.join(options)}")
        return [self.check(_options(group)) for group in groups]

    def _fitting_moments(self, parameters: dict[str, Parameter], arrays) -> dict[str, dict[str, np.ndarray]]:
        """-> copies of the arrays by the parameter's and the moment's name, if they are what a step leaves."""
        moments = {name: {} for name in parameters}
        for place, array in arrays.items():
            name, _, key = place.rpartition("/")
            if name not in parameters or key not in self.moments:
                raise ValueError(f"arrays: {place!r} is no moment of this optimizer's parameters")
            value = parameters[name].value
            if (array.shape, array.dtype) != (value.shape, value.dtype):
                found = f"{array.dtype} of shape {array.shape}"
                raise ValueError(f"arrays: {place!r} must be {value.dtype} of shape {value.shape}, got {found}")
            moments[name][key] = np.array(array, order="C")
        for name, found in moments.items():
            if found and len(found) < len(self.moments):
                raise ValueError(f"arrays must hold {' and '.join(self.moments)} of {name!r}, got {', '.join(found)}")
        return moments


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as ``torch.optim.SGD`` computes it.

    g = g + weight_decay p
    v = momentum v + (1 - dampening) g                                    v = g at the first step
    p = p - lr v,  with ``nesterov``  p = p - lr (g + momentum v)

    ``Optimizer`` has the parameters and their groups.

    Raises
    ------
    ValueError
        An option is negative, or ``nesterov`` comes without momentum or with dampening.
    """

    momentum, dampening, weight_decay, nesterov = Option(), Option(), Option(), Option()
    on_device = True
    moments = ("velocity",)

    def __init__(
        self,
        parameters: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        options = {"momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov}
        super().__init__(parameters, lr, **options)

    def check(self, options):
        numbers = {name: checked(name, options[name], 0, math.inf) for name in ("momentum", "dampening", "weight_decay")}
        options = {**super().check(options), **numbers, "nesterov": bool(options["nesterov"])}
        if options["nesterov"] and (options["momentum"] == 0 or options["dampening"] != 0):
            given = f"momentum {options['momentum']:g} and dampening {options['dampening']:g}"
            raise ValueError(f"nesterov needs a momentum above 0 and a dampening of 0, got {given}")
        return options

    def update(self, value, grad, state, group):
        velocity = None
        momentum, share = group["momentum"], 1 - group["dampening"]
        if momentum != 0:
            share = share if "velocity" in state else 1.0
            velocity = state.moment("velocity", value, -0.0)  # to which v = momentum v + g adds g exactly, a -0 too
        state.ops.sgd_step(value, grad, velocity, group["lr"], momentum, share, group["weight_decay"], group["nesterov"])


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015), as ``torch.optim.Adam`` computes it.

    g = g + weight_decay p
    m = m + (1 - b1) (g - m)
    v = b2 v + (1 - b2) g^2
    p = p - lr / (1 - b1^k)  m / (sqrt(v) / sqrt(1 - b2^k) + eps)         at step k = 1, 2, ...

    ``Optimizer`` has the parameters and their groups.
    """

    betas, eps, weight_decay = Option(), Option(), Option()
    on_device = True
    moments = ("mean", "square")

    def __init__(
        self,
        parameters: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(parameters, lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def check(self, options):
        betas = options["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"betas must be two numbers, got {betas!r}")
        numbers = {name: checked(name, options[name], 0, math.inf) for name in ("eps", "weight_decay")}
        pair = tuple(checked(f"betas[{i}]", beta, 0, 1) for i, beta in enumerate(betas))
        return {**super().check(options), **numbers, "betas": pair}

    def update(self, value, grad, state, group):
        mean, square = (state.moment(name, value) for name in self.moments)
        b1, b2 = group["betas"]
        step_size, root = group["lr"] / (1 - b1**self.steps), math.sqrt(1 - b2**self.steps)
        state.ops.adam_step(value, grad, mean, square, b1, b2, step_size, root, group["eps"], *self._decay(group))

    def _decay(self, group) -> tuple[float, float]:
        """What the value is multiplied by first, and the value's share in the gradient."""
        return 1.0, group["weight_decay"]


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), as ``torch.optim.AdamW`` computes it.

    p = (1 - lr weight_decay) p, then Adam's step with the gradient as it is.
    """

    def __init__(
        self,
        parameters: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ):
        super().__init__(parameters, lr, betas, eps, weight_decay)

    def _decay(self, group):
        return 1 - group["lr"] * group["weight_decay"], 0.0


def clip_grad_norm_(
    parameters: Parameter | Iterable[Parameter], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> float:
    """Scale all gradients together, in place, so that their norm is at most ``max_norm``, as PyTorch's function does.

    dp = min(max_norm / (|dp| + 1e-6), 1) dp,  |dp| the norm of all gradients as one vector

    The norm is summed in float64, in an order that does not depend on the number of threads.

    Parameters
    ----------
    parameters : Parameter, or iterable of Parameter
    max_norm : float
        At least 0.
    norm_type : float
        p of the p-norm, above 0; ``math.inf`` for the largest magnitude.
    error_if_nonfinite : bool
        Raise if the norm is NaN or infinite. Otherwise NaN makes all gradients NaN, infinity 0 (infinite ones NaN).

    Returns
    -------
    float
        The norm before clipping.

    Raises
    ------
    TypeError
        ``parameters`` hold anything else.
    ValueError
        ``max_norm`` or ``norm_type`` is out of range.
    ArithmeticError
        The norm is not finite, and ``error_if_nonfinite``.
    """
    max_norm = checked("max_norm", max_norm, 0, math.inf)
    if not isinstance(norm_type, (int, float, np.number)) or not norm_type > 0:
        raise ValueError(f"norm_type must be a number above 0, got {norm_type!r}")
    grads = _grads(parameters)
    norm = _total_norm(grads, float(norm_type))
    if error_if_nonfinite and not math.isfinite(norm):
        raise ArithmeticError(f"the norm of the gradients of parameters is {norm}: there is nothing to clip it to")
    share = max_norm / (norm + 1e-6)
    if not share >= 1:  # NaN, too
        for grad in grads:
            scale(grad, share)
    return norm


def clip_grad_value_(parameters: Parameter | Iterable[Parameter], clip_value: float) -> None:
    """Clip every entry of the gradients to [-clip_value, clip_value], in place; a NaN stays.

    Parameters
    ----------
    parameters : Parameter, or iterable of Parameter
    clip_value : float
        At least 0.
    """
    clip_value = checked("clip_value", clip_value, 0, math.inf)
    for grad in _grads(parameters):
        clip(grad, clip_value)


def _total_norm(grads: list[np.ndarray], p: float) -> float:
    if p == math.inf:
        return float(np.max([largest(grad) for grad in grads], initial=0.0))  # unlike Python's max, NaN if one is
    total = 0.0
    for grad in grads:  # the built-in sum rounds differently in each version of Python
        total += power_sum(grad, p)
    return math.sqrt(total) if p == 2 else total ** (1 / p)


def _grads(parameters) -> list[np.ndarray]:
    """-> the gradients that are to be clipped, one for each parameter with any entries."""
    parameters = [parameters] if isinstance(parameters, Parameter) else list(parameters)
    return [parameter.grad for parameter in _checked_parameters("parameters", parameters)] if parameters else []


def _checked_parameters(place: str, parameters: list) -> list[Parameter]:
    """-> the same, if they are Parameters that can be changed in place."""
    if not parameters:
        raise ValueError(f"{place} must hold at least one Parameter; got none")
    for parameter in parameters:
        if not isinstance(parameter, Parameter):
            raise TypeError(f"{place} must hold Parameters, got {parameter!r:.80}")
        if not (parameter.value.flags.c_contiguous and parameter.grad.flags.c_contiguous):
            raise ValueError(f"{place}: the value of {parameter.name!r} must be C-contiguous, to be changed in place")
    return parameters


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def _names(group: dict[str, Any]) -> list[str]:
    return [parameter.name for parameter in group["params"]]


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Options as JSON gives them back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def checked(name, value, least, below) -> float:
    if not (isinstance(value, (int, float, np.number)) and least <= value < below):
        limit = f"at least {least}" if below == math.inf else f"in [{least}, {below})"
        raise ValueError(f"{name} must be a number {limit}, got {value!r}")
    return float(value)

"""An optimizer's step on the device: parameters that lie side by side in their network's memory are updated as one."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any, NamedTuple

from .kernels.cuda import gpu
from .ops.adam.cuda import adam_step
from .ops.sgd.cuda import sgd_step
from .optim import State

__all__ = ["Moments"]


class Placed(State):
    """The moments of a parameter on the device, flat."""

    def copies(self, shape):
        return {name: gpu.to_host(array).reshape(shape) for name, array in self.items()}


class Shared(State):
    """The moments of neighbouring parameters as one: the same stretch of arrays that are as long as their store's."""

    ops = SimpleNamespace(adam_step=adam_step, sgd_step=sgd_step)

    def __init__(self, whole: dict[str, Any], some: slice, names, total: int):
        super().__init__({name: whole[name][some] for name in names})
        self.whole, self.some, self.total = whole, some, total

    def moment(self, name, value, start=0.0):
        if name not in self:
            if name not in self.whole:
                with gpu.memory(None):
                    self.whole[name] = gpu.empty(self.total)
            self[name] = self.whole[name][self.some]
            gpu.fill(self[name], start)
        return self[name]


class Run(NamedTuple):
    """Parameters that one launch updates."""

    indices: tuple[int, ...]  # in ``Optimizer.parameters``
    value: Any
    grad: Any
    state: Shared


class Moments:
    """The moments of an optimizer's parameters on the device.

    They have the places that the parameters have in their store, in arrays as long as the store's.
    """

    def __init__(self):
        self.arena = gpu.Arena()  # of the numbers that change from step to step
        self.whole: dict[int, tuple[Any, dict[str, Any]]] = {}
        self.runs: dict[tuple, list[Run]] = {}

    def step(self, optimizer) -> None:
        """Update every parameter that lives on the device."""
        stores = {id(parameter.place[0]): parameter.place[0] for parameter in optimizer.parameters if parameter.place}
        for key, store in stores.items():
            store.bring()
            self.whole.setdefault(key, (store, {}))
        self._bring_states(optimizer)
        self.arena.clear()
        first = itertools.count()
        with gpu.memory(self.arena):
            for group in optimizer.param_groups:
                indices = [next(first) for _ in group["params"]]
                for run in self._runs_of(optimizer, tuple(i for i in indices if optimizer.parameters[i].place)):
                    optimizer.update(run.value, run.grad, run.state, group)
                    self._keep(optimizer, run)
        for store in stores.values():
            store.touched()

    def _bring_states(self, optimizer) -> None:
        """Moments that are still on the host, as a state that was loaded is -> their places here."""
        for i, (parameter, state) in enumerate(zip(optimizer.parameters, optimizer.state, strict=True)):
            if parameter.place and state and not isinstance(state, Placed):
                store, offset, size = parameter.place
                placed = Shared(self.whole[id(store)][1], slice(offset, offset + size), (), store.values.size)
                for name, array in state.items():
                    gpu.to_device(array.reshape(size), placed.moment(name, None))
                optimizer.state[i] = Placed(placed)

    def _runs_of(self, optimizer, indices: tuple[int, ...]) -> list[Run]:
        """Parameters of a group -> neighbours together, as long as all of them have moments, or none."""
        places = [optimizer.parameters[i].place for i in indices]
        key = tuple((i, id(store), offset, *optimizer.state[i]) for i, (store, offset, _) in zip(indices, places, strict=True))
        if key not in self.runs:
            pieces: list[list[int]] = []
            for i, (before, place) in zip(indices, itertools.pairwise([None, *places]), strict=True):
                joins = before and before[0] is place[0] and before[1] + before[2] == place[1]
                if joins and list(optimizer.state[i - 1]) == list(optimizer.state[i]) and pieces[-1][-1] == i - 1:
                    pieces[-1].append(i)
                else:
                    pieces.append([i])
            self.runs[key] = [self._run(optimizer, piece) for piece in pieces]
        return self.runs[key]

    def _run(self, optimizer, piece: list[int]) -> Run:
        (store, offset, _), (_, last, size) = (optimizer.parameters[i].place for i in (piece[0], piece[-1]))
        some, whole = slice(offset, last + size), self.whole[id(store)][1]
        state = Shared(whole, some, list(optimizer.state[piece[0]]), store.values.size)
        return Run(tuple(piece), store.values[some], store.grads[some], state)

    def _keep(self, optimizer, run: Run) -> None:
        """Give each parameter of a run its part of moments that are new."""
        if list(optimizer.state[run.indices[0]]) == list(run.state):
            return
        for i in run.indices:
            _, offset, size = optimizer.parameters[i].place
            optimizer.state[i] = Placed({name: run.state.whole[name][offset : offset + size] for name in run.state})
        self.runs = {}  # a run without moments is not to be met with some

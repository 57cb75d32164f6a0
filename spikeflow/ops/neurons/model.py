"""What a neuron is to the loops over time: its name and its options, and where its functions are."""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple

import numpy as np

from ...kernels.lazy import lazy
from ..surrogate import Surrogate

__all__ = ["COMMON", "RESETS", "Key", "Model", "Trajectory"]

RESETS = ("subtract", "zero", "none")  # snnTorch's; SpikingJelly's are "hard" and "soft"
COMMON = ("threshold", "graded_spikes_factor", "V")  # the first rows of every ``params``; the neuron's own follow


class Key(NamedTuple):
    """All that the code of the loops depends on, the surrogate aside; fields as in ``Model``."""

    neuron: str
    reset: str
    reset_delay: bool = True
    inhibition: bool = False
    feedback: bool = False
    graded: bool = False
    fires: bool = True
    detach: bool = False
    decay_input: bool = True

    @property
    def node(self) -> bool:
        """Is it one of SpikingJelly's: fires at its threshold too, resets in its own step alone, starts at ``v_reset``?"""
        return self.reset in ("hard", "soft")


@dataclass(frozen=True)
class Model:
    """A neuron with its options. The numbers come beside it, as ``params`` (P, 1), or (P, F) with one for each of F features.

    Attributes
    ----------
    neuron : str
        A folder of ``spikeflow.ops.neurons``.
    reset : {"subtract", "zero", "none"}, or for nodes, the neurons named after SpikingJelly's, {"hard", "soft"}
    surrogate : Surrogate
    reset_delay : bool
        A spike resets the membrane one step later (True), or in its own step, as it always does in a node.
    inhibition : bool
        At each step none but the neuron that is furthest above its threshold may fire, in each sample.
    feedback : bool
        V times its own spike of the step before is part of each neuron's current.
    graded : bool
        Spikes are multiplied by ``graded_spikes_factor``.
    fires : bool
        False for a neuron that only integrates.
    detach : bool
        Of a node: the spike that resets is a constant for the derivative.
    decay_input : bool
        Of a node: the leak takes its share of the input too.
    """

    neuron: str
    reset: str
    surrogate: Surrogate
    reset_delay: bool = True
    inhibition: bool = False
    feedback: bool = False
    graded: bool = False
    fires: bool = True
    detach: bool = False
    decay_input: bool = True

    @lazy
    def key(self) -> Key:
        return Key(*(getattr(self, name) for name in Key._fields))

    @property
    def scalar(self) -> ModuleType:
        return scalar(self.neuron)

    @property
    def reference(self) -> ModuleType:
        return importlib.import_module(f"{__package__}.{self.neuron}.reference")

    @lazy
    def states(self) -> tuple[str, ...]:
        """Names of all that is carried from step to step: the neuron's own, the membrane last, and the spikes it feeds back."""
        return self.scalar.STATES + (("spikes",) if self.feedback else ())

    @lazy
    def params(self) -> tuple[str, ...]:
        """Names of the rows of ``params``."""
        return COMMON + self.scalar.PARAMS

    @property
    def fixed(self) -> tuple[str, ...]:
        """Names of the rows of ``params`` that no layer learns, and whose gradients are given as zeros."""
        return ("v_reset", "tau") if self.key.node else ()

    def initial_state(self, params: np.ndarray) -> np.ndarray:
        """params (P, 1 or F) -> (S, 1 or F), the state before the first step: zeros, but the membrane of a node is v_reset."""
        state = np.zeros((len(self.states), params.shape[1]), params.dtype)
        if self.key.node:
            state[-1] = params[self.params.index("v_reset")]
        return state


class Trajectory(NamedTuple):
    """What a run over time leaves behind for its backward pass; M neurons, T steps."""

    membrane: np.ndarray | None  # (T + 1, M): row t + 1 is m[t] as it is given out, row 0 is m[-1]
    before: np.ndarray | None = None  # (T, M): u[t], the membrane before a reset in the same step, where there is such a reset
    states: np.ndarray | None = (
        None  # (S - 1, T + 1, M): the other states, where the gradients of the neuron's own params need them
    )
    spikes: np.ndarray | None = None  # (M,): what was fed back at the first step


@functools.cache
def scalar(neuron: str) -> ModuleType:
    """-> the module of a neuron's scalar functions."""
    return importlib.import_module(f"{__package__}.{neuron}.scalar")

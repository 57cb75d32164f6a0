"""What a rule is, and what it sees of the place at which lowering asks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

from ..layers import Layer
from .forms import NUMBERS
from .steps import Kind, Step

if TYPE_CHECKING:
    from .lower import Lowering

__all__ = ["Place", "Rule"]

PASSES = ("prepare", "forward", "backward")  # the methods that say what a layer computes


@dataclass(frozen=True)
class Place:
    """Layers from which a rule may take the first ones, and what is known of what reaches them.

    Attributes
    ----------
    layers : tuple of Layer
        The rest of the chain.
    shapes : list of tuple
        (C, H, W) or (F,): of each layer's input, and of the output.
    form : str
        In which the input comes.
    constant : bool
        Is the input the same at every step, since no neuron came before?
    """

    lowering: Lowering
    layers: tuple[Layer, ...]
    shapes: list[tuple[int, ...]]
    form: str
    constant: bool

    @property
    def kind(self) -> Kind:
        return self.lowering.kind

    @property
    def ops(self) -> SimpleNamespace:
        return self.lowering.ops

    def starts_with(self, pattern: tuple[type[Layer], ...]) -> bool:
        """Do the layers begin with these, and are their passes those that the package defines?"""
        first = self.layers[: len(pattern)]
        return len(first) == len(pattern) and all(
            isinstance(layer, kind) and _is_ours(layer) for layer, kind in zip(first, pattern, strict=True)
        )

    def takes_bits(self, count: int) -> bool:
        """Is there a rule that takes spikes as bits, behind the first ``count`` layers?"""
        return self.lowering.takes_bits(self.layers[count:], self.shapes[count:])

    def covered(self, count: int) -> tuple[tuple[Layer, ...], list[tuple[int, ...]], Kind]:
        """-> what a step is made from that covers the first ``count`` layers."""
        return self.layers[:count], self.shapes[: count + 1], self.kind


@dataclass(frozen=True)
class Rule:
    """A fusion: where the pattern fits, the form is one of ``takes`` and the guard agrees, ``make`` gives the step.

    Attributes
    ----------
    name : str
        That of its file.
    pattern : tuple of type
        Layers one behind the other; the step that is made covers these. They are its oracle, too.
    takes : tuple of str
        Forms of the input.
    needs : tuple of str
        Operations that the backend must have.
    guard : callable
        Of a Place -> bool.
    make : callable
        Of a Place -> Step.
    smooth : bool
        Does it fit the smooth twin, whose spikes are numbers between 0 and 1?
    """

    name: str
    pattern: tuple[type[Layer], ...]
    guard: Callable[[Place], bool]
    make: Callable[[Place], Step]
    takes: tuple[str, ...] = (NUMBERS,)
    needs: tuple[str, ...] = ()
    smooth: bool = False

    def step(self, place: Place) -> Step | None:
        """-> the step that takes the place of the first layers; None where the rule does not fit."""
        if place.form not in self.takes or (place.kind.smooth and not self.smooth):
            return None
        if not place.starts_with(self.pattern) or not all(hasattr(place.ops, name) for name in self.needs):
            return None
        if not self.guard(place):
            return None
        step = self.make(place)
        step.rule = self.name
        return step


def _is_ours(layer: Layer) -> bool:
    """Are the layer's passes those of a class of the package? A user's own, of a subclass or an object, are not replaced."""
    ours = next(base for base in type(layer).__mro__ if base.__module__.startswith("spikeflow.layers"))
    return all(name not in vars(layer) and getattr(type(layer), name) is getattr(ours, name) for name in PASSES)

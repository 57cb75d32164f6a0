"""A network, lowered for one kind of input to a program: steps in order, each with the form of what it takes and gives.

At each place of the chain the rules are asked in turn. One that fits consumes the layers that it covers; what none fits becomes a
plain step of one layer. Whether spikes can travel as bits depends on what reads them, so that a rule may ask what would take the
layers behind it (``Place.takes_bits``). Where the form that arrives is not the one that is taken, a conversion comes between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

from ..layers import Layer, Neuron
from . import rules
from .check import Checked
from .forms import BITS, CENTRED, NORMALISED, NUMBERS
from .rule import Place
from .steps import CONVERSIONS, Kind, Step, plain_step

__all__ = ["Program", "lower"]

FORMS = (BITS, NORMALISED, CENTRED, NUMBERS)


@dataclass(frozen=True)
class Program:
    """What runs in place of a network's layers, for one kind of input; prints as a table.

    Attributes
    ----------
    kind : Kind
    shapes : list of tuple
        (C, H, W) or (F,): of each layer's input, and of the output.
    entry : str
        The form in which the input enters.
    steps : list of Step
    """

    kind: Kind
    shapes: list[tuple[int, ...]]
    entry: str
    steps: list[Step]

    @property
    def joints(self) -> list[int]:
        """Places of the steps that take all blocks at once."""
        return [k for k, step in enumerate(self.steps) if step.joint]

    def __str__(self) -> str:
        rows = [("step", "layers", "made by", "takes -> gives", "keeps"), *map(_row, self.steps)]
        widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
        lines = ["".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([str(self.kind), f"enters as {self.entry}", *lines])


def _row(step: Step) -> tuple[str, ...]:
    """-> a step's row in the table."""
    layers = ", ".join(type(layer).__name__ for layer in step.layers) or "conversion"
    made_by = step.rule or ("plain" if step.layers else "")
    return (
        step.name,
        layers,
        made_by,
        f"{step.takes} -> {step.gives}" + (", all blocks at once" if step.joint else ""),
        step.keeps,
    )


def lower(layers: Sequence[Layer], shapes: list[tuple[int, ...]], kind: Kind, ops: SimpleNamespace) -> Program:
    """Layers with the shapes of their inputs and of the output -> the program for a kind of input."""
    return Lowering(kind, ops).program(tuple(layers), shapes)


class Lowering:
    """One lowering: what it is for, and what was found out on the way."""

    def __init__(self, kind: Kind, ops: SimpleNamespace):
        self.kind, self.ops = kind, ops
        self._readers: dict[int, bool] = {}  # by the number of layers that are left: do they take bits?

    def program(self, layers: tuple[Layer, ...], shapes: list[tuple[int, ...]]) -> Program:
        entry = BITS if self.kind.binary and self.takes_bits(layers, shapes) else NUMBERS
        return Program(self.kind, shapes, entry, self.chain(layers, shapes, entry, self.kind.static))

    def chain(self, layers, shapes, form: str, constant: bool) -> list[Step]:
        """-> the steps of layers one behind the other; ``form`` and ``constant`` are of their input, as in ``Place``."""
        steps, at = [], 0
        while at < len(layers):
            place = Place(self, layers[at:], shapes[at:], form, constant)
            step = self._by_rule(place)
            if step is None:
                step = plain_step(layers[at], shapes[at : at + 2], self.kind, last=at == len(layers) - 1)
            steps += [*self._conversions(form, step.takes, shapes[at]), self._checked(step)]
            at, form = at + len(step.layers), step.gives
            constant = constant and not any(isinstance(layer, Neuron) for layer in step.layers)
        return steps

    def takes_bits(self, layers, shapes) -> bool:
        """Is there a rule that takes spikes as bits in front of these layers?"""
        if len(layers) not in self._readers:
            self._readers[len(layers)] = bool(layers) and self._fitting(Place(self, layers, shapes, BITS, False)) is not None
        return self._readers[len(layers)]

    def _by_rule(self, place: Place) -> Step | None:
        """-> the step of the first rule that fits, to what arrives or to what it can be converted to."""
        for form in (place.form, *(other for other in FORMS if other != place.form and _reaches(place.form, other))):
            step = self._fitting(Place(self, place.layers, place.shapes, form, place.constant))
            if step is not None:
                return step
        return None

    def _fitting(self, place: Place) -> Step | None:
        if not self.kind.rules:
            return None
        return next((step for rule in rules.RULES if (step := rule.step(place)) is not None), None)

    def _conversions(self, given: str, taken: str, shape: tuple[int, ...]) -> list[Step]:
        """-> the steps from one form to another, by way of numbers."""
        return [CONVERSIONS[pair]((), [shape, shape], self.kind) for pair in _way(given, taken)]

    def _checked(self, step: Step) -> Step:
        return Checked(step) if self.kind.checked and step.rule else step


def _way(given: str, taken: str) -> list[tuple[str, str]]:
    """-> the conversions from one form to another."""
    if given == taken:
        return []
    stops = [given, taken] if NUMBERS in (given, taken) else [given, NUMBERS, taken]
    return list(zip(stops, stops[1:], strict=False))


def _reaches(given: str, taken: str) -> bool:
    return all(pair in CONVERSIONS for pair in _way(given, taken))

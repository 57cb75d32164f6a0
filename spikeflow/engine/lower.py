"""A network, lowered for one kind of input to a program: steps in order, each with the form of what it takes and gives.

At each place of the chain the rules are asked in turn. One that fits consumes the layers that it covers; what none fits becomes a
plain step of one layer. Whether spikes can travel as bits depends on what reads them, so that a rule may ask what would take the
layers behind it (``Place.takes_bits``). Where the form that arrives is not the one that is taken, a conversion comes between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

from ..layers import Layer, Neuron
from ..layers.containers import Chain, Container, chain_spikes, through
from . import rules
from .branches import Fork, Heads, Merge, Repeated, Turn
from .check import Checked
from .forms import BITS, CENTRED, NORMALISED, NUMBERS
from .rule import Place
from .steps import CONVERSIONS, Given, Kind, NeuronStep, Step, plain_step

__all__ = ["Program", "lower"]


class Head(NamedTuple):
    """One end of a network."""

    step: int  # the place of the step that gives it
    shape: tuple[int, ...]  # of a sample: (C, H, W) or (F,)
    neuron: bool  # does a layer of neurons give it, with spikes and a membrane?


class End(NamedTuple):
    """Steps of a chain or of branches, and what is known of what they give; as in ``Place``."""

    steps: list[Step]
    form: str
    constant: bool
    heads: list[Head] = []


FORMS = (BITS, NORMALISED, CENTRED, NUMBERS)


@dataclass(frozen=True)
class Program:
    """What runs in place of a network's layers, for one kind of input; prints as a table.

    Attributes
    ----------
    kind : Kind
    shapes : dict
        Name of a layer, nested ones too, to the shape of its input sample: (C, H, W) or (F,).
    heads : list of Head
        The ends of the network: one, or those of its last layer's branches where these do not meet.
    entry : str
        The form in which the input enters.
    steps : list of Step
    """

    kind: Kind
    shapes: dict[str, tuple[int, ...]]
    heads: list[Head]
    entry: str
    steps: list[Step]

    @property
    def joints(self) -> list[int]:
        """Places of the steps that take all blocks at once."""
        return [k for k, step in enumerate(self.steps) if step.joint]

    def public(self, found: list):
        """Something of each head -> the thing itself of a single one, a tuple of several."""
        return tuple(found) if len(self.heads) > 1 else found[0]

    def each_head(self, y):
        """The inverse of ``public``."""
        return y if len(self.heads) > 1 else (y,)

    def gradient(self, given: list[Given]):
        """Gradients of each head -> that of the last step's output."""
        return self.public([g if head.neuron else g.dmembrane for head, g in zip(self.heads, given, strict=True)])

    def __str__(self) -> str:
        rows = [("step", "layers", "made by", "takes -> gives", "keeps"), *map(_row, self.steps)]
        widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
        lines = ["".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([str(self.kind), f"enters as {self.entry}", *lines])


def _row(step: Step) -> tuple[str, ...]:
    """-> a step's row in the table."""
    made_by = step.rule or ("plain" if step.layers else "")
    return (
        step.name,
        step.title,
        made_by,
        f"{step.takes} -> {step.gives}" + (", all blocks at once" if step.joint else ""),
        step.keeps,
    )


def lower(layers: Sequence[Layer], shape: tuple[int, ...], kind: Kind, ops: SimpleNamespace) -> Program:
    """Layers and the shape of an input sample -> the program for a kind of input."""
    return Lowering(kind, ops).program(tuple(layers), shape)


class Lowering:
    """One lowering: what it is for, and what was found out on the way."""

    def __init__(self, kind: Kind, ops: SimpleNamespace):
        self.kind, self.ops = kind, ops
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._readers: dict[int, bool] = {}  # by the layer that comes next: is there a rule that takes bits?

    def program(self, layers: tuple[Layer, ...], shape: tuple[int, ...]) -> Program:
        layers = unnested(layers)
        shapes = self._through(layers, shape)
        entry = BITS if self.kind.binary and self.takes_bits(layers, shapes) else NUMBERS
        end = self.chain(layers, shapes, entry, self.kind.static, spikes=self.kind.binary, last=True)
        steps = end.steps if end.heads else self._to_numbers(end, shapes[-1], False)
        heads = end.heads or [Head(len(steps) - 1, shapes[-1], isinstance(steps[-1], NeuronStep))]
        return Program(self.kind, self.shapes, heads, entry, steps)

    def chain(self, layers, shapes, form: str, constant: bool, spikes: bool, last: bool = False) -> End:
        """-> the steps of layers one behind the other; ``form`` and ``constant`` are of their input, as in ``Place``.

        ``spikes``: is the input 0 or 1? ``last``: do the layers end the network?
        """
        steps, at = [], 0
        while at < len(layers):
            if isinstance(layers[at], Container):
                steps += self._conversions(form, NUMBERS, shapes[at])
                found = self._branches(layers[at], shapes[at], constant, chain_spikes(layers[:at], spikes), last)
                if found.heads:
                    heads = [head._replace(step=len(steps) + head.step) for head in found.heads]
                    return End([*steps, *found.steps], NUMBERS, False, heads)
                steps, at, form, constant = [*steps, *found.steps], at + 1, found.form, found.constant
                continue
            place = Place(self, layers[at:], shapes[at:], form, constant)
            step = self._by_rule(place)
            if step is None:
                step = plain_step(layers[at], shapes[at : at + 2], self.kind, last=last and at == len(layers) - 1)
            steps += [*self._conversions(form, step.takes, shapes[at]), self._checked(step)]
            at, form = at + len(step.layers), step.gives
            constant = constant and not any(isinstance(layer, Neuron) for layer in step.layers)
        return End(steps, form, constant)

    def _to_numbers(self, end: End, shape, constant: bool) -> list[Step]:
        """-> steps whose output comes as numbers, at every step unless it may be ``constant``."""
        repeated = [Repeated((), [shape, shape], self.kind)] if end.constant and not constant else []
        return [*end.steps, *self._conversions(end.form, NUMBERS, shape), *repeated]

    def _branches(self, container: Container, shape, constant: bool, spikes: bool, last: bool) -> End:
        """-> the steps of a container whose input comes as numbers."""
        container.check_spikes(spikes)
        branches = [unnested(layers) for layers in container.branches()]
        shapes = [self._through(layers, shape) for layers in branches]
        apart = container.merge is None  # several heads
        ends = [self.chain(*branch, NUMBERS, constant, spikes, last and apart) for branch in zip(branches, shapes, strict=True)]
        still = all(end.constant for end in ends) and not apart  # then the merged output is constant, too
        given, heads = [found[-1] for found in shapes], []
        steps: list[Step] = []
        for end, reached in zip(ends, given, strict=True):
            steps.append((Turn if steps else Fork)(container, [shape, shape], self.kind))
            steps += self._to_numbers(end, reached, still)
            heads.append(Head(len(steps) - 1, reached, isinstance(steps[-1], NeuronStep)))
        steps.append((Heads if apart else Merge)(container, [*given, container.merged_shape(given)], self.kind))
        lasts = any(step.joint for step in steps)
        for step in steps:
            step.lasts = step.lasts or lasts
        return End(steps, NUMBERS, still, heads if apart else [])

    def _through(self, layers, shape) -> list[tuple[int, ...]]:
        """As ``layers.containers.through``; the shapes of inputs are remembered."""
        shapes = through(layers, shape)
        self.shapes |= {layer.name: given for layer, given in zip(layers, shapes, strict=False)}
        return shapes

    def takes_bits(self, layers, shapes) -> bool:
        """Is there a rule that takes spikes as bits in front of these layers?"""
        if not layers:
            return False
        if id(layers[0]) not in self._readers:
            self._readers[id(layers[0])] = self._fitting(Place(self, layers, shapes, BITS, False)) is not None
        return self._readers[id(layers[0])]

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


def unnested(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Layers -> the same, with the layers of each Sequential among them in its place."""
    found: list[Layer] = []
    for layer in layers:
        found += unnested(layer.layers) if isinstance(layer, Chain) else [layer]
    return tuple(found)

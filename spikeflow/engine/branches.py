"""The steps where branches part, turn and meet; a program stays one list of steps.

A block goes through the branches one after the other: ``Fork`` puts its input aside, ``Turn`` puts one branch's output aside and
starts the next from the input, ``Merge`` puts all outputs together. The way back is the mirror image: ``Merge`` splits the
gradient, ``Turn`` puts one branch's aside and takes up the one before, ``Fork`` adds them up. What is put aside lies in a
``Crossing``, which the steps of one container share for each block; branches nest, so that open crossings are a stack
(``Run.crossings``). The equations are those of ``spikeflow.ops.merge``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..layers.containers import Container
from .forms import copied
from .steps import Kind, Step

__all__ = ["Crossing", "Fork", "Heads", "Merge", "Repeated", "Turn"]


@dataclass
class Crossing:
    """What a block has put aside between a fork and its merge."""

    x: Any  # the input of the branches that are still to come
    outputs: list = field(default_factory=list)  # of the branches that have passed
    gradients: list = field(default_factory=list)  # backward, of the outputs of the branches that are still to come
    dxs: list = field(default_factory=list)  # backward, of the input, of the branches that have passed, the last one first

    def copy(self) -> Crossing:
        """-> the same with copies of what has been put aside on the way forward."""
        return Crossing(None if self.x is None else copied(self.x), [copied(y) for y in self.outputs])


class BranchStep(Step):
    """Base of the three: they cover no layer, but stand for a place in a container."""

    def __init__(self, container: Container, shapes, kind: Kind):
        super().__init__((), shapes, kind)
        self.container = container

    @property
    def name(self) -> str:
        return self.container.name

    @property
    def title(self) -> str:
        return f"{type(self.container).__name__}: {type(self).__name__.lower()}"

    def aside(self, gradient):
        """-> a gradient as it is put aside."""
        return gradient.copy() if self.lasts and isinstance(gradient, np.ndarray) else gradient


class Fork(BranchStep):
    """The beginning of a container's first branch."""

    def forward(self, ops, packed, x, run):
        run.crossings.append(Crossing(x))
        return x, run.crossings[-1]

    def backward(self, ops, packed, dy, kept, grads, input_grad):
        dxs, kept.dxs = [dy, *reversed(kept.dxs)], []
        if not input_grad:
            return None
        total = dxs[0]
        for dx in dxs[1:]:
            total = ops.merge_add(total, dx)  # (5)
        return total


class Turn(BranchStep):
    """The end of one branch, and the beginning of the next."""

    def forward(self, ops, packed, x, run):
        crossing = run.crossings[-1]
        crossing.outputs.append(x)
        return crossing.x, crossing

    def backward(self, ops, packed, dy, kept, grads, input_grad):
        kept.dxs.append(self.aside(dy))
        return kept.gradients.pop()


class Merge(BranchStep):
    """The end of the last branch: all outputs come together."""

    def __init__(self, container, shapes, kind):
        super().__init__(container, shapes, kind)
        self.sizes = [shape[0] for shape in shapes[:-1]]
        if container.merge in ("and", "iand"):
            self.keeps = "outputs of the branches"

    def forward(self, ops, packed, x, run):
        crossing = run.crossings.pop()
        outputs, crossing.outputs, crossing.x = [*crossing.outputs, x], [], None
        if self.container.merge == "concat":
            return ops.merge_concat(outputs), (crossing, None)
        if self.container.merge == "add":
            total = outputs[0]
            for y in outputs[1:]:
                total = ops.merge_add(total, y)
            return total, (crossing, None)
        function = ops.merge_and if self.container.merge == "and" else ops.merge_iand
        return function(*outputs), (crossing, outputs)

    def backward(self, ops, packed, dy, kept, grads, input_grad):
        crossing, outputs = kept
        if self.container.merge == "concat":
            gradients = ops.merge_split(dy, self.sizes)
        elif self.container.merge == "add":
            gradients = [dy] * len(self.sizes)
        else:
            backward = ops.merge_and_backward if self.container.merge == "and" else ops.merge_iand_backward
            gradients = backward(dy, *outputs)
        crossing.gradients = [self.aside(gradient) for gradient in gradients[:-1]]
        return gradients[-1]


class Heads(BranchStep):
    """The end of the last branch of several that do not meet: each is an output of the network."""

    def forward(self, ops, packed, x, run):
        crossing = run.crossings.pop()
        outputs, crossing.outputs, crossing.x = (*crossing.outputs, x), [], None
        return outputs, crossing

    def backward(self, ops, packed, dy, kept, grads, input_grad):
        *kept.gradients, last = map(self.aside, dy)
        return last


class Repeated(Step):
    """Numbers that are constant in time, shown at every step."""

    title = "conversion"

    def forward(self, ops, packed, x, run):
        return ops.merge_repeat(x, run.num_steps), None

    def backward(self, ops, packed, dy, kept, grads, input_grad):
        return ops.rows_sum(dy)  # (6)

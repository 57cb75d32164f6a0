"""Dropout that drops nothing hands on what it was given, bits too."""

from __future__ import annotations

from ...layers import Dropout
from ..forms import BITS
from ..rule import Rule
from ..steps import Step

__all__ = ["RULES"]


class Idle(Step):
    """Dropout in evaluation; bits in, bits out."""

    takes = gives = BITS

    def forward(self, ops, packed, x, run):
        return x, None

    def backward(self, ops, packed, dy, kept, grads, input_grad):
        return dy


RULES = [
    Rule(
        "idle_dropout",
        (Dropout,),
        takes=(BITS,),
        guard=lambda place: not place.layers[0].drops(place.kind) and place.takes_bits(1),
        make=lambda place: Idle(*place.covered(1)),
    )
]

"""A linear layer that reads rows of spikes as bits, unless it has so few outputs that to look up who fires costs more."""

from __future__ import annotations

from ...layers import Linear
from ..forms import BITS
from ..rule import Rule
from ..weighted import NARROW, Weighted

__all__ = ["RULES"]

RULES = [
    Rule(
        "linear_of_bits",
        (Linear,),
        takes=(BITS,),
        needs=("conv2d_forward_events",),
        guard=lambda place: place.layers[0].out_features > NARROW,
        make=lambda place: Weighted(*place.covered(1), place.ops, BITS),
    )
]

"""A convolution that reads spikes as bits: it walks from one spike to the next."""

from __future__ import annotations

from ...layers import Conv2d
from ..forms import BITS
from ..rule import Rule
from ..weighted import Weighted

__all__ = ["RULES"]

RULES = [
    Rule(
        "conv_of_bits",
        (Conv2d,),
        takes=(BITS,),
        needs=("conv2d_forward_events",),
        guard=lambda place: True,
        make=lambda place: Weighted(*place.covered(1), place.ops, BITS),
    )
]

"""A convolution or a linear layer of numbers with a wide weight, whose gradient is computed once a batch; see ``weighted``."""

from __future__ import annotations

from ...layers import Conv2d, Linear
from ..forms import NUMBERS
from ..rule import Rule
from ..weighted import Weighted, is_wide

__all__ = ["RULES"]

RULES = [
    Rule(
        "wide_weight",
        (kind,),
        guard=lambda place: is_wide(place.layers[0], place.ops),
        make=lambda place: Weighted(*place.covered(1), place.ops, NUMBERS),
        smooth=True,
    )
    for kind in (Conv2d, Linear)
]

"""A linear layer behind a Flatten, of images: a convolution whose kernel covers the image, so that no number is moved."""

from __future__ import annotations

from ...layers import Flatten, Linear
from ..forms import BITS, NUMBERS
from ..rule import Rule
from ..weighted import Weighted

__all__ = ["RULES"]

RULES = [
    Rule(
        "flatten_linear",
        (Flatten, Linear),
        takes=(NUMBERS, BITS),
        needs=("conv2d_forward_events",),
        guard=lambda place: len(place.shapes[0]) == 3,
        make=lambda place: Weighted(*place.covered(2), place.ops, place.form),
        smooth=True,
    )
]

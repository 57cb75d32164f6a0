"""A convolution and the max-pool behind it, whose windows do not overlap.

A convolution of bits pools while its sums are in the first-level cache. Of either input, the gradient reaches one position of
each window only (``Routed``), so that of the input's gradient a quarter remains for windows of 2 x 2.
"""

from __future__ import annotations

from ...layers import Conv2d, MaxPool2d
from ...layers.base import merged, split_like
from ...ops.events import Routed
from ..forms import BITS, NUMBERS
from ..rule import Rule
from ..weighted import Weighted

__all__ = ["RULES", "ConvPool", "fits"]


class ConvPool(Weighted):
    """Conv2d, MaxPool2d; numbers or bits in, numbers out."""

    def __init__(self, layers, shapes, kind, ops, takes):
        super().__init__(layers, shapes, kind, ops, takes)
        self.pool = layers[1].kernel_size, layers[1].stride
        self.keeps += ", winners"

    def forward(self, ops, packed, x, run):
        if self.takes == BITS or ops.device:
            weight, bias, _ = packed
            pooled = ops.conv2d_forward_events(x, weight, bias, self.stride, self.padding, self.pool)
            return pooled.y, (x, (pooled.winner, pooled.unpooled))
        unpooled = self.convolve(ops, packed, x)
        y, winner = ops.max_pool2d_forward(merged(unpooled), *self.pool)
        return split_like(y, x), (x, (split_like(winner, x), unpooled.shape))

    def backward(self, ops, packed, dy, kept, grads, input_grad):
        routed = Routed(dy, *kept[1], *self.pool)
        return self.convolve_backward(ops, packed, routed, kept[0], grads[self.layer.name], input_grad)

    def winners(self, kept):
        return kept[1][0]


def fits(place) -> bool:
    """Do the windows of the pool not overlap, or, where a kernel needs that, tile the image?"""
    _, pool = place.layers[:2]
    return pool.stride == pool.kernel_size if place.ops.device else pool.stride >= pool.kernel_size


RULES = [
    Rule(
        "conv_pool",
        (Conv2d, MaxPool2d),
        takes=(NUMBERS, BITS),
        needs=("conv2d_forward_events",),
        guard=fits,
        make=lambda place: ConvPool(*place.covered(2), place.ops, place.form),
    )
]

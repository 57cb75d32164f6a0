"""A plain Leaky under a constant current, the convolution that reads its spikes, and the max-pool behind that, perhaps with the
Leaky behind it.

Backward, the gradient of the convolution's input is its largest array, and the first neuron adds all its time steps up. So image
after image goes through the kernels of both while its arrays are in the second-level cache: ``ops.conv2d.fused``.
"""

from __future__ import annotations

from ...layers import Conv2d, Leaky, MaxPool2d
from ...ops.events import Awaited, Routed
from ..forms import BITS
from ..rule import Place, Rule
from ..steps import Step
from . import conv_pool, conv_pool_leaky, static_leaky

__all__ = ["RULES"]


class LeakyConvPool(Step):
    """Leaky, Conv2d, MaxPool2d and perhaps Leaky; numbers that are constant in time in, numbers or bits out."""

    def __init__(self, layers, shapes, kind, behind: conv_pool.ConvPool):
        super().__init__(layers, shapes, kind)
        self.before, self.behind = static_leaky.StaticLeaky(layers[:1], shapes[:2], kind, BITS), behind
        self.gives, self.keeps = behind.gives, f"{self.before.keeps}, {behind.keeps}"

    def pack(self, ops, batch):
        return self.before.pack(ops, None), self.behind.pack(ops, None)

    def gradients(self):
        return self.behind.gradients()

    def settle(self, ops, packed, key, parts):
        return self.behind.settle(ops, packed[1], key, parts)

    def forward(self, ops, packed, x, run):
        spikes, current = self.before.forward(ops, packed[0], x, run)
        y, kept = self.behind.forward(ops, packed[1], spikes, run)
        return y, (current, *kept)

    def backward(self, ops, packed, dy, kept, grads, input_grad):
        (current, spikes, (winner, unpooled), *rest), behind = kept, self.behind
        grads_of_conv = grads[behind.layer.name]
        if not input_grad or isinstance(grads_of_conv["weight"], list):
            dy = behind.backward(ops, packed[1], dy, kept[1:], grads, input_grad)
            return self.before.backward(ops, packed[0], dy, current, grads, True) if input_grad else None
        if rest:
            dy = behind.neuron.backward(ops, packed[1][1], dy, rest[0], grads, True)
        convolution, routed = self._convolution(packed), Routed(dy, winner, unpooled, *behind.pool)
        behind.convolve_backward_into(ops, convolution, routed, spikes, None, grads_of_conv.get("bias"), False)
        awaited = Awaited(routed, spikes, convolution.weight, behind.stride, grads_of_conv["weight"])
        return ops.conv2d_leaky_backward(awaited, current, *self.before.plain).reshape(1, *spikes.shape[1:])

    def winners(self, kept):
        return kept[2][0]

    def _convolution(self, packed):
        return packed[1][0] if isinstance(self.behind, conv_pool_leaky.ConvPoolLeaky) else packed[1]


def _behind(place: Place) -> Place:
    """-> the place behind the neuron."""
    return Place(place.lowering, place.layers[1:], place.shapes[1:], BITS, False)


def _fits(place: Place, pools) -> bool:
    return static_leaky.fits(place) and place.layers[1].padding == 0 and pools(_behind(place))


NEEDS = ("conv2d_leaky_backward",)
RULES = [
    Rule(
        "leaky_conv_pool",
        (Leaky, Conv2d, MaxPool2d, Leaky),
        needs=NEEDS,
        guard=lambda place: _fits(place, conv_pool_leaky.fits),
        make=lambda place: LeakyConvPool(*place.covered(4), conv_pool_leaky.ConvPoolLeaky(*_behind(place).covered(3), place.ops)),
    ),
    Rule(
        "leaky_conv_pool",
        (Leaky, Conv2d, MaxPool2d),
        needs=NEEDS,
        guard=lambda place: _fits(place, conv_pool.fits),
        make=lambda place: LeakyConvPool(*place.covered(3), conv_pool.ConvPool(*_behind(place).covered(2), place.ops, BITS)),
    ),
]

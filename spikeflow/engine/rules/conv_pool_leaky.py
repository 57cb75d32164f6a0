"""A convolution of bits, its max-pool and the plain Leaky behind it: sums, windows and neurons go through one kernel."""

from __future__ import annotations

from ...layers import Conv2d, Leaky, MaxPool2d
from ...layers.neurons import Kept
from ...ops.neurons.model import Trajectory
from ..forms import BITS
from ..rule import Rule
from ..steps import NeuronStep
from .conv_pool import ConvPool
from .conv_pool import fits as pools

__all__ = ["RULES", "ConvPoolLeaky", "fits"]


class ConvPoolLeaky(ConvPool):
    """Conv2d, MaxPool2d, Leaky; bits in, bits out."""

    gives = BITS

    def __init__(self, layers, shapes, kind, ops):
        super().__init__(layers, shapes, kind, ops, BITS)
        self.neuron = NeuronStep(layers[2:], shapes[2:], kind)
        self.plain = layers[2].plain()
        self.keeps += ", membrane"

    def pack(self, ops, batch):
        return super().pack(ops, batch), self.neuron.pack(ops, None)

    def forward(self, ops, packed, x, run):
        (weight, bias, _), neuron = packed
        fired = ops.conv2d_forward_events(x, weight, bias, self.stride, self.padding, self.pool, self.plain)
        kept = self.neuron.narrowed(Kept(Trajectory(fired.membrane), fired.spikes.shape, neuron.params))
        return fired.spikes, (x, (fired.winner, fired.unpooled), kept)

    def backward(self, ops, packed, dy, kept, grads, input_grad):
        convolution, neuron = packed
        dy = self.neuron.backward(ops, neuron, dy, kept[2], grads, True)
        return super().backward(ops, convolution, dy, kept[:2], grads, input_grad)

    def settle(self, ops, packed, key, parts):
        return super().settle(ops, packed[0], key, parts)


def fits(place) -> bool:
    """Is it such a neuron, whose membrane nobody wants, and are its spikes read as bits?"""
    kind = place.kind
    return pools(place) and kind.whole and not kind.records and place.layers[2].plain() is not None and place.takes_bits(3)


RULES = [
    Rule(
        "conv_pool_leaky",
        (Conv2d, MaxPool2d, Leaky),
        takes=(BITS,),
        needs=("conv2d_leaky_backward",),
        guard=fits,
        make=lambda place: ConvPoolLeaky(*place.covered(3), place.ops),
    )
]

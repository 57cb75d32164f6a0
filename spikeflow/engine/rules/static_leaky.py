"""A plain Leaky under a constant current keeps the current alone, from which its backward pass computes the membrane again.

Equation (8) of ``spikeflow.ops.neurons.leaky``, forward in time.
"""

from __future__ import annotations

from ...layers import Leaky
from ...ops.events import SpikeWords
from ..forms import BITS, NUMBERS
from ..rule import Rule
from ..steps import NeuronStep

__all__ = ["RULES", "StaticLeaky", "fits"]


class StaticLeaky(NeuronStep):
    """Leaky; numbers that are constant in time in, bits or numbers out."""

    def __init__(self, layers, shapes, kind, gives: str):
        super().__init__(layers, shapes, kind)
        self.gives, self.keeps = gives, "current"
        self.plain = self.layer.plain()

    def forward(self, ops, packed, x, run):
        T, rows, bits = run.num_steps, x.reshape(1, -1), self.gives == BITS
        spikes, _ = ops.neuron_forward(packed.model, rows, T, packed.params, None, words=bits, keep=False)
        spikes = spikes.reshape(len(spikes), *x.shape[1:])
        return SpikeWords(spikes, T) if bits else spikes, rows

    def backward(self, ops, packed, dy, kept, grads, input_grad):
        dx = ops.leaky_backward_static(dy.reshape(len(dy), -1), kept, *self.plain)
        return dx.reshape(1, *dy.shape[1:])


def fits(place) -> bool:
    """Is it such a neuron, and not the last one, whose membrane is given out?"""
    kind, last = place.kind, len(place.layers) == 1
    return place.constant and kind.whole and not kind.records and not last and place.layers[0].plain() is not None


def _make(place):
    bits = place.takes_bits(1) and hasattr(place.ops, "conv2d_forward_events")
    return StaticLeaky(*place.covered(1), BITS if bits else NUMBERS)


RULES = [Rule("static_leaky", (Leaky,), needs=("leaky_backward_static",), guard=fits, make=_make)]

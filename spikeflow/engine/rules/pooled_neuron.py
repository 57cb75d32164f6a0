"""A simple neuron with the batch normalisation before it and the max-pool behind it, in one pass: ``ops.neurons.pooled``.

It keeps nothing but its input; its backward pass runs the neuron again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...layers import MaxPool2d, Neuron
from ...ops.events import SpikeWords
from ..forms import BITS, NORMALISED, NUMBERS, Normalised, Summed, as_it_is, widened
from ..rule import Rule
from ..steps import Step

__all__ = ["RULES", "PooledNeuron"]


@dataclass
class Kept:
    """What a forward pass leaves behind."""

    x: Normalised
    params: np.ndarray
    bits: np.ndarray | None = None  # all spikes, where x is in half precision


class PooledNeuron(Step):
    """A neuron layer and perhaps a MaxPool2d; numbers or Normalised in, bits out."""

    gives, keeps = BITS, "input"

    def __init__(self, layers, shapes, kind, takes: str):
        super().__init__(layers, shapes, kind)
        self.takes = takes
        self.K = layers[1].kernel_size if len(layers) == 2 else 1
        self._prepared = None

    def pack(self, ops, batch):
        if self._prepared is None:  # nothing of it is learned
            self._prepared = self.layers[0].prepare(ops, self.shapes[0], self.kind.dtype)
        return self._prepared

    def forward(self, ops, packed, x, run):
        x, amp = x if self.takes == NORMALISED else as_it_is(x, ops), self.kind.amp
        images = x.x.reshape(_as_images(x.shape))
        bits = ops.spike_bits(run.num_steps, *images.shape[1:]) if amp else None
        options = run.num_steps, packed.params, self.K, bits
        words = ops.neuron_pool_forward(packed.model, images, x.scale, x.shift, *options)
        shape = words.shape if len(x.shape) == 5 else (len(words), *x.shape[1:])
        kept = Kept(x.halved() if amp else x, packed.params, bits)
        return SpikeWords(words.reshape(shape), run.num_steps), kept if len(self.layers) == 1 else (kept, None)

    def backward(self, ops, packed, dy, kept, grads, input_grad):
        kept = kept if len(self.layers) == 1 else kept[0]
        x = kept.x
        images = widened(x.x).reshape(_as_images(x.shape))
        numbers = x.scale, x.shift, x.mean, len(dy), packed.params, self.K, kept.bits
        dx, sums = ops.neuron_pool_backward(packed.model, dy.reshape(_as_images(dy.shape)), images, *numbers)
        dx = dx.reshape(x.shape)
        return dx if x.plain else Summed(dx, sums)


def _as_images(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(T, b, C) -> (T, b, 1, 1, C); (T, b, H, W, C) as it is."""
    return (*shape[:2], *(1,) * (5 - len(shape)), *shape[2:])


def _fits(place, count: int) -> bool:
    kind, neuron = place.kind, place.layers[0]
    return kind.whole and not kind.records and neuron.binary and neuron.simple and place.takes_bits(count)


def _pools(place) -> bool:
    pool = place.layers[1]
    return pool.stride == pool.kernel_size and _fits(place, 2)


NEEDS = ("neuron_pool_forward", "neuron_pool_backward")
RULES = [
    Rule(
        "pooled_neuron",
        (Neuron, MaxPool2d),
        takes=(NUMBERS, NORMALISED),
        needs=NEEDS,
        guard=_pools,
        make=lambda place: PooledNeuron(*place.covered(2), place.form),
    ),
    Rule(
        "pooled_neuron",
        (Neuron,),
        takes=(NORMALISED,),
        needs=NEEDS,
        guard=lambda place: _fits(place, 1),
        make=lambda place: PooledNeuron(*place.covered(1), place.form),
    ),
]

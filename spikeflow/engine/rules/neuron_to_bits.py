"""A layer of neurons whose spikes the layers behind read as bits."""

from __future__ import annotations

from ...layers import Neuron
from ...ops.events import SpikeWords
from ..forms import BITS
from ..rule import Rule
from ..steps import NeuronStep

__all__ = ["RULES"]


class NeuronToBits(NeuronStep):
    """A neuron layer; numbers in, bits out."""

    gives = BITS

    def forward(self, ops, packed, x, run):
        T, rows, state = run.num_steps, x.reshape(len(x), -1), run.states.get(self.layer.name)
        words, trajectory = ops.neuron_forward(
            packed.model, rows, T, packed.params, state, words=True, keep_states=self.layer.learns_own
        )
        spikes = SpikeWords(words.reshape(len(words), *x.shape[1:]), T)
        return spikes, self.narrowed(self.layer.keep(packed, x.shape, rows, trajectory, run))


RULES = [
    Rule(
        "neuron_to_bits",
        (Neuron,),
        needs=("conv2d_forward_events",),
        guard=lambda place: place.layers[0].emits_bits and place.takes_bits(1),
        make=lambda place: NeuronToBits(*place.covered(1)),
    )
]

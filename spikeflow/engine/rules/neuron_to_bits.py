"""A layer of neurons whose spikes the layers behind read as bits."""

from __future__ import annotations

from ...layers import Neuron
from ...layers.neurons import Recurrent
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


def _fits(place) -> bool:
    neuron = place.layers[0]
    stops = isinstance(neuron, Recurrent) and neuron.all_to_all  # at each step, for a product with its spikes as numbers
    return neuron.binary and not stops and place.takes_bits(1)


RULES = [
    Rule(
        "neuron_to_bits",
        (Neuron,),
        needs=("conv2d_forward_events",),
        guard=_fits,
        make=lambda place: NeuronToBits(*place.covered(1)),
    )
]

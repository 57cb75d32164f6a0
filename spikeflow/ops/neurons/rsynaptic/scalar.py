"""One time step of one recurrent synaptic neuron: a synaptic neuron's whose current includes the recurrent one."""

from __future__ import annotations

from ..synaptic.scalar import PARAMS, READS_INPUT, RESETS, STATES

__all__ = ["PARAMS", "READS_INPUT", "RESETS", "STATES"]

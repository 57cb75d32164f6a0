"""Spiking neurons as layers, a file a family: the only layers that know about time."""

from .alpha import Alpha
from .base import Kept, Neuron, Prepared
from .lapicque import Lapicque
from .leaky import Leaky, LeakyIntegrator
from .nodes import IFNode, LIFNode, Node, ParametricLIFNode
from .recurrent import Recurrent, RLeaky, RSynaptic
from .synaptic import Synaptic

__all__ = [
    "Alpha",
    "IFNode",
    "Kept",
    "LIFNode",
    "Lapicque",
    "Leaky",
    "LeakyIntegrator",
    "Neuron",
    "Node",
    "ParametricLIFNode",
    "Prepared",
    "RLeaky",
    "RSynaptic",
    "Recurrent",
    "Synaptic",
]

"""The layers of a network."""

from __future__ import annotations

from .base import Layer, Parameter
from .dropout import Dropout
from .neurons import Alpha, Lapicque, Leaky, LeakyIntegrator, Neuron, Synaptic
from .nodes import IFNode, LIFNode, Node, ParametricLIFNode
from .normalization import BatchNorm1d, BatchNorm2d
from .recurrent import RLeaky, RSynaptic
from .spatial import AvgPool2d, Conv2d, Flatten, Linear, MaxPool2d

__all__ = [
    "Alpha",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv2d",
    "Dropout",
    "Flatten",
    "IFNode",
    "LIFNode",
    "Lapicque",
    "Layer",
    "Leaky",
    "LeakyIntegrator",
    "Linear",
    "MaxPool2d",
    "Neuron",
    "Node",
    "Parameter",
    "ParametricLIFNode",
    "RLeaky",
    "RSynaptic",
    "Synaptic",
    "from_config",
]

NEURONS = (Alpha, IFNode, LIFNode, Lapicque, Leaky, LeakyIntegrator, ParametricLIFNode, RLeaky, RSynaptic, Synaptic)
LAYERS = {
    layer.__name__: layer
    for layer in (AvgPool2d, BatchNorm1d, BatchNorm2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d, *NEURONS)
}


def from_config(config: dict) -> Layer:
    """The layer that ``Layer.config`` described; ValueError, with the known names, if there is none such."""
    options = dict(config)
    name = options.pop("type", None)
    if name not in LAYERS:
        raise ValueError(f"unknown layer {name!r}; known are {', '.join(LAYERS)}")
    try:
        return LAYERS[name](**options)
    except TypeError as error:
        raise ValueError(f"layer {name}: {error}") from error

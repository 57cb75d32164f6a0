"""The layers of a network."""

from __future__ import annotations

from collections.abc import Sequence

from ..ops.surrogate import SURROGATES
from .base import Layer, Parameter, check_options, nearest
from .containers import Container, Parallel, Residual
from .dropout import Dropout
from .neurons import (
    Alpha,
    IFNode,
    Lapicque,
    Leaky,
    LeakyIntegrator,
    LIFNode,
    Neuron,
    Node,
    ParametricLIFNode,
    RLeaky,
    RSynaptic,
    Synaptic,
)
from .normalization import BatchNorm1d, BatchNorm2d
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
    "Parallel",
    "Parameter",
    "ParametricLIFNode",
    "RLeaky",
    "RSynaptic",
    "Residual",
    "Synaptic",
    "check_chain",
    "from_config",
]

NEURONS = (Alpha, IFNode, LIFNode, Lapicque, Leaky, LeakyIntegrator, ParametricLIFNode, RLeaky, RSynaptic, Synaptic)
LAYERS = {
    layer.__name__: layer
    for layer in (AvgPool2d, BatchNorm1d, BatchNorm2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d, *NEURONS)
}
CONTAINERS: dict[str, type[Container]] = {"Parallel": Parallel, "Residual": Residual}  # and "Sequential", when it is imported


SURROGATE_OPTIONS = ("spike_grad", "surrogate_function")


def from_config(config: dict, position: int | None = None) -> Layer:
    """The layer that ``Layer.config`` described.

    Parameters
    ----------
    config : dict
        Its ``"type"`` and its options by name, a surrogate as ``Surrogate.config`` describes it.
    position : int, optional
        Number of the layer in its network, for messages.

    Raises
    ------
    ValueError
        An unknown layer, option or surrogate (the nearest known one is named), a missing option, or a wrong value.
    """
    options = dict(config)
    name, known = options.pop("type", None), LAYERS | CONTAINERS
    if not isinstance(name, str) or name not in known:
        place = "" if position is None else f"layer {position}: "
        raise ValueError(f"{place}unknown layer {name!r}{nearest(name, known)}; known are {', '.join(known)}")
    try:
        if name in CONTAINERS:
            return CONTAINERS[name].from_options(options, from_config)
        check_options(LAYERS[name], options)
        for option in SURROGATE_OPTIONS:
            _check_surrogate(option, options.get(option))
        return LAYERS[name](**options)
    except (TypeError, ValueError) as error:
        place = f"layer {name}" if position is None else f"layer {position} ({name})"
        raise ValueError(f"{place}: {error}") from error


def _check_surrogate(option: str, config) -> None:
    """ValueError unless it is the description of a surrogate, or there is none."""
    if config is None:
        return
    if not isinstance(config, dict):
        raise ValueError(f'{option} must be a description such as {{"name": "atan", "alpha": 2.0}}, got {config!r}')
    params = dict(config)
    name = params.pop("name", None)
    if not isinstance(name, str) or name not in SURROGATES:
        raise ValueError(f"unknown surrogate {name!r}{nearest(name, SURROGATES)}; known are {', '.join(SURROGATES)}")
    try:
        check_options(SURROGATES[name], params)
        for key, value in params.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{key} must be a number, got {value!r}")
    except ValueError as error:
        raise ValueError(f"surrogate {name}: {error}") from error


def check_chain(layers: Sequence[Layer], ends: bool = True) -> None:
    """TypeError or ValueError, naming the layer, unless they make a network; ``ends``: may they be its end?"""
    for position, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise TypeError(f"layer {position} must be a spikeflow layer, got {layer!r}")
    if not layers:
        raise ValueError("a network must have at least one layer, got no layer at all")
    for position, layer in enumerate(layers):
        last = ends and position == len(layers) - 1
        if not last and (reason := _reason_to_end(layer)):
            raise ValueError(f"layer {position} ({layer!r}) {reason}, so that it must be the last layer")
        for branch in layer.branches() if isinstance(layer, Container) else ():
            if branch:
                check_chain(branch, last and layer.merge is None)


def _reason_to_end(layer: Layer) -> str:
    """-> why no layer can come behind this one, or ""."""
    if isinstance(layer, Neuron) and not layer.model.fires:
        return "never fires"
    return "does not merge its branches" if isinstance(layer, Parallel) and layer.merge is None else ""

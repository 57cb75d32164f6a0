"""The networks that the command line can train by name, and what of them can be chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import losses, surrogate
from .layers import Alpha, Conv2d, Flatten, Lapicque, Layer, Leaky, Linear, MaxPool2d, Neuron, RLeaky, RSynaptic, Synaptic
from .ops.surrogate import SURROGATES

__all__ = ["ENCODINGS", "LOSSES", "NEURONS", "PRESETS", "Preset", "find", "make_layers", "make_loss"]

ENCODINGS = ("direct", "rate", "latency")
LOSSES = tuple(name for name in losses.__all__ if name.endswith("_loss"))


@dataclass(frozen=True)
class Preset:
    """A network and the settings it is trained with; ``defaults`` of what can be chosen, None for what it does not have."""

    layers: Callable[[Callable[[], Neuron], dict[str, Any]], list[Layer]]
    num_steps: int
    batch_size: int
    lr: float
    epochs: int
    defaults: dict[str, Any] = field(default_factory=dict)


def csnn_mnist(neuron, choices) -> list[Layer]:
    """12C5-MP2-64C5-MP2-1024FC10 of snnTorch's Tutorial 6: pooling before the neuron."""
    return [
        Conv2d(1, 12, 5), MaxPool2d(2), neuron(), Conv2d(12, 64, 5), MaxPool2d(2), neuron(),
        Flatten(), Linear(64 * 4 * 4, 10), neuron(),
    ]  # fmt: skip


def fcn_mnist(neuron, choices) -> list[Layer]:
    """784-1000-10 of snnTorch's Tutorial 5."""
    hidden = choices["hidden"]
    return [Flatten(), Linear(784, hidden), neuron(), Linear(hidden, 10), neuron()]


COMMON = {"encoding": "direct", "neuron": "leaky", "learn_beta": False, "learn_threshold": False, "hidden": None}
PRESETS = {
    "csnn-mnist": Preset(
        csnn_mnist, num_steps=50, batch_size=128, lr=1e-2, epochs=1,
        defaults={**COMMON, "loss": "ce_rate_loss", "surrogate": "fast_sigmoid:25", "beta": 0.5},
    ),
    "fcn-mnist": Preset(
        fcn_mnist, num_steps=25, batch_size=128, lr=5e-4, epochs=1,
        defaults={**COMMON, "loss": "ce_membrane_loss", "surrogate": "atan:2", "beta": 0.95, "hidden": 1000},
    ),
}  # fmt: skip

# Of a neuron with a second decay, alpha lies half-way between beta and 1; a recurrent one hears itself alone.
NEURONS: dict[str, Callable[[float], dict[str, Any]]] = {
    "leaky": lambda beta: {"make": Leaky, "beta": beta},
    "lapicque": lambda beta: {"make": Lapicque, "beta": beta, "R": 1 / (1 - beta) if beta < 1 else None},
    "synaptic": lambda beta: {"make": Synaptic, "alpha": (1 + beta) / 2, "beta": beta},
    "alpha": lambda beta: {"make": Alpha, "alpha": (1 + beta) / 2, "beta": beta},
    "rleaky": lambda beta: {"make": RLeaky, "beta": beta, "all_to_all": False},
    "rsynaptic": lambda beta: {"make": RSynaptic, "alpha": (1 + beta) / 2, "beta": beta, "all_to_all": False},
}


def find(name: str) -> Preset:
    """The preset of that name; ValueError, with the known names, if there is none such."""
    return PRESETS[_known("preset", name, PRESETS)]


def make_layers(preset: Preset, choices: dict[str, Any]) -> list[Layer]:
    """-> the layers with everything chosen; ValueError if a choice is unknown or nothing that this network has."""
    beta = choices["beta"]
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must be in [0, 1], got {beta}")
    _known("loss", choices["loss"], LOSSES)
    options = dict(NEURONS[_known("neuron", choices["neuron"], NEURONS)](beta))
    make = options.pop("make")
    options |= {"spike_grad": make_surrogate(choices["surrogate"])}
    options |= {key: True for key in ("learn_beta", "learn_threshold") if choices[key]}
    if choices["hidden"] is not None and preset.defaults["hidden"] is None:
        raise ValueError("hidden: this network has no hidden layer of neurons to size; leave it out")
    _known("encoding", choices["encoding"], ENCODINGS)
    return preset.layers(lambda: make(**options), choices)


def make_loss(name: str) -> losses.Loss:
    """The loss of that name, with its defaults; ValueError, with the known names, if there is none such."""
    return getattr(losses, _known("loss", name, LOSSES))()


def make_surrogate(text: str) -> surrogate.Surrogate:
    """``"atan"``, or with its first parameter ``"atan:2"`` -> the surrogate; ValueError, with the known names, otherwise."""
    name, _, number = text.partition(":")
    make = SURROGATES[_known("surrogate", name, SURROGATES)]
    try:
        return make(float(number)) if number else make()
    except (TypeError, ValueError) as error:
        raise ValueError(f"surrogate {text!r}: {error}") from error


def _known(what: str, name: str, names) -> str:
    if name not in names:
        raise ValueError(f"{what} must be one of {', '.join(names)}, got {name!r}")
    return name

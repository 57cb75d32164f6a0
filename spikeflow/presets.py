"""The networks that the command line can train by name, and what of them can be chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import losses, optim, schedulers, surrogate
from .datasets import CLASSES as DATASETS
from .layers import (
    Alpha,
    BatchNorm2d,
    Conv2d,
    Flatten,
    IFNode,
    Lapicque,
    Layer,
    Leaky,
    Linear,
    MaxPool2d,
    Neuron,
    Parameter,
    RLeaky,
    RSynaptic,
    Synaptic,
)
from .ops.surrogate import SURROGATES

__all__ = [
    "DATASETS",
    "ENCODINGS",
    "LOSSES",
    "NEURONS",
    "OPTIMIZERS",
    "PRESETS",
    "SCHEDULERS",
    "Preset",
    "find",
    "fill_training",
    "make_layers",
    "make_loss",
    "make_optimizer",
    "make_scheduler",
]

ENCODINGS = ("direct", "rate", "latency")
LOSSES = tuple(name for name in losses.__all__ if name.endswith("_loss"))
# What each optimizer and each schedule has besides the learning rate, and what that is by default.
OPTIMIZERS: dict[str, dict[str, Any]] = {"sgd": {"momentum": 0.9}, "adam": {}}
SCHEDULERS: dict[str, dict[str, Any]] = {"step": {"step_size": 32, "gamma": 0.1}, "cosine": {"T_max": 64}, "none": {}}
RATES = {"sgd": 0.1, "adam": 1e-3}  # learning rates for an optimizer that is not the preset's own


@dataclass(frozen=True)
class Preset:
    """A network and the settings it is trained with; ``defaults`` of what can be chosen, None for what it does not have."""

    layers: Callable[[Callable[[], Neuron], dict[str, Any]], list[Layer]]
    num_steps: int
    batch_size: int
    lr: float
    epochs: int
    eval_every: int | None = 50  # iterations; None: after each epoch
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


def csnn_fashion(neuron, choices) -> list[Layer]:
    """128C3-BN-IF-MP2-128C3-BN-IF-MP2-2048FC-10FC of SpikingJelly's Fashion-MNIST example: pooling behind the neuron."""
    C = choices["channels"]
    return [
        Conv2d(1, C, 3, padding=1, bias=False), BatchNorm2d(C), neuron(), MaxPool2d(2),
        Conv2d(C, C, 3, padding=1, bias=False), BatchNorm2d(C), neuron(), MaxPool2d(2),
        Flatten(), Linear(C * 7 * 7, C * 4 * 4, bias=False), neuron(), Linear(C * 4 * 4, 10, bias=False), neuron(),
    ]  # fmt: skip


COMMON = {
    "dataset": "mnist", "encoding": "direct", "neuron": "leaky", "learn_beta": False, "learn_threshold": False, "hidden": None,
    "channels": None, "optimizer": "adam", "lr_scheduler": "none",
}  # fmt: skip
PRESETS = {
    "csnn-mnist": Preset(
        csnn_mnist, num_steps=50, batch_size=128, lr=1e-2, epochs=1,
        defaults={**COMMON, "loss": "ce_rate_loss", "surrogate": "fast_sigmoid:25", "beta": 0.5},
    ),
    "fcn-mnist": Preset(
        fcn_mnist, num_steps=25, batch_size=128, lr=5e-4, epochs=1,
        defaults={**COMMON, "loss": "ce_membrane_loss", "surrogate": "atan:2", "beta": 0.95, "hidden": 1000},
    ),
    "csnn-fashion": Preset(
        csnn_fashion, num_steps=4, batch_size=128, lr=0.1, epochs=64, eval_every=None,
        defaults={
            **COMMON, "dataset": "fashion-mnist", "loss": "mse_rate_loss", "surrogate": "ATan:2", "channels": 128,
            "neuron": None, "beta": None, "learn_beta": None, "learn_threshold": None,
            "optimizer": "sgd", "lr_scheduler": "cosine",
        },
    ),
}  # fmt: skip
ABSENT = {  # what a network may not have, and why
    "hidden": "this network has no hidden layer of neurons to size",
    "channels": "the channels of this network are fixed",
    "neuron": "the neurons of this network are IFNode",
    "beta": "the neurons of this network do not decay",
    "learn_beta": "the neurons of this network do not decay",
    "learn_threshold": "the neurons of this network have a fixed threshold",
}

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
    for key, reason in ABSENT.items():
        given = choices.get(key)
        if preset.defaults[key] is None and given is not None and given is not False:
            raise ValueError(f"{key}: {reason}; leave it out")
    _known("loss", choices["loss"], LOSSES)
    _known("encoding", choices["encoding"], ENCODINGS)
    return preset.layers(_neuron_maker(preset, choices), choices)


def _neuron_maker(preset: Preset, choices: dict[str, Any]) -> Callable[[], Neuron]:
    spike_grad = make_surrogate(choices["surrogate"])
    if preset.defaults["neuron"] is None:
        return lambda: IFNode(surrogate_function=spike_grad)
    beta = choices["beta"]
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must be in [0, 1], got {beta}")
    options = dict(NEURONS[_known("neuron", choices["neuron"], NEURONS)](beta))
    make = options.pop("make")
    options |= {"spike_grad": spike_grad}
    options |= {key: True for key in ("learn_beta", "learn_threshold") if choices[key]}
    return lambda: make(**options)


def fill_training(preset: Preset, choices: dict[str, Any]) -> None:
    """Fill in how ``choices`` trains where it says None, in place; ValueError for an option that what is chosen does not have."""
    _known("dataset", choices["dataset"], DATASETS)
    optimizer = _known("optimizer", choices["optimizer"], OPTIMIZERS)
    if choices["lr"] is None:
        choices["lr"] = preset.lr if optimizer == preset.defaults["optimizer"] else RATES[optimizer]
    for what, table in (("optimizer", OPTIMIZERS), ("lr_scheduler", SCHEDULERS)):
        chosen = _known(what, choices[what], table)
        for name in (name for options in table.values() for name in options):
            if name not in table[chosen] and choices[name] is not None:
                raise ValueError(f"{name}: nothing that the {what} {chosen} has; leave it out")
            if name in table[chosen] and choices[name] is None:
                choices[name] = table[chosen][name]


def make_optimizer(choices: dict[str, Any], parameters: list[Parameter]) -> optim.Optimizer:
    """-> the optimizer that filled choices name, of these parameters."""
    make = {"sgd": optim.SGD, "adam": optim.Adam}[choices["optimizer"]]
    return make(parameters, lr=choices["lr"], **_options(OPTIMIZERS[choices["optimizer"]], choices))


def make_scheduler(choices: dict[str, Any], optimizer: optim.Optimizer) -> schedulers.Scheduler | None:
    """-> the schedule that filled choices name, of this optimizer; None if they name none."""
    name = choices["lr_scheduler"]
    if name == "none":
        return None
    make = {"step": schedulers.StepLR, "cosine": schedulers.CosineAnnealingLR}[name]
    return make(optimizer, **_options(SCHEDULERS[name], choices))


def _options(names, choices: dict[str, Any]) -> dict[str, Any]:
    return {name: choices[name] for name in names}


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

"""What the command line trains: networks from files, those of ``spikeflow/networks`` by name, and what of them can be chosen.

``network_files.py`` has the layers of such a file; here are its sections [choices] and [training], and their counterparts on the
command line. Choices are whole numbers, which the file gives names, and

    neuron, surrogate, beta, learn_beta, learn_threshold      of all layers of type "$neuron"

of which ``neuron`` and ``surrogate`` are texts as on the command line: ``"leaky"``, ``"atan:2"``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import losses, optim, schedulers, surrogate
from .datasets import CLASSES as DATASETS
from .layers import Layer, Neuron, Parameter
from .layers.base import nearest, positive_int
from .layers.containers import ends
from .network_files import NetworkFile, from_description
from .network_files import read as read_file
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
    "choose",
    "find",
    "fill_training",
    "from_config",
    "make_layers",
    "make_loss",
    "make_optimizer",
    "make_scheduler",
    "read",
]

PRESETS = ("csnn-mnist", "fcn-mnist", "csnn-fashion")
FILES = Path(__file__).parent / "networks"
IMAGE = (1, 28, 28)  # shape of a sample of every data set
ENCODINGS = ("direct", "rate", "latency")
LOSSES = tuple(name for name in losses.__all__ if name.endswith("_loss"))
# What each optimizer and each schedule has besides the learning rate, and what that is by default.
OPTIMIZERS: dict[str, dict[str, Any]] = {"sgd": {"momentum": 0.9}, "adam": {}, "adamw": {}}
SCHEDULERS: dict[str, dict[str, Any]] = {
    "step": {"step_size": 32, "gamma": 0.1}, "cosine": {"T_max": 64}, "exponential": {"gamma": 0.95}, "one-cycle": {}, "none": {},
}  # fmt: skip
RATES = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3}  # learning rates for an optimizer that is not the network's own

# Of a neuron with a second decay, alpha lies half-way between beta and 1; a recurrent one hears itself alone.
NEURONS: dict[str, Callable[[float], dict[str, Any]]] = {
    "leaky": lambda beta: {"type": "Leaky", "beta": beta},
    "lapicque": lambda beta: {"type": "Lapicque", "beta": beta, **({"R": 1 / (1 - beta)} if beta < 1 else {})},
    "synaptic": lambda beta: {"type": "Synaptic", "alpha": (1 + beta) / 2, "beta": beta},
    "alpha": lambda beta: {"type": "Alpha", "alpha": (1 + beta) / 2, "beta": beta},
    "rleaky": lambda beta: {"type": "RLeaky", "beta": beta, "all_to_all": False},
    "rsynaptic": lambda beta: {"type": "RSynaptic", "alpha": (1 + beta) / 2, "beta": beta, "all_to_all": False},
}

# What a file's [training] and [choices] may hold, besides options of optimizers and schedules, and whole numbers of any name.
COMMON: dict[str, Any] = {
    "dataset": "mnist", "encoding": "direct", "loss": "ce_rate_loss", "optimizer": "adam", "lr_scheduler": "none",
    "batch_size": 128, "epochs": 1, "eval_every": None, "clip_norm": None, "warmup": None, "augment": None,
}  # fmt: skip
TRAINING: dict[str, type] = {
    "dataset": str, "encoding": str, "loss": str, "optimizer": str, "lr_scheduler": str, "lr": float,
    "num_steps": int, "batch_size": int, "epochs": int, "eval_every": int, "clip_norm": float, "warmup": int, "augment": str,
}  # fmt: skip
CHOICES: dict[str, type] = {"neuron": str, "surrogate": str, "beta": float, "learn_beta": bool, "learn_threshold": bool}
SIZES = ("hidden", "channels")  # numbers that the command line can set
KINDS = {str: "a text", float: "a number", int: "a whole number", bool: "true or false"}
ABSENT = {  # what a preset may not have, and why
    "surrogate": "the surrogate gradients of this network are fixed",
    "hidden": "this network has no hidden layer of neurons to size",
    "channels": "the channels of this network are fixed",
    "neuron": "the neurons of this network are IFNode",
    "beta": "the neurons of this network do not decay",
    "learn_beta": "the neurons of this network do not decay",
    "learn_threshold": "the neurons of this network have a fixed threshold",
}


@dataclass(frozen=True)
class Preset:
    """A network and the settings that it is trained with.

    Attributes
    ----------
    network : NetworkFile
    num_steps, batch_size, epochs : int
    eval_every : int or None
        Iterations; None: after each epoch.
    lr : float or None
        None: what the optimizer has by default.
    defaults : dict
        Of all else that can be chosen; None for what this network does not have.
    options : dict
        What the file says of its optimizer and its schedule.
    """

    network: NetworkFile
    num_steps: int
    batch_size: int
    epochs: int
    eval_every: int | None
    lr: float | None
    defaults: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.network.name

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of a sample: (C, H, W) or (F,)."""
        return self.network.input_shape

    def config(self) -> dict[str, Any]:
        """-> the whole description, as JSON can hold it; ``from_config`` takes it."""
        return self.network.description


def choose(preset: str | None, network: str | os.PathLike | dict | None) -> Preset:
    """-> the one that is given: a preset's name, or a network's file or description; ValueError for none or both."""
    if (preset is None) == (network is None):
        given = "nothing" if preset is None else "both"
        raise ValueError(f"give a preset, one of {', '.join(PRESETS)}, or a network file, and not both; got {given}")
    if preset is not None:
        return find(preset)
    return from_config(network) if isinstance(network, dict) else read(network)


def find(name: str) -> Preset:
    """The preset of that name; ValueError, with the known names, if there is none such."""
    network = read_file(FILES / f"{_known('preset', name, PRESETS)}.toml")
    return _preset(replace(network, source=name))


def read(path: str | os.PathLike) -> Preset:
    """Read a network's file; all of it is checked.

    Raises
    ------
    FileNotFoundError
    ValueError
        Naming the file and, if a layer is at fault, its number and type: the file is not TOML; an unknown section, layer, option
        or surrogate, with the nearest known one; a missing option or one of a wrong type; shapes that do not fit.
    """
    return _preset(read_file(path))


def from_config(config: dict[str, Any]) -> Preset:
    """The preset that ``Preset.config`` described; errors as of ``read``."""
    return _preset(from_description(config, "the network's description"))


def _preset(network: NetworkFile) -> Preset:
    """A file's sections -> Preset, checked."""
    try:
        _check_choices(network)
        training = _checked_training(network.training)
        chosen = {name: network.choices.get(name) for name in (*CHOICES, *SIZES)}
        if chosen["neuron"] is not None:
            chosen = {"learn_beta": False, "learn_threshold": False, **{k: v for k, v in chosen.items() if v is not None}}
        values = {**COMMON, **training}
        fields = {name: values.pop(name, None) for name in ("num_steps", "batch_size", "epochs", "eval_every", "lr")}
        options = {name: values.pop(name) for name in _options_of_training() if name in values}
        preset = Preset(network, **fields, defaults={**dict.fromkeys((*CHOICES, *SIZES)), **chosen, **values}, options=options)
        _try_training(preset)
        values = _values(preset, preset.defaults)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{network.source}: {error}") from error
    network.layers(values)
    return preset


def _check_choices(network: NetworkFile) -> None:
    """ValueError unless every choice is of its kind and stands for something in the network."""
    used = network.references()
    if "neuron" in used:
        used |= set(CHOICES)
        if missing := [name for name in ("neuron", "surrogate", "beta") if name not in network.choices]:
            raise ValueError(f'a layer is of type "$neuron": [choices] must give {" and ".join(missing)}, too')
    for name, value in network.choices.items():
        _check_kind(f"[choices] {name}", value, CHOICES.get(name, int))
        if name not in used:
            raise ValueError(f"[choices] {name}: no layer refers to it{nearest(name, used)}; leave it out")


def _checked_training(training: dict[str, Any]) -> dict[str, Any]:
    """-> the section; ValueError for an unknown name, a value of another kind, or no ``num_steps``."""
    known = {**TRAINING, **_options_of_training()}
    for name, value in training.items():
        if name not in known:
            raise ValueError(f"[training] has no {name!r}{nearest(name, known)}; it has {', '.join(known)}")
        _check_kind(f"[training] {name}", value, known[name])
        if known[name] is int:
            positive_int(f"[training] {name}", value)
    if "num_steps" not in training:
        raise ValueError("[training] must give num_steps, the time steps that a sample is shown")
    return training


def _options_of_training() -> dict[str, type]:
    """-> the options of all optimizers and schedules, by name, and their kinds."""
    tables = (*OPTIMIZERS.values(), *SCHEDULERS.values())
    return {name: float if default is None else type(default) for table in tables for name, default in table.items()}


def _check_kind(what: str, value, kind: type) -> None:
    kinds = (int, float) if kind is float else kind
    if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{what} must be {KINDS[kind]}, got {value!r}")


def _try_training(preset: Preset) -> None:
    """ValueError if the network cannot be trained as its file says."""
    choices = {**preset.defaults, **dict.fromkeys(_options_of_training()), **preset.options, "lr": preset.lr}
    fill_training(preset, choices)
    _known("loss", choices["loss"], LOSSES)
    _known("encoding", choices["encoding"], ENCODINGS)
    make_scheduler(choices, make_optimizer(choices, [Parameter("0.weight", np.zeros(1, np.float32))]), 1)


def make_layers(preset: Preset, choices: dict[str, Any]) -> list[Layer]:
    """-> new layers with everything chosen.

    Raises
    ------
    ValueError
        A choice is unknown, or nothing that this network has, or leads to layers that do not fit each other, the data set or the
        loss.
    """
    for key in (*CHOICES, *SIZES):
        given = choices.get(key)
        if preset.defaults[key] is None and given is not None and given is not False:
            reason = (
                ABSENT[key] if preset.network.source in PRESETS else f"{preset.network.source} has no such entry in [choices]"
            )
            raise ValueError(f"{key}: {reason}; leave it out")
    loss = make_loss(choices["loss"])
    _known("encoding", choices["encoding"], ENCODINGS)
    layers, shape = preset.network.layers(_values(preset, choices))
    _check_data(preset, choices["dataset"], loss, layers, shape)
    return layers


def _values(preset: Preset, choices: dict[str, Any]) -> dict[str, Any]:
    """-> what the choices stand for in the network's layers."""
    chosen = {name: choices[name] for name in (*CHOICES, *SIZES) if choices.get(name) is not None}
    values = {**preset.network.choices, **chosen}
    if values.get("beta") is not None and not 0 <= values["beta"] <= 1:
        raise ValueError(f"beta must be in [0, 1], got {values['beta']}")
    if values.get("surrogate") is not None:
        values["surrogate"] = make_surrogate(values["surrogate"]).config()
    if values.get("neuron") is not None:
        neuron = NEURONS[_known("neuron", values["neuron"], NEURONS)](values["beta"])
        learned = {key: True for key in ("learn_beta", "learn_threshold") if values.get(key)}
        values["neuron"] = {**neuron, "spike_grad": values["surrogate"], **learned}
    return values


def _check_data(preset: Preset, dataset: str, loss: losses.Loss, layers: list[Layer], shape: tuple[int, ...]) -> None:
    """ValueError unless the network takes the images, and gives the loss something for each class."""
    source, count = preset.network.source, len(DATASETS[_known("dataset", dataset, DATASETS)])
    if preset.input_shape != IMAGE:
        raise ValueError(f"{source}: [network] input is {preset.input_shape}, but the images of {dataset} are {IMAGE}")
    if len(shape) != 1 or shape[0] < count:
        raise ValueError(f"{source}: outputs must be at least {count} features, one for each class of {dataset}, got {shape}")
    for last in ends(layers):
        if loss.inputs != "membrane" and not (isinstance(last, Neuron) and last.model.fires):
            raise ValueError(f"{source}: {loss!r} reads spikes, but the last layer ({last!r}) never fires")


def fill_training(preset: Preset, choices: dict[str, Any]) -> None:
    """Fill in how ``choices`` trains where it says None, in place; ValueError for an option that what is chosen does not have."""
    _known("dataset", choices["dataset"], DATASETS)
    optimizer = _known("optimizer", choices["optimizer"], OPTIMIZERS)
    if choices["lr"] is None:
        choices["lr"] = preset.lr if optimizer == preset.defaults["optimizer"] else None
        choices["lr"] = RATES[optimizer] if choices["lr"] is None else choices["lr"]
    for what, table in (("optimizer", OPTIMIZERS), ("lr_scheduler", SCHEDULERS)):
        chosen = _known(what, choices[what], table)
        own = preset.options if chosen == preset.defaults[what] else {}
        for name in (name for options in table.values() for name in options):
            if name not in table[chosen] and choices[name] is not None:
                raise ValueError(f"{name}: nothing that the {what} {chosen} has; leave it out")
            if name in table[chosen] and choices[name] is None:
                choices[name] = own.get(name, table[chosen][name])


def make_optimizer(choices: dict[str, Any], parameters: list[Parameter]) -> optim.Optimizer:
    """-> the optimizer that filled choices name, of these parameters."""
    make = {"sgd": optim.SGD, "adam": optim.Adam, "adamw": optim.AdamW}[choices["optimizer"]]
    return make(parameters, lr=choices["lr"], **_options(OPTIMIZERS[choices["optimizer"]], choices))


def make_scheduler(choices: dict[str, Any], optimizer: optim.Optimizer, iterations: int) -> schedulers.Scheduler | None:
    """-> the schedule that filled choices name, of this optimizer and a run of so many iterations; None if they name none."""
    name, warmup = choices["lr_scheduler"], choices.get("warmup")
    if name == "one-cycle":
        if warmup is not None:
            raise ValueError("warmup: the schedule one-cycle begins with a warm-up of its own; leave it out")
        return schedulers.OneCycleLR(optimizer, max_lr=choices["lr"], total_steps=iterations)
    if name == "none":
        return None if warmup is None else schedulers.LinearLR(optimizer, total_iters=warmup)
    makers = {"step": schedulers.StepLR, "cosine": schedulers.CosineAnnealingLR, "exponential": schedulers.ExponentialLR}
    scheduler = makers[name](optimizer, **_options(SCHEDULERS[name], choices))
    return scheduler if warmup is None else schedulers.warmup(scheduler, warmup)


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
        raise ValueError(f"{what} must be one of {', '.join(names)}, got {name!r}{nearest(name, names)}")
    return name

"""Networks from files: TOML that gives every layer by its type and its options' names.

    [network]
    name = "small"                          # of run folders; by default the file's own
    input = [1, 28, 28]                     # shape of a sample: [C, H, W] or [F]

    [choices]                               # numbers to refer to, some of which the command line can set
    channels = 8

    [defaults.LIFNode]                      # options of all layers of that type that do not give them themselves
    tau = 2.0
    surrogate_function = {name = "ATan", alpha = 2.0}

    [[layers]]
    type = "Conv2d"
    in_channels = 1
    out_channels = "$channels"
    kernel_size = 3

    [[layers]]
    type = "LIFNode"

    [[layers]]
    type = "Flatten"

    [[layers]]
    type = "Linear"
    in_features = "$channels * 26 * 26"
    out_features = 10

    [[layers]]
    type = "LIFNode"
    v_reset = "none"

    [training]                              # how `spikeflow train` trains it unless told otherwise
    dataset = "mnist"
    num_steps = 8

Layers and options are those of ``spikeflow.layers``, described as ``Layer.config`` describes them. ``"none"`` is Python's None,
but for options that are texts. A text that begins with ``$`` is the value of a choice, or a product of choices and whole
numbers. A choice may be a whole layer (``type = "$neuron"``), whose options come before those of ``defaults``. A layer that
holds others has them as tables of its own: ``[[layers.body]]``, each with its type, behind a ``[[layers]]`` of type
``"Residual"``, and ``[layers.shortcut]``; ``[[layers.branches]]`` of a ``"Parallel"``; a branch of several layers is of type
``"Sequential"`` and has ``[[layers.branches.layers]]``.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .layers import LAYERS, Layer, check_chain, from_config
from .layers.base import check_option_names, nearest, positive_int
from .layers.containers import name_for_messages

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["NetworkFile", "from_description", "read"]

SECTIONS = {"network": dict, "choices": dict, "defaults": dict, "layers": list, "training": dict}
NETWORK = ("name", "input")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class NetworkFile:
    """What a file says; made by ``read`` or ``from_description``.

    Attributes
    ----------
    source : str
        Where it comes from, for messages.
    description : dict
        All of it, as JSON can hold it: what ``from_description`` takes.
    name : str
    input_shape : tuple of int
        Of a sample: (C, H, W) or (F,).
    choices, training : dict
        The sections of these names.
    """

    source: str
    description: dict[str, Any]
    name: str
    input_shape: tuple[int, ...]
    choices: dict[str, Any]
    training: dict[str, Any]

    def references(self) -> set[str]:
        """-> names of the choices that layers refer to."""
        tables = [*self.description["layers"], *self.description.get("defaults", {}).values()]
        texts = [value for table in _every_table(tables) for value in table.values() if _refers(value)]
        return {name for text in texts for name in _factors(text) if not name.isdecimal()}

    def layers(self, values: dict[str, Any]) -> tuple[list[Layer], tuple[int, ...]]:
        """-> new layers, and the shape of an output sample.

        Parameters
        ----------
        values : dict
            What ``$name`` stands for: whole numbers, other values of options, or descriptions of layers.

        Raises
        ------
        ValueError
            Naming the layer: an unknown layer, option, surrogate or choice, a missing option, a wrong value, shapes that do not
            fit, or layers that make no network.
        """
        try:
            configs = [self._config(k, table, values) for k, table in enumerate(self.description["layers"])]
            layers = [from_config(config, k) for k, config in enumerate(configs)]
            check_chain(layers)
            shape = self.input_shape
            for k, layer in enumerate(from_config(config) for config in configs):
                name_for_messages(layer, str(k))  # this one will join no network
                shape = layer.output_shape(shape)
        except ValueError as error:
            raise ValueError(f"{self.source}: {error}") from error
        return layers, shape

    def _config(self, k: int, table: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
        """-> the description of layer k, choices and defaults filled in."""
        try:
            kind = _filled(table["type"], values)
            chosen = {"type": kind} if isinstance(kind, str) else kind
            defaults = self.description.get("defaults", {}).get(chosen["type"], {})
            own = {key: self._option(value, values) for key, value in {**defaults, **chosen, **table}.items() if key != "type"}
        except (TypeError, ValueError) as error:
            raise ValueError(f"layer {k} ({table['type']}): {error}") from error
        return {"type": chosen["type"], **_with_none(chosen["type"], own)}

    def _option(self, value, values: dict[str, Any]):
        """-> what an option stands for; of a container, descriptions of the layers that it holds."""
        if _is_layer(value):
            return self._config(0, value, values)
        if isinstance(value, list) and any(map(_is_layer, value)):
            return [self._config(k, part, values) if _is_layer(part) else part for k, part in enumerate(value)]
        return _filled(value, values)


def _is_layer(value) -> bool:
    return isinstance(value, dict) and isinstance(value.get("type"), str)


def _every_table(tables) -> Iterator[dict[str, Any]]:
    """The tables of layers, and of those that they hold."""
    for table in tables:
        yield table
        for value in table.values():
            parts = value if isinstance(value, list) else [value]
            yield from _every_table(part for part in parts if _is_layer(part))


def read(path: str | os.PathLike) -> NetworkFile:
    """Read a file and check its form; the layers themselves are checked when they are made.

    Raises
    ------
    FileNotFoundError
    ValueError
        Naming the file: it is not TOML, or a section is missing, unknown or of another kind.
    """
    path = Path(path)
    try:
        description = tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no network file {path}") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder, not a network file") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    if isinstance(description.get("network"), dict):
        description["network"].setdefault("name", path.stem)
    return from_description(description, str(path))


def from_description(description: dict[str, Any], source: str) -> NetworkFile:
    """The network that a file's content describes; errors as of ``read``."""
    try:
        _check_sections(description)
        network = description["network"]
        _check_names("[network]", network, NETWORK)
        name = network.get("name", "network")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(f"[network] name must be letters, digits, '.', '_' and '-', got {name!r}")
        shape = network.get("input")
        if not isinstance(shape, list) or len(shape) not in (1, 3):
            raise ValueError(f"[network] input must be the shape of a sample, such as [1, 28, 28] or [784], got {shape!r}")
        shape = tuple(positive_int("[network] input", size) for size in shape)
        found = NetworkFile(source, description, name, shape, description.get("choices", {}), description.get("training", {}))
        _check_choices(found)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source}: {error}") from error
    return found


def _check_sections(description: dict[str, Any]) -> None:
    _check_names("a network file", description, SECTIONS)
    for name, kind in SECTIONS.items():
        if name not in description and name in ("network", "layers"):
            raise ValueError(f"there is no [{name}]" if kind is dict else f"there is no layer: [[{name}]]")
        if not isinstance(description.get(name, kind()), kind):
            raise ValueError(f"{name} must be written as [{name}]" if kind is dict else f"{name} must be written as [[{name}]]")
    for k, table in enumerate(description["layers"]):
        if not isinstance(table, dict) or not isinstance(table.get("type"), str):
            raise ValueError(f'layer {k} must be a table with a type, such as type = "Conv2d", got {table!r}')
    for name, options in description.get("defaults", {}).items():
        if name not in LAYERS or not isinstance(options, dict):
            raise ValueError(f"[defaults.{name}]: unknown layer {name!r}{nearest(name, LAYERS)}; known are {', '.join(LAYERS)}")
        try:
            check_option_names(LAYERS[name], options)
        except ValueError as error:
            raise ValueError(f"[defaults.{name}]: {error}") from error


def _check_choices(file: NetworkFile) -> None:
    for name, value in file.choices.items():
        if not isinstance(value, (int, float, str)):
            raise ValueError(f"[choices] {name} must be a number, a text or a boolean, got {value!r}")


def _check_names(section: str, table: dict[str, Any], known) -> None:
    for name in table:
        if name not in known:
            raise ValueError(f"{section} has no {name!r}{nearest(name, known)}; it has {', '.join(known)}")


# ------------------------------------------------------------------------------------------------ references


def _refers(value) -> bool:
    return isinstance(value, str) and value.startswith("$")


def _factors(text: str) -> list[str]:
    """``"$channels * 16"`` -> ``["channels", "16"]``."""
    return [factor.strip() for factor in text[1:].split("*")]


def _filled(value, values: dict[str, Any]):
    """-> what an option's value stands for."""
    if not _refers(value):
        return value
    factors = _factors(value)
    for name in factors:
        if not name.isdecimal() and values.get(name) is None:
            known = [key for key, chosen in values.items() if chosen is not None]
            raise ValueError(
                f"{value!r} refers to an unknown choice {name!r}{nearest(name, known)}; known are {', '.join(known)}"
            )
    numbers = [int(name) if name.isdecimal() else values[name] for name in factors]
    if len(numbers) == 1:
        return numbers[0]
    product = 1
    for name, number in zip(factors, numbers, strict=True):
        product *= positive_int(name, number)
    return product


def _with_none(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """-> the options with None for ``"none"`` where an option is no text."""
    known = inspect.signature(LAYERS[kind]).parameters if kind in LAYERS else {}
    texts = {name for name, option in known.items() if isinstance(option.default, str)}
    return {name: None if value == "none" and name not in texts else value for name, value in options.items()}

"""Networks on disk: the network's description, its weights, and what else its training has to remember, in one npz file.

``archive.py`` has the file itself, ``files.py`` how it is replaced.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from . import backends
from .archive import CheckpointError, read_arrays, refusing, write_arrays
from .layers import Conv2d, Layer, Linear, from_config
from .layers.neurons import Recurrent
from .layers.normalization import BatchNorm
from .network import Sequential

__all__ = ["Checkpoint", "CheckpointError", "load", "load_training", "load_with_info", "save"]

WEIGHTS = "weights/"
MAX_LAYERS = 1000


class Checkpoint(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    network : dict
        The description, for ``Sequential.from_config``.
    info : dict
        What was saved about the training.
    weights : dict of str to ndarray
        For ``net.load_state_dict``.
    arrays : dict of str to ndarray
        What was saved besides.
    """

    network: dict[str, Any]
    info: dict[str, Any]
    weights: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]


def save(
    path: str | os.PathLike, net: Sequential, info: dict[str, Any] | None = None, arrays: dict[str, np.ndarray] | None = None
) -> None:
    """Write a network to ``path``, whole or not at all.

    Parameters
    ----------
    path : str or path-like
    net : Sequential
    info : dict, optional
        Anything JSON can hold about how the network was trained.
    arrays : dict of str to ndarray, optional
        Arrays that training has to remember, such as ``"optimizer/0.weight/mean"``: of booleans or numbers, under names that do
        not begin with ``weights/``.

    Raises
    ------
    TypeError, ValueError
        ``info`` or ``arrays`` hold what a file cannot.
    OSError
        The file cannot be written; the old one stays.
    """
    arrays = arrays or {}
    if taken := [name for name in arrays if str(name).startswith(WEIGHTS)]:
        raise ValueError(f"arrays: names that begin with {WEIGHTS!r} are those of the network's weights; got {taken[0]!r}")
    network = net.config()
    _check_depth(network)
    weights = {WEIGHTS + name: value for name, value in net.state_dict().items()}
    write_arrays(path, {"network": network, "info": info or {}}, weights | arrays)


def load(path: str | os.PathLike, backend: str = "cpu") -> Sequential:
    """Build the network that ``Sequential.save`` (or training) wrote.

    Raises
    ------
    FileNotFoundError
        No such file.
    CheckpointError
        The file is damaged, or is no checkpoint, or its weights do not fit its description.
    """
    return load_with_info(path, backend)[0]


def load_with_info(path: str | os.PathLike, backend: str = "cpu") -> tuple[Sequential, dict[str, Any]]:
    """As ``load``, and the ``info`` that was saved with it."""
    backends.load(backend)  # an unknown one is not the file's fault
    found = load_training(path)
    with refusing(path):
        _check_sizes(found.network, found.weights)
        net = Sequential.from_config(found.network, backend=backend)
        net.load_state_dict(found.weights)
        return net, found.info


def load_training(path: str | os.PathLike) -> Checkpoint:
    """Read all that ``save`` wrote, verified but for whether description and weights fit each other; errors as of ``load``."""
    manifest, entries = read_arrays(path)
    with refusing(path):
        for key in ("network", "info"):
            if not isinstance(manifest.get(key), dict):
                raise ValueError(f"it has no description {key!r}")
    weights = {name.removeprefix(WEIGHTS): value for name, value in entries.items() if name.startswith(WEIGHTS)}
    arrays = {name: value for name, value in entries.items() if not name.startswith(WEIGHTS)}
    return Checkpoint(manifest["network"], manifest["info"], weights, arrays)


def _check_depth(network: dict[str, Any]) -> None:
    if len(network["layers"]) > MAX_LAYERS:
        raise ValueError(f"a checkpoint can hold {MAX_LAYERS} layers, the network has {len(network['layers'])}")


def _check_sizes(network: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
    """ValueError unless the layers are as large as their weights: building them takes the memory that the description claims."""
    _check_depth(network)
    for position, config in enumerate(network["layers"]):
        for key, shape in _large_shapes(from_config(config)).items():
            name = f"{position}.{key}"
            if name not in weights or weights[name].shape != shape:
                found = weights[name].shape if name in weights else "nothing"
                raise ValueError(f"{name} must have shape {shape}, got {found}")


def _large_shapes(layer: Layer) -> dict[str, tuple[int, ...]]:
    """-> {name: shape} of the parameter that a layer's options make large; others are no larger than what the options list."""
    if isinstance(layer, Conv2d):
        return {"weight": (layer.out_channels, layer.in_channels, layer.kernel_size, layer.kernel_size)}
    if isinstance(layer, Linear):
        return {"weight": (layer.out_features, layer.in_features)}
    if isinstance(layer, BatchNorm):
        return {"running_mean": (layer.num_features,)}
    if isinstance(layer, Recurrent) and layer.all_to_all:
        N, K = layer.linear_features or layer.conv2d_channels, layer.kernel_size
        return {"recurrent.weight": (N, N) if K is None else (N, N, K, K)}
    return {}

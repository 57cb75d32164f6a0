"""spikeflow: trains convolutional spiking neural networks with NumPy and Numba.

Every backward pass is derived by hand, next to its forward pass, and checked against finite differences. Names are imported at
their first use, so that ``import spikeflow`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from . import datasets, encoding, logs, losses, metrics, optim, plotting, schedulers, surrogate
    from .checkpoint import load
    from .finite_differences import gradcheck
    from .kernels.cpu.parallel import get_num_threads, set_num_threads
    from .layers import (
        Alpha,
        AvgPool2d,
        BatchNorm1d,
        BatchNorm2d,
        Conv2d,
        Dropout,
        Flatten,
        IFNode,
        Lapicque,
        Leaky,
        LeakyIntegrator,
        LIFNode,
        Linear,
        MaxPool2d,
        Parallel,
        Parameter,
        ParametricLIFNode,
        Residual,
        RLeaky,
        RSynaptic,
        Synaptic,
    )  # fmt: skip
    from .network import Sequential
    from .recurrences import explain

_MODULES = ("datasets", "encoding", "logs", "losses", "metrics", "optim", "plotting", "schedulers", "surrogate")
_NAMES = {
    "Alpha": "layers",
    "AvgPool2d": "layers",
    "BatchNorm1d": "layers",
    "BatchNorm2d": "layers",
    "Conv2d": "layers",
    "Dropout": "layers",
    "Flatten": "layers",
    "IFNode": "layers",
    "LIFNode": "layers",
    "Lapicque": "layers",
    "Leaky": "layers",
    "LeakyIntegrator": "layers",
    "Linear": "layers",
    "MaxPool2d": "layers",
    "Parallel": "layers",
    "Parameter": "layers",
    "ParametricLIFNode": "layers",
    "RLeaky": "layers",
    "RSynaptic": "layers",
    "Residual": "layers",
    "Sequential": "network",
    "Synaptic": "layers",
    "explain": "recurrences",
    "get_num_threads": "kernels.cpu.parallel",
    "gradcheck": "finite_differences",
    "load": "checkpoint",
    "set_num_threads": "kernels.cpu.parallel",
}

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
    "Leaky",
    "LeakyIntegrator",
    "Linear",
    "MaxPool2d",
    "Parallel",
    "Parameter",
    "ParametricLIFNode",
    "RLeaky",
    "RSynaptic",
    "Residual",
    "Sequential",
    "Synaptic",
    "__version__",
    "datasets",
    "encoding",
    "explain",
    "get_num_threads",
    "gradcheck",
    "load",
    "logs",
    "losses",
    "metrics",
    "optim",
    "plotting",
    "schedulers",
    "set_num_threads",
    "surrogate",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _NAMES:
        value = getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

"""The tables of operations: one backend, one table, the same names and arguments in each.

Only ``reference`` takes, besides, the discrete choices that it is to obey (``winner``, ``flags``, ``winners``), for finite
differences.

``reference`` is plain NumPy, for reading and for checking; ``cpu`` is Numba.
"""

from __future__ import annotations

import functools
import importlib
from types import SimpleNamespace

__all__ = ["BACKENDS", "OPERATIONS", "load"]

# Operation -> the folder under spikeflow.ops that defines it.
OPERATIONS = {
    "conv2d_pack": "conv2d",
    "conv2d_forward": "conv2d",
    "conv2d_backward": "conv2d",
    "linear_pack": "linear",
    "linear_forward": "linear",
    "linear_backward": "linear",
    "max_pool2d_forward": "pool2d",
    "max_pool2d_backward": "pool2d",
    "avg_pool2d_forward": "pool2d",
    "avg_pool2d_backward": "pool2d",
    "batch_norm_sums": "batch_norm",
    "batch_norm_forward": "batch_norm",
    "batch_norm_backward_sums": "batch_norm",
    "batch_norm_backward": "batch_norm",
    "flatten_forward": "flatten",
    "flatten_backward": "flatten",
    "neuron_forward": "neurons",
    "neuron_backward": "neurons",
}

# Entries of backends that know sparse or fused ways; their oracle is the plain operations composed.
EVENTS = {
    "conv2d_forward_events": "conv2d.events",
    "conv2d_backward_events": "conv2d.events",
    "conv2d_dx_routed": "conv2d.events",
    "conv2d_leaky_backward": "conv2d.fused",
    "conv2d_forward_tables": "conv2d.tables",
    "conv2d_dweight_tables": "conv2d.tables",
    "linear_dweight": "linear.cpu",
    "spike_rows": "conv2d.tables",
    "linear_forward_tables": "conv2d.tables",
    "linear_dweight_tables": "conv2d.tables",
    "dx_panels": "conv2d.tables",
    "linear_dx_wide": "conv2d.tables",
    "max_pool2d_forward_words": "pool2d.cpu",
    "max_pool2d_backward_words": "pool2d.cpu",
    "neuron_pool_forward": "neurons.pooled",
    "neuron_pool_backward": "neurons.pooled",
    "spike_bits": "neurons.pooled",
    "leaky_backward_static": "neurons.cpu",
}

# Backend -> the module of a folder, where it is not simply "<folder>.<backend>".
BACKENDS = {
    "reference": {},
    "cpu": {"flatten": "flatten.reference"},
}


@functools.cache
def load(name: str) -> SimpleNamespace:
    """-> the operations of a backend as attributes. ValueError, with the known names, if there is none such."""
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {name!r}")
    modules = {folder: BACKENDS[name].get(folder, f"{folder}.{name}") for folder in set(OPERATIONS.values())}
    imported = {folder: importlib.import_module(f"spikeflow.ops.{module}") for folder, module in modules.items()}
    table = {op: getattr(imported[folder], op) for op, folder in OPERATIONS.items()}
    if name == "cpu":
        table |= {op: getattr(importlib.import_module(f"spikeflow.ops.{module}"), op) for op, module in EVENTS.items()}
    return SimpleNamespace(**table)

"""The tables of operations: one backend, one table, the same names and arguments in each.

Only ``reference`` takes, besides, the discrete choices that it is to obey (``winner``, ``flags``, ``winners``), for finite
differences.

``reference`` is plain NumPy, for reading and for checking; ``cpu`` is Numba; ``cuda`` is Numba for NVIDIA's GPUs, whose arrays
live on the device. What a backend fuses or does in a sparse way besides is its own: EXTRAS.
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
    "rows_zeros": "rows",
    "rows_add": "rows",
    "rows_join": "rows",
    "rows_copy": "rows",
    "rows_sum": "rows",
    "rows_of": "rows",
    "rows_constant": "rows",
    "rows_scale": "rows",
    "merge_add": "merge",
    "merge_and": "merge",
    "merge_and_backward": "merge",
    "merge_iand": "merge",
    "merge_iand_backward": "merge",
    "merge_concat": "merge",
    "merge_split": "merge",
    "merge_repeat": "merge",
    "neuron_forward": "neurons",
    "neuron_backward": "neurons",
    "adam_step": "adam",
    "sgd_step": "sgd",
}

# Backend -> its sparse and fused entries; their oracle is the plain operations composed.
EXTRAS = {
    "cpu": {
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
    },
    "cuda": {
        "conv2d_forward_events": "conv2d.cuda",
        "conv2d_backward_events": "conv2d.cuda",
        "max_pool2d_forward_words": "pool2d.cuda",
        "max_pool2d_backward_words": "pool2d.cuda",
        "neuron_pool_forward": "neurons.pooled_cuda",
        "neuron_pool_backward": "neurons.pooled_cuda",
        "leaky_backward_static": "neurons.cuda",
        "batch_norm_backward_partials": "batch_norm.cuda",
        "batch_norm_training": "batch_norm.cuda",
        "batch_norm_evaluation": "batch_norm.cuda",
        "batch_norm_gradients": "batch_norm.cuda",
    },
}

# Backend -> the module of a folder, where it is not simply "<folder>.<backend>".
BACKENDS = {
    "reference": {},
    "cpu": {"flatten": "flatten.reference", "rows": "rows.reference"},
    "cuda": {},
}


def load(name: str) -> SimpleNamespace:
    """-> the operations of a backend as attributes, and ``device``: do they take arrays on the device?

    Raises
    ------
    ValueError
        An unknown backend; the message has the known ones.
    RuntimeError
        ``cuda`` where something is missing; the message says what, and what to install.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {name!r}")
    if name == "cuda":
        from .kernels.cuda import gpu

        gpu.require()
    return _table(name)


@functools.cache
def _table(name: str) -> SimpleNamespace:
    modules = {folder: BACKENDS[name].get(folder, f"{folder}.{name}") for folder in set(OPERATIONS.values())}
    imported = {folder: importlib.import_module(f"spikeflow.ops.{module}") for folder, module in modules.items()}
    table = {op: getattr(imported[folder], op) for op, folder in OPERATIONS.items()}
    extras = EXTRAS.get(name, {})
    table |= {op: getattr(importlib.import_module(f"spikeflow.ops.{module}"), op) for op, module in extras.items()}
    return SimpleNamespace(device=name == "cuda", **table)

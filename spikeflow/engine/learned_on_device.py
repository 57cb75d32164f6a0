"""What a neuron learns, on the device: the options' numbers and their gradients stay there, and nothing waits.

The decays of ``Alpha`` are the exception: the host, which alone can refuse them once they have passed each other, works out what
they give.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..kernels.cuda import gpu
from ..layers import Neuron
from ..layers.neurons import Prepared
from ..ops.neurons import learned_cuda

__all__ = ["add_gradients", "prepare"]


@dataclass(frozen=True)
class Learned(Prepared):
    """A layer's part in one call, its ``params`` on the device."""

    rows: np.ndarray | None = None  # ``params`` as they would be if all that is learned were 0


def prepare(layer: Neuron, ops, shape, dtype) -> Prepared:
    """As ``layer.prepare``, without a look at what is learned."""
    if layer.learned_rows() is None:
        return layer.prepare(ops, shape, dtype)
    numbers = {
        name: np.zeros(np.shape(getattr(layer, name))) if name in layer.learned else layer.current(name)
        for name in layer.number_names()
    }
    prepared = layer.prepare(ops, shape, dtype, numbers)
    at_zero, found = gpu.constant(prepared.params), gpu.empty(prepared.params.shape)
    ops.rows_copy(at_zero, found)
    learned = Learned(**{**vars(prepared), "params": found, "rows": prepared.params})
    for p, how, option in _learned_rows(layer, learned):
        learned_cuda.set_row(how, layer.params[option].array, at_zero[p], _shape(learned), found[p])
    return learned


def add_gradients(layer: Neuron, prepared: Prepared, dparams, grads) -> None:
    """dparams (P, 1 or F) on the device -> added to the gradients of the options that are learned."""
    if dparams is None:
        return
    if not isinstance(prepared, Learned):
        on_host = {name: layer.params[name].grad for name in layer.learned}
        layer.add_gradients(prepared, gpu.to_host(dparams).astype(np.float64), on_host)
        return
    at_zero = gpu.constant(prepared.rows)
    for p, how, option in _learned_rows(layer, prepared):
        numbers = dparams[p], layer.params[option].array, at_zero[p]
        learned_cuda.add_gradient(how, *numbers, _shape(prepared), grads[option])


def _learned_rows(layer: Neuron, prepared: Learned) -> list[tuple[int, str, str]]:
    """-> (which row of params, how it follows from an option, the option's name)."""
    return [(prepared.model.params.index(row), *how) for row, how in layer.learned_rows().items()]


def _shape(prepared: Learned) -> tuple[int, ...]:
    """-> the shape of what a row has entries for."""
    return prepared.shape if prepared.rows.shape[1] > 1 else (1,)

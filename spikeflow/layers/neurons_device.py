"""What a neuron learns, on the device: the options' numbers and their gradients stay there, and nothing waits."""

from __future__ import annotations

from ..ops import gpu
from ..ops.neurons import learned_cuda

__all__ = ["add_gradients", "params"]


def params(layer, ops, prepared):
    """-> params (P, 1 or F) as the loops take them: the host's rows, and over them those that are learned."""
    at_zero, found = gpu.constant(prepared.rows), gpu.empty(prepared.rows.shape)
    ops.rows_copy(at_zero, found)
    for p, how, option in _learned_rows(layer, prepared):
        learned_cuda.set_row(how, layer.params[option].array, at_zero[p], _shape(prepared), found[p])
    return found


def add_gradients(layer, prepared, dparams, grads) -> None:
    """dparams (P, 1 or F) -> added to the gradients of the options that are learned."""
    at_zero = gpu.constant(prepared.rows)
    for p, how, option in _learned_rows(layer, prepared):
        numbers = dparams[p], layer.params[option].array, at_zero[p]
        learned_cuda.add_gradient(how, *numbers, _shape(prepared), grads[option])


def _learned_rows(layer, prepared) -> list[tuple[int, str, str]]:
    """-> (which row of params, how it follows from an option, the option's name)."""
    return [(prepared.model.params.index(row), *how) for row, how in layer.learned_rows().items()]


def _shape(prepared) -> tuple[int, ...]:
    """-> the shape of what a row has entries for."""
    return prepared.shape if prepared.rows.shape[1] > 1 else (1,)

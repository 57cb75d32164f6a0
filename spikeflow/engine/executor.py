"""What every executor does for a network: six questions, the same on the processor and on a device.

An executor is made for one call, from a program and an input, and forgotten afterwards; after ``forward`` the network keeps it
for ``backward``. Arrays come and go channel first, as the user has them.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ..layers.base import Run
from .lower import Program
from .steps import Given

__all__ = ["Executor", "channel_first", "channel_last", "last_axis", "output_gradients"]


Outputs = tuple  # (spikes, membrane), or a tuple of such pairs


class Executor(Protocol):
    """One call of a network."""

    program: Program
    run: Run
    batch: int

    def forward(self) -> Outputs:
        """-> spikes, membrane (T, B, ...), of several heads a tuple of such pairs; keeps what ``backward`` needs."""

    def backward(self, dspikes, dmembrane, input_grad: bool) -> np.ndarray | None:
        """dspikes, dmembrane (T, B, ...) or None, or tuples -> dL/dinput or None; adds into every parameter's gradient."""

    def step(self, losses: list, targets: list, normalisers: list) -> tuple[float, Any]:
        """A loss, checked targets, a normaliser for each head -> loss, output (T, B, ...); adds into every gradient."""

    def predict(self) -> Any:
        """-> spikes (T, B, ...), or the output where no neuron ends the network; of several heads a tuple; keeps nothing."""

    def stream(self, states: dict[str, np.ndarray]) -> tuple[Outputs, dict[str, np.ndarray]]:
        """States (S, B, ...) by neuron layer, channel last -> as ``forward``, and the states that follow."""

    def record(self) -> dict[str, dict[str, np.ndarray]]:
        """-> {layer's name: {"spikes", "membrane": (T, B, ...)}} of every layer of neurons."""


def output_gradients(call: Executor, dspikes, dmembrane) -> list[Given]:
    """Gradients given from outside of what ``forward`` returned, checked, channel last -> those of each head."""
    heads, program = len(call.program.heads), call.program
    pairs = []
    for name, gradient in (("dspikes", dspikes), ("dmembrane", dmembrane)):
        gradients = [gradient] if heads == 1 else [None] * heads if gradient is None else gradient
        if heads > 1 and not (isinstance(gradients, (tuple, list)) and len(gradients) == heads):
            raise ValueError(f"{name} must be a tuple of {heads}, one for each head, got {type(gradient).__name__}")
        ends = zip(program.heads, gradients, strict=True)
        pairs.append([_output_gradient(call, name, head.shape, gradient) for head, gradient in ends])
    found = [Given(*pair) for pair in zip(*pairs, strict=True)]
    for head, given in zip(program.heads, found, strict=True):
        if given.dspikes is None and given.dmembrane is None:
            raise ValueError("backward needs dspikes, dmembrane, or both")
        if given.dspikes is not None and not head.neuron:
            raise ValueError("dspikes must be None where no neuron ends the network: dmembrane is the gradient of its output")
    return found


def _output_gradient(call: Executor, name: str, sample: tuple[int, ...], gradient) -> np.ndarray | None:
    if gradient is None:
        return None
    gradient = np.asarray(gradient)
    shape = (call.run.num_steps, call.batch, *sample)
    if gradient.shape != shape:
        raise ValueError(f"{name} must have the shape {shape} of what forward returned, got {gradient.shape}")
    return channel_last(gradient.astype(call.program.kind.dtype, copy=False))


def last_axis(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(C, H, W) -> (H, W, C); shapes of samples that are no images stay as they are."""
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape


def channel_last(x: np.ndarray) -> np.ndarray:
    """(T, B, C, H, W) -> (T, B, H, W, C); samples that are no images stay as they are."""
    return np.ascontiguousarray(np.moveaxis(x, 2, -1)) if x.ndim == 5 else x


def channel_first(x: np.ndarray, leading: int = 2) -> np.ndarray:
    """(T, B, H, W, C) -> (T, B, C, H, W); samples that are no images stay as they are."""
    return np.ascontiguousarray(np.moveaxis(x, -1, -3)) if x.ndim == leading + 3 else x

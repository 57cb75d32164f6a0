"""What every executor does for a network: six questions, the same on the processor and on a device.

An executor is made for one call, from a program and an input, and forgotten afterwards; after ``forward`` the network keeps it
for ``backward``. Arrays come and go channel first, as the user has them.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ..layers.base import Run
from .lower import Program

__all__ = ["Executor", "channel_first", "channel_last", "output_gradient"]


class Executor(Protocol):
    """One call of a network."""

    program: Program
    run: Run
    batch: int

    def forward(self) -> tuple[np.ndarray, np.ndarray]:
        """-> spikes, membrane (T, B, ...) of the last layer; keeps what ``backward`` needs."""

    def backward(self, dspikes, dmembrane, input_grad: bool) -> np.ndarray | None:
        """dspikes, dmembrane (T, B, ...) or None -> dL/dinput or None; adds into every parameter's gradient."""

    def step(self, loss_fn, targets, normaliser) -> tuple[float, np.ndarray]:
        """Checked targets -> loss, spikes (T, B, ...); adds into every parameter's gradient, and keeps nothing."""

    def predict(self) -> np.ndarray:
        """-> spikes (T, B, ...); keeps nothing."""

    def stream(self, states: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """States (S, B, ...) by neuron layer, channel last -> spikes, membrane (T, B, ...), and the states that follow."""

    def record(self) -> dict[str, dict[str, np.ndarray]]:
        """-> {layer's name: {"spikes", "membrane": (T, B, ...)}} of every layer of neurons."""


def output_gradient(call: Executor, name: str, gradient) -> np.ndarray | None:
    """A gradient given from outside of what ``forward`` returned, checked, channel last."""
    if gradient is None:
        return None
    gradient = np.asarray(gradient)
    shape = (call.run.num_steps, call.batch, *call.program.shapes[-1])
    if gradient.shape != shape:
        raise ValueError(f"{name} must have the shape {shape} of what forward returned, got {gradient.shape}")
    return channel_last(gradient.astype(call.program.kind.dtype, copy=False))


def channel_last(x: np.ndarray) -> np.ndarray:
    """(T, B, C, H, W) -> (T, B, H, W, C); samples that are no images stay as they are."""
    return np.ascontiguousarray(np.moveaxis(x, 2, -1)) if x.ndim == 5 else x


def channel_first(x: np.ndarray, leading: int = 2) -> np.ndarray:
    """(T, B, H, W, C) -> (T, B, C, H, W); samples that are no images stay as they are."""
    return np.ascontiguousarray(np.moveaxis(x, -1, -3)) if x.ndim == leading + 3 else x

"""Spikes as bits, and the two ways in which a max-pool shortens what lies around it.

``SpikeWords``: a neuron's spikes over 64 time steps are one 64-bit word, bit t for step t. A convolution that reads them meets a
neuron once for all its time steps: one test of the word skips a neuron that never fires, and one row of weights serves every step
at which it does. Of the spikes of a trained Tutorial-6 network about 9 % are set, and about 20 % of the neurons ever fire.

``Pooled`` and ``Routed``: a convolution followed by a max-pool whose windows do not overlap can pool while its sums are still in
the first-level cache, and its gradient reaches one position of each window only. The two layers then exchange these records
instead of the larger arrays they stand for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["WORD", "Pooled", "Routed", "SpikeWords"]

WORD = 64  # time steps in a word


class SpikeWords(NamedTuple):
    """Binary spikes of ``num_steps`` steps."""

    words: np.ndarray  # (ceil(T / 64), B, H, W, C) or (ceil(T / 64), B, F) uint64
    num_steps: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, B, ...) of the array that the words stand for."""
        return (self.num_steps, *self.words.shape[1:])

    def dense(self, dtype) -> np.ndarray:
        """-> the spikes (T, B, ...) as numbers."""
        steps = np.arange(self.num_steps)
        shifts = (steps % WORD).astype(np.uint64).reshape(-1, *[1] * (self.words.ndim - 1))
        return ((self.words[steps // WORD] >> shifts) & np.uint64(1)).astype(dtype)


class Pooled(NamedTuple):
    """A convolution's output after max-pooling."""

    y: np.ndarray  # (T, B, H'', W'', O)
    winner: np.ndarray  # the same shape, uint8: the window's first maximum
    unpooled: tuple[int, ...]  # (T, B, H', W', O), the shape before pooling


class Routed(NamedTuple):
    """The gradient of a convolution's output that went through a max-pool: zero but at each window's winner."""

    dy: np.ndarray  # (T, B, H'', W'', O)
    winner: np.ndarray
    unpooled: tuple[int, ...]
    kernel_size: int
    stride: int

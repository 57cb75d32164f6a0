"""The forms in which numbers travel from step to step, forward and, as gradients, backward.

=============  ==========================================  ====================================================
form           forward                                     backward
=============  ==========================================  ====================================================
``NUMBERS``    an array (T, B, ...)                        an array
``BITS``       ``SpikeWords``: spikes, a bit a step        an array
``NORMALISED`` ``Normalised``: scale x + shift, undone     ``Summed``: an array and two sums over it, or an array
``CENTRED``    an array                                    ``Centred``: a dy + b x + c, undone
=============  ==========================================  ====================================================

T = 1 while the input is constant and no neuron has been reached. What is "undone" is a pass over the data that a neighbour can
do while it has a block in cache; ``Applied`` and ``Gathered`` are the steps that do it where the neighbour cannot.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..kernels.cpu.half import Halved, halved
from ..ops.events import SpikeWords

__all__ = [
    "BITS", "CENTRED", "NORMALISED", "NUMBERS", "Centred", "Normalised", "Summed", "as_it_is", "concatenated", "copied", "cut",
    "dense", "widened",
]  # fmt: skip

NUMBERS, BITS, NORMALISED, CENTRED = "numbers", "bits", "normalised", "centred"


class Normalised(NamedTuple):
    """The output scale x + shift of a batch normalisation; equation (4) of ``spikeflow.ops.batch_norm``."""

    x: np.ndarray  # (T, B, ..., C)
    scale: np.ndarray  # (C,)
    shift: np.ndarray
    mean: np.ndarray
    plain: bool = False  # no normalisation at all
    shared: tuple[list, int] | None = None  # where the normalisation keeps x, too

    @property
    def shape(self) -> tuple[int, ...]:
        return self.x.shape

    def array(self, ops) -> np.ndarray:
        """-> the numbers themselves (T, B, ..., C)."""
        rows = self.x.reshape(-1, self.scale.shape[0])
        return ops.batch_norm_forward(rows, self.scale, self.shift).reshape(self.x.shape)

    def halved(self) -> Normalised:
        """-> the same with x in half precision, which is then what the normalisation keeps as well."""
        half = halved(self.x)
        if self.shared is not None:
            kept, i = self.shared
            kept[i] = half
        return self._replace(x=half)


def as_it_is(x, ops) -> Normalised:
    """x (T, B, ..., C) as the output of a batch normalisation that changes nothing, its numbers where x is."""
    C = x.shape[-1]
    return Normalised(x, *(ops.rows_constant(np.full(C, number, x.dtype)) for number in (1, 0, 0)), True)


class Summed(NamedTuple):
    """The gradient of a Normalised, with the two sums of it that its backward pass needs."""

    dy: np.ndarray  # (T, B, ..., C)
    sums: np.ndarray  # (2, C): of dy, and of dy (x - mean)


class Centred(NamedTuple):
    """The gradient a dy + b x + c of a batch normalisation's input; equation (7)."""

    dy: np.ndarray  # (T, B, ..., C)
    x: np.ndarray
    coefficients: tuple[np.ndarray, np.ndarray, np.ndarray]

    def array(self, ops) -> np.ndarray:
        """-> the numbers themselves (T, B, ..., C)."""
        C, x = self.coefficients[0].shape[0], widened(self.x)
        return ops.batch_norm_backward(self.dy.reshape(-1, C), x.reshape(-1, C), *self.coefficients).reshape(x.shape)


def widened(x: np.ndarray | Halved) -> np.ndarray:
    """-> the numbers, whatever precision they were kept in."""
    return x.array() if isinstance(x, Halved) else x


def dense(x, ops, dtype) -> np.ndarray:
    """-> the numbers that anything forward or backward stands for."""
    if isinstance(x, SpikeWords):
        return x.dense(dtype)
    if isinstance(x, Summed):
        return x.dy
    return x.array(ops) if isinstance(x, (Normalised, Centred)) else x


def copied(x):
    """-> a copy, of spikes or numbers, that outlives the block's memory."""
    return SpikeWords(x.words.copy(), x.num_steps) if isinstance(x, SpikeWords) else x.copy()


def concatenated(parts: list):
    """Blocks (T, b, ...), or SpikeWords, in order -> the batch."""
    if isinstance(parts[0], SpikeWords):
        return SpikeWords(np.concatenate([part.words for part in parts], axis=1), parts[0].num_steps)
    return np.concatenate(parts, axis=1)


def cut(x: np.ndarray, like: list) -> list[np.ndarray]:
    """x (T, B, ...) -> blocks (T, b, ...) of as many samples as those of ``like`` have."""
    ends = np.cumsum([block.shape[1] for block in like])
    return [np.ascontiguousarray(x[:, end - block.shape[1] : end]) for end, block in zip(ends, like, strict=True)]

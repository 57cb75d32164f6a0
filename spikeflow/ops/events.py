"""Spikes as bits, and the two ways in which a max-pool shortens what lies around it.

``SpikeWords``: a neuron's spikes over 64 time steps are one 64-bit word, bit t for step t; its words are its spike train.

``SpikeIndex``: who fires at all, in the order of places, so that the active neurons of a convolution's window are a few ranges of
a list; and the distinct spike trains. A neuron under a constant current soon fires periodically, and many fire alike; over
4 steps there can be no more than 15 trains at all. What depends on a train alone needs to be worked out once for all that
share it.

``Pooled`` and ``Routed``: a convolution followed by a max-pool whose windows do not overlap can pool while its sums are still in
the first-level cache, and its gradient reaches one position of each window only. The two layers then exchange these records
instead of the larger arrays they stand for.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..kernels.cpu.simd import count_ones, empty
from ..kernels.jit import kernel
from ..kernels.lazy import lazy

__all__ = ["WORD", "Awaited", "Fired", "Pooled", "Routed", "SpikeIndex", "SpikeWords"]

WORD = 64  # time steps in a word
NOTHING = np.uint64(0)
U = np.uintp


class SpikeIndex(NamedTuple):
    """The active neurons of each image, framed by ``padding`` silent ones, and their distinct spike trains.

    Of the E places in the arrays as many are in use as image b has active neurons, or distinct trains.
    """

    places: np.ndarray  # (B, E) uint32: (y W' + x) C + c of each active neuron, ascending; W' with the frame
    trains: np.ndarray  # (B, E) uint32: the number of its spike train
    starts: np.ndarray  # (B, H', W' + 1) uint32: the first active neuron at or behind pixel x of row y
    patterns: np.ndarray  # (B, E, ceil(T / 64)) uint64: the trains
    counts: np.ndarray  # (B,) uint32: how many there are


@dataclass(eq=False)
class SpikeWords:
    """Binary spikes of ``num_steps`` steps."""

    words: np.ndarray  # (ceil(T / 64), B, H, W, C) or (ceil(T / 64), B, F) uint64
    num_steps: int
    _indices: dict[int, tuple[SpikeIndex, int]] = field(default_factory=dict, repr=False)

    @lazy
    def shape(self) -> tuple[int, ...]:
        """(T, B, ...) of the array that the words stand for."""
        return (self.num_steps, *self.words.shape[1:])

    @classmethod
    def pack(cls, spikes: np.ndarray) -> SpikeWords:
        """spikes (T, B, ...), numbers that are 0 or 1 -> the same as words."""
        words = np.zeros((-(-len(spikes) // WORD), *spikes.shape[1:]), np.uint64)
        for t, step in enumerate(spikes):
            words[t // WORD] |= (step != 0).astype(np.uint64) << np.uint64(t % WORD)
        return cls(words, len(spikes))

    def samples(self, some: slice) -> SpikeWords:
        """-> the spikes of some samples."""
        return SpikeWords(np.ascontiguousarray(self.words[:, some]), self.num_steps)

    def dense(self, dtype) -> np.ndarray:
        """-> the spikes (T, B, ...) as numbers."""
        steps = np.arange(self.num_steps)
        shifts = (steps % WORD).astype(np.uint64).reshape(-1, *[1] * (self.words.ndim - 1))
        return ((self.words[steps // WORD] >> shifts) & np.uint64(1)).astype(dtype)

    @lazy
    def density(self) -> float:
        """Spikes per neuron and step."""
        return make_count()(self.words.reshape(-1)) / (self.num_steps * self.words[0].size)

    def index(self, padding: int) -> SpikeIndex:
        """The index of these images (D, B, H, W, C); made once for the forward and the backward pass."""
        return self.index_and_most(padding)[0]

    def index_and_most(self, padding: int) -> tuple[SpikeIndex, int]:
        """-> the same, and the largest number of distinct trains that an image has."""
        found = self._indices.get(padding)
        if found is None:
            D, B, H, W, C = self.words.shape
            E, framed = H * W * C, (B, H + 2 * padding, W + 2 * padding + 1)
            # Not from the arena: the index lives as long as these spikes, and tasks of other threads may read it.
            index = SpikeIndex(
                np.empty((B, E), np.uint32), np.empty((B, E), np.uint32), np.empty(framed, np.uint32),
                np.empty((B, E, D), np.uint64), np.empty((B,), np.uint32),
            )  # fmt: skip
            table = empty((1 << (2 * E).bit_length(),), np.int32)
            most = make_index()(self.words, padding, table, *index)
            found = self._indices[padding] = index, most
        return found


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


class Fired(NamedTuple):
    """A convolution's output after max-pooling and the neuron behind it."""

    spikes: SpikeWords  # (T, B, H'', W'', O)
    membrane: np.ndarray  # (T + 1, M), as the neuron keeps it
    winner: np.ndarray  # as in Pooled
    unpooled: tuple[int, ...]


class Awaited(NamedTuple):
    """What the gradient of a convolution's input is made from, for the neuron before it, which takes part in making it."""

    dy: Routed
    spikes: SpikeWords
    packed: object  # the weight, conv2d.cpu.Packed
    stride: int
    dweight: np.ndarray  # the weight's gradient, still to be added to


@functools.cache
def make_count():
    """-> the kernel that counts bits."""

    @kernel()
    def count_bits_kernel(words):
        """words (N) -> the number of bits that are set."""
        total = NOTHING
        for word in words:
            total += count_ones(word)
        return total

    return count_bits_kernel


@functools.cache
def make_index():
    """-> the kernel that fills a SpikeIndex."""

    @kernel()
    def spike_index_kernel(words, padding, table, places, trains, starts, patterns, counts):
        """words (D, B, H, W, C), table (a power of two of at least 2 H W C) -> the arrays of SpikeIndex; the largest count.

        ``table`` is a hash table with open addressing: the numbers of trains, -1 in empty slots.
        """
        D, B, H, W, C = words.shape
        wide = W + 2 * padding
        last, most = U(len(table) - 1), 0
        for b in range(B):
            table[:] = -1
            found, distinct = 0, 0
            for y in range(H + 2 * padding):
                for x in range(wide + 1):
                    starts[b, y, x] = found
                    i, j = y - padding, x - padding
                    if i < 0 or i >= H or j < 0 or j >= W:
                        continue
                    for c in range(C):
                        fires, mixed = NOTHING, NOTHING
                        for d in range(D):
                            word = words[d, b, i, j, c]
                            fires |= word
                            mixed = (mixed ^ word) * np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing: 2^64 / golden ratio
                        if fires == NOTHING:
                            continue
                        slot = U(mixed >> np.uint64(32)) & last
                        while table[slot] >= 0:
                            same = True
                            for d in range(D):
                                same &= patterns[b, table[slot], d] == words[d, b, i, j, c]
                            if same:
                                break
                            slot = (slot + U(1)) & last
                        if table[slot] < 0:
                            table[slot] = distinct
                            for d in range(D):
                                patterns[b, distinct, d] = words[d, b, i, j, c]
                            distinct += 1
                        places[b, found] = (y * wide + x) * C + c
                        trains[b, found] = table[slot]
                        found += 1
            counts[b] = distinct
            most = max(most, distinct)
        return most

    return spike_index_kernel

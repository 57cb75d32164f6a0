"""Numbers whose sums are exact, so that the order in which a kernel adds them up makes no difference."""

from __future__ import annotations

import numpy as np

from spikeflow.kernels.cuda import gpu
from spikeflow.ops.events import SpikeWords


def dyadic(seed, *shape) -> np.ndarray:
    """Multiples of 1/8, at most 2 in magnitude."""
    return (np.random.default_rng(seed).integers(-16, 17, shape) / 8).astype(np.float32)


def spikes(seed, *shape) -> np.ndarray:
    """Zeros and ones (T, B, ...)."""
    return (np.random.default_rng(seed).random(shape) < 0.4).astype(np.float32)


def words(dense: np.ndarray) -> SpikeWords:
    """dense (T, B, ...) -> the same spikes as bits on the device."""
    packed = SpikeWords.pack(dense)
    return SpikeWords(gpu.to_device(packed.words), packed.num_steps)


def merge(x: np.ndarray) -> np.ndarray:
    """x (T, B, ...) -> (T B, ...)."""
    return x.reshape(-1, *x.shape[2:])


def same_bits(found, expected: np.ndarray) -> bool:
    """Is the device's array the expected one?"""
    found = gpu.to_host(found)
    return (
        found.dtype == expected.dtype
        and found.shape == expected.shape
        and found.tobytes() == np.ascontiguousarray(expected).tobytes()
    )

"""Spikes for tests: drawn, and packed by the definition."""

import numpy as np

from spikeflow.ops.events import SpikeWords


def pack(spikes):
    """spikes (T, B, ...) -> SpikeWords, by the definition: bit t mod 64 of word t / 64 is the spike at step t."""
    T = len(spikes)
    words = np.zeros((-(-T // 64), *spikes.shape[1:]), np.uint64)
    for t in range(T):
        words[t // 64] |= spikes[t].astype(np.uint64) << np.uint64(t % 64)
    return SpikeWords(words, T)


def merge(x):
    """x (T, B, ...) -> (T B, ...)."""
    return np.ascontiguousarray(x.reshape(-1, *x.shape[2:]))


def dyadic(rng, *shape):
    """Multiples of 1/16 below 2: sums of some thousand products stay exact in float32."""
    return (rng.integers(-32, 33, shape) / 16).astype(np.float32)


def draw_spikes(rng, shape, density, trains=None):
    """-> spikes (T, B, ...) float32; neurons share ``trains`` trains, two of which differ in the last step only."""
    T, *rest = shape
    if trains is None:
        return (rng.random(shape) < density).astype(np.float32)
    pool = rng.random((T, trains)) < density
    pool[:, -1] = pool[:, 0]
    pool[-1, -1] ^= True
    return pool[:, rng.integers(0, trains, rest)].astype(np.float32)

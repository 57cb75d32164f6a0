"""Dropout (Srivastava et al. 2014)."""

from __future__ import annotations

import numpy as np

from .. import random
from .base import Layer

__all__ = ["Dropout"]


class Dropout(Layer):
    """Zeroes each neuron with probability p in training, for all time steps alike, and scales the others by 1 / (1 - p).

    In evaluation (``net.eval()``) it does nothing. The mask of a sample is a function of the network's seed, the layer's place,
    ``net.draws`` (the number of training passes so far) and the sample's place in the batch. One mask for all steps is what
    SpikingJelly's Dropout does, too.

    Parameters
    ----------
    p : float
        In [0, 1).
    """

    keeps = "mask"

    def __init__(self, p: float = 0.5):
        super().__init__()
        if not (isinstance(p, (int, float, np.number)) and not isinstance(p, bool) and 0 <= p < 1):
            raise ValueError(f"p must be a number in [0, 1), got {p!r}")
        self.p = float(p)
        self._seed = 0

    def initialize(self, name, dtype, seed):
        super().initialize(name, dtype, seed)
        self._seed = seed

    def output_shape(self, shape):
        return shape

    def forward(self, ops, prepared, x, run):
        if not self.drops(run):
            return x, None
        mask = ops.rows_of(np.stack([self._mask(x.shape[2:], run, run.first + b) for b in range(x.shape[1])]).astype(x.dtype))
        return ops.rows_scale(x, mask), mask

    def backward(self, ops, prepared, dy, kept, grads, input_grad):
        return dy if kept is None else ops.rows_scale(dy, kept)

    def drops(self, run) -> bool:
        """Does it do anything?"""
        return run.training and self.p > 0

    def _mask(self, shape, run, sample) -> np.ndarray:
        draw = random.uniform(shape, 0, 1, self._seed, f"{self.name}.mask", epoch=run.draw, step=sample)
        return (draw >= self.p) / (1 - self.p)

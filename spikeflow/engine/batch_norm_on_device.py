"""Batch normalisation on the device: as on the host, with every number of a channel left there.

What ``layers.normalization`` works out on the host in float64 are launches of a few threads here: nothing waits.
"""

from __future__ import annotations

import numpy as np

from ..kernels.cuda import gpu
from ..ops.scale import scale_columns
from .forms import CENTRED, NORMALISED, NUMBERS, Centred, Normalised, Summed
from .steps import Step

__all__ = ["Evaluated", "Trained", "batch_norm"]


def batch_norm(layers, shapes, kind) -> Step:
    """-> the step of a batch normalisation."""
    return (Trained if kind.training else Evaluated)(layers, shapes, kind)


class OnDevice(Step):
    """What both have in common."""

    keeps = "input"

    def __init__(self, layers, shapes, kind):
        super().__init__(layers, shapes, kind)
        (self.layer,) = layers

    def affine(self) -> tuple:
        """-> gamma, beta."""
        if self.layer.affine:
            return self.layer.params["weight"].array, self.layer.params["bias"].array
        return tuple(gpu.constant(np.full(self.layer.num_features, number, np.float32)) for number in (1, 0))

    def estimates(self) -> tuple:
        """-> running mean and variance."""
        return self.layer.params["running_mean"].array, self.layer.params["running_var"].array

    def sums(self, ops, dy, x, mean):
        """-> sums (2, C) of dy and of dy (x - mean), or partial ones (S, 2, C)."""
        if isinstance(dy, Summed):
            return dy.sums
        C = mean.shape[0]
        return ops.batch_norm_backward_partials(dy.reshape(-1, C), x.reshape(-1, C), mean)


class Evaluated(OnDevice):
    """BatchNorm by its running estimates; numbers in, Normalised out."""

    takes, gives = NUMBERS, NORMALISED

    def forward(self, ops, packed, x, run):
        *numbers, inverse = ops.batch_norm_evaluation(*self.affine(), *self.estimates(), self.layer.eps)
        y = Normalised(x, *numbers)
        return y, (y, inverse)

    def backward(self, ops, packed, dy, kept, grads, input_grad):
        y, inverse = kept
        if self.layer.affine:  # (5), (6), for statistics that are constants
            sums, grads = self.sums(ops, dy, y.x, y.mean), grads[self.layer.name]
            ops.batch_norm_gradients(sums, inverse, y.scale, y.mean, 1, grads["weight"], grads["bias"])
        if not input_grad:
            return None
        dy = dy.dy if isinstance(dy, Summed) else dy
        return scale_columns(dy.reshape(-1, y.scale.shape[0]), y.scale).reshape(dy.shape)


class Trained(OnDevice):
    """BatchNorm by the batch's own statistics; numbers in, Normalised out, Centred back."""

    joint, takes, gives = True, CENTRED, NORMALISED

    def forward_batch(self, ops, packed, xs, run):
        (x,), layer = xs, self.layer
        layer.check_batch(x.shape[1])
        tracked, repeats = layer.params["num_batches_tracked"].array, run.num_steps // x.shape[0]
        options = tracked.reshape(1), layer.eps, layer.momentum, repeats, run.updates
        scale, shift, mean, inverse = ops.batch_norm_training(
            x.reshape(-1, layer.num_features), *self.affine(), *self.estimates(), *options
        )
        return [Normalised(x, scale, shift, mean)], (scale, mean, inverse, x.size // layer.num_features, x)

    def backward_batch(self, ops, packed, dys, kept, grads, input_grad):
        (dy,), (scale, mean, inverse, n, x) = dys, kept
        grads = grads.get(self.layer.name, {})
        sums = self.sums(ops, dy, x, mean)
        numbers = ops.batch_norm_gradients(sums, inverse, scale, mean, n, grads.get("weight"), grads.get("bias"))
        return [Centred(dy.dy if isinstance(dy, Summed) else dy, x, numbers) if input_grad else None]

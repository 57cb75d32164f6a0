"""Batch normalisation that hands on four numbers for each channel and leaves the pass over the data to its neighbours.

In training its statistics couple all samples of a batch: a joint. What a joint works out are a few numbers for each channel; the
pass over the data that they stand for is left to the layer behind (``Normalised``) or before it (``Centred``), which takes a
block while it is in cache.
"""

from __future__ import annotations

import numpy as np

from ...kernels.cpu import parallel
from ...layers.normalization import BatchNorm
from ..forms import CENTRED, NORMALISED, NUMBERS, Centred, Normalised, Summed, widened
from ..rule import Rule
from ..steps import Step

__all__ = ["RULES"]


class Evaluated(Step):
    """BatchNorm by its running estimates; numbers in, Normalised out."""

    takes, gives, keeps = NUMBERS, NORMALISED, "input"

    def forward(self, ops, packed, x, run):
        (layer,) = self.layers
        *numbers, inverse = layer.numbers(*layer.estimates(), x.dtype)
        y = Normalised(x, *numbers)
        return y, (y, inverse)

    def backward(self, ops, packed, dy, kept, grads, input_grad):
        y, inverse = kept
        (layer,), scale = self.layers, y.scale
        gradient, sums = summed(ops, dy, y.x, y.mean)
        layer.add_gradients(sums, inverse, grads.get(layer.name, {}))
        if not input_grad:
            return None
        return ops.batch_norm_forward(gradient.reshape(-1, len(scale)), scale, np.zeros_like(scale)).reshape(y.x.shape)


class Trained(Step):
    """BatchNorm by the batch's own statistics; numbers in, Normalised out, Centred back."""

    joint, takes, gives, keeps = True, CENTRED, NORMALISED, "input"

    def forward_batch(self, ops, packed, xs, run):
        (layer,) = self.layers
        C = layer.num_features
        layer.check_batch(sum(x.shape[1] for x in xs))
        center = xs[0].reshape(-1, C)[0].astype(np.float64)
        parts = parallel.run(lambda i: ops.batch_norm_sums(xs[i].reshape(-1, C), center), len(xs))
        n = sum(x.size for x in xs) // C
        mean, var = layer.statistics(center, sum(parts), n)
        if run.updates:
            layer.follow(mean, var, n * (run.num_steps // len(xs[0])))
        *numbers, inverse = layer.numbers(mean, var, xs[0].dtype)
        kept = list(xs)
        ys = [Normalised(x, *numbers, shared=(kept, i)) for i, x in enumerate(xs)]
        return ys, (*numbers, inverse, n, kept)

    def backward_batch(self, ops, packed, dys, kept, grads, input_grad):
        """Gradients of the output's blocks, arrays or Summed -> those of the input's, as Centred."""
        scale, _, mean, inverse, n, xs = kept
        (layer,) = self.layers
        parts = parallel.run(lambda i: summed(ops, dys[i], xs[i], mean), len(xs))
        sums = sum(part for _, part in parts)
        layer.add_gradients(sums, inverse, grads.get(layer.name, {}))
        if not input_grad:
            return [None] * len(xs)
        coefficients = layer.coefficients(sums, inverse, scale, mean, n)
        return [Centred(dy, x, coefficients) for (dy, _), x in zip(parts, xs, strict=True)]


def summed(ops, dy, x, mean) -> Summed:
    """A gradient, an array or Summed already, of the output for the input x -> Summed."""
    if isinstance(dy, Summed):
        return dy
    C, x = len(mean), widened(x)
    return Summed(dy, ops.batch_norm_backward_sums(dy.reshape(-1, C), x.reshape(-1, C), mean))


RULES = [
    Rule(
        "batch_norm",
        (BatchNorm,),
        takes=(NUMBERS, CENTRED),
        needs=("conv2d_forward_events",),
        guard=lambda place: not place.ops.device and (place.form == CENTRED) == place.kind.training,
        make=lambda place: (Trained if place.kind.training else Evaluated)(*place.covered(1)),
    )
]

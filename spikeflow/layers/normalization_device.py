"""The passes of the batch normalisation layers on the device: as on the host, with every number of a channel left there.

What ``normalization.BatchNorm`` works out on the host in float64 are launches of a few threads here: nothing waits.
"""

from __future__ import annotations

import numpy as np

from ..ops import gpu
from ..ops.scale import scale_columns

__all__ = ["add_gradients", "coefficients", "evaluation", "rescaled", "training"]


def evaluation(layer, ops) -> tuple:
    """-> scale, shift, mean, 1 / sqrt(var + eps) of the running estimates."""
    return ops.batch_norm_evaluation(*_affine(layer), *_estimates(layer), layer.eps)


def training(layer, ops, x, run) -> tuple:
    """x (T, B, ..., C), a whole batch -> as ``evaluation``, of the batch; the running estimates follow if they are to."""
    tracked, repeats = layer.params["num_batches_tracked"].array, run.num_steps // x.shape[0]
    numbers = *_affine(layer), *_estimates(layer), tracked.reshape(1), layer.eps, layer.momentum, repeats, run.updates
    return ops.batch_norm_training(x.reshape(-1, layer.num_features), *numbers)


def coefficients(layer, ops, sums, inverse, scale, mean, n) -> tuple:
    """-> a, b, c of equation (7) from the sums of a batch of n rows; adds to the parameters' gradients."""
    grads = {key: parameter.darray for key, parameter in layer.params.items() if layer.trains(key)}
    return ops.batch_norm_gradients(sums, inverse, scale, mean, n, grads.get("weight"), grads.get("bias"))


def add_gradients(ops, sums, inverse, y, grads) -> None:
    """(5), (6), for statistics that are constants."""
    ops.batch_norm_gradients(sums, inverse, y.scale, y.mean, 1, grads["weight"], grads["bias"])


def rescaled(dy, scale):
    """dy (T, B, ..., C) -> scale dy."""
    return scale_columns(dy.reshape(-1, scale.shape[0]), scale).reshape(dy.shape)


def _affine(layer) -> tuple:
    """-> gamma, beta."""
    if layer.affine:
        return layer.params["weight"].array, layer.params["bias"].array
    return tuple(gpu.constant(np.full(layer.num_features, number, np.float32)) for number in (1, 0))


def _estimates(layer) -> tuple:
    return layer.params["running_mean"].array, layer.params["running_var"].array

"""The leaky neuron's forward and backward pass in terms of its numbers, with which its tests are written."""

from __future__ import annotations

import numpy as np

from spikeflow.ops.neurons.model import Model, Trajectory


def leaky_forward(ops, x, num_steps, beta, threshold, reset, surrogate, **options):
    """x (T or 1, M) -> spikes (T, M), or words (T / 64, M) with ``words=True``, and membrane (T + 1, M)."""
    model, params = _leaky(x.dtype, beta, threshold, reset, surrogate)
    spikes, trajectory = ops.neuron_forward(model, x, num_steps, params, **options)
    return spikes, trajectory.membrane


def leaky_backward(ops, dspikes, dmembrane, membrane, steps, beta, threshold, reset, surrogate, dbeta=None, dthreshold=None):
    """dspikes, dmembrane (T, M) or None, membrane (T + 1, M) -> dx (steps, M); adds into dbeta, dthreshold (1,) or None."""
    model, params = _leaky(membrane.dtype, beta, threshold, reset, surrogate)
    learns = (dthreshold is not None, False, False, dbeta is not None)
    learns = learns if any(learns) else ()
    dx, dparams = ops.neuron_backward(model, dspikes, dmembrane, Trajectory(membrane), steps, params, learns=learns)
    for row, gradient in ((0, dthreshold), (3, dbeta)):
        if gradient is not None:
            gradient += dparams[row].astype(gradient.dtype)
    return dx


def _leaky(dtype, beta, threshold, reset, surrogate):
    return Model("leaky", reset, surrogate), np.array([[threshold], [1], [1], [beta]], dtype)

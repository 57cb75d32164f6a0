"""The loop over time of every neuron on the CPU, forward and backward, made for a neuron's scalar step by a factory.

M neurons advance side by side. A slice of CHUNK of them goes through all time steps before the next slice starts, so that their
state stays in the first-level cache; inside, the loop over neurons compares, multiplies and adds whole vectors. Multiplications
and additions are rounded one by one, in PyTorch's order: a fused multiply-add would move membranes across the threshold.
"""

from __future__ import annotations

import functools

import numpy as np

from ..events import WORD
from ..jit import UNKNOWN, inline, kernel
from ..simd import empty, zeros
from .leaky import scalar as leaky_scalar

ZERO, ONE = np.float32(0), np.float32(1)
CHUNK = 512  # neurons; five float32 rows of them take 10 KB


def leaky_forward(x, num_steps, beta, threshold, reset, surrogate, smooth=False):
    """x (T or 1, M) -> spikes (T, M), membrane (T + 1, M) whose row t + 1 is m[t] and row 0 is m[-1] = 0.

    One row of x is a constant current. ``smooth`` runs the surrogate's primitive in place of the step: the smooth twin.
    """
    M = x.shape[1]
    membrane, spikes = empty((num_steps + 1, M), x.dtype), empty((num_steps, M), x.dtype)
    membrane[0] = 0
    params, constants = numbers(x.dtype, beta, threshold), numbers(x.dtype, *surrogate.constants)
    code = (surrogate.cache_key or UNKNOWN) if smooth else None
    make_forward(reset, code, surrogate.primitive, False, True)(x, num_steps, *params, constants, membrane, spikes)
    return spikes, membrane


def leaky_forward_words(x, num_steps, beta, threshold, reset, surrogate, keep=True):
    """As ``leaky_forward``, the spikes as words (T / 64, M) uint64: bit t of a neuron's word is its spike at step t.

    Unless ``keep``, membrane is (2, M), of no meaning: ``leaky_backward_static`` computes it again.
    """
    M = x.shape[1]
    membrane, words = empty((num_steps + 1 if keep else 2, M), x.dtype), zeros((-(-num_steps // WORD), M), np.uint64)
    membrane[0] = 0
    params, constants = numbers(x.dtype, beta, threshold), numbers(x.dtype, *surrogate.constants)
    make_forward(reset, None, surrogate.primitive, True, keep)(x, num_steps, *params, constants, membrane, words)
    return words, membrane


def leaky_backward(dspikes, dmembrane, membrane, input_steps, beta, threshold, reset, surrogate, dbeta, dthreshold):
    """dspikes, dmembrane (T, M) or None, membrane (T + 1, M) -> dx (input_steps, M); adds into dbeta, dthreshold (1,) or None."""
    dtype = membrane.dtype
    none = np.empty((0, 0), dtype)
    static = input_steps < len(membrane) - 1
    dx = (zeros if static else empty)((input_steps, membrane.shape[1]), dtype)
    params, constants = numbers(dtype, beta, threshold), numbers(dtype, *surrogate.constants)
    learns = dbeta is not None or dthreshold is not None
    given = learns, dspikes is not None, dmembrane is not None
    loop = make_backward(reset, surrogate.cache_key or UNKNOWN, surrogate.derivative, static, *given)
    dparams = np.zeros(2)
    loop(
        none if dspikes is None else dspikes,
        none if dmembrane is None else dmembrane,
        membrane, *params, constants, dx, dparams,
    )  # fmt: skip
    for gradient, total in zip((dbeta, dthreshold), dparams, strict=True):
        if gradient is not None:
            gradient += dtype.type(total)
    return dx


def leaky_backward_static(dspikes, x, beta, threshold, reset, surrogate):
    """dspikes (T, M), the constant current x (1, M) -> dx (1, M), by (8): nothing but x is needed from forward."""
    dx = empty(x.shape, x.dtype)
    params, constants = numbers(x.dtype, beta, threshold), numbers(x.dtype, *surrogate.constants)
    loop = make_backward_static(reset, surrogate.cache_key or UNKNOWN, surrogate.derivative)
    loop(dspikes, x, *params, constants, dx)
    return dx


def numbers(dtype, *values):
    """Numbers of the arrays' own type: a Python float would be float64 inside a kernel."""
    return tuple(dtype.type(value) for value in values)


@functools.cache
def make_forward(reset, smooth, primitive, packs, keep):
    """-> the loop of (1) to (3).

    ``smooth`` names the surrogate whose primitive replaces H, or is None; ``packs``: spikes come out as bits of words; ``keep``:
    membrane has a row for each step, else one row that each step overwrites.
    """
    step, primitive = inline(leaky_scalar.RESETS[reset][0]), inline(primitive)

    @kernel(reset, smooth, packs, keep)
    def leaky_forward_kernel(x, T, beta, threshold, constants, membrane, spikes):
        """x (T or 1, M) -> membrane (T + 1, M) but its row 0, spikes (T, M), or words (T / 64, M) that come as zeros."""
        steps, M = x.shape
        for lo in range(0, M, CHUNK):
            hi = min(lo + CHUNK, M)
            for t in range(T):
                current, s, bit = x[min(t, steps - 1), lo:hi], spikes[t // WORD if packs else t, lo:hi], np.uint64(t % WORD)
                previous, m = membrane[t if keep else 0, lo:hi], membrane[t + 1 if keep else 0, lo:hi]
                for n in range(hi - lo):
                    # ``m``, not ``previous``, where they are one row: a row under two names is not vectorised.
                    m[n] = step(previous[n] if keep else m[n], current[n], beta, threshold)  # (1), (2)
                    if smooth is not None:
                        s[n] = primitive(m[n] - threshold, constants)
                    elif packs:
                        s[n] |= np.uint64(m[n] > threshold) << bit  # (3)
                    else:
                        s[n] = m[n] > threshold  # (3)

    return leaky_forward_kernel


@functools.cache
def make_backward(reset, surrogate, derivative, static, learns, has_dspikes, has_dmembrane):
    """-> the loop of (4) to (7); ``static``: one dx for all steps; ``learns``: the parameters' gradients are wanted too."""
    step_backward, derivative = inline(leaky_scalar.RESETS[reset][1]), inline(derivative)

    @kernel(reset, surrogate, static, learns, has_dspikes, has_dmembrane)
    def leaky_backward_kernel(dspikes, dmembrane, membrane, beta, threshold, constants, dx, dparams):
        """dspikes, dmembrane (T, M) or empty, membrane (T + 1, M) -> dx (T, M), or added to (1, M); adds to dparams."""
        T, M = membrane.shape[0] - 1, membrane.shape[1]
        carry = np.empty(CHUNK, membrane.dtype)
        for lo in range(0, M, CHUNK):
            hi = min(lo + CHUNK, M)
            carry[:] = 0  # g[T] = 0
            for t in range(T - 1, -1, -1):
                m, previous, dcurrent = membrane[t + 1, lo:hi], membrane[t, lo:hi], dx[0 if static else t, lo:hi]
                ds = dspikes[t, lo:hi] if has_dspikes else m
                dm = dmembrane[t, lo:hi] if has_dmembrane else m
                for n in range(hi - lo):
                    through_spike = ZERO
                    if has_dspikes:
                        through_spike = ds[n] * derivative(m[n] - threshold, constants)
                    g = through_spike + carry[n]
                    if has_dmembrane:
                        g += dm[n]  # (4)
                    if static:
                        dcurrent[n] += g  # (5), summed over the steps that share x
                    else:
                        dcurrent[n] = g  # (5)
                    carry[n], dbeta, dthreshold = step_backward(g, previous[n], beta, threshold)
                    if learns:
                        dparams[0] += dbeta  # (6)
                        dparams[1] += dthreshold - through_spike  # (7)

    return leaky_backward_kernel


@functools.cache
def make_backward_static(reset, surrogate, derivative):
    """-> the loop of (8), forward in time."""
    step, step_backward = (inline(function) for function in leaky_scalar.RESETS[reset])
    derivative = inline(derivative)

    @kernel(reset, surrogate)
    def leaky_backward_static_kernel(dspikes, x, beta, threshold, constants, dx):
        """dspikes (T, M), x (1, M) -> dx (1, M)."""
        T, M = dspikes.shape
        membrane, slope = np.empty(CHUNK, x.dtype), np.empty(CHUNK, x.dtype)
        for lo in range(0, M, CHUNK):
            hi = min(lo + CHUNK, M)
            current, total = x[0, lo:hi], dx[0, lo:hi]
            total[:], membrane[:], slope[:] = 0, 0, 0
            for t in range(T):
                ds = dspikes[t, lo:hi]
                for n in range(hi - lo):
                    previous = membrane[n]
                    slope[n] = ONE + step_backward(slope[n], previous, beta, threshold)[0]  # (8)
                    membrane[n] = step(previous, current[n], beta, threshold)
                    total[n] += ds[n] * derivative(membrane[n] - threshold, constants) * slope[n]

    return leaky_backward_static_kernel

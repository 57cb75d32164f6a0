"""Batch normalisation's affine map, a neuron with one state, and a max-pool of its spikes, in one pass; forward and backward.

Forward writes nothing but the pooled spikes, a bit a step. Backward runs the neuron once more from its input, for as many neurons
as the first-level cache has room for, and then goes back in time: neither currents, nor membranes, nor spikes before the pool are
ever kept. Where the input waits in half precision (``spikeflow.kernels.cpu.half``), all spikes are kept too, a bit each, and the
run that goes back obeys them: it fires where the first one did. The greatest of some bits is their disjunction; of equal spikes
the first in row-major order takes the gradient, and where nobody fires that is the window's first (``spikeflow.ops.pool2d``).

The loops take a strip of K image rows, a few windows wide: as rows of channels one behind the other they are long vectors.
Equations (S1) to (S10) are those of ``step.py``, (4) and (5) those of ``spikeflow.ops.batch_norm``.
"""

from __future__ import annotations

import functools

import numpy as np

from ...kernels.cpu.simd import empty, zeros
from ...kernels.jit import UNKNOWN, inline, kernel
from .cpu import make_load, numbers, param_rows
from .model import Model
from .step import make_forced_step, make_start, make_step, make_step_backward

STRIP = 256  # neurons of an image row that run together
HALF = 32  # steps in a word of the loops: as wide as float32, so that both fill whole vectors
WORD = 64
U = np.uintp
ZERO, NOTHING, ONE, ALL = np.float32(0), np.uint32(0), np.uint32(1), np.uint32(0xFFFFFFFF)


def neuron_pool_forward(model: Model, x, scale, shift, num_steps, params, K, bits=None):
    """x (T or 1, B, H, W, C), params (P, 1) -> spikes (T / 64, B, H', W', C) uint64 under scale x + shift, K x K pooled.

    Bit t of a word is the spike at step t. ``bits`` of ``spike_bits`` are filled with all spikes, before the pool; then words of
    up to 8 steps are uint8.
    """
    _, B, H, W, C = x.shape
    small = bits is not None and num_steps <= 8
    words = zeros((-(-num_steps // WORD), B, H // K, W // K, C), np.uint8 if small else np.uint64)
    loop = make_forward(model.key, model.surrogate.primitive, K, bits is not None)
    bits = np.empty((0,) * 4, np.uint8) if bits is None else bits
    loop(x, *_strips(K, scale, shift), num_steps, params, numbers(x.dtype, *model.surrogate.constants), bits, words)
    return words


def spike_bits(num_steps, B, H, W, C):
    """-> zeros (T / 32, B, H, W C), for a bit of each spike."""
    return np.zeros(
        (-(-num_steps // HALF), B, H, W * C), np.uint8 if num_steps <= 8 else np.uint16 if num_steps <= 16 else np.uint32
    )


def neuron_pool_backward(model: Model, dy, x, scale, shift, mean, num_steps, params, K, bits=None):
    """dy (T, B, H', W', C), x (T or 1, B, H, W, C) -> dx, and (2, C) float64: its sum, and that of dx (x - mean)."""
    _, _, H, W, C = x.shape
    threshold, node = params[0, 0], model.key.node
    beside = np.nextafter(threshold, -np.inf if node else np.inf, dtype=x.dtype)
    edges = (threshold, beside) if node else (beside, threshold)
    dx = (empty if H % K == 0 and W % K == 0 else zeros)(x.shape, x.dtype)
    sums = np.zeros((2, C))
    code = model.surrogate.cache_key or UNKNOWN
    loop = make_backward(
        model.key, code, model.surrogate.primitive, model.surrogate.derivative, K, len(x) < num_steps, bits is not None
    )
    bits = np.empty((0,) * 4, np.uint8) if bits is None else bits
    constants = numbers(x.dtype, *model.surrogate.constants)
    loop(dy, x, *_strips(K, scale, shift, mean), num_steps, params, constants, bits, edges, dx, sums)
    return dx, sums


def _strips(K, *channels):
    """Numbers for each of C channels -> the same for the neurons of a strip."""
    C = len(channels[0])
    return [np.tile(numbers, K * max(1, STRIP // (K * C))) for numbers in channels]


@functools.cache
def make_forward(key, primitive, K, keeps):
    """-> the kernel of ``neuron_pool_forward``; ``keeps``: all bits."""
    advance, start, load_params = make_step(key, False, primitive), make_start(key), make_load(param_rows(key))

    @kernel(key, K, keeps)
    def neuron_pool_forward_kernel(x, scale, shift, T, params, constants, bits, words):
        """x (T or 1, B, H, W, C), scale, shift (a strip) -> bits (T / 32, B, H, W C), words (D, B, H', W', C), both zeros."""
        steps, B, H, W, C = x.shape
        height, width = words.shape[2:4]
        flat, out, window, image = x.reshape(-1), words.reshape(-1), K * C, B * H * W * C
        p = load_params(params.reshape(-1), params.shape[1], 0)
        run = len(scale)
        state, fired = np.empty(run, x.dtype), np.empty(run, np.uint32)
        for n in range(B):
            for i in range(height):
                for lo in range(0, width * window, run):
                    count = min(run, width * window - lo)
                    for k in range(K):
                        at = ((n * H + i * K + k) * W) * C + lo
                        for e in range(count):
                            state[U(e)] = start(p)[0]
                        for t in range(T):
                            bit, row = np.uint32(t % HALF), at + (t * image if steps > 1 else 0)
                            if bit == NOTHING:
                                fired[:] = 0
                            for e in range(count):
                                current = flat[U(row) + U(e)] * scale[U(e)] + shift[U(e)]  # (4)
                                new, _, fires, _ = advance((state[U(e)],), current, ZERO, True, p, constants)
                                state[U(e)] = new[0]
                                fired[U(e)] |= np.uint32(fires) << bit
                            if t % HALF == HALF - 1 or t == T - 1:
                                to = (((t // WORD * B + n) * height + i) * width) * C + lo // K
                                shift_up = np.uint64(t // HALF % 2 * HALF)
                                for e in range(count if keeps else 0):
                                    bits[t // HALF, n, i * K + k, lo + e] = fired[e]
                                for w in range(count // window):
                                    for l in range(K):
                                        for c in range(C):
                                            word = np.uint64(fired[U((w * K + l) * C + c)])
                                            out[U(to + w * C + c)] |= word << shift_up

    return neuron_pool_forward_kernel


@functools.cache
def make_backward(key, code, primitive, derivative, K, static, forced):
    """-> the kernel of ``neuron_pool_backward``; ``static``: one x, and one dx, for all steps; ``forced``: spikes are given."""
    advance, start, load_params = make_step(key, False, primitive), make_start(key), make_load(param_rows(key))
    retreat, choose, settle = make_step_backward(key, False, primitive, derivative), inline(winners), inline(give)
    masked, force = inline(where), make_forced_step(key)

    @kernel(key, code, K, static, forced)
    def neuron_pool_backward_kernel(dy, x, scale, shift, mean, T, params, constants, given_bits, edges, dx, sums):
        """dy (T, B, H', W', C), x (T or 1, B, H, W, C), scale, shift, mean (a strip) -> dx like x; adds into sums (2, C)."""
        _, B, H, W, C = x.shape
        height, width = dy.shape[2:4]
        flat, outer, inner, window = x.reshape(-1), dy.reshape(-1), dx.reshape(-1), K * C
        image, pooled = B * H * W * C, B * height * width * C
        p = load_params(params.reshape(-1), params.shape[1], 0)
        run, halves = len(scale), (T + HALF - 1) // HALF
        carry, gradient, total = np.empty(run, x.dtype), np.empty(run, x.dtype), np.empty(run, x.dtype)
        first, second = np.empty(run, x.dtype), np.empty(run, x.dtype)
        # Of each image row and step of the strip: m[t-1], u[t], and the spikes' bits.
        before, compared = np.empty((K * T, run), x.dtype), np.empty((K * T, run), x.dtype)
        fired = np.empty((K * halves, run), np.uint32)
        for n in range(B):
            for i in range(height):
                for lo in range(0, width * window, run):
                    count = min(run, width * window - lo)
                    first[:], second[:], fired[:] = 0, 0, 0
                    for k in range(K):
                        at = ((n * H + i * K + k) * W) * C + lo
                        for e in range(count):
                            carry[U(e)] = start(p)[0]
                        for h in range(halves if forced else 0):
                            for e in range(count):
                                fired[k * halves + h, e] = given_bits[h, n, i * K + k, lo + e]
                        for t in range(T):
                            bit, row = np.uint32(t % HALF), at + (0 if static else t * image)
                            m, u, bits = before[k * T + t], compared[k * T + t], fired[k * halves + t // HALF]
                            source = flat[row : row + count]
                            for e in range(count):
                                current = source[e] * scale[e] + shift[e]
                                m[e] = carry[e]
                                if forced:
                                    fires = (bits[e] >> bit) & ONE != NOTHING
                                    new, u[e] = force((carry[e],), current, fires, edges, p)
                                else:
                                    new, u[e], fires, _ = advance((carry[e],), current, ZERO, True, p, constants)
                                    bits[e] |= np.uint32(fires) << bit
                                carry[e] = new[0]
                    choose(fired.reshape(-1), K, halves, run, C, count // window)
                    for k in range(K):
                        at = ((n * H + i * K + k) * W) * C + lo
                        carry[:], total[:] = 0, 0
                        for t in range(T - 1, -1, -1):
                            bit, row = np.uint32(t % HALF), at + t * image
                            m, u, bits = before[k * T + t], compared[k * T + t], fired[k * halves + t // HALF]
                            given = t * pooled + ((n * height + i) * width) * C + lo // K
                            for w in range(count // window):
                                for l in range(K):
                                    tap = slice((w * K + l) * C, (w * K + l) * C + C)
                                    masked(gradient[tap], outer[given + w * C : given + w * C + C], bits[tap], bit)
                            for e in range(count):
                                g, dz = (carry[e],), gradient[e]
                                dstate, di, _ = retreat(g, dz, ZERO, False, (m[e],), ZERO, u[e], True, p, constants)
                                carry[e], gradient[e] = dstate[0], di
                            if static:
                                for e in range(count):
                                    total[e] += gradient[e]
                            else:
                                settle(inner[row : row + count], gradient, flat[row : row + count], mean, first, second)
                        if static:
                            settle(inner[at : at + count], total, flat[at : at + count], mean, first, second)
                    for e in range(0, count, C):
                        for c in range(C):
                            sums[0, c] += first[U(e + c)]
                            sums[1, c] += second[U(e + c)]

    return neuron_pool_backward_kernel


def where(a, b, bits, bit):
    """a = b where the bit is set, else 0."""
    for e in range(len(a)):
        chosen = b[e]
        a[e] = chosen if (bits[e] >> bit) & ONE != NOTHING else ZERO


def give(dx, gradient, x, mean, first, second):
    """dx = gradient, which is also added to the sums, once as it is and once times x - mean."""
    for e in range(len(dx)):
        dx[e] = gradient[e]
    for e in range(len(dx)):
        first[e] += gradient[e]
        second[e] += gradient[e] * (x[e] - mean[e])


def winners(fired, K, halves, run, C, windows):
    """fired (K, halves, run) flat, bits of the spikes of K image rows -> in place, bits of those that win their window."""
    for h in range(halves):
        for w in range(windows):
            for c in range(C):
                nobody = ALL
                for tap in range(K * K):
                    e = U((tap // K * halves + h) * run + (w * K + tap % K) * C + c)
                    fires = fired[e]
                    fired[e] = fires & nobody
                    nobody &= ~fires
                fired[U(h * run + w * K * C + c)] |= nobody

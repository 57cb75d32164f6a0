"""Convolution of spikes, and gradients through a max-pool: the sums of ``__init__.py`` without their zeros.

Forward and weight gradient walk alike.  For one output position, the sums of all time steps stand side by side in ``sums``
(T, V), 13 KB at T = 50 and V = 64: the first-level cache. The neurons of the window follow in the order of (1), kernel row,
kernel column, channel. Neurons with an empty word are skipped; of the others two at a time load their V weights into registers,
and add them to ``sums[t]`` for each step t at which either fires, each times its own bit. One pass over ``sums`` serves both,
and neighbours often fire together. A weight times 1 or 0 is exact, so this is the dense sum, in the same order, bit for bit.
Backward, the registers hold V weight gradients instead, and ``sums`` the output gradient.

Input gradient through a max-pool.  Every pooled number sends its gradient to the one tap of its window that won, so of the dense
(4) a quarter remains for 2 x 2 windows. The channels that share a winner at one place form a bit mask; their patches of K x K C
gradients add up in registers and reach memory once.
"""

from __future__ import annotations

import functools

import numpy as np

from ..events import WORD, Pooled, Routed
from ..jit import inline, kernel
from ..simd import count_trailing_zeros, empty, equal_bits, stack_array, vector_operations, zeros
from .cpu import channel_sums, conv2d_dx, framed_image, unframed

U = np.uintp
NOTHING, ONE = np.uint64(0), np.uint64(1)


def conv2d_forward_events(spikes, packed, bias, stride, padding, pool=None):
    """spikes (T, B, H, W, C) as SpikeWords -> y (T, B, H', W', O), or Pooled with ``pool`` = (K, stride) of a max-pool."""
    weight = packed.weight
    O, _, rows, columns = weight.shape
    words = _frame(spikes.words, padding)
    D, B, H, W, C = words.shape
    T = spikes.num_steps
    height, width = (H - rows) // stride + 1, (W - columns) // stride + 1
    V = packed.forward.shape[3]
    padded_bias = np.zeros(len(packed.forward) * V, weight.dtype)
    if bias is not None:
        padded_bias[:O] = bias
    sums = empty((D * WORD * V,), weight.dtype)
    geometry = W * C, C, columns * C, stride
    words, terms = words.reshape(D, B, -1), packed.forward.reshape(len(packed.forward), -1)
    if pool is None:
        y = empty((T, B, height, width, O), weight.dtype)
        make_forward(weight.dtype, V)(words, terms, padded_bias, *geometry, sums, y)
        return y
    K, pool_stride = pool
    shape = (T, B, (height - K) // pool_stride + 1, (width - K) // pool_stride + 1, O)
    y, winner = empty(shape, weight.dtype), empty(shape, np.uint8)
    best, which = empty((T, V), weight.dtype), empty((T, V), np.uint8)
    pooled = make_forward_pooled(weight.dtype, V, K, pool_stride)
    pooled(words, terms, padded_bias, *geometry, sums, best, which, y, winner)
    return Pooled(y, winner, (T, B, height, width, O))


def conv2d_backward_events(dy, x, packed, stride, padding, dweight, dbias, input_grad):
    """dy (T, B, H', W', O) or Routed, x SpikeWords -> dx (T, B, H, W, C) or None; adds into dweight and dbias."""
    routed = isinstance(dy, Routed)
    _dweight(dy, x, packed, stride, padding, dweight)
    if dbias is not None:
        dbias += channel_sums(dy.dy if routed else dy)  # (2)
    if not input_grad:
        return None
    if routed:
        return conv2d_dx_routed(dy, x.shape, packed, stride, padding)
    T, B, *image = x.shape
    return conv2d_dx(dy.reshape(T * B, *dy.shape[2:]), (T * B, *image), packed, stride, padding).reshape(x.shape)


def _dweight(dy, spikes, packed, stride, padding, dweight):
    """(3): adds into dweight (O, C, K, K)."""
    O, C, rows, columns = packed.weight.shape
    V = packed.forward.shape[3]
    words = _frame(spikes.words, padding)
    D, B, _, W, _ = words.shape
    dtype = packed.weight.dtype
    totals = zeros((rows, columns * C, len(packed.forward) * V), dtype)
    sums = zeros((D * WORD * V,), dtype)
    geometry = W * C, C, stride
    words = words.reshape(D, B, -1)
    if isinstance(dy, Routed):
        spread = make_dweight(dtype, V, True)
        spread(words, dy.dy, dy.winner, dy.kernel_size, dy.stride, *geometry, sums, totals)
    else:
        make_dweight(dtype, V, False)(words, dy, np.empty((0,) * 5, np.uint8), 1, 1, *geometry, sums, totals)
    dweight += totals[:, :, :O].reshape(rows, columns, C, O).transpose(3, 2, 0, 1)


def conv2d_dx_routed(dy, shape, packed, stride, padding):
    """dy Routed -> dx of ``shape`` (T, B, H, W, C), equation (4)."""
    T, B, H, W, C = shape
    O, _, rows, columns = packed.weight.shape
    winner = dy.winner.reshape(T * B, -1, O)
    gradient = dy.dy.reshape(winner.shape)
    masks = empty((*winner.shape[:2], dy.kernel_size**2, -(-O // WORD)), np.uint64)
    make_masks(dy.kernel_size**2)(winner.reshape(-1), O, masks)
    patches = packed.patches
    R, V = patches.shape[3:]
    framed, flat = framed_image(T * B, H + 2 * padding, W + 2 * padding, C, V, gradient.dtype)
    places = dy.dy.shape[3], dy.kernel_size, dy.stride
    geometry = framed.shape[2] * C, stride, C, rows, columns * C, framed[0].size
    make_dx_routed(gradient.dtype, R, V)(gradient, masks, patches.reshape(-1, O * R * V), *places, *geometry, flat)
    return unframed(framed, padding).reshape(shape)


def _frame(words, padding):
    """words (D, B, H, W, C) -> framed by ``padding`` silent neurons on all sides."""
    if padding == 0:
        return words
    D, B, H, W, C = words.shape
    framed = zeros((D, B, H + 2 * padding, W + 2 * padding, C), np.uint64)
    framed[:, :, padding : padding + H, padding : padding + W] = words
    return framed


def _make_add_window(dtype, V):
    registers, vectors = stack_array(dtype, V), vector_operations(dtype)
    lanes, copy, add, add_scaled = vectors.lanes, vectors.copy, vectors.add, vectors.add_scaled

    def add_window(words, n, start, weight, row, run, number, sums):
        """sums[t] += the weights of the spikes at step t: (1) at one position; weight (K L C V) of one block of outputs."""
        w, w2 = registers(), registers()
        for d in range(words.shape[0]):
            word = NOTHING  # of a neuron that waits for a partner; its weights are in w
            for k in range(len(weight) // (run * V)):
                for r in range(run):
                    word2 = words[U(d), U(n), U(start) + U(k * row + r)]
                    if word2 == NOTHING:
                        continue
                    at = U((k * run + r) * V)
                    if word == NOTHING:
                        word = word2
                        for j in range(0, V, lanes):
                            copy(w, U(j), weight, at + U(j))
                        continue
                    for j in range(0, V, lanes):
                        copy(w2, U(j), weight, at + U(j))
                    either = word | word2
                    while either != NOTHING:
                        t = count_trailing_zeros(either)
                        either &= either - ONE
                        a, b = number[(word >> t) & ONE], number[(word2 >> t) & ONE]
                        place = (U(d * WORD) + U(t)) * U(V)
                        for j in range(0, V, lanes):
                            add_scaled(sums, place + U(j), a, w, U(j))
                            add_scaled(sums, place + U(j), b, w2, U(j))
                    word = NOTHING
            while word != NOTHING:
                place = (U(d * WORD) + U(count_trailing_zeros(word))) * U(V)
                word &= word - ONE
                for j in range(0, V, lanes):
                    add(sums, place + U(j), w, U(j))

    return inline(add_window)


@functools.cache
def make_forward(dtype, V):
    """-> the kernel of (1) for V outputs at a time."""
    add_window = _make_add_window(dtype, V)

    @kernel(dtype, V)
    def conv2d_forward_events_kernel(words, weight, bias, row, C, run, stride, sums, y):
        """words (D, B, H W C), weight (O / V, K L C V), bias (O') -> y (T, B, H', W', O)."""
        number = np.array([0, 1], sums.dtype)  # of a bit
        T, B, height, width, O = y.shape
        for n in range(B):
            for i in range(height):
                for j in range(width):
                    for block in range(len(weight)):
                        sums[: T * V] = 0
                        add_window(words, n, i * stride * row + j * stride * C, weight[block], row, run, number, sums)
                        first = block * V
                        count = min(V, O - first)
                        for t in range(T):
                            out = y[t, n, i, j, first:]
                            for o in range(count):
                                out[o] = sums[t * V + o] + bias[first + o]

    return conv2d_forward_events_kernel


@functools.cache
def make_forward_pooled(dtype, V, K, pool_stride):
    """-> as ``make_forward``, then max-pooled: the positions of one window follow each other, and only its maxima are written."""
    add_window = _make_add_window(dtype, V)

    @kernel(dtype, V, K, pool_stride)
    def conv2d_pool_forward_events_kernel(words, weight, bias, row, C, run, stride, sums, best, which, y, winner):
        """words (D, B, H W C), weight (O / V, K L C V), bias (O') -> y, winner (T, B, H'', W'', O)."""
        number = np.array([0, 1], sums.dtype)  # of a bit
        T, B, height, width, O = y.shape
        for n in range(B):
            for i in range(height):
                for j in range(width):
                    for block in range(len(weight)):
                        first = block * V
                        for tap in range(K * K):
                            top, left = i * pool_stride + tap // K, j * pool_stride + tap % K
                            sums[: T * V] = 0
                            add_window(words, n, top * stride * row + left * stride * C, weight[block], row, run, number, sums)
                            for t in range(T):
                                for o in range(V):
                                    # Bias before the comparison: rounding could make unequal sums equal.
                                    new = sums[t * V + o] + bias[first + o]
                                    if tap == 0 or new > best[t, o] or new != new:  # the first of equals stays
                                        best[t, o], which[t, o] = new, tap
                        count = min(V, O - first)
                        for t in range(T):
                            out, won = y[t, n, i, j, first:], winner[t, n, i, j, first:]
                            for o in range(count):
                                out[o], won[o] = best[t, o], which[t, o]

    return conv2d_pool_forward_events_kernel


def _make_gather_window(dtype, V):
    registers, vectors = stack_array(dtype, V), vector_operations(dtype)
    lanes, copy, add, add_scaled = vectors.lanes, vectors.copy, vectors.add, vectors.add_scaled

    def gather_window(words, n, start, sums, row, run, number, dweight, first):
        """dweight[..., first : first + V] += sums[t] for the spikes at step t: (3) at one position."""
        K, _, O = dweight.shape
        flat = dweight.reshape(-1)
        w, w2 = registers(), registers()
        for d in range(words.shape[0]):
            word, at = NOTHING, U(0)  # of a neuron that waits for a partner, and the place of its gradients
            for k in range(K):
                for r in range(run):
                    word2 = words[U(d), U(n), U(start) + U(k * row + r)]
                    if word2 == NOTHING:
                        continue
                    at2 = U((k * run + r) * O + first)
                    if word == NOTHING:
                        word, at = word2, at2
                        continue
                    for j in range(0, V, lanes):
                        copy(w, U(j), flat, at + U(j))
                        copy(w2, U(j), flat, at2 + U(j))
                    either = word | word2
                    while either != NOTHING:
                        t = count_trailing_zeros(either)
                        either &= either - ONE
                        a, b = number[(word >> t) & ONE], number[(word2 >> t) & ONE]
                        place = (U(d * WORD) + U(t)) * U(V)
                        for j in range(0, V, lanes):
                            add_scaled(w, U(j), a, sums, place + U(j))
                            add_scaled(w2, U(j), b, sums, place + U(j))
                    for j in range(0, V, lanes):
                        copy(flat, at + U(j), w, U(j))
                        copy(flat, at2 + U(j), w2, U(j))
                    word = NOTHING
            while word != NOTHING:
                place = (U(d * WORD) + U(count_trailing_zeros(word))) * U(V)
                word &= word - ONE
                for j in range(0, V, lanes):
                    add(flat, at + U(j), sums, place + U(j))

    return inline(gather_window)


@functools.cache
def make_dweight(dtype, V, routed):
    """-> the kernel of (3) for V outputs at a time; ``routed``: dy went through a max-pool without overlap."""
    gather_window = _make_gather_window(dtype, V)

    @kernel(dtype, V, routed)
    def conv2d_dweight_events_kernel(words, dy, winner, K, pool_stride, row, C, stride, sums, dweight):
        """words (D, B, H W C), dy and winner (T, B, H', W', O) -> adds into dweight (K, L C, O')."""
        number = np.array([0, 1], sums.dtype)  # of a bit
        T, B, height, width, O = dy.shape
        run = dweight.shape[1]
        taps = K * K if routed else 1
        part = np.empty_like(dweight)  # of one sample: keeps the float32 sums short
        for n in range(B):
            part[:] = 0
            for place in range(height * width * taps):
                tap = place % taps
                i, j = place // taps // width, place // taps % width
                top, left = i * pool_stride + tap // K, j * pool_stride + tap % K
                for first in range(0, dweight.shape[2], V):
                    count = min(V, O - first)
                    for t in range(T):
                        gradient, sum_t = dy[t, n, i, j, first:], sums[t * V : t * V + V]
                        if routed:
                            won = winner[t, n, i, j, first:]
                            for o in range(count):
                                sum_t[o] = gradient[o] if won[o] == tap else 0
                        else:
                            for o in range(count):
                                sum_t[o] = gradient[o]
                    gather_window(words, n, top * stride * row + left * stride * C, sums, row, run, number, part, first)
            dweight += part

    return conv2d_dweight_events_kernel


@functools.cache
def make_masks(taps):
    """-> the kernel that turns winners into one bit mask of channels a tap."""

    @kernel(taps)
    def winner_masks_kernel(winner, O, masks):
        """winner (N Q O) flat -> masks (N, Q, taps, O / 64): bit o of masks[n, q, tap] is winner[n, q, o] == tap."""
        N, Q, _, D = masks.shape
        for n in range(N):
            for q in range(Q):
                start = (n * Q + q) * O
                for tap in range(taps):
                    for d in range(D):
                        first = d * WORD
                        word = NOTHING
                        if first + WORD <= O:
                            word = equal_bits(winner, U(start + first), np.uint8(tap))
                        else:
                            for o in range(first, O):
                                word |= np.uint64(winner[start + o] == tap) << np.uint64(o - first)
                        masks[n, q, tap, d] = word

    return winner_masks_kernel


@functools.cache
def make_dx_routed(dtype, R, V):
    """-> the kernel of (4) through a max-pool, with a register tile of R kernel rows x V numbers of a run."""
    registers, vectors = stack_array(dtype, R * V), vector_operations(dtype)
    lanes, clear, add, add_scaled = vectors.lanes, vectors.clear, vectors.add, vectors.add_scaled

    @kernel(dtype, R, V)
    def conv2d_dx_routed_kernel(dy, masks, weight, width, K, pool_stride, row, stride, C, rows, run, image, dx):
        """dy (N, Q, O), masks (N, Q, taps, O / 64), weight (slices, O R V) -> adds into dx flat (N H W C).

        The last vector of a run may reach beyond it. Its surplus lanes hold zeros, the weights' padding; dx has room behind.
        """
        N, Q, _ = dy.shape
        across = (run + V - 1) // V
        acc = registers()
        for s in range(len(weight)):  # a slice of the weights stays in the first-level cache for all images
            k, first = s // across * R, s % across * V
            height, part = min(R, rows - k), weight[s]
            for n in range(N):
                for q in range(Q):
                    for tap in range(masks.shape[2]):
                        for j in range(0, R * V, lanes):
                            clear(acc, U(j))
                        for d in range(masks.shape[3]):
                            mask = masks[U(n), U(q), U(tap), U(d)]
                            while mask != NOTHING:
                                o = U(d * WORD) + U(count_trailing_zeros(mask))
                                mask &= mask - ONE
                                g = dy[U(n), U(q), o]
                                for j in range(0, R * V, lanes):
                                    add_scaled(acc, U(j), g, part, o * U(R * V) + U(j))
                        top, left = q // width * pool_stride + tap // K, q % width * pool_stride + tap % K
                        start = U(n * image + (top * stride + k) * row + left * stride * C + first)
                        for r in range(R):
                            if r < height:
                                for v in range(0, V, lanes):
                                    add(dx, start + U(r * row + v), acc, U(r * V + v))

    return conv2d_dx_routed_kernel

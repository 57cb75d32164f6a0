"""Convolution of spikes, and gradients through a max-pool: the sums of ``__init__.py`` without their zeros.

Forward, for one output position and V outputs.  (1) is linear, so neurons of the window with the same spike train may be added
up before anything else: ``groups`` (trains, V) takes the weights of each active neuron once, and then each train, two at a time,
adds its row to ``sums[t]`` for each step t at which it fires. ``sums`` (T, V), 13 KB at T = 50 and V = 64, stays in the
first-level cache.

That is another order of summation for every window and every length of the sequence, and floating-point sums would depend on it.
Therefore the weights are whole numbers here, multiples of a power of two (``Packed.units``), small enough for every sum to be
exact: int32 where that costs no more than sums in float32 do or little, else float64, whose 53 bits always suffice. A sum is then
rounded once, to the network's dtype, and does not depend on how neurons are grouped or how a sequence is cut.

Weight gradient, for one output position.  Each train of the window adds up the output gradient over the steps at which it fires,
in registers; each active neuron adds that sum to its row of weight gradients.

Input gradient through a max-pool.  Every pooled number sends its gradient to the one tap of its window that won, so of the dense
(4) a quarter remains for 2 x 2 windows. The channels that share a winner at one place form a bit mask; their patches of K x K C
gradients add up in registers and reach memory once.
"""

from __future__ import annotations

import functools
import math

import numba
import numpy as np

from ...kernels.cpu.simd import Layout, count_trailing_zeros, empty, equal_bits, stack_array, taken, tile_shape, vector_operations
from ...kernels.jit import inline, kernel
from ..events import WORD, Fired, Pooled, Routed, SpikeWords
from ..neurons.cpu import nothing, numbers
from ..neurons.leaky.scalar import RESETS
from .cpu import PLANS, add_channel_sums, conv2d_dx, framed_layout, make_unpack, unframed

U = np.uintp
NOTHING, ONE = np.uint64(0), np.uint64(1)
YES = np.uint8(1)
IMAGES = 16  # whose input gradients stay in the second-level cache while all slices of the weights add to them
ZERO = np.float32(0)  # the literal 0 would widen float32 to float64


def conv2d_forward_events(x, packed, bias, stride, padding, pool=None, fires=None):
    """x (T, B, H, W, C) as SpikeWords -> y (T, B, H', W', O), or Pooled with ``pool`` = (K, stride) of a max-pool.

    With ``fires`` = (beta, threshold, reset, surrogate) of the Leaky neuron behind the pool -> Fired.
    """
    V, units, scale, padded_bias = packed.event_weights(bias)
    index, most = x.index_and_most(padding)
    reset = None if fires is None else fires[2]
    form = packed.weight.shape, packed.weight.dtype, units.dtype, V
    kernel, geometry, layout, unpooled = _forward_plan(x.shape, form, stride, padding, pool, reset)
    arguments = index, units, scale, padded_bias, geometry, taken(window_memory(-(-most // WORD), V, units.dtype))
    if pool is None:
        sums, y = taken(layout)
        kernel(*arguments, sums, y)
        return y
    if fires is None:
        *sums, winner, y, flat = taken(layout)
        kernel(*arguments, *sums, winner, flat)
        return Pooled(y, winner, unpooled)
    *sums, winner, state, fired, membrane, words, flat = taken(layout)
    membrane[0] = 0
    kernel(*arguments, *sums, winner, (numbers(packed.weight.dtype, *fires[:2]), state, fired, membrane, flat))
    return Fired(SpikeWords(words, x.num_steps), membrane, winner, unpooled)


@functools.lru_cache(maxsize=PLANS)
def _forward_plan(shape, form, stride, padding, pool, reset):
    """What depends on shapes and options alone -> kernel, geometry, layout of its arrays, shape of y before the pool."""
    (T, B, H, W, _), ((O, C, rows, columns), dtype, accumulator, V) = shape, form
    height, width = (H + 2 * padding - rows) // stride + 1, (W + 2 * padding - columns) // stride + 1
    unpooled, geometry, sums = (T, B, height, width, O), (rows, columns, C, stride), ((T * V,), accumulator)
    if pool is None:
        return make_forward(dtype, accumulator, V), geometry, Layout(sums, (unpooled, dtype)), unpooled
    K, pool_stride = pool
    kernel = make_forward_pooled(dtype, accumulator, V, K, pool_stride, reset)
    image = B, (height - K) // pool_stride + 1, (width - K) // pool_stride + 1, O
    before = sums, ((T * V,), dtype), ((T * V,), np.uint8), ((T, *image), np.uint8)
    if reset is None:
        layout = Layout(*before, ((T, *image), dtype), finish=lambda *arrays: (*arrays, arrays[-1].reshape(-1)))
        return kernel, geometry, layout, unpooled
    D = -(-T // WORD)
    outputs = ((T + 1, math.prod(image)), dtype), ((D, *image), np.uint64)
    layout = Layout(
        *before, ((V,), dtype), ((V,), np.uint64), *outputs, finish=lambda *arrays: (*arrays, arrays[-1].reshape(D, -1))
    )
    return kernel, geometry, layout, unpooled


@functools.lru_cache(maxsize=PLANS)
def window_memory(words, V, dtype):
    """-> layout of groups (trains, V), met (trains) uint8, order (trains): room for 64 ``words`` of them."""
    trains = words * WORD
    return Layout(((trains * V,), dtype), ((trains,), np.uint8), ((trains,), np.uint32))


def conv2d_backward_events(dy, x, packed, stride, padding, dweight, dbias, input_grad):
    """dy (T, B, H', W', O) or Routed, x SpikeWords -> dx or None; adds into dweight and dbias, unless they are None."""
    routed = isinstance(dy, Routed)
    if dweight is not None:
        _dweight(dy, x, packed, stride, padding, dweight)
    if dbias is not None:
        add_channel_sums(dy.dy if routed else dy, dbias)
    if not input_grad:
        return None
    if routed:
        return conv2d_dx_routed(dy, x.shape, packed, stride, padding)
    T, B, *image = x.shape
    return conv2d_dx(dy.reshape(T * B, *dy.shape[2:]), (T * B, *image), packed, stride, padding).reshape(x.shape)


def _dweight(dy, spikes, packed, stride, padding, dweight):
    """(3): adds into dweight (O, C, K, K)."""
    O, C, rows, columns = packed.weight.shape
    V, dtype = tile_shape(packed.weight.dtype, O)[1], packed.weight.dtype
    index, most = spikes.index_and_most(padding)
    memory = taken(window_memory(-(-most // WORD), V, dtype))
    gradients, part, totals = taken(dweight_memory(spikes.num_steps, packed.weight.shape, V, dtype))
    totals.fill(0)
    arguments = index, (columns, C, stride), memory, gradients, part, totals
    if isinstance(dy, Routed):
        make_dweight(dtype, V, True)(dy.dy, dy.winner, dy.kernel_size, dy.stride, *arguments)
    else:
        make_dweight(dtype, V, False)(dy, nothing(np.uint8, 5), 1, 1, *arguments)
    make_unpack()(totals, dweight)


@functools.lru_cache(maxsize=PLANS)
def dweight_memory(T, weight_shape, V, dtype):
    """-> layout of gradients (T, V), part and totals (K, L C, O')."""
    O, C, rows, columns = weight_shape
    totals = (rows, columns * C, -(-O // V) * V), dtype
    return Layout(((T * V,), dtype), totals, totals)


def conv2d_dx_routed(dy, shape, packed, stride, padding):
    """dy Routed -> dx of ``shape`` (T, B, H, W, C), equation (4)."""
    T, B, H, W, C = shape
    O, pooled = len(packed.weight), dy.dy.shape
    masks = empty(mask_shape(pooled, dy.kernel_size, T * B), np.uint64)
    make_masks(dy.kernel_size**2)(dy.winner.reshape(-1), O, masks)
    patches = packed.patches
    R, V = patches.shape[3:]
    framed, flat = taken(framed_layout((T * B, H + 2 * padding, W + 2 * padding, C), V, dy.dy.dtype))
    places, geometry = dx_geometry(pooled, dy.kernel_size, dy.stride, stride, *framed.shape[1:3], packed.weight.shape)
    gradient = dy.dy.reshape(T * B, -1, O)
    make_dx_routed(gradient.dtype, R, V)(gradient, masks, packed.flat_patches, places, *geometry, flat)
    return unframed(framed, padding).reshape(shape)


def mask_shape(pooled, K, N):
    """pooled (T, B, H'', W'', O) -> (N, Q, K K, O / 64) of the masks of winners of N images."""
    height, width, O = pooled[2:]
    return N, height * width, K**2, -(-O // WORD)


def dx_geometry(pooled, K, pool_stride, stride, H, W, weight_shape):
    """-> places, (row, rows, run, image) of ``conv2d_dx_routed_kernel`` for framed images of H x W pixels."""
    _, C, rows, columns = weight_shape
    row = W * C
    places = _patch_places(*pooled[2:4], K, pool_stride, stride * row, stride * C)
    return places, (row, rows, columns * C, H * row)


@functools.cache
def _patch_places(height, width, K, pool_stride, row, column):
    """-> (height width, K K) where the patch of each tap of each pooled position begins in the flat image."""
    q, tap = np.arange(height * width, dtype=U)[:, None], np.arange(K * K, dtype=U)
    K, pool_stride, width = U(K), U(pool_stride), U(width)
    return (q // width * pool_stride + tap // K) * U(row) + (q % width * pool_stride + tap % K) * U(column)


@inline
def order_trains(met, count, order):
    """-> how many of the trains 0 ... count - 1 are marked in ``met``; ``order`` lists them, and the marks are cleared."""
    found = 0
    for first in range(0, count, WORD):
        marks = equal_bits(met, U(first), YES)
        while marks != NOTHING:
            train = U(first) + U(count_trailing_zeros(marks))
            marks &= marks - ONE
            met[train] = 0
            order[U(found)] = train
            found += 1
    return found


def _make_sum_window(dtype, V):
    registers, vectors = stack_array(dtype, V), vector_operations(dtype)
    lanes, clear, copy, add, add_if = vectors.lanes, vectors.clear, vectors.copy, vectors.add, vectors.add_if

    def sum_window(index, n, top, left, weight, geometry, memory, sums):
        """sums (T, V) flat = (1) of image n at the position whose window begins at pixel (top, left), without the bias."""
        places, trains, starts, patterns, counts = index
        rows, columns, C, _ = geometry
        groups, met, order = memory
        D, row, run = patterns.shape[2], (starts.shape[2] - 1) * C, columns * C
        for k in range(rows):
            window, tap = U((top + k) * row + left * C), U(k * run)
            for e in range(starts[n, top + k, left], starts[n, top + k, left + columns]):
                at = (tap + places[U(n), U(e)] - window) * U(V)
                train = U(trains[U(n), U(e)])
                met[train] = YES
                for j in range(0, V, lanes):
                    add(groups, train * U(V) + U(j), weight, at + U(j))
        found = order_trains(met, counts[n], order)
        for j in range(0, len(sums), lanes):
            clear(sums, U(j))
        group, group2 = registers(), registers()
        for i in range(0, found, 2):
            train = U(order[i])
            for j in range(0, V, lanes):
                copy(group, U(j), groups, train * U(V) + U(j))
                clear(groups, train * U(V) + U(j))
            paired = i + 1 < found
            train2 = U(order[i + 1]) if paired else train
            for j in range(0, V, lanes):
                copy(group2, U(j), groups, train2 * U(V) + U(j))
                clear(groups, train2 * U(V) + U(j))
            for d in range(D):
                word = patterns[U(n), train, U(d)]
                word2 = patterns[U(n), train2, U(d)] if paired else NOTHING
                either = word | word2
                while either != NOTHING:
                    t = count_trailing_zeros(either)
                    either &= either - ONE
                    place = (U(d * WORD) + U(t)) * U(V)
                    for j in range(0, V, lanes):
                        add_if(sums, place + U(j), (word >> t) & ONE, group, U(j))
                        add_if(sums, place + U(j), (word2 >> t) & ONE, group2, U(j))

    return inline(sum_window)


@functools.cache
def make_forward(dtype, accumulator, V):
    """-> the kernel of (1) for V outputs at a time."""
    sum_window, real = _make_sum_window(accumulator, V), numba.from_dtype(dtype)

    @kernel(dtype, accumulator, V)
    def conv2d_forward_events_kernel(index, weight, scale, bias, geometry, memory, sums, y):
        """index SpikeIndex, weight (O / V, K L C V), scale, bias (O') -> y (T, B, H', W', O)."""
        T, B, height, width, O = y.shape
        stride = geometry[3]
        memory[0].fill(0)
        memory[1].fill(0)
        for n in range(B):
            for i in range(height):
                for j in range(width):
                    for block in range(len(weight)):
                        sum_window(index, n, i * stride, j * stride, weight[block], geometry, memory, sums)
                        first = block * V
                        count = min(V, O - first)
                        for t in range(T):
                            out = y[t, n, i, j, first:]
                            for o in range(count):
                                out[o] = real(sums[t * V + o]) * scale[first + o] + bias[first + o]

    return conv2d_forward_events_kernel


@functools.cache
def make_forward_pooled(dtype, accumulator, V, K, pool_stride, reset):
    """-> as ``make_forward``, then max-pooled: the positions of one window follow each other, and only its maxima are written.

    Unless ``reset`` is None, they are not written either, but drive the neurons behind, of this reset.
    """
    sum_window, real = _make_sum_window(accumulator, V), numba.from_dtype(dtype)
    finish = _make_store(V) if reset is None else _make_fire(V, reset)

    @kernel(dtype, accumulator, V, K, pool_stride, reset)
    def conv2d_pool_forward_events_kernel(index, weight, scale, bias, geometry, memory, sums, best, which, winner, output):
        """index SpikeIndex, weight (O / V, K L C V), scale, bias (O') -> winner (T, B, H'', W'', O), and the output."""
        T, B, height, width, O = winner.shape
        stride, winners = geometry[3], winner.reshape(-1)
        memory[0].fill(0)
        memory[1].fill(0)
        for n in range(B):
            for i in range(height):
                for j in range(width):
                    for block in range(len(weight)):
                        first = block * V
                        for tap in range(K * K):
                            top, left = (i * pool_stride + tap // K) * stride, (j * pool_stride + tap % K) * stride
                            sum_window(index, n, top, left, weight[block], geometry, memory, sums)
                            for p in range(0, T * V, V):
                                # Bias before the comparison: rounding could make unequal sums equal.
                                if tap == 0:
                                    for o in range(V):
                                        best[U(p + o)] = real(sums[U(p + o)]) * scale[U(first + o)] + bias[U(first + o)]
                                        which[U(p + o)] = 0
                                else:
                                    for o in range(V):
                                        new, old = real(sums[U(p + o)]) * scale[U(first + o)] + bias[U(first + o)], best[U(p + o)]
                                        wins = new > old or new != new  # the first of equals stays
                                        best[U(p + o)] = new if wins else old
                                        which[U(p + o)] = tap if wins else which[U(p + o)]
                        image, count = B * height * width * O, min(V, O - first)
                        place = ((n * height + i) * width + j) * O + first
                        for t in range(T):
                            for o in range(count):
                                winners[U(t * image + place + o)] = which[U(t * V + o)]
                        finish(best, T, image, place, count, output)

    return conv2d_pool_forward_events_kernel


def _make_store(V):
    def store(currents, T, image, place, count, y):
        """currents (T, V) flat -> y flat: rows of ``count`` numbers from ``place`` on in each of T images."""
        for t in range(T):
            for o in range(count):
                y[U(t * image + place + o)] = currents[U(t * V + o)]

    return inline(store)


def _make_fire(V, reset):
    step = inline(RESETS[reset]()[0])

    def fire(currents, T, image, place, count, output):
        """currents (T, V) flat -> rows of ``count`` numbers from ``place`` on of membrane (T + 1, M) and words (T / 64, M)."""
        (beta, threshold), state, word, membrane, words = output
        flat = membrane.reshape(-1)
        state[:] = 0
        for d in range(len(words)):
            word[:] = 0
            for t in range(d * WORD, min(T, d * WORD + WORD)):
                bit, at = np.uint64(t % WORD), U(t * V)
                for o in range(V):  # of literal length, over arrays that are nobody else's: whole vectors
                    state[o] = step((state[o],), currents[at + U(o)], state[o] > threshold, threshold, (beta,))[0]
                    word[o] |= np.uint64(state[o] > threshold) << bit
                for o in range(count):
                    flat[U((t + 1) * image + place + o)] = state[U(o)]
            for o in range(count):
                words[d, place + o] = word[U(o)]

    return inline(fire)


def _make_gather_window(dtype, V):
    registers, vectors = stack_array(dtype, V), vector_operations(dtype)
    lanes, clear, copy, add = vectors.lanes, vectors.clear, vectors.copy, vectors.add

    def gather_window(index, n, top, left, gradients, geometry, memory, dweight, first):
        """dweight[..., first : first + V] += (3) of image n at one position; gradients (T, V) flat hold its dy."""
        places, trains, starts, patterns, counts = index
        columns, C, _ = geometry
        groups, met, order = memory
        rows, run, O = dweight.shape
        D, row, flat = patterns.shape[2], (starts.shape[2] - 1) * C, dweight.reshape(-1)
        for k in range(rows):
            for e in range(starts[n, top + k, left], starts[n, top + k, left + columns]):
                met[U(trains[U(n), U(e)])] = YES
        found = order_trains(met, counts[n], order)
        total = registers()
        for i in range(found):
            train = U(order[i])
            for j in range(0, V, lanes):
                clear(total, U(j))
            for d in range(D):
                word = patterns[U(n), train, U(d)]
                while word != NOTHING:
                    place = (U(d * WORD) + U(count_trailing_zeros(word))) * U(V)
                    word &= word - ONE
                    for j in range(0, V, lanes):
                        add(total, U(j), gradients, place + U(j))
            for j in range(0, V, lanes):
                copy(groups, train * U(V) + U(j), total, U(j))
        for k in range(rows):
            window, tap = U((top + k) * row + left * C), U(k * run)
            for e in range(starts[n, top + k, left], starts[n, top + k, left + columns]):
                at = (tap + places[U(n), U(e)] - window) * U(O) + U(first)
                train = U(trains[U(n), U(e)])
                for j in range(0, V, lanes):
                    add(flat, at + U(j), groups, train * U(V) + U(j))

    return inline(gather_window)


@functools.cache
def make_dweight(dtype, V, routed):
    """-> the kernel of (3) for V outputs at a time; ``routed``: dy went through a max-pool without overlap."""
    gather_window, vectors = _make_gather_window(dtype, V), vector_operations(dtype)
    lanes, copy_where = vectors.lanes, vectors.copy_where

    @kernel(dtype, V, routed)
    def conv2d_dweight_events_kernel(dy, winner, K, pool_stride, index, geometry, memory, gradients, part, dweight):
        """dy and winner (T, B, H', W', O), index SpikeIndex -> adds into dweight (K, L C, O')."""
        T, B, height, width, O = dy.shape
        stride, flat, winners = geometry[2], dy.reshape(-1), winner.reshape(-1)
        sample, total = part.reshape(-1), dweight.reshape(-1)
        taps = K * K if routed else 1
        memory[1].fill(0)
        gradients.fill(0)  # beyond the last output too
        for n in range(B):
            sample.fill(0)  # apart: keeps the float32 sums short
            for i in range(height):
                for j in range(width):
                    for tap in range(taps):
                        top, left = (i * pool_stride + tap // K) * stride, (j * pool_stride + tap % K) * stride
                        for first in range(0, dweight.shape[2], V):
                            count = min(V, O - first)
                            for t in range(T):
                                at, to = U((((t * B + n) * height + i) * width + j) * O + first), U(t * V)
                                if not routed:
                                    for o in range(count):
                                        gradients[to + U(o)] = flat[at + U(o)]
                                elif count == V:
                                    for o in range(0, V, lanes):
                                        copy_where(gradients, to + U(o), flat, at + U(o), winners, at + U(o), np.uint8(tap))
                                else:
                                    for o in range(count):
                                        gradients[to + U(o)] = flat[at + U(o)] if winners[at + U(o)] == tap else ZERO
                            gather_window(index, n, top, left, gradients, geometry, memory, part, first)
            for p in range(len(total)):
                total[U(p)] += sample[U(p)]

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
    def conv2d_dx_routed_kernel(dy, masks, weight, places, row, rows, run, image, dx):
        """dy (N, Q, O), masks (N, Q, taps, O / 64), weight (slices, O R V), places (Q, taps) -> dx flat (N H W C).

        The last vector of a run may reach beyond it. Its surplus lanes hold zeros, the weights' padding; dx has room behind,
        whose contents do not matter.
        """
        N, Q, _ = dy.shape
        across = (run + V - 1) // V
        acc = registers()
        for lo in range(0, N, IMAGES):
            dx[lo * image : min(lo + IMAGES, N) * image].fill(0)
            for s in range(len(weight)):  # a slice of the weights stays in the first-level cache for some images
                k, first = s // across * R, s % across * V
                height, part = min(R, rows - k), weight[s]
                for n in range(lo, min(lo + IMAGES, N)):
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
                            start = places[U(q), U(tap)] + U(n * image + k * row + first)
                            for r in range(R):
                                if r < height:
                                    for v in range(0, V, lanes):
                                        add(dx, start + U(r * row + v), acc, U(r * V + v))

    return conv2d_dx_routed_kernel

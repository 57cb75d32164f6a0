"""Convolution of dense spikes by tables of partial sums, the method of four Russians (Arlazarov, Dinic, Kronrod, Faradzev 1970).

Four channels spike in one of 16 ways at a step, so that their share of (1), for one output and one tap, is one of 16 sums of
their weights. With these in a table, a look-up and an addition do for four channels, however many of them spike: a quarter of a
dense product's work, without its multiplications, and no branches. A vector register with 16 lanes is such a table. One
instruction looks up 16 four-bit numbers in it at once (``simd.table_operations``; with 8 lanes, groups of 3).

Forward.  The lanes are 16 frames (b, t), which share position, tap and table. ``spike_frames`` collects the spikes of up to 32
channels of a frame in one number, from which the groups are taken in turn. A tile of sums, of some vectors of frames x Q outputs,
stays in registers over a kernel row. Sums are of whole numbers, see ``cpu.whole_numbers``: the bits are those of events.py.

Weight gradient.  (3) sums over steps: a neuron's share at one position, for one output, is one of 16 sums of dy at four steps.
The table is made from dy, and the lanes are 16 channels. ``spike_steps`` collects the steps of up to 8 positions of a channel in
one number. A tile of some vectors of channels x Q outputs stays in registers over some rows of positions, whose tables stay in
the first-level cache.

Linear layer.  Features are channels of an image of one pixel; in the weight gradient, samples are positions of one row. The
weight is read as it lies in memory, a slice of outputs at a time, so that one of tens of megabytes is read once for a batch.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numba
import numpy as np

from ...kernels.cpu.simd import (
    empty,
    lasting_zeros,
    prefetch_for_writing,
    set_bits,
    stack_array,
    table_operations,
    tile_shape,
    vector_lanes,
    vector_operations,
    zeros,
)
from ...kernels.jit import inline, kernel
from ..events import SpikeWords
from .cpu import _make_dx_tile, conv2d_pack, whole_numbers
from .events import conv2d_backward_events, conv2d_forward_events

U = np.uintp
Q = 4  # outputs in a tile: with as many vectors beside them, 16 sums, 4 tables and 4 indices in 32 registers
LANES = vector_lanes(4)
GROUP = LANES.bit_length() - 1  # bits of a place in a table
FIELDS = 32 // GROUP  # groups in an index
INDEX = np.dtype(np.uint32)
SINGLE = np.dtype(np.float32)
WHOLE = np.dtype(np.int32)
TABLES = 2**15 // (Q * LANES * 4)  # groups whose tables, for Q outputs, take two thirds of a first-level cache
TILE = 4 if LANES == 16 else 2  # vectors of frames or channels in a tile
DEPTH = 128  # outputs whose weights for V features stay in the first-level cache
NOTHING, ONE = np.uint64(0), np.uint64(1)
MASK = np.uint64((1 << GROUP) - 1)
AHEAD = 8  # positions, of lines that are to be fetched before they are written
SUMS = 2**17  # of the forward pass that wait to be transposed: half a second-level cache


@dataclass(frozen=True)
class Frames:
    """Spikes as the forward pass reads them."""

    index: np.ndarray  # (H, W, words, F) uint32, bit i of [y, x, w, b T + t]: does channel w GROUP groups + i spike?
    groups: int  # of channels in a word
    samples: int  # B; F is T B, filled up to whole tiles


@dataclass(frozen=True, eq=False)
class SpikeRows:
    """Spikes of rows of features, in the order of the features of a linear layer's weight, for all tasks of a batch."""

    spikes: SpikeWords  # (T, B, 1, 1, F)
    frames: Frames | None
    steps: np.ndarray | None  # of ``spike_steps``


def conv2d_forward_tables(spikes, packed, bias, stride, padding):
    """spikes (T, B, H, W, C) as SpikeWords -> y (T, B, H', W', O); the same bits as ``conv2d_forward_events``.

    Vectors lie along the T B frames, so blocks of samples should have 64 of them, or a multiple.
    """
    units, scale = packed.units
    if units.dtype != WHOLE:
        return conv2d_forward_events(spikes, packed, bias, stride, padding)
    return _forward(spike_frames(spikes), spikes.num_steps, units, scale, bias, packed.weight.shape, stride, padding)


def conv2d_dweight_tables(dy, spikes, packed, stride, padding, dweight):
    """(3): dy (T, B, H', W', O), spikes (T, B, H, W, C) as SpikeWords -> adds into dweight (O, C, K, L)."""
    if dy.dtype != SINGLE:
        conv2d_backward_events(dy, spikes, packed, stride, padding, dweight, None, False)
        return
    O, C, K, L = dweight.shape
    steps = spike_steps(spikes, L, dy.shape[3], stride, padding)
    sums = zeros((O, K, L, steps.shape[-1]), SINGLE)
    _dweight(np.ascontiguousarray(dy), steps, spikes.words.itemsize, stride, padding, sums)
    make_add_sums()(sums, dweight)


def spike_rows(spikes, forward=True, backward=True):
    """spikes (T, B, F), or (T, B, H, W, C) behind a Flatten, as SpikeWords -> SpikeRows for the passes wanted."""
    words = spikes.words
    D, B = words.shape[:2]
    images = words.reshape(D, B, -1, words.shape[-1] if words.ndim == 5 else 1)
    relabelled = np.empty((D, B, 1, 1, images[0, 0].size), words.dtype)  # outlives the block: not from the arena
    make_relabel()(images, relabelled.reshape(D, B, *images.shape[:1:-1]))
    rows = SpikeWords(relabelled, spikes.num_steps)
    frames = spike_frames(rows, lasting_zeros) if forward else None
    return SpikeRows(rows, frames, spike_steps(_as_positions(rows), 1, B, 1, 0, lasting_zeros) if backward else None)


def linear_forward_tables(rows, weight, bias):
    """rows SpikeRows, weight (O, F), bias (O) or None, of some outputs -> y (T, B, O).

    The bits are those of ``conv2d_forward_events`` with the whole weight, whichever outputs there are in a part.
    """
    units, scale = whole_numbers(weight)
    shape = *weight.shape, 1, 1
    if units.dtype != WHOLE:
        return conv2d_forward_events(rows.spikes, conv2d_pack(weight.reshape(shape)), bias, 1, 0)[:, :, 0, 0]
    units = units[:, None, :, None]
    return _forward(rows.frames, rows.spikes.num_steps, units, scale, bias, shape, 1, 0)[:, :, 0, 0]


def linear_dweight_tables(dy, rows, dweight):
    """(3): dy (T, B, O) of some outputs, rows SpikeRows -> adds into their dweight (O, F)."""
    T, B, O = dy.shape
    if dy.dtype != SINGLE:
        packed, gradient = conv2d_pack(dweight[:, :, None, None]), dweight[:, :, None, None]
        conv2d_backward_events(np.ascontiguousarray(dy)[:, :, None, None], rows.spikes, packed, 1, 0, gradient, None, False)
        return
    steps = rows.steps
    in_place = steps.shape[-1] == dweight.shape[1] and dweight.flags.c_contiguous
    sums = dweight[:, None, None] if in_place else zeros((O, 1, 1, steps.shape[-1]), SINGLE)
    _dweight(np.ascontiguousarray(dy).reshape(T, 1, 1, B, O), steps, rows.spikes.words.itemsize, 1, 0, sums)
    if not in_place:
        dweight += sums[:, 0, 0, : dweight.shape[1]]


def dx_panels(dy):
    """dy (T, B, O) -> (O / DEPTH, T B, DEPTH): what ``linear_dx_wide`` reads, made once for all its tasks."""
    flat = dy.reshape(-1, dy.shape[-1])
    panels = lasting_zeros((-(-flat.shape[1] // DEPTH), len(flat), DEPTH), dy.dtype)
    for panel, first in zip(panels, range(0, flat.shape[1], DEPTH), strict=True):
        part = flat[:, first : first + DEPTH]
        panel[:, : part.shape[1]] = part
    return panels


def linear_dx_wide(panels, weight, features, dx):
    """(4) for some features: panels of ``dx_panels``, weight (O, F), ``features`` a slice -> writes those of dx (T, B, F).

    Behind a Flatten dx is (T, B, H, W, C) and the slice one of channels; 16 of them fill a cache line. dx is C-contiguous.
    """
    weight = np.ascontiguousarray(weight)
    lo, hi, _ = features.indices(dx.shape[-1])
    pixels = dx[0, 0].size // dx.shape[-1]
    part = weight[:, lo * pixels : hi * pixels]
    N, width = panels.shape[1], part.shape[1]
    R, V = tile_shape(part.dtype, width)
    blocks = -(-width // V)
    sums, offsets = zeros((N, blocks * V), part.dtype), np.arange(N, dtype=U) * U(blocks * V)
    make_dx_wide(part.dtype, R, V)(panels, part, offsets, empty((blocks, DEPTH * V), part.dtype), sums.reshape(-1))
    make_unflatten()(sums, dx.reshape(N, pixels, -1), lo, hi)


def _forward(frames, T, units, scale, bias, shape, stride, padding):
    """frames Frames, units (O / V, K, L C, V) -> y (T, B, H', W', O) of a weight of ``shape`` (O, C, K, L)."""
    O, C, K, L = shape
    H, W, words, F = frames.index.shape
    height, width = (H + 2 * padding - K) // stride + 1, (W + 2 * padding - L) // stride + 1
    chunk = _even(words, max(1, TABLES // (L * frames.groups)))
    band = _even(height, max(1, SUMS // (LANES * F * width)))
    memory = (
        empty((chunk * L * frames.groups * Q * LANES,), WHOLE),
        empty((band * width * LANES * F,), WHOLE),
        empty((LANES * LANES,), WHOLE),
        _subsets(),
    )
    y = empty((T, frames.samples, height, width, O), SINGLE)
    numbers = scale[:O], np.zeros(O, SINGLE) if bias is None else bias
    geometry = K, L, C, stride, padding, band, chunk, frames.groups
    flat = frames.index.reshape(-1), (H, W, words, F), units.reshape(-1), units.shape[3]
    make_forward(_tile(F))(*flat, *numbers, geometry, memory, y)
    return y


def _dweight(dy, steps, itemsize, stride, padding, sums):
    """dy (T, B, H', W', O), steps of ``spike_steps`` -> adds into sums (O, K, L, C')."""
    J, S = steps.shape[3:5]
    height, width = dy.shape[2:4]
    fields = -(-width // J)
    chunk = _even(height * J, max(1, TABLES // (S * fields)))
    geometry = fields, stride, padding, chunk, 8 * itemsize
    memory = empty((chunk * S * fields * Q * LANES,), SINGLE)
    make_dweight(_tile(steps.shape[-1]))(dy, steps.reshape(-1), steps.shape, geometry, _subsets(), SINGLE.type(1), memory, sums)


@functools.cache
def _subsets():
    """-> masks (GROUP LANES) of the places of a table: all bits of [bit LANES + e] are set where ``bit`` of e is."""
    bits, places = np.arange(GROUP)[:, None], np.arange(LANES)
    masks = lasting_zeros((GROUP * LANES,), INDEX)
    masks[...] = np.where(places >> bits & 1, -1, 0).astype(INDEX).reshape(-1)
    return masks


def _even(n, most):
    """-> the size of equal parts of n, each at most ``most``."""
    return -(-n // -(-n // most))


def _whole_tiles(n):
    """-> n rounded up to whole tiles of at most TILE vectors."""
    vectors = -(-n // LANES)
    part = _even(vectors, TILE)
    return -(-vectors // part) * part * LANES


def _tile(n):
    """-> the vectors of a tile, where n is as ``_whole_tiles`` makes it."""
    return _even(n // LANES, TILE)


def _as_positions(rows):
    """SpikeWords (T, B, 1, 1, F) -> the same as one image of a row of B pixels and F channels."""
    D, B, _, _, F = rows.words.shape
    return SpikeWords(rows.words.reshape(D, 1, 1, B, F), rows.num_steps)


def spike_frames(spikes, make=zeros):
    """spikes (T, B, H, W, C) as SpikeWords -> Frames."""
    T, B, H, W, C = spikes.shape
    words = -(-C // (FIELDS * GROUP))
    groups = -(-C // (words * GROUP))
    index = make((H, W, words, _whole_tiles(T * B)), INDEX)
    make_frames()(spikes.words, T, groups * GROUP, index)
    return Frames(index, groups, B)


def spike_steps(spikes, L, width, stride, padding, make=zeros):
    """spikes (T, B, H, W, C) as SpikeWords -> index (B, H, L, J, S, C') uint32 for a kernel of L columns, C' whole tiles.

    Field e of [b, y, l, j, s, c]: at which steps of group s does channel c spike at pixel (y, x), the pixel that column l of the
    kernel meets in output column j fields + e of ``width``: x = (j fields + e) stride + l - padding.
    """
    T, B, H, _, C = spikes.shape
    J = -(-width // FIELDS)
    size = 8 * spikes.words.itemsize
    full = len(spikes.words) - 1
    S = full * -(-size // GROUP) - (-(T - full * size) // GROUP)
    index = make((B, H, L, J, S, _whole_tiles(C)), INDEX)
    make_steps()(spikes.words, -(-width // J), width, stride, padding, index)
    return index


@functools.cache
def make_frames():
    @kernel()
    def spike_frames_kernel(words, T, count, index):
        """words (D, B, H, W, C), ``count`` channels in a word of the index -> Frames.index."""
        D, B, H, W, C = words.shape
        flat, steps = words.reshape(-1), 8 * words.itemsize
        for d in range(D):
            taken = min(steps, T - d * steps)
            for b in range(B):
                for y in range(H):
                    for x in range(W):
                        pixel = (((d * B + b) * H + y) * W + x) * C
                        for w in range(index.shape[2]):
                            channels = min(count, C - w * count)
                            start, frame = pixel + w * count, b * T + d * steps
                            everyone = (ONE << np.uint64(channels)) - ONE
                            for t in range(taken):
                                found = NOTHING
                                if start + 32 <= len(flat):
                                    found = np.uint64(set_bits(flat, U(start), np.uint64(t))) & everyone
                                else:
                                    for c in range(channels):
                                        found |= ((np.uint64(flat[start + c]) >> np.uint64(t)) & ONE) << np.uint64(c)
                                index[y, x, w, frame + t] = found

    return spike_frames_kernel


@functools.cache
def make_steps():
    @kernel()
    def spike_steps_kernel(words, fields, width, stride, padding, index):
        """words (D, B, H, W, C) -> the index of ``spike_steps``."""
        _, _, _, W, C = words.shape
        B, H, L, J, S, _ = index.shape
        groups = -(-8 * words.itemsize // GROUP)  # of a whole word
        for b in range(B):
            for y in range(H):
                for l in range(L):
                    for j in range(J):
                        for s in range(S):
                            d, shift = s // groups, np.uint64(s % groups * GROUP)
                            out = index[b, y, l, j, s]
                            out[:] = 0
                            for e in range(min(fields, width - j * fields)):
                                x = (j * fields + e) * stride + l - padding
                                if x >= 0 and x < W:
                                    pixel, to = words[d, b, y, x], np.uint32(e * GROUP)
                                    for c in range(C):
                                        out[c] |= np.uint32((pixel[c] >> shift) & MASK) << to

    return spike_steps_kernel


@functools.cache
def make_forward(R):
    """-> the kernel of (1) with a register tile of R vectors of frames x Q outputs."""
    fill_tables, add_row, write = _make_weight_tables(), _make_add_row(R), _make_write()

    @kernel(R)
    def conv2d_forward_tables_kernel(index, shape, units, V, scale, bias, geometry, memory, y):
        """index of Frames, flat, of ``shape``, units (O / V, K, L C, V) flat, scale, bias (O) -> y."""
        H, W, words, F = shape
        K, L, _, stride, padding, band, chunk, G = geometry
        height, width, O = y.shape[2:]
        tables, sums, square, subsets = memory
        for first in range(0, O, LANES):
            count = min(LANES, O - first)
            for top in range(0, height, band):
                bottom = min(top + band, height)
                sums[: (bottom - top) * width * LANES * F] = 0
                for o in range(0, count, Q):
                    for k in range(K):
                        for low in range(0, words, chunk):
                            high = min(low + chunk, words)
                            fill_tables(units, V, first + o, k, low, high, geometry, O, subsets, tables)
                            for frame in range(0, F, R * LANES):
                                for i in range(top, bottom):
                                    row = i * stride + k - padding
                                    if row < 0 or row >= H:
                                        continue
                                    for j in range(width):
                                        left = j * stride - padding
                                        taps = max(0, -left), min(L, W - left)
                                        at = U((row * W + left) * words * F + frame)
                                        to = U((((i - top) * width + j) * LANES + o) * F + frame)
                                        add_row(index, shape, tables, at, sums, to, low, high, taps, G)
                write(sums, square, F, (top * width, bottom * width), first, count, scale, bias, y)

    return conv2d_forward_tables_kernel


def _make_weight_tables():
    operations, vectors = table_operations(WHOLE), vector_operations(WHOLE)
    copy, clear, add_masked, copy_index = vectors.copy, vectors.clear, operations.add_masked, vector_operations(INDEX).copy
    one, masks, bases = stack_array(WHOLE, LANES), stack_array(INDEX, GROUP * LANES), stack_array(np.dtype(U), Q)

    def weight_tables(units, V, first, k, low, high, geometry, O, subsets, tables):
        """tables (L, high - low, G, Q, LANES) flat: the sums of the weights of kernel row k, for Q outputs from ``first`` on."""
        K, L, C, _, _, _, _, G = geometry
        table, mask, starts, at = one(), masks(), bases(), U(0)
        for bit in range(GROUP):
            copy_index(mask, U(bit * LANES), subsets, U(bit * LANES))
        for q in range(Q):
            o = min(first + q, O - 1)  # beyond the last output it does not matter
            starts[q] = U((o // V * K + k) * L * C * V + o % V)
        for l in range(L):
            for w in range(low, high):
                c = w * G * GROUP
                whole = max(0, min(G, (C - c) // GROUP))
                place = U((l * C + c) * V)
                for _ in range(whole):
                    for q in range(Q):
                        clear(table, U(0))
                        for bit in range(GROUP):
                            add_masked(table, U(0), units[starts[q] + place + U(bit * V)], mask, U(bit * LANES))
                        copy(tables, at, table, U(0))
                        at += U(LANES)
                    place += U(GROUP * V)
                for g in range(whole, G):
                    for q in range(Q):
                        clear(table, U(0))
                        for bit in range(min(GROUP, C - c - g * GROUP)):
                            add_masked(table, U(0), units[starts[q] + place + U(bit * V)], mask, U(bit * LANES))
                        copy(tables, at, table, U(0))
                        at += U(LANES)
                    place += U(GROUP * V)

    return inline(weight_tables)


def _make_add_row(R):
    operations, copy, copy_index = table_operations(WHOLE), vector_operations(WHOLE).copy, vector_operations(INDEX).copy
    add_chosen, drop_bits = operations.add_chosen, operations.drop_bits
    registers, held = stack_array(WHOLE, R * Q * LANES), stack_array(WHOLE, Q * LANES)
    indices = stack_array(INDEX, R * LANES)

    def add_row(index, shape, tables, at, sums, to, low, high, taps, G):
        """Adds to a tile of sums what the taps of one kernel row add, words low ... high - 1 of channels."""
        _, _, words, F = shape
        acc, which, table = registers(), indices(), held()
        for o in range(Q):
            for r in range(R):
                copy(acc, U((r * Q + o) * LANES), sums, to + U(o) * U(F) + U(r * LANES))
        for l in range(taps[0], taps[1]):
            place = U(l * (high - low) * G * Q * LANES)
            source = at + U(l * words + low) * U(F)
            for _ in range(low, high):
                for r in range(R):
                    copy_index(which, U(r * LANES), index, source + U(r * LANES))
                source += U(F)
                for _ in range(G):
                    for o in range(Q):
                        copy(table, U(o * LANES), tables, place + U(o * LANES))
                    for r in range(R):
                        for o in range(Q):
                            add_chosen(acc, U((r * Q + o) * LANES), table, U(o * LANES), which, U(r * LANES))
                        drop_bits(which, U(r * LANES))
                    place += U(Q * LANES)
        for o in range(Q):
            for r in range(R):
                copy(sums, to + U(o) * U(F) + U(r * LANES), acc, U((r * Q + o) * LANES))

    return inline(add_row)


def _make_write():
    operations = table_operations(WHOLE)
    transpose, scale_bias = operations.transpose, operations.scale_bias

    def write(sums, square, F, places, first, count, scale, bias, y):
        """sums (positions, LANES, F) -> y (T, B, H', W', O) at the given positions, outputs first ... first + count - 1."""
        T, B, height, width, O = y.shape
        flat, image = y.reshape(-1), height * width * O
        sample, step = 0, 0
        for frame in range(0, T * B, LANES):
            for place in range(places[0], places[1]):
                transpose(square, U(0), sums, U((place - places[0]) * LANES * F + frame), U(F))
                b, t = sample, step
                for m in range(min(LANES, T * B - frame)):
                    to = (t * B + b) * image + place * O + first
                    prefetch_for_writing(flat, U(to + AHEAD * O))
                    if count == LANES:
                        scale_bias(flat, U(to), square, U(m * LANES), scale, bias, U(first))
                    else:
                        for o in range(count):
                            flat[U(to + o)] = numba.float32(square[U(m * LANES + o)]) * scale[U(first + o)] + bias[U(first + o)]
                    t += 1
                    if t == T:
                        b, t = b + 1, 0
            sample, step = (frame + LANES) // T, (frame + LANES) % T

    return inline(write)


@functools.cache
def make_dweight(R):
    """-> the kernel of (3) with a register tile of R vectors of channels x Q outputs."""
    fill_tables, add_sites = _make_gradient_tables(), _make_add_sites(R)

    @kernel(R)
    def conv2d_dweight_tables_kernel(dy, index, shape, geometry, subsets, unit, tables, sums):
        """dy (T, B, H', W', O), index of ``spike_steps``, flat, of ``shape`` -> adds into sums (O, K, L, C')."""
        B, H, L, J, S, C = shape
        fields, stride, padding, chunk, _ = geometry
        height, width, O = dy.shape[2:]
        K, flat = sums.shape[1], sums.reshape(-1)
        for b in range(B):
            for low in range(0, height * J, chunk):
                high = min(low + chunk, height * J)
                for first in range(0, O, Q):
                    fill_tables(dy, b, first, (low, high), S, J, geometry, subsets, tables)
                    for k in range(K):
                        # Output rows whose tap k lies in the image: 0 <= i stride + k - padding < H.
                        lowest, beyond = (padding - k + stride - 1) // stride, (H - 1 + padding - k) // stride + 1
                        sites = max(low, lowest * J), min(high, beyond * J)
                        if sites[0] >= sites[1]:
                            continue
                        y, j = sites[0] // J * stride + k - padding, sites[0] % J
                        place = U((sites[0] - low) * S * fields * Q * LANES)
                        for l in range(L):
                            at = (((b * H + y) * L + l) * J + j) * S * C
                            row = (stride * L - 1) * J * S * C
                            for c in range(0, C, R * LANES):
                                to = U(((first * K + k) * L + l) * C + c), U(K * L * C)
                                add_sites(
                                    index, U(at + c), row, sites, shape, geometry, width, tables, place, unit, flat, to, O - first
                                )

    return conv2d_dweight_tables_kernel


def _make_gradient_tables():
    operations, vectors = table_operations(SINGLE), vector_operations(SINGLE)
    copy, clear, add_masked, copy_index = vectors.copy, vectors.clear, operations.add_masked, vector_operations(INDEX).copy
    one, masks, places = stack_array(SINGLE, LANES), stack_array(INDEX, GROUP * LANES), stack_array(np.dtype(U), Q)

    def gradient_tables(dy, b, first, sites, S, J, geometry, subsets, tables):
        """tables (sites, S, fields, Q, LANES) flat: the sums of dy over groups of steps of sample b, for Q outputs."""
        T, B, height, width, O = dy.shape
        fields, _, _, _, size = geometry
        flat, image, groups = dy.reshape(-1), U(B * height * width * O), (size + GROUP - 1) // GROUP
        table, mask, outputs = one(), masks(), places()
        for bit in range(GROUP):
            copy_index(mask, U(bit * LANES), subsets, U(bit * LANES))
        for q in range(Q):
            outputs[q] = U(min(first + q, O - 1))  # beyond the last output it does not matter
        for site in range(sites[0], sites[1]):
            i, j = site // J, site % J
            for s in range(S):
                inside = s % groups * GROUP  # a word's last group may have fewer steps
                t = s // groups * size + inside
                taken = min(GROUP, size - inside, T - t)
                at = U(((site - sites[0]) * S + s) * fields * Q * LANES)
                place = U((((t * B + b) * height + i) * width + j * fields) * O)
                for _ in range(min(fields, width - j * fields)):
                    for q in range(Q):
                        clear(table, U(0))
                        if taken == GROUP:
                            for bit in range(GROUP):
                                add_masked(table, U(0), flat[place + outputs[q] + U(bit) * image], mask, U(bit * LANES))
                        else:
                            for bit in range(taken):
                                add_masked(table, U(0), flat[place + outputs[q] + U(bit) * image], mask, U(bit * LANES))
                        copy(tables, at, table, U(0))
                        at += U(LANES)
                    place += U(O)

    return inline(gradient_tables)


def _make_add_sites(R):
    operations, vectors = table_operations(SINGLE), vector_operations(SINGLE)
    copy, clear, add, copy_index = vectors.copy, vectors.clear, vectors.add, vector_operations(INDEX).copy
    add_chosen, add_scaled, drop_bits = operations.add_chosen, operations.add_chosen_scaled, operations.drop_bits
    registers, held = stack_array(SINGLE, R * Q * LANES), stack_array(SINGLE, Q * LANES)
    indices = stack_array(INDEX, R * LANES)

    def add_sites(index, at, row, sites, shape, geometry, width, tables, place, unit, sums, to, count):
        """Adds what the given sites add to a tile of one tap's sums; the tap's index begins at ``at`` and grows by ``row``.

        Half of the summands are multiplied by ``unit``, a 1 that the compiler does not know: to the same bits, but in the part of
        the processor that fuses products into sums, while the one that only adds is busy with the others.
        """
        _, _, L, J, S, C = shape
        fields = geometry[0]
        acc, which, table = registers(), indices(), held()
        for r in range(R):
            for o in range(Q):
                clear(acc, U((r * Q + o) * LANES))
        j = sites[0] % J
        source, last = at, width - (J - 1) * fields
        for _ in range(sites[0], sites[1]):
            taken = last if j == J - 1 else fields
            for _ in range(S):
                for r in range(R):
                    copy_index(which, U(r * LANES), index, source + U(r * LANES))
                source += U(C)
                step = place
                for _ in range(taken):
                    for o in range(Q):
                        copy(table, U(o * LANES), tables, step + U(o * LANES))
                    for r in range(R):
                        for o in range(0, Q, 2):
                            add_chosen(acc, U((r * Q + o) * LANES), table, U(o * LANES), which, U(r * LANES))
                        for o in range(1, Q, 2):
                            add_scaled(acc, U((r * Q + o) * LANES), unit, table, U(o * LANES), which, U(r * LANES))
                        drop_bits(which, U(r * LANES))
                    step += U(Q * LANES)
                place += U(fields * Q * LANES)
            j += 1
            if j == J:
                j, source = 0, source + U(row)
        for o in range(Q):
            if o < count:
                for r in range(R):
                    add(sums, to[0] + U(o) * to[1] + U(r * LANES), acc, U((r * Q + o) * LANES))

    return inline(add_sites)


@functools.cache
def make_dx_wide(dtype, R, V):
    """-> the kernel of (4) for a linear layer, some features of it, with a register tile of R frames x V features."""
    tile, single, vectors = _make_dx_tile(dtype, R, V), _make_dx_tile(dtype, 1, V), vector_operations(dtype)
    copy, lanes = vectors.copy, vectors.lanes

    @kernel(dtype, R, V)
    def linear_dx_wide_kernel(panels, weight, offsets, packed, dx):
        """panels (O / DEPTH, N, DEPTH), weight (O, F), offsets (N), packed (F / V, DEPTH V) -> adds into dx (N, F') flat."""
        O, F = weight.shape
        N = len(offsets)
        for p in range(len(panels)):
            dy = panels[p]
            for o in range(DEPTH):
                for block in range(len(packed)):
                    out, first = packed[block], block * V
                    taken = min(V, F - first) if p * DEPTH + o < O else 0
                    if taken == V:
                        for f in range(0, V, lanes):
                            copy(out, U(o * V + f), weight[p * DEPTH + o], U(first + f))
                    else:
                        for f in range(V):
                            out[U(o * V + f)] = weight[p * DEPTH + o, first + f] if f < taken else 0
            for block in range(len(packed)):
                n = 0
                while n < N:
                    taken = R if N - n >= R else 1
                    if taken == R:
                        tile(dy, packed[block], n, offsets, block * V, dx)
                    else:
                        single(dy, packed[block], n, offsets, block * V, dx)
                    n += taken

    return linear_dx_wide_kernel


@functools.cache
def make_add_sums():
    @kernel()
    def add_sums_kernel(sums, dweight):
        """sums (O, K, L, C') -> adds into dweight (O, C, K, L)."""
        O, C, K, L = dweight.shape
        for o in range(O):
            for c in range(C):
                for k in range(K):
                    for l in range(L):
                        dweight[o, c, k, l] += sums[o, k, l, c]

    return add_sums_kernel


@functools.cache
def make_relabel():
    @kernel()
    def relabel_kernel(words, out):
        """words (D, B, pixels, C) -> out (D, B, C, pixels)."""
        D, B, pixels, C = words.shape
        for d in range(D):
            for b in range(B):
                for c in range(C):
                    for p in range(pixels):
                        out[d, b, c, p] = words[d, b, p, c]

    return relabel_kernel


@functools.cache
def make_unflatten():
    @kernel()
    def unflatten_kernel(rows, dx, lo, hi):
        """rows (N, C' pixels), of channels lo ... hi - 1 -> those channels of dx (N, pixels, C)."""
        N, pixels, _ = dx.shape
        for n in range(N):
            row = rows[n]
            for p in range(pixels):
                out = dx[n, p]
                for c in range(lo, hi):
                    out[c] = row[U((c - lo) * pixels + p)]

    return unflatten_kernel

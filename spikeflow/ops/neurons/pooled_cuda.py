"""Batch normalisation's affine map, a neuron with one state, and a max-pool of its spikes, in one launch each way, on the device.

Forward, a thread is a pooled neuron: it runs the K K neurons of its window, whose spikes share the bits of its words, and nothing
else is written. Neighbouring threads are neighbouring channels.

Backward, a thread is a neuron before the pool, and runs once more from its input, with the membranes of up to SHORT steps in
registers. A block is some windows: the taps of a window tell each other in shared memory when they fired, so that each knows at
which steps it takes the gradient. More steps are cut into segments: the membranes between them wait in the device's memory, and
the last segment is the first to be run again. Blocks go through windows of the same channels, and leave the sums over them
behind; ``spikeflow.kernels.cuda.sums`` adds these up.

Equations (S1) to (S10) are those of ``step.py``, (4) and (5) those of ``spikeflow.ops.batch_norm``; what a pool of spikes is, and
who wins, is in ``pooled.py``.
"""

from __future__ import annotations

import functools

import numpy as np

from ...kernels.cuda import gpu
from ...kernels.cuda.gpu import THREADS, cuda
from ...kernels.cuda.sums import BLOCKS, column_sums
from ...kernels.rounding import times
from ..events import WORD
from .cpu import param_rows
from .cuda import CUSTOM, MOST, STEP, STEP_BACKWARD, constants, label, make_load, on_device, some
from .model import Model
from .step import make_start, make_step, make_step_backward

SHORT = 4 if gpu.SMALL else 8  # steps whose membranes fit into registers
ZERO, NOTHING, FIRST = np.float32(0), np.uint64(0), np.uint64(1)
NOBODY, ONE = np.uint32(0), np.uint32(1)
U, N = np.uint64, np.uint32  # of places in arrays; of numbers that are divided


def neuron_pool_forward(model: Model, x, scale, shift, num_steps, params, K, bits=None):
    """x (T or 1, B, H, W, C), params (P, 1) -> spikes (T / 64, B, H', W', C) uint64 under scale x + shift, K x K pooled.

    Bit t of a word is the spike at step t. ``bits`` must be None: nothing is kept in half precision.
    """
    _, B, H, W, C = x.shape
    check(K, bits)
    words = gpu.empty((-(-num_steps // WORD), B, H // K, W // K, C), np.uint64)
    count = B * (H // K) * (W // K) * C
    short = num_steps if num_steps <= SHORT else 0
    loop = make_forward(model.key, model.surrogate.primitive, K, (H, W, C), x.shape[0] == 1, short, num_steps > WORD)
    arrays = some(x, scale, shift, on_device(params), words)
    sizes = np.int32(num_steps), np.int32(B)
    flops = (STEP + 2) * num_steps * count * K * K
    gpu.launch(loop, gpu.size(count), THREADS, *sizes, constants(model.surrogate), *arrays, flops=flops)
    return words


def neuron_pool_backward(model: Model, dy, x, scale, shift, mean, num_steps, params, K, bits=None):
    """dy (T, B, H', W', C), x (T or 1, B, H, W, C) -> dx, and (2, C) float32: its sum, and that of dx (x - mean)."""
    steps, B, H, W, C = x.shape
    check(K, bits)
    lanes = max(1, THREADS // (K * K))
    side, group = -(-C // lanes), max(1, lanes // C)  # blocks side by side for all channels; windows of a block
    blocks = min(gpu.size(B * -(-H // K) * -(-W // K), group), max(1, 2 * BLOCKS // side))
    segment = num_steps if num_steps <= SHORT else SHORT // 2
    segments = -(-num_steps // segment)
    dx, parts = gpu.empty(x.shape), gpu.empty((blocks * K * K * group, 2 * C))
    saved = gpu.empty((segments - 1, B * H * W * C)) if segments > 1 else None
    functions = model.surrogate.primitive, model.surrogate.derivative
    shape = K, (H, W, C), lanes, segment, num_steps % segment > 0, segments > 1
    loop = make_backward(model.key, model.surrogate.cache_key or CUSTOM, *functions, steps == 1, *shape)
    arrays = some(dy, x, scale, shift, mean, on_device(params), saved, dx, parts, instead=dx)
    sizes = np.int32(num_steps), np.int32(B)
    flops = (STEP + STEP_BACKWARD + 6) * num_steps * x[0].size
    gpu.launch(loop, (blocks, side), (lanes, K * K), *sizes, constants(model.surrogate), *arrays, flops=flops)
    return dx, column_sums(parts).reshape(2, C)


def check(K, bits) -> None:
    """ValueError unless this backend can do it."""
    if bits is not None:
        raise ValueError("bits must be None with backend='cuda', which keeps nothing in half precision")
    if K * K > MOST:
        raise ValueError(f"K must be at most {int(MOST**0.5)} with backend='cuda', got {K}")


@functools.cache
def make_forward(key, primitive, K, image, static, short, long):
    """-> the kernel of ``neuron_pool_forward``.

    ``image``: H, W, C; ``static``: one x for all steps; ``short``: how many steps, 0 for any number; ``long``: several words.
    """
    H, W, C = image
    height, width, taps = H // K, W // K, K * K
    with gpu.scalars():
        advance, start, load_params = make_step(key, False, primitive), make_start(key), make_load(param_rows(key))

    @gpu.kernel(*label(key), K, image, static, short, long, threads=THREADS)
    def neuron_pool_forward_kernel(T, B, constants, x, scale, shift, params, words):
        """x (T or 1, B, H, W, C), scale, shift (C,) -> words (D, B, H', W', C), all flat."""
        n = cuda.grid(1)
        if n >= B * height * width * C:
            return
        c, window = N(n) % N(C), N(n) // N(C)
        j, i, b = window % N(width), window // N(width) % N(height), window // N(width * height)
        corner, frame, row = U(((b * N(H) + i * N(K)) * N(W) + j * N(K)) * N(C) + c), U(B * H * W * C), U(B * height * width * C)
        p, factor, offset, steps = load_params(params, U(0), U(1)), scale[c], shift[c], short if short else T
        word = NOTHING
        for tap in range(taps):
            here, to, mask = corner + U((tap // K * W + tap % K) * C), U(n), FIRST
            s, current = start(p), times(x[here], factor) + offset  # (4)
            for t in range(steps):
                if not static and t > 0:
                    here += frame
                    current = times(x[here], factor) + offset
                s, _, fired, _ = advance(s, current, ZERO, True, p, constants)
                word |= mask if fired else NOTHING
                mask <<= FIRST
                if long and (mask == NOTHING or t + 1 == steps):
                    words[to] = words[to] | word if tap else word
                    word, mask, to = NOTHING, FIRST, to + row
        if not long:
            words[n] = word

    return neuron_pool_forward_kernel


@functools.cache
def make_backward(key, code, primitive, derivative, static, K, image, lanes, segment, ragged, saves):
    """-> the kernel of ``neuron_pool_backward``.

    ``static``: one x, and one dx, for all steps; ``lanes``: threads of a block for each tap; ``segment``: steps that are run
    together; ``ragged``: they do not divide all steps; ``saves``: there are several segments.
    """
    H, W, C = image
    height, width, taps, high, wide = H // K, W // K, K * K, -(-H // K), -(-W // K)
    group, size = max(1, lanes // C), lanes * taps
    with gpu.scalars():
        advance, start, load_params = make_step(key, False, primitive), make_start(key), make_load(param_rows(key))
        retreat = make_step_backward(key, False, primitive, derivative)

    @gpu.kernel(*label(key), code, static, K, image, lanes, segment, ragged, saves, threads=size)
    def neuron_pool_backward_kernel(T, B, constants, dy, x, scale, shift, mean, params, saved, dx, parts):
        """dy (T, B, H', W', C), x (T or 1, B, H, W, C), scale, shift, mean (C,) -> dx like x, parts (.., 2, C), all flat."""
        fired = cuda.shared.array(size, np.uint32)
        before = cuda.local.array(segment, np.float32)
        compared = cuda.local.array(segment, np.float32)
        source = cuda.local.array(segment, np.float32)
        gradient = cuda.local.array(segment, np.float32)
        lane, tap = cuda.threadIdx.x, cuda.threadIdx.y
        slot = lane // C if group > 1 else 0  # of the block's windows
        c = lane - slot * C if group > 1 else cuda.blockIdx.y * lanes + lane
        mine = c < C and slot < group
        channel = c if mine else 0
        p, factor, offset, average = load_params(params, U(0), U(1)), scale[channel], shift[channel], mean[channel]
        frame, row, windows = U(B * H * W * C), U(B * height * width * C), B * high * wide
        first, second = ZERO, ZERO
        block = cuda.blockIdx.x
        while block * group < windows:  # the same for all threads, which meet in here
            window = N(block * group + slot)
            j, i, b = window % N(wide), window // N(wide) % N(high), window // N(wide * high)
            y, z = i * N(K) + N(tap // K), j * N(K) + N(tap % K)
            inside = mine and window < windows and y < H and z < W
            whole = inside and i < height and j < width
            at = U(((b * N(H) + y) * N(W) + z) * N(C) + N(channel))
            given = U(((b * N(height) + i) * N(width) + j) * N(C) + N(channel))
            s, g, total, lo = start(p), (ZERO,), ZERO, 0
            if static and whole:
                current = times(x[at], factor) + offset  # (4)
            if saves:
                last = (T - 1) // segment * segment
                while lo < last:
                    if whole:
                        if not static:
                            current = times(x[at + U(lo) * frame], factor) + offset
                        s = advance(s, current, ZERO, True, p, constants)[0]
                        if lo % segment == segment - 1:
                            saved[at + U(lo // segment) * frame] = s[0]
                    lo += 1
            while lo >= 0:
                bits = NOBODY
                if whole:
                    if saves and lo > 0:
                        s = (saved[at + U(lo // segment - 1) * frame],)
                    elif saves:
                        s = start(p)
                    for q in range(segment):  # all that is read is on its way before the first of it is waited for
                        if not ragged or lo + q < T:
                            gradient[q] = dy[given + U(lo + q) * row]
                            if not static:
                                source[q] = x[at + U(lo + q) * frame]
                    for q in range(segment):
                        if not ragged or lo + q < T:
                            if not static:
                                current = times(source[q], factor) + offset
                            before[q] = s[0]
                            s, compared[q], fires, _ = advance(s, current, ZERO, True, p, constants)
                            bits |= ONE << N(q) if fires else NOBODY
                fired[tap * lanes + lane] = bits
                cuda.syncthreads()
                earlier, anybody = NOBODY, NOBODY
                for other in range(taps):
                    theirs = fired[other * lanes + lane]
                    earlier |= theirs if other < tap else NOBODY
                    anybody |= theirs
                wins = bits & ~earlier
                if tap == 0:
                    wins |= ~anybody  # where nobody fires the first of the window takes the gradient
                cuda.syncthreads()
                if whole:
                    for back in range(segment):
                        q = segment - 1 - back
                        if not ragged or lo + q < T:
                            dz = gradient[q] if wins >> N(q) & ONE else ZERO
                            g, di, _ = retreat(
                                g, dz, ZERO, False, (before[q],), ZERO, compared[q], True, p, constants
                            )  # fmt: skip
                            if static:
                                total += di
                            else:
                                dx[at + U(lo + q) * frame] = di
                                first += di
                                second += di * (source[q] - average)
                elif inside and not static:
                    for q in range(segment):
                        if not ragged or lo + q < T:
                            dx[at + U(lo + q) * frame] = ZERO
                lo -= segment
            if static and inside:
                dx[at] = total
                first += total
                second += total * (x[at] - average)
            block += cuda.gridDim.x
        if mine:
            place = ((cuda.blockIdx.x * taps + tap) * group + slot) * 2 * C + c
            parts[place], parts[place + C] = first, second

    return neuron_pool_backward_kernel

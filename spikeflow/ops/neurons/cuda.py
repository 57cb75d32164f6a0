"""The loops over time of all neurons on the device, forward and backward, made for a neuron's scalar step by a factory.

A thread is a neuron: it takes all T steps in one launch, and what it carries from step to step stays in its registers.
Neighbouring threads are neighbouring neurons, so that each step reads and writes whole lines of the (T, M) arrays, once. What
AHEAD steps will read is fetched before the first of them runs: a neuron waits for memory once in that many steps. 64 spikes wait
in a register until their word is full. Where neurons inhibit each other a block is a sample, whose threads elect the winner in
shared memory.

Forward multiplies by ``rounding.times`` alone: spikes have the bits of the other backends. Gradients of numbers that neurons
share are summed over time in registers, and over neurons by ``spikeflow.kernels.cuda.sums``. Equations (S1) to (S10) are those of
``step.py``.
"""

from __future__ import annotations

import functools

import numpy as np

from ...kernels.cuda import gpu
from ...kernels.cuda.gpu import cuda
from ...kernels.cuda.sums import column_sums
from ...kernels.jit import inline
from ..events import WORD
from .cpu import carried_rows, numbers, param_rows
from .leaky import scalar as leaky_scalar
from .model import COMMON, Key, Model, Trajectory
from .step import make_start, make_step, make_step_backward, resets_at_once

ZERO, ONE, ONCE = np.float32(0), np.float32(1), np.int32(1)
NOTHING, FIRST = np.uint64(0), np.uint64(1)
FLOAT = np.dtype(np.float32)
U = np.uint64  # of places in arrays: Numba would ask of a signed one whether it is negative
N = np.uint32  # of neurons and steps
THREE = U(3)
CUSTOM = "custom"  # in names, for functions without a name of ours
MOST = 1024  # threads of a block, on every card
AHEAD = 4  # steps
STEP, STEP_BACKWARD = 8, 16  # operations, about


def neuron_forward(model: Model, x, num_steps, params, state=None, smooth=False, words=False, keep=True, keep_states=False):
    """x (T or 1, M) -> spikes (T, M), or with ``words`` (T / 64, M) uint64, bit t of a neuron's word its spike at t; Trajectory.

    As on the CPU, but what is not kept is None. ``params`` may lie on the host or on the device.
    """
    T, M, S = num_steps, x.shape[1], len(model.scalar.STATES)
    keep_states = keep_states and keep and S > 1
    spikes = gpu.empty((-(-T // WORD), M), np.uint64) if words else gpu.empty((T, M))
    membrane = gpu.empty((T + 1, M)) if keep else None
    before = gpu.empty((T, M)) if keep and resets_at_once(model.key) else None
    states = gpu.empty((S - 1, T + 1, M)) if keep_states else None
    fed_back = gpu.empty(M) if keep and model.feedback else None
    code = (model.surrogate.cache_key or CUSTOM) if smooth else None
    flags = bool(words), keep, keep_states, params.shape[1] > 1, state is not None, x.shape[0] == 1
    loop = make_forward(model.key, code, model.surrogate.primitive, *flags, size_of_election(model, params))
    arrays = some(x, state, membrane, before, states, fed_back, spikes, instead=x)
    run(loop, model, T, M, params, STEP, *arrays)
    return spikes, Trajectory(membrane, before, states, fed_back) if keep else None


def neuron_backward(
    model: Model, dspikes, dmembrane, trajectory, input_steps, params, x=None, learns=(), truncate=None, carry=None, smooth=False
):  # fmt: skip
    """dspikes, dmembrane (T, M) or None -> dx (input_steps, M), dparams (P, 1 or F), or None without ``learns``.

    As on the CPU, but dparams is float32.
    """
    membrane, before, states, fed_back = trajectory
    T, M, (P, F) = membrane.shape[0] - 1, membrane.shape[1], params.shape
    learns = tuple(bool(wanted) for wanted in learns)
    learned, own = sum(learns), any(learns[len(COMMON) :])
    reads = own and states is not None, own and x is not None and model.scalar.READS_INPUT
    given = dspikes is not None and model.fires, dmembrane is not None
    smooth = smooth and model.fires and (resets_at_once(model.key) or any(learns[1:3]))
    cuts = truncate is not None and truncate < T
    flags = smooth, input_steps < T, learns if learned else (), *reads, x is not None and x.shape[0] == 1, *given, F > 1
    functions = model.surrogate.primitive, model.surrogate.derivative
    code, among = model.surrogate.cache_key or CUSTOM, size_of_election(model, params)
    loop = make_backward(model.key, code, *functions, *flags, carry is not None, cuts, among)
    dx = gpu.empty((input_steps, M))
    sums = gpu.empty((M // F, learned * F)) if learned else None
    arrays = some(dspikes, dmembrane, membrane, before, states, x, fed_back, carry, dx, sums, instead=membrane)
    run(loop, model, T, M, params, STEP_BACKWARD, *arrays, np.int32(truncate if cuts else T))
    if not learns:
        return dx, None
    dparams = gpu.empty((P, F))
    rows = column_sums(sums) if learned else dx  # which is not read then
    gpu.launch(make_spread(learns), gpu.size(F), gpu.THREADS, np.int32(F), *some(rows, dparams))
    return dx, dparams


def leaky_backward_static(dspikes, x, beta, threshold, reset, surrogate):
    """dspikes (T, M), the constant current x (1, M) -> dx (1, M), by (8) of ``leaky``: nothing but x is needed from forward."""
    T, M = dspikes.shape
    dx = gpu.empty(x.shape)
    loop = make_backward_static(reset, surrogate.cache_key or CUSTOM, surrogate.derivative)
    values = *numbers(FLOAT, beta, threshold), constants(surrogate)
    sizes = np.int32(T), np.int32(M)
    gpu.launch(loop, gpu.size(M), gpu.THREADS, *sizes, *values, *some(dspikes, x, dx), flops=STEP_BACKWARD * T * M)
    return dx


def run(loop, model, T, M, params, flops, *args):
    """Launch a loop with a thread for each of M neurons; ``flops`` of one at one step."""
    threads = params.shape[1] if model.inhibition else gpu.THREADS
    shared = some(on_device(params))
    sizes = np.int32(T), np.int32(M), np.int32(params.shape[1])
    gpu.launch(loop, gpu.size(M, threads), threads, *sizes, *shared, constants(model.surrogate), *args, flops=flops * T * M)


def on_device(params):
    """-> ``params``, which may lie on the host, on the device."""
    return gpu.constant(params) if isinstance(params, np.ndarray) else params


def some(*arrays, instead=None):
    """-> the arrays, each flat; ``instead`` of those that are None, where no kernel will look."""
    given = [instead if array is None else array for array in arrays]
    return [array.reshape(array.size) for array in given]


def constants(surrogate):
    """-> a surrogate's constants as kernels take them: a tuple that is not empty."""
    return numbers(FLOAT, *surrogate.constants) or (ZERO,)


def label(key):
    """-> a key's part in names: the neuron, its reset, and what is unusual."""
    usual = Key._field_defaults
    options = (name if value else f"no_{name}" for name, value in key._asdict().items() if value != usual.get(name, value))
    return key.neuron, key.reset, *options


def size_of_election(model: Model, params) -> int:
    """-> the least power of two that is no less than the neurons of a sample that inhibit each other, 0 if they do not.

    ValueError for more than a block has threads.
    """
    if not model.inhibition:
        return 0
    F = params.shape[1]
    if F > MOST:
        raise ValueError(f"inhibition takes samples of at most {MOST} features with backend='cuda', got {F}")
    return 1 << (F - 1).bit_length()


# Tuples of numbers ``step`` apart, some functions long, since a tuple's length is part of its type.


def make_load(count):
    """-> load(a, at, step): the tuple a[at], a[at + step], ..., ``count`` numbers."""
    if count > 3:
        head, tail = make_load(3), make_load(count - 3)
        return inline(lambda a, at, step: head(a, at, step) + tail(a, at + THREE * step, step))
    return inline(
        (
            lambda a, at, step: (),
            lambda a, at, step: (a[at],),
            lambda a, at, step: (a[at], a[at + step]),
            lambda a, at, step: (a[at], a[at + step], a[at + step + step]),
        )[count]
    )


def make_store(wanted):
    """-> store(a, at, step, values): a[at], a[at + step], ... are those of ``values`` that are wanted."""
    if not any(wanted):
        return inline(lambda a, at, step, values: None)
    (first, *others) = wanted
    rest, more = make_store(others), any(others)

    def store(a, at, step, values):
        if first:
            a[at] = values[0]
        if more:
            rest(a, at + step if first else at, step, values[1:])

    return inline(store)


def make_add(count):
    """-> add(a, b): the sum of two tuples."""
    if count > 3:
        head, tail = make_add(3), make_add(count - 3)
        return inline(lambda a, b: head(a[:3], b[:3]) + tail(a[3:], b[3:]))
    return inline(
        (
            lambda a, b: (a[0] + b[0],),
            lambda a, b: (a[0] + b[0], a[1] + b[1]),
            lambda a, b: (a[0] + b[0], a[1] + b[1], a[2] + b[2]),
        )[count - 1]
    )


def make_elect(size):
    """-> elect(height): the thread of the block whose height is the largest, the first of equals; at most ``size`` of them."""

    def elect(height):
        heights = cuda.shared.array(size, np.float32)
        places = cuda.shared.array(size, np.int32)
        me, stride = cuda.threadIdx.x, size // 2
        heights[me], places[me] = height, me
        cuda.syncthreads()
        while stride > 0:
            if me < stride and me + stride < cuda.blockDim.x:
                ours, theirs = heights[me], heights[me + stride]
                if theirs > ours or (theirs == ours and places[me + stride] < places[me]):
                    heights[me], places[me] = theirs, places[me + stride]
            cuda.syncthreads()
            stride >>= 1
        winner = places[0]
        cuda.syncthreads()  # before the next election
        return winner

    return inline(elect if size else lambda height: 0)


@functools.cache
def make_forward(key, code, primitive, packs, keep, keeps_states, vector, carried, static, among):
    """-> the loop over (S1) to (S6).

    ``code`` names the surrogate whose primitive replaces H, or is None; ``packs``: spikes come out as bits of words; ``vector``:
    each neuron has parameters of its own; ``carried``: there is a state; ``static``: x has one row; ``among``: of make_elect.
    """
    with gpu.scalars():
        advance, start, elect = make_step(key, code is not None, primitive), make_start(key), make_elect(among)
        (S, feedback), inhibits, at_once = carried_rows(key), among > 0, resets_at_once(key)
        load_params, load_state = make_load(param_rows(key)), make_load(S)
        store_state, store_states = make_store((True,) * S), make_store((True,) * (S - 1))
    names = code, packs, keep, keeps_states, vector, carried, static, among
    ahead = 1 if static or inhibits else AHEAD

    @gpu.kernel(*label(key), *names, threads=among or gpu.THREADS)
    def neuron_forward_kernel(T, M, F, params, constants, x, state, membrane, before, states, fed_back, spikes):
        """All arrays flat: x (T or 1, M), state (S, M) -> membrane (T + 1, M), before and spikes (T, M) or words, ..."""
        n = cuda.grid(1)
        if n >= M:
            return
        at, row = U(n), U(M)
        p = load_params(params, U(N(n) % N(F) if vector else 0), U(F))
        s, z = load_state(state, at, row) if carried else start(p), ZERO
        if feedback and carried:
            z = state[at + U(S) * row]
        if feedback and keep:
            fed_back[at] = z
        if keep:
            membrane[at] = s[-1]
        if keeps_states:
            store_states(states, at, U(T + 1) * row, s[:-1])
        currents = cuda.local.array(ahead, np.float32)
        word, mask, to = NOTHING, FIRST, at
        here, end, current = at, at + U(T) * row, x[at]
        while here < end:
            there = here
            for q in range(ahead):
                if not static and there < end:
                    currents[q] = x[there]
                there += row
            for q in range(ahead):
                if here < end:
                    after, wins = here + row, True
                    if not static:
                        current = currents[q]
                    if inhibits:
                        wins = elect(advance(s, current, z, True, p, constants)[1] - p[0]) == cuda.threadIdx.x  # (S4)
                    s, u, fired, spike = advance(s, current, z, wins, p, constants)
                    if feedback:
                        z = spike
                    if keep:
                        membrane[after] = s[-1]
                    if keep and at_once:
                        before[here] = u
                    if keeps_states:
                        store_states(states, after, U(T + 1) * row, s[:-1])
                    if packs:
                        word |= mask if fired else NOTHING
                        mask <<= FIRST
                        if mask == NOTHING or after == end:  # a full word, or the last
                            spikes[to] = word
                            word, mask, to = NOTHING, FIRST, to + row
                    else:
                        spikes[here] = spike
                    here = after
        if carried:
            store_state(state, at, row, s)
        if feedback and carried:
            state[at + U(S) * row] = z

    return neuron_forward_kernel


@functools.cache
def make_backward(
    key, code, primitive, derivative, smooth, static, learns, has_states, has_x, one_x, has_dspikes, has_dmembrane, vector,
    carried, cuts, among,
):  # fmt: skip
    """-> the loop over (S7) to (S10), backward in time.

    ``static``: one dx for all steps; ``learns``: whose gradients are wanted, a flag for each of params, or none at all;
    ``one_x``: x has one row; ``cuts``: truncated; the others as in forward.
    """
    with gpu.scalars():
        retreat, elect = make_step_backward(key, smooth, primitive, derivative), make_elect(among)
        (S, feedback), P, inhibits, at_once = carried_rows(key), param_rows(key), among > 0, resets_at_once(key)
        load_params, load_carry, load_states = make_load(P), make_load(S), make_load(S - 1)
        store_carry, store_sums, add = make_store((True,) * S), make_store(learns), make_add(P)
    learned, nothing, no_sums = sum(learns), (ZERO,) * S, (ZERO,) * P
    ahead = 1 if inhibits else AHEAD
    adds_start = feedback and not carried and any(learns[2:3])
    names = code, smooth, static, learns, has_states, has_x, one_x, has_dspikes, has_dmembrane, vector, carried, cuts, among

    @gpu.kernel(*label(key), *names, threads=among or gpu.THREADS)
    def neuron_backward_kernel(
        T, M, F, params, constants, dspikes, dmembrane, membrane, before, states, x, fed_back, carry, dx, sums, truncate
    ):  # fmt: skip
        """As forward's, dspikes, dmembrane (T, M), carry (S, M) -> dx (T or 1, M), sums (M / F, learned, F); all flat."""
        n = cuda.grid(1)
        if n >= M:
            return
        at, row = U(n), U(M)
        sample, feature = (U(N(n) // N(F)), U(N(n) % N(F))) if vector else (at, U(0))
        p, down = load_params(params, feature, U(F)), no_sums
        g, dback, total = load_carry(carry, at, row) if carried else nothing, ZERO, ZERO
        if feedback and carried:
            dback = carry[at + U(S) * row]
        membranes = cuda.local.array(ahead, np.float32)
        compared = cuda.local.array(ahead, np.float32)
        given = cuda.local.array(ahead, np.float32)
        t, here = T, at + U(T) * row
        m = membrane[here]
        while here > at:
            there = here
            for q in range(ahead):
                if there > at:
                    there -= row
                    membranes[q] = membrane[there]
                    if at_once:
                        compared[q] = before[there]
                    if has_dspikes:
                        given[q] = dspikes[there]
            for q in range(ahead):
                if here > at:
                    t, here = t - ONCE, here - row
                    previous, u = membranes[q], compared[q] if at_once else m
                    dz, current, cut, wins = given[q] if has_dspikes else ZERO, ZERO, False, True
                    if has_x:
                        current = x[at if one_x else here]
                    if cuts:
                        cut = t + ONCE < T and N(t + ONCE) % N(truncate) == 0
                        if cut:
                            g = nothing
                    if has_dmembrane:
                        g = g[:-1] + (g[-1] + dmembrane[here],)
                    if inhibits:
                        wins = elect(u - p[0]) == cuda.threadIdx.x
                    state = (load_states(states, here, U(T + 1) * row) if has_states else nothing[1:]) + (previous,)
                    g, di, dp = retreat(g, dz, dback, cut, state, current, u, wins, p, constants)
                    if feedback:
                        dback = di
                    if static:
                        total += di
                    else:
                        dx[here] = di
                    if learned:
                        down = add(down, dp)
                    m = previous
        if static:
            dx[at] = total
        if adds_start:
            down = down[:2] + (down[2] + dback * fed_back[at],) + down[3:]  # (S7) before the first step
        if learned:
            store_sums(sums, sample * U(learned) * U(F) + feature, U(F), down)
        if carried:
            store_carry(carry, at, row, g)
        if feedback and carried:
            carry[at + U(S) * row] = dback

    return neuron_backward_kernel


@functools.cache
def make_spread(learns):
    """-> the kernel that puts the rows that are learned where they belong, and zeros in the others."""
    P = len(learns)

    @gpu.kernel(learns)
    def spread_dparams_kernel(F, rows, dparams):
        """rows (learned, F) -> dparams (P, F), both flat."""
        f = cuda.grid(1)
        if f >= F:
            return
        place = f
        for k in range(P):
            dparams[k * F + f] = rows[place] if learns[k] else ZERO
            if learns[k]:
                place += F

    return spread_dparams_kernel


@functools.cache
def make_backward_static(reset, code, derivative):
    """-> the loop of (8) of ``leaky``, forward in time."""
    with gpu.scalars():
        own_step, own_backward = (inline(function) for function in leaky_scalar.RESETS[reset]())
        derivative = inline(derivative)

    @gpu.kernel(reset, code, threads=gpu.THREADS)
    def leaky_backward_static_kernel(T, M, beta, threshold, constants, dspikes, x, dx):
        """dspikes (T, M), x (1, M) -> dx (1, M), all flat."""
        n = cuda.grid(1)
        if n >= M:
            return
        at, row, p = U(n), U(M), (beta,)
        state, current, slope, total = (ZERO,), x[at], ZERO, ZERO
        given = cuda.local.array(AHEAD, np.float32)
        here, end = at, at + U(T) * row
        while here < end:
            there = here
            for q in range(AHEAD):
                if there < end:
                    given[q] = dspikes[there]
                there += row
            for q in range(AHEAD):
                if here < end:
                    r = state[0] > threshold
                    slope = ONE + own_backward((slope,), state, current, r, threshold, p)[0][0]  # (8)
                    state = own_step(state, current, r, threshold, p)
                    total += given[q] * derivative(state[0] - threshold, constants) * slope
                here += row
        dx[at] = total

    return leaky_backward_static_kernel

"""The loops over time of all neurons on the CPU, forward and backward, made for a neuron's scalar step by a factory.

M neurons advance side by side. A slice of CHUNK of them goes through all time steps before the next slice starts, so that what
they carry from step to step stays in the first-level cache: as rows of ``room``, one array for all, whose rows LLVM can tell
apart. Inside, the loop over neurons compares, multiplies and adds whole vectors. In forward, multiplications and additions are
rounded one by one, in PyTorch's order: a fused multiply-add would move membranes across the threshold.

A neuron's state is a tuple of numbers, its membrane the last; its step, and its parameters behind those of ``model.COMMON``, are
in its folder. Equations (S1) to (S10) are those of ``step.py``.
"""

from __future__ import annotations

import functools

import numpy as np

from ...kernels.cpu.simd import Layout, empty, taken, zeros
from ...kernels.jit import UNKNOWN, inline, kernel
from ..events import WORD
from .leaky import scalar as leaky_scalar
from .model import COMMON, Key, Model, Trajectory, scalar
from .step import make_start, make_step, make_step_backward, resets_at_once

ZERO, ONE = np.float32(0), np.float32(1)
DOUBLE = np.dtype(np.float64)
PLANS = 1024  # of a model: shapes and options of which it remembers what follows from them
CHUNK = 512  # neurons; a float32 row of them takes 2 KB
U = np.uintp


def neuron_forward(model: Model, x, num_steps, params, state=None, smooth=False, words=False, keep=True, keep_states=False):
    """x (T or 1, M) -> spikes (T, M), or with ``words`` (T / 64, M) uint64, bit t of a neuron's word its spike at t; Trajectory.

    One row of x is a constant current. params (P, 1), or (P, F) for M / F samples of F features. ``state`` (S, M), by default
    ``model.initial_state``, is what is carried into the first step, and then, in place, out of the last. ``smooth`` runs the
    surrogate's primitive in place of the step: the smooth twin. ``keep_states``: the gradients of the neuron's own parameters
    will be wanted.
    """
    dtype, S = x.dtype, len(model.scalar.STATES)
    keep_states = keep_states and keep and S > 1
    loop, layout, clears = bound(
        model, _forward_plan, num_steps, x.shape[1], dtype, smooth, words, keep, keep_states, params.shape[1] > 1
    )  # fmt: skip
    spikes, membrane, before, states = taken(layout)
    if clears:
        spikes.fill(0)
    fed_back = nothing(dtype, 1)
    if model.feedback:
        fed_back = np.zeros(x.shape[1], dtype) if state is None else state[S].copy()
    state = nothing(dtype, 2) if state is None else state
    loop(x, num_steps, params, model.surrogate.numbers(dtype), state, membrane, before, states, spikes)
    return spikes, Trajectory(membrane, before, states if keep_states else None, fed_back) if keep else None


def _forward_plan(model, T, M, dtype, smooth, words, keep, keep_states, vector):
    """What depends on shapes and options alone -> loop, layout of what it writes, does it add to spikes that come as zeros?"""
    code = (model.surrogate.cache_key or UNKNOWN) if smooth else None
    loop = make_forward(model.key, code, model.surrogate.primitive, words, keep, keep_states, vector)
    layout = Layout(
        ((-(-T // WORD), M), np.uint64) if words else ((T, M), dtype),
        ((T + 1, M) if keep else (0, 0), dtype),
        ((T, M) if keep and resets_at_once(model.key) else (0, 0), dtype),
        ((len(model.scalar.STATES) - 1, T + 1, M) if keep_states else (0, 0, 0), dtype),
    )
    return loop, layout, words or not model.fires


def neuron_backward(
    model: Model, dspikes, dmembrane, trajectory, input_steps, params, x=None, learns=(), truncate=None, carry=None, smooth=False
):  # fmt: skip
    """dspikes, dmembrane (T, M) or None -> dx (input_steps, M), dparams (P, 1 or F) float64.

    ``learns``: which rows of dparams are wanted, P flags; none without it, and dparams is None. x is the forward pass's, for
    neurons whose own parameters' gradients read it. ``carry`` (S, M) is what comes back in time from the step behind the last,
    zeros by default, and then, in place, what goes to the step before the first. ``truncate`` = K: nothing is carried across the
    steps K, 2 K, ...
    """
    membrane, before, states, fed_back = trajectory
    dtype, none = membrane.dtype, nothing(membrane.dtype, 2)
    T, M = len(membrane) - 1, membrane.shape[1]
    static = input_steps < T
    dx = (zeros if static else empty)((input_steps, M), dtype)
    dparams = np.zeros(params.shape) if learns else nothing(DOUBLE, 2)
    learns, own = tuple(learns), any(learns[len(COMMON) :])
    reads = own and states is not None, own and x is not None and model.scalar.READS_INPUT
    given = dspikes is not None and model.fires, dmembrane is not None
    loop = bound(model, _backward_plan, smooth, static, learns, reads, given, params.shape[1] > 1)
    loop(
        none if dspikes is None else dspikes, none if dmembrane is None else dmembrane, membrane,
        none if before is None else before, states if reads[0] else nothing(dtype, 3), x if reads[1] else none,
        nothing(dtype, 1) if fed_back is None else fed_back, params, model.surrogate.numbers(dtype), truncate or T,
        none if carry is None else carry, dx, dparams,
    )  # fmt: skip
    return dx, dparams if learns else None


def _backward_plan(model, smooth, static, learns, reads, given, vector):
    surrogate = model.surrogate
    code, functions = surrogate.cache_key or UNKNOWN, (surrogate.primitive, surrogate.derivative)
    smooth = smooth and model.fires and (resets_at_once(model.key) or any(learns[1:3]))
    return make_backward(model.key, code, *functions, smooth, static, learns, *reads, *given, vector)


def bound(model: Model, plan, *options):
    """-> ``plan(model, *options)``, made once a model: to look a loop up by all that its code depends on takes longer."""
    known = model.__dict__.setdefault("_plans", {})
    found = known.get((plan, options))
    if found is None:
        if len(known) >= PLANS:  # calls of ever new shapes
            known.clear()
        found = known[plan, options] = plan(model, *options)
    return found


def leaky_backward_static(dspikes, x, beta, threshold, reset, surrogate):
    """dspikes (T, M), the constant current x (1, M) -> dx (1, M), by (8) of ``leaky``: nothing but x is needed from forward."""
    dx = empty(x.shape, x.dtype)
    constants = surrogate.numbers(x.dtype)
    loop = make_backward_static(reset, surrogate.cache_key or UNKNOWN, surrogate.derivative)
    loop(dspikes, x, *numbers(x.dtype, beta, threshold), constants, dx)
    return dx


@functools.cache
def nothing(dtype, axes: int) -> np.ndarray:
    """-> an array without a number, for a kernel that does not look at it."""
    return np.empty((0,) * axes, dtype)


def numbers(dtype, *values):
    """Numbers of the arrays' own type: a Python float would be float64 inside a kernel."""
    return tuple(map(dtype.type, values))


# Tuples of numbers one row of ``size`` apart. Numba takes its time for each function, however short: so up to four at a time.


@functools.cache
def make_load(count):
    """-> load(room, size, n): the tuple room[n], room[n + size], room[n + 2 size], ..., ``count`` numbers."""
    if count > 4:
        head, tail = make_load(4), make_load(count - 4)
        return inline(lambda room, size, n: head(room, size, n) + tail(room, size, n + 4 * size))
    return inline(
        (
            lambda room, size, n: (),
            lambda room, size, n: (room[U(n)],),
            lambda room, size, n: (room[U(n)], room[U(n) + U(size)]),
            lambda room, size, n: (room[U(n)], room[U(n) + U(size)], room[U(n) + U(2) * U(size)]),
            lambda room, size, n: (
                room[U(n)], room[U(n) + U(size)], room[U(n) + U(2) * U(size)], room[U(n) + U(3) * U(size)],
            ),
        )[count]
    )  # fmt: skip


@functools.cache
def make_store(count):
    """-> store(room, size, n, values): the inverse of ``make_load``, of at most four numbers."""

    def store(room, size, n, values):
        room[U(n)] = values[0]
        if count > 1:
            room[U(n) + U(size)] = values[1]
        if count > 2:
            room[U(n) + U(2) * U(size)] = values[2]
        if count > 3:
            room[U(n) + U(3) * U(size)] = values[3]

    return inline(store)


@functools.cache
def make_add(wanted):
    """-> add(room, size, n, values): as a store, but those values that are wanted are added to what is there."""
    if not any(wanted):
        return inline(lambda room, size, n, values: None)
    flags, rest = (*wanted, False, False, False)[:4], make_add(wanted[4:])
    first, second, third, fourth = flags

    def add(room, size, n, values):
        if first:
            room[U(n)] += values[0]
        if second:
            room[U(n) + U(size)] += values[1]
        if third:
            room[U(n) + U(2) * U(size)] += values[2]
        if fourth:
            room[U(n) + U(3) * U(size)] += values[3]
        rest(room, size, n + 4 * size, values[4:])

    return inline(add)


def clear(a, first, count):
    """a[first : first + count] = 0, as a loop: slices would take Numba seconds to compile."""
    for n in range(count):
        a[U(first) + U(n)] = 0


def copy(a, i, b, j, count):
    """a[i : i + count] = b[j : j + count]"""
    for n in range(count):
        a[U(i) + U(n)] = b[U(j) + U(n)]


def argmax(a, first, count):
    """-> the place of the largest of a[first : first + count], the first of equals."""
    place, highest = 0, a[first]
    for n in range(1, count):
        if a[first + n] > highest:
            place, highest = n, a[first + n]
    return place


def spread(params, first, row, size, count, room):
    """params (P, F) -> rows of room from ``row`` on: those of ``count`` neurons from number ``first`` on."""
    P, F = params.shape
    for k in range(P):
        feature = first % F
        for n in range(count):
            room[(row + k) * size + n] = params[k, feature]
            feature = feature + 1 if feature + 1 < F else 0


@functools.cache
def make_forward(key, smooth, primitive, packs, keep, keeps_states, vector):
    """-> the loop over (S1) to (S6).

    ``smooth`` names the surrogate whose primitive replaces H, or is None; ``packs``: spikes come out as bits of words;
    ``vector``: each neuron has parameters of its own.
    """
    advance, at_once = make_step(key, smooth is not None, primitive), resets_at_once(key)
    (S, feedback), P, inhibits, fires = carried_rows(key), param_rows(key), key.inhibition, key.fires
    start_of, starts = make_start(key), key.node
    FED, PARAMS, ABOVE = S, S + 1, S + 1 + P  # rows of room behind the state: z, params, u - theta
    load_state, store_state, load_params, fill = make_load(S), make_store(S), make_load(P), inline(spread)
    zero, move, largest = inline(clear), inline(copy), inline(argmax)

    @kernel(key, smooth, packs, keep, keeps_states, vector)
    def neuron_forward_kernel(x, T, params, constants, state, membrane, before, states, spikes):
        """x (T or 1, M), state (S, M) or empty -> membrane (T + 1, M), before and spikes (T, M), or words that come as zeros."""
        steps, M = x.shape
        size = params.shape[1] if inhibits else CHUNK
        room = np.empty((ABOVE + 1) * size, x.dtype)
        shared, start = load_params(params.reshape(-1), params.shape[1], 0), (S - 1) * size
        for lo in range(0, M, size):
            count = min(size, M - lo)
            hi = lo + count
            if vector:
                fill(params, lo, PARAMS, size, count, room)
            zero(room, 0, PARAMS * size)
            for n in range(count if starts else 0):
                store_state(room, size, n, start_of(load_params(room, size, PARAMS * size + n) if vector else shared))
            for k in range(S + feedback if len(state) else 0):
                move(room, k * size, state[k], lo, count)
            if keep:
                move(membrane[0], lo, room, start, count)
            for k in range(S - 1 if keeps_states else 0):
                move(states[k, 0], lo, room, k * size, count)
            for t in range(T):
                current, s, bit = x[min(t, steps - 1), lo:hi], spikes[t // WORD if packs else t, lo:hi], np.uint64(t % WORD)
                m = membrane[t + 1, lo:hi] if keep else current
                u = before[t, lo:hi] if keep and at_once else current
                winner = 0
                if inhibits:
                    for n in range(count):
                        p = load_params(room, size, PARAMS * size + n) if vector else shared
                        z = room[U(FED) * U(size) + U(n)]
                        compared = advance(load_state(room, size, n), current[n], z, True, p, constants)[1]
                        room[U(ABOVE) * U(size) + U(n)] = compared - p[0]
                    winner = largest(room, ABOVE * size, count)
                for n in range(count):
                    p = load_params(room, size, PARAMS * size + n) if vector else shared
                    z = room[U(FED) * U(size) + U(n)]
                    new, compared, fired, spike = advance(load_state(room, size, n), current[n], z, n == winner, p, constants)
                    store_state(room, size, n, new)
                    if feedback:
                        room[U(FED) * U(size) + U(n)] = spike
                    if keep:
                        m[n] = new[-1]
                    if keep and at_once:
                        u[n] = compared
                    if packs:
                        s[n] |= np.uint64(fired) << bit
                    elif fires:
                        s[n] = spike
                for k in range(S - 1 if keeps_states else 0):
                    move(states[k, t + 1], lo, room, k * size, count)
            for k in range(S + feedback if len(state) else 0):
                move(state[k], lo, room, k * size, count)

    return neuron_forward_kernel


@functools.cache
def make_backward(
    key, code, primitive, derivative, smooth, static, learns, has_states, has_x, has_dspikes, has_dmembrane, vector
):
    """-> the loop over (S7) to (S10), backward in time.

    ``static``: one dx for all steps; ``learns``: whose gradients are wanted, a flag for each of params, or none at all;
    ``smooth``: spikes are the primitive's.
    """
    retreat, at_once = make_step_backward(key, smooth, primitive, derivative), resets_at_once(key)
    (S, feedback), P, inhibits = carried_rows(key), param_rows(key), key.inhibition
    # Rows of room behind what is carried: di[t+1], params, sums of their gradients, the states but the membrane, u - theta.
    FED, PARAMS, SUMS, STATES, ABOVE = S, S + 1, S + 1 + P, S + 1 + 2 * P, 2 * S + 2 * P
    load_carry, store_carry, load_params, add_sums = make_load(S), make_store(S), make_load(P), make_add(learns)
    load_states, fill, zero, move, largest = make_load(S - 1), inline(spread), inline(clear), inline(copy), inline(argmax)

    @kernel(key, code, smooth, static, learns, has_states, has_x, has_dspikes, has_dmembrane, vector)
    def neuron_backward_kernel(
        dspikes, dmembrane, membrane, before, states, x, fed_back, params, constants, truncate, carry, dx, dparams
    ):  # fmt: skip
        """dspikes, dmembrane (T, M), carry (S, M), or empty -> dx (T, M), or added to (1, M); adds to dparams (P, 1 or F)."""
        T, M = membrane.shape[0] - 1, membrane.shape[1]
        F = params.shape[1]
        size = F if inhibits else CHUNK
        room = np.empty((ABOVE + 1) * size, membrane.dtype)
        shared = load_params(params.reshape(-1), F, 0)
        for lo in range(0, M, size):
            count = min(size, M - lo)
            hi = lo + count
            if vector:
                fill(params, lo, PARAMS, size, count, room)
            zero(room, 0, PARAMS * size)  # g[T] = 0
            zero(room, SUMS * size, (P + S - 1) * size)
            for k in range(S + feedback if len(carry) else 0):
                move(room, k * size, carry[k], lo, count)
            for t in range(T - 1, -1, -1):
                m, previous, dcurrent = membrane[t + 1, lo:hi], membrane[t, lo:hi], dx[0 if static else t, lo:hi]
                compared = before[t, lo:hi] if at_once else m
                ds = dspikes[t, lo:hi] if has_dspikes else m
                dm = dmembrane[t, lo:hi] if has_dmembrane else m
                current = x[min(t, len(x) - 1), lo:hi] if has_x else m
                cut = t + 1 < T and (t + 1) % truncate == 0
                if cut:
                    zero(room, 0, S * size)
                for k in range(S - 1 if has_states else 0):
                    move(room, (STATES + k) * size, states[k, t], lo, count)
                winner = 0
                if inhibits:
                    for n in range(count):
                        threshold = room[U(PARAMS) * U(size) + U(n)] if vector else shared[0]
                        room[U(ABOVE) * U(size) + U(n)] = compared[n] - threshold
                    winner = largest(room, ABOVE * size, count)
                for n in range(count):
                    p = load_params(room, size, PARAMS * size + n) if vector else shared
                    g, dback, u = load_carry(room, size, n), room[U(FED) * U(size) + U(n)], compared[n]
                    if has_dmembrane:
                        g = g[:-1] + (g[-1] + dm[n],)
                    state = load_states(room, size, STATES * size + n) + (previous[n],)
                    i = current[n] if has_x else ZERO
                    dz = ds[n] if has_dspikes else ZERO
                    dstate, di, dp = retreat(g, dz, dback, cut, state, i, u, n == winner, p, constants)
                    store_carry(room, size, n, dstate)
                    if feedback:
                        room[U(FED) * U(size) + U(n)] = di
                    if static:
                        dcurrent[n] += di
                    else:
                        dcurrent[n] = di
                    if learns:
                        add_sums(room, size, SUMS * size + n, dp)
            for n in range(count if feedback and learns and not len(carry) else 0):
                # (S7) before the first step, unless it is carried there.
                room[(SUMS + 2) * size + n] += room[FED * size + n] * fed_back[lo + n]
            for k in range(P if learns else 0):
                feature = lo % F
                for n in range(count):
                    dparams[k, feature] += room[(SUMS + k) * size + n]
                    feature = feature + 1 if feature + 1 < F else 0
            for k in range(S + feedback if len(carry) else 0):
                move(carry[k], lo, room, k * size, count)

    return neuron_backward_kernel


def carried_rows(key: Key) -> tuple[int, int]:
    """-> the number of states of the neuron's own, and 1 or 0 for the spikes that it feeds back."""
    return len(scalar(key.neuron).STATES), int(key.feedback)


def param_rows(key: Key) -> int:
    """-> the number of rows of ``params``."""
    return len(COMMON) + len(scalar(key.neuron).PARAMS)


@functools.cache
def make_backward_static(reset, surrogate, derivative):
    """-> the loop of (8) of ``leaky``, forward in time."""
    own_step, own_backward = (inline(function) for function in leaky_scalar.RESETS[reset]())
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
                    state = (membrane[n],)
                    r = membrane[n] > threshold
                    slope[n] = ONE + own_backward((slope[n],), state, current[n], r, threshold, (beta,))[0][0]  # (8)
                    membrane[n] = own_step(state, current[n], r, threshold, (beta,))[0]
                    total[n] += ds[n] * derivative(membrane[n] - threshold, constants) * slope[n]

    return leaky_backward_static_kernel

"""The losses on the device: what ``partial`` computes in float64 on the host, in float32 and without waiting.

A loss is a sum of terms: a statistic of a record (``ops.cross_entropy.statistics``), and the cross-entropy or the square error
of it. Each term is one launch, which writes or adds its gradient and leaves partial losses; one launch more adds these up. TERMS
has, for each loss, the terms that the class's ``partial`` stands for; letters as in ``spikeflow.losses``, N the normaliser.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..kernels.cuda import gpu, sums
from ..kernels.cuda.gpu import cuda
from ..ops.cross_entropy.cuda import cross_entropy_of, losses_of, rows_of_samples
from ..ops.cross_entropy.statistics import make_put, make_statistic
from .base import Loss, LossSum
from .membrane import ce_max_membrane_loss, ce_membrane_loss, mse_membrane_loss, tet_loss
from .rate import ce_count_loss, ce_rate_loss, l1_rate_sparsity, mse_count_loss, mse_rate_loss
from .temporal import ce_temporal_loss, from_start, mse_temporal_loss

__all__ = ["device_targets", "gradients"]

ZERO, TWO = np.float32(0), np.float32(2)
BLOCKS = 3 if gpu.SMALL else 256  # of a sum over a whole record


def device_targets(loss_fn: Loss, checked: np.ndarray):
    """Targets from ``loss_fn.check`` -> what ``gradients`` takes, on the device; None if the loss reads none.

    Labels are int32 (B,), membranes float32 (T, B, C), and spike times float32 (F, B, C).
    """
    kind = loss_fn.target_kind
    if kind == "labels":
        return gpu.to_device(checked.astype(np.int32))
    if kind == "membranes":
        return gpu.to_device(checked.swapaxes(0, 1).astype(np.float32))
    if kind == "spike times":
        return gpu.to_device((checked.swapaxes(0, 1) if checked.ndim == 3 else checked[None]).astype(np.float32))
    return None


def gradients(loss_fn: Loss, spikes, membrane, targets, normaliser):
    """As ``Loss.gradients`` for a whole batch, on the device.

    Parameters
    ----------
    loss_fn : Loss
    spikes, membrane : (T, B, ...)
        One that the loss does not read may be None.
    targets
        From ``device_targets``.
    normaliser : float or tuple
        From ``loss_fn.normaliser``.

    Returns
    -------
    loss : (1,)
    dspikes, dmembrane : (T, B, ...), None for one that the loss does not read

    NotImplemented in place of all three for a loss that is none of this package's.
    """
    parts = list(zip(loss_fn.parts, normaliser, strict=True)) if type(loss_fn) is LossSum else [((1, loss_fn), normaliser)]
    if any(type(loss) not in TERMS for (_, loss), _ in parts):
        return NotImplemented
    records, found = {"spikes": spikes, "membrane": membrane}, {"spikes": None, "membrane": None}
    terms = []
    for (factor, loss), N in parts:
        terms += [(loss.inputs, term) for term in TERMS[type(loss)](loss, records[loss.inputs].shape, targets, N, factor)]
    losses, lo = gpu.empty((sum(term.losses for _, term in terms), 1)), 0
    for name, term in terms:
        adds, some = found[name] is not None, losses[lo : lo + term.losses].reshape(term.losses)
        found[name] = found[name] if adds else gpu.empty(records[name].shape)
        term.launch(records[name], found[name], some, adds)
        lo += term.losses
    return sums.sum_partials(losses), found["spikes"], found["membrane"]


class Term(NamedTuple):
    """One launch."""

    losses: int  # how many partial losses it leaves
    launch: Callable[[Any, Any, Any, bool], None]  # of record, drecord, losses, and whether to add to drecord


# ---------------------------------------------------------------------------------------------- what a loss is a sum of


def _rate_term(loss, shape, labels, N, factor):
    return [_cross_entropy(loss, shape, labels, "steps", shape[0] * N, factor)]


def _count_term(loss, shape, labels, N, factor):
    return [_cross_entropy(loss, shape, labels, "counts", N, factor)]


def _membrane_term(loss, shape, labels, N, factor):
    return [_cross_entropy(loss, shape, labels, "steps", N, factor)]


def _maximum_term(loss, shape, labels, N, factor):
    return [_cross_entropy(loss, shape, labels, "maximum", N, factor)]


def _first_spike_term(loss, shape, labels, N, factor):
    return [_cross_entropy(loss, shape, labels, "negated" if loss.inverse == "negate" else "reciprocal", N, factor)]


def _tet_terms(loss, shape, labels, N, factor):
    T, pull = shape[0], np.array((loss.phi, loss.phi))
    terms = [_cross_entropy(loss, shape, labels, "steps", T * N, (1 - loss.lambda_) * factor)]
    if loss.lambda_:
        terms.append(_square_error(loss, shape, labels, pull, "steps", 1, T * N, loss.lambda_ * factor))
    return terms


def _square_count_term(loss, shape, labels, N, factor):
    T, _, C = shape
    rates, K = (loss.correct_rate, loss.incorrect_rate), loss.classes((C,))
    return [_square_error(loss, shape, labels, np.array([int(T * rate * (C / K)) for rate in rates]), "counts", 1, N * T, factor)]


def _square_rate_term(loss, shape, labels, N, factor):
    T, _, C = shape
    rates, most = np.array((loss.correct_rate, loss.incorrect_rate)), T * C // loss.classes((C,))
    return [_square_error(loss, shape, labels, rates, "counts", most, N, factor)]


def _square_membrane_term(loss, shape, targets, N, factor):
    wanted = None if loss.time_var_targets else np.array((loss.on_target, loss.off_target))
    return [_square_error(loss, shape, targets, wanted, "steps", 1, N * shape[0], factor)]


def _spike_times_term(loss, shape, targets, N, factor):
    T, B, C = shape
    if loss.target_is_time:
        wanted, F = None, targets.shape[0]
    else:
        wanted = np.stack([from_start(np.atleast_1d(times), T) for times in (loss.on_target, loss.off_target)])
        F = wanted.shape[1]
    labels, wanted, weight = _wanted(loss, targets, wanted, C)
    own = factor / (N * (F * C if loss.reduction == "mean" else 1))
    numbers = *(np.int32(n) for n in (T, B, C, F)), np.float32(loss.tolerance), np.float32(own)
    W, G, blocks = rows_of_samples(B, C)

    def launch(record, drecord, losses, adds):
        kernel = make_spike_times(not loss.target_is_time, adds)
        arrays = record.reshape(record.size), labels, wanted, weight, drecord.reshape(record.size), losses
        gpu.launch(kernel, blocks, (W, G), *arrays, *numbers, flops=record.size)

    return [Term(losses_of(B, C, 1), launch)]


def _sparsity_term(loss, shape, targets, N, factor):
    number = np.float32(loss.Lambda * factor)

    def launch(record, drecord, losses, adds):
        flat = record.reshape(record.size), drecord.reshape(record.size)
        gpu.launch(make_sparsity(adds), BLOCKS, (1, gpu.THREADS), *flat, losses, number, flops=2 * record.size)

    return [Term(BLOCKS, launch)]


TERMS = {
    ce_rate_loss: _rate_term,
    ce_count_loss: _count_term,
    ce_membrane_loss: _membrane_term,
    ce_max_membrane_loss: _maximum_term,
    ce_temporal_loss: _first_spike_term,
    tet_loss: _tet_terms,
    mse_count_loss: _square_count_term,
    mse_rate_loss: _square_rate_term,
    mse_membrane_loss: _square_membrane_term,
    mse_temporal_loss: _spike_times_term,
    l1_rate_sparsity: _sparsity_term,
}


def _weight(loss, classes: int):
    weight = np.ones(classes) if loss.weight is None else loss.weight
    return gpu.constant(weight.astype(np.float32))


def _cross_entropy(loss, shape, labels, statistic: str, divisor: float, factor: float) -> Term:
    """``ReducedLoss._cross_entropy`` of a statistic, times a factor."""
    T, B, C = shape
    K, e = loss.classes((C,)), loss.label_smoothing
    weight, numbers = _weight(loss, K), (factor * (1 - e) / divisor, factor * e / K / divisor)

    def launch(record, drecord, losses, adds):
        cross_entropy_of(record, labels, weight, statistic, *numbers, drecord, losses, adds)

    return Term(losses_of(B, K, T if statistic == "steps" else 1), launch)


def _square_error(loss, shape, targets, wanted, statistic: str, unit: float, divisor: float, factor: float) -> Term:
    """``ReducedLoss._square_error`` of a statistic divided by a unit, times a factor.

    ``wanted`` (2,) is the number for the label's class and that for the others, or None if the targets are the numbers.
    """
    T, B, C = shape
    K, S = loss.classes((C,)), T if statistic == "steps" else 1
    own = factor / (divisor * (K if loss.reduction == "mean" else 1))
    by_label = wanted is not None
    labels, wanted, weight = _wanted(loss, targets, wanted, K)
    W, G, blocks = rows_of_samples(B, K)
    numbers = *(np.int32(n) for n in (T, B, K, C // K)), np.float32(unit), np.float32(own)

    def launch(record, drecord, losses, adds):
        arrays = record.reshape(record.size), labels, wanted, weight, drecord.reshape(record.size), losses
        gpu.launch(make_square_error(statistic, by_label, adds), (blocks, S), (W, G), *arrays, *numbers, flops=6 * S * B * K)

    return Term(losses_of(B, K, S), launch)


def _wanted(loss, targets, wanted, classes: int) -> tuple:
    """-> labels, the numbers for the label's class and for the others, weights; or zeros, the targets themselves, a one."""
    if wanted is None:
        return gpu.constant(np.zeros(1, np.int32)), targets.reshape(targets.size), gpu.constant(np.ones(1, np.float32))
    return targets, gpu.constant(wanted.astype(np.float32).reshape(-1)), _weight(loss, classes)


# ---------------------------------------------------------------------------------------------- kernels


@functools.cache
def make_square_error(statistic: str, by_label: bool, adds: bool):
    SIZE, block_sum = gpu.THREADS, sums.make_block_sum()
    read, write = make_statistic(statistic, adds)

    @gpu.kernel(statistic, "label" if by_label else "array", *(["add"] if adds else []))
    def square_error_kernel(record, labels, wanted, weight, drecord, losses, T, B, K, group, unit, own):
        """record, drecord flat (T B K group), labels (B,), wanted (2,), weight (K,), or wanted (S B K) -> losses (blocks,)."""
        shared = cuda.shared.array(SIZE, np.float32)
        x, W, s = cuda.threadIdx.x, cuda.blockDim.x, cuda.blockIdx.y
        b = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
        stride, loss, k = B * K * group, ZERO, x
        if b < B:
            label = labels[b] if by_label else 0
            mine = own * weight[label]
            while k < K:
                at = (b * K + k) * group
                value, step = read(record, T, stride, group, s, at)
                if by_label:
                    target = wanted[0] if k == label else wanted[1]
                else:
                    target = wanted[(s * B + b) * K + k]
                difference = value / unit - target
                loss += mine * difference * difference
                write(drecord, T, stride, group, s, at, step, TWO * mine * difference / unit)
                k += W
        loss = block_sum(shared, loss, 1, W * cuda.blockDim.y)
        if x == 0 and cuda.threadIdx.y == 0:
            losses[s * cuda.gridDim.x + cuda.blockIdx.x] = loss

    return square_error_kernel


@functools.cache
def make_spike_times(by_label: bool, adds: bool):
    SIZE, block_sum, put = gpu.THREADS, sums.make_block_sum(), make_put(adds)

    @gpu.kernel("label" if by_label else "array", *(["add"] if adds else []), threads=(gpu.THREADS, 4))
    def spike_times_kernel(record, labels, wanted, weight, drecord, losses, T, B, C, F, tolerance, own):
        """record, drecord flat (T B C), labels (B,), wanted (2 F), weight (C,), or wanted (F B C) -> losses (blocks,)."""
        shared = cuda.shared.array(SIZE, np.float32)
        x, W = cuda.threadIdx.x, cuda.blockDim.x
        b = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
        loss, c, steps = ZERO, x, np.float32(T)
        if b < B:
            label = labels[b] if by_label else 0
            mine = own * weight[label]
            while c < C:
                found = 0
                for t in range(T + F):  # beyond the last step come the missing spikes, which count as spikes at the last
                    now, gradient = min(t, T - 1), ZERO
                    at = now * B * C + b * C + c
                    if found < F and (t >= T or record[at] != ZERO):
                        if by_label:
                            target = wanted[found] if c == label else wanted[F + found]
                        else:
                            target = wanted[(found * B + b) * C + c]
                        difference = np.float32(now) - target
                        if abs(difference) < tolerance:
                            difference = ZERO
                        difference /= steps
                        loss += mine * difference * difference
                        gradient = -TWO * mine * difference / steps
                        found += 1
                    if t < T:
                        put(drecord, at, gradient)
                    else:
                        drecord[at] += gradient
                c += W
        loss = block_sum(shared, loss, 1, W * cuda.blockDim.y)
        if x == 0 and cuda.threadIdx.y == 0:
            losses[cuda.blockIdx.x] = loss

    return spike_times_kernel


@functools.cache
def make_sparsity(adds: bool):
    SIZE, block_sum, put = gpu.THREADS, sums.make_block_sum(), make_put(adds)

    @gpu.kernel(*(["add"] if adds else []))
    def sparsity_kernel(record, drecord, losses, number):
        """record, drecord (N,) -> losses (blocks,)."""
        shared = cuda.shared.array(SIZE, np.float32)
        at, total = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, ZERO
        while at < record.size:
            total += record[at]
            put(drecord, at, number)
            at += cuda.gridDim.x * cuda.blockDim.y
        total = block_sum(shared, total, 1, cuda.blockDim.y)
        if cuda.threadIdx.y == 0:
            losses[cuda.blockIdx.x] = number * total

    return sparsity_kernel

"""Data and targets turned into spikes.

- ``rate``: a spike with the data's value as its probability, at every step
- ``latency``, ``latency_times``: one spike each, earlier for a larger value
- ``delta``: a spike where the data change
- ``targets_rate``, ``targets_latency``: the trains that the output neurons should fire
- ``to_one_hot``, ``from_one_hot``: labels to one-hot vectors, and back

Names, options and numbers are those of ``snntorch.spikegen`` (snnTorch 1.0.0), except where a docstring says otherwise.

Common to all: T steps, B samples; time is the first axis of what is returned, and is counted in steps from 0. Data are float32
or float64. Spikes are bool, which a network takes as they are and carries as bits; other results have the data's dtype. Random
numbers are a function of ``(seed, step)`` alone: give each batch of a run its own ``step``, and it can be drawn again at any
time, on any machine.

Arguments of the wrong kind raise a TypeError, those out of their range, NaN and infinity included, a ValueError; both name them.
"""

from __future__ import annotations

import math
import numbers

import numpy as np

from . import random
from .losses.base import check_choice, check_number

__all__ = [
    "delta",
    "from_one_hot",
    "latency",
    "latency_times",
    "rate",
    "targets_latency",
    "targets_rate",
    "to_one_hot",
]


def rate(
    data,
    num_steps: int | None = None,
    gain: float = 1,
    offset: float = 0,
    first_spike_time: int = 0,
    time_var_input: bool = False,
    seed: int = 0,
    step: int = 0,
) -> np.ndarray:
    """Rate code: at each step a spike with probability  p = clip(gain data + offset, 0, 1).

    Spikes at t depend on ``(seed, step, t)`` and p alone: a longer run begins with the spikes of a shorter one.

    Parameters
    ----------
    data : (B, ...), shown at every step; or (T, B, ...) with ``time_var_input``
        float32 or float64, in [0, 1].
    num_steps : int
        T. None, or snnTorch's False, for time-varying data.
    gain, offset : float
        snnTorch ignores both for time-varying data.
    first_spike_time : int
        Steps without spikes at the start: the first of the T, or put before time-varying data, which then lose none.
    time_var_input : bool
        Whether the first axis of the data is time.
    seed : int
    step : int
        The position in the seed's stream, such as the number of batches drawn before.

    Returns
    -------
    (T, B, ...), of time-varying data (first_spike_time + T, B, ...)
        bool.

    Raises
    ------
    TypeError
        Data that are neither float32 nor float64; ``first_spike_time``, ``num_steps``, ``seed`` or ``step`` is not an integer.
    ValueError
        An argument out of its range; ``num_steps`` missing, or given for time-varying data.
    """
    data = _checked_data(data)
    num_steps, first_spike_time = _checked_steps(num_steps, first_spike_time)
    if bool(time_var_input) == (num_steps is not None):
        raise ValueError(f"num_steps must be {'left out' if time_var_input else 'given'} with time_var_input={time_var_input}")
    if data.min() < 0 or data.max() > 1:
        raise ValueError(f"data must be in [0, 1], got values from {data.min():g} to {data.max():g}")
    gain = float(check_number("gain", gain, -math.inf))
    offset = float(check_number("offset", offset, -math.inf))
    probability = np.clip(gain * data + offset, 0, 1)
    if time_var_input:
        spikes = np.zeros((first_spike_time + len(data), *data.shape[1:]), bool)
        spikes[first_spike_time:] = _draw(probability, "encoding/rate", seed, step)
        return spikes
    spikes = _draw(np.broadcast_to(probability, (num_steps, *data.shape)), "encoding/rate", seed, step)
    spikes[:first_spike_time] = 0
    return spikes


def latency_times(
    data,
    num_steps: int | None = None,
    threshold: float = 0.01,
    tau: float = 1,
    first_spike_time: int = 0,
    normalize: bool = False,
    linear: bool = False,
    epsilon: float = 1e-7,
) -> np.ndarray:
    """The spike times of ``latency``, not rounded; snnTorch's ``latency_code``, without its mask ``data < threshold``.

    With x the data and t0 = ``first_spike_time``, by default the time at which the membrane of an RC circuit with the constant
    input x reaches the threshold:

        logarithmic  t = t0 + tau ln(x / (x - threshold)),  x no less than threshold + epsilon
        linear       t = t0 + tau (1 - x),                  x no less than threshold

    ``normalize`` scales t - t0: linear by tau = T - 1 - t0, so that x near 0 spikes near T - 1; logarithmic so that the largest
    of all times of the batch is T - 1, by which the times of a sample depend on the other samples.

    Parameters
    ----------
    data : (B, ...) in [0, 1]
        float32 or float64, and computed in it as snnTorch does: in float32 rounding moves the latest logarithmic times, by a
        tenth of tau at a threshold of 0.3.
    num_steps : int
        T, needed to normalize and not used otherwise.
    threshold : float in (0, 1)
    tau : float above 0
        In steps; not used by a normalized linear code.
    first_spike_time : int
        t0.
    normalize, linear : bool
    epsilon : float above 0
        Bounds the logarithmic times, at  t0 + tau ln((threshold + epsilon) / epsilon).

    Returns
    -------
    (B, ...)
        In steps, in the dtype of the data.

    Raises
    ------
    TypeError
        Data that are neither float32 nor float64; ``first_spike_time`` or ``num_steps`` is not an integer.
    ValueError
        An argument out of its range; an epsilon that rounding loses, where snnTorch's times are infinite; no ``num_steps`` to
        normalize with.
    """
    data = _checked_unit(data)
    num_steps, first_spike_time = _checked_steps(num_steps, first_spike_time)
    threshold = _checked_positive("threshold", threshold, 1)
    tau = _checked_positive("tau", tau)
    epsilon = _checked_positive("epsilon", epsilon)
    if normalize and num_steps is None:
        raise ValueError("num_steps must be given with normalize=True")
    span = num_steps - 1 - first_spike_time if normalize else None
    if linear:
        tau = span if normalize else tau
        return np.minimum(tau * (1 - data), tau * (1 - threshold)) + first_spike_time
    if data.dtype.type(threshold + epsilon) <= data.dtype.type(threshold):
        raise ValueError(f"epsilon must be large enough for threshold + epsilon > threshold in {data.dtype}, got {epsilon}")
    data = np.maximum(data, threshold + epsilon)
    times = tau * np.log(data / (data - threshold))
    if normalize:
        # A threshold that rounding loses next to a datum of 1 gives times of 0.
        times = times * span / (times.max() or 1)
    return times + first_spike_time


def latency(
    data,
    num_steps: int | None = None,
    threshold: float = 0.01,
    tau: float = 1,
    first_spike_time: int = 0,
    on_target: float = 1,
    off_target: float = 0,
    clip: bool = False,
    normalize: bool = False,
    linear: bool = False,
    interpolate: bool = False,
    bypass: bool = False,
    epsilon: float = 1e-7,
) -> np.ndarray:
    """Latency code: one spike each, at the time of ``latency_times`` rounded to the nearest step, a half to the even one.

    snnTorch gives every step ``off_target`` if that is above ``on_target``, 0 if both are negative, and 0 between spikes for an
    ``off_target`` below 0. Its interpolation ignores ``clip``, leads up to a spike at T, and loses the spike itself for many
    targets (0.1 and -1) to rounding.

    Parameters
    ----------
    data, threshold, tau, first_spike_time, normalize, linear, epsilon
        See ``latency_times``.
    num_steps : int
        T. None, or snnTorch's False, with ``bypass``: the last spike time + 1.
    on_target, off_target : float
        The values at spikes and elsewhere.
    clip : bool
        Whether data below the threshold give no spike. They are the latest otherwise.
    interpolate : bool
        Whether the values rise on a line from ``off_target`` at step 0 to ``on_target`` at the spike, and are ``off_target``
        after it, and throughout without a spike.
    bypass : bool
        Whether to drop the spikes after T - 1, rather than to raise.

    Returns
    -------
    (T, B, ...)
        bool; in the dtype of the data if the values are not 1 and 0.

    Raises
    ------
    TypeError
        As ``latency_times``.
    ValueError
        As ``latency_times``; without ``bypass`` also if a spike comes after T - 1, or there is no ``num_steps``.
    """
    times = latency_times(data, num_steps, threshold, tau, first_spike_time, normalize, linear, epsilon)
    num_steps, _ = _checked_steps(num_steps, first_spike_time)
    if num_steps is None and not bypass:
        raise ValueError("num_steps must be given, or bypass=True to take the last spike time + 1")
    times = np.rint(times)
    needed = int(times.max()) + 1
    num_steps = needed if num_steps is None else num_steps
    if needed > num_steps and not bypass:
        raise ValueError(
            f"num_steps must be at least {needed} for the last spike, got {num_steps}: take a smaller tau, normalize=True, "
            f"or bypass=True to drop late spikes"
        )
    spikes = times == np.arange(num_steps).reshape(-1, *[1] * times.ndim)
    if clip:
        spikes &= np.asarray(data) >= float(threshold)
    if (on_target, off_target, interpolate) == (1, 0, False):
        return spikes
    return _values(spikes, on_target, off_target, interpolate, times.dtype)


def delta(data, threshold: float = 0.1, padding: bool = False, off_spike: bool = False) -> np.ndarray:
    """Delta modulation:  1 where  x[t] - x[t - 1] >= threshold,  with ``off_spike`` also -1 where it is <= -threshold, else 0.

    Parameters
    ----------
    data : (T, ...)
        x, float32 or float64.
    threshold : float of at least 0
        In the units of the data. At 0 a step without change has an on and an off spike, whose sum is 0.
    padding : bool
        Whether x[-1] is x[0], which gives no spike at t = 0 for a threshold above 0. It is 0 otherwise.
    off_spike : bool

    Returns
    -------
    (T, ...)
        In the dtype of the data.

    Raises
    ------
    TypeError
        Data that are neither float32 nor float64.
    ValueError
        Data that are empty, a scalar or not finite; a threshold below 0.
    """
    data = _checked_data(data)
    threshold = float(check_number("threshold", threshold, 0))
    before = data[:1] if padding else np.zeros_like(data[:1])
    change = np.diff(data, axis=0, prepend=before)
    spikes = (change >= threshold).astype(data.dtype)
    if off_spike:
        spikes -= change <= -threshold
    return spikes


def targets_rate(
    targets,
    num_classes: int,
    num_steps: int | None = None,
    first_spike_time: int = 0,
    correct_rate: float = 1,
    incorrect_rate: float = 0,
    on_target: float = 1,
    off_target: float = 0,
    firing_pattern: str = "regular",
    interpolate: bool = False,
    dtype=np.float32,
    seed: int = 0,
    step: int = 0,
) -> np.ndarray:
    """Target trains: the label's neuron at ``correct_rate``, the others at ``incorrect_rate``, in spikes a step.

    With r the rate and t0 = ``first_spike_time``, a "regular" train spikes at  floor(t0 + i / r),  i = 0, 1, ...; of a "poisson"
    train each step from t0 on has a spike with probability r, drawn for each sample and class.

    At any but the default rates snnTorch raises unless K is T or 1, and then returns five axes unless it interpolates. It also
    raises for regular rates such as 0.27 in 100 steps, through rounding, and draws one train for the whole batch. At the default
    rates it does not interpolate, and leaves out the time axis whatever ``num_steps`` is if ``first_spike_time`` is 0. For
    ``on_target`` and ``off_target`` see ``latency``.

    Parameters
    ----------
    targets : (B,) integers in [0, num_classes)
        The labels.
    num_classes : int
        K.
    num_steps : int
        T. None, or snnTorch's False, at the default rates and ``first_spike_time`` for targets without a time axis.
    first_spike_time : int
        t0.
    correct_rate, incorrect_rate : float in [0, 1]
        The second no larger than the first.
    on_target, off_target : float
        The values at spikes and elsewhere.
    firing_pattern : "regular" or "poisson"
    interpolate : bool
        Whether the values rise on a line from ``off_target`` at the step after a spike (or step 0) to ``on_target`` at the next
        spike. After the last spike they are ``off_target``.
    dtype : float32 or float64
        Of the result.
    seed, step : int
        Of a "poisson" train, see ``rate``.

    Returns
    -------
    (T, B, K), or (B, K) without ``num_steps``

    Raises
    ------
    TypeError
        Targets that are not integers; ``first_spike_time``, ``num_classes``, ``num_steps``, ``seed`` or ``step`` is not one;
        another dtype.
    ValueError
        An argument out of its range; no ``num_steps`` where it is needed.
    """
    correct = _is_label(targets, num_classes)
    dtype = _checked_dtype("dtype", dtype)
    num_steps, first_spike_time = _checked_steps(num_steps, first_spike_time)
    correct_rate = check_number("correct_rate", correct_rate, 0, 1)
    incorrect_rate = check_number("incorrect_rate", incorrect_rate, 0, correct_rate)
    check_choice("firing_pattern", firing_pattern, ("regular", "poisson"))
    if num_steps is None:
        if first_spike_time or correct_rate != 1 or incorrect_rate != 0:
            raise ValueError("num_steps must be given unless first_spike_time is 0, correct_rate 1 and incorrect_rate 0")
        return _values(correct, on_target, off_target, False, dtype)
    rates = np.broadcast_to(np.where(correct, correct_rate, incorrect_rate), (num_steps - first_spike_time, *correct.shape))
    spikes = np.zeros((num_steps, *correct.shape), bool)
    spikes[first_spike_time:] = _regular(rates) if firing_pattern == "regular" else _draw(rates, "encoding/targets", seed, step)
    return _values(spikes, on_target, off_target, interpolate, dtype)


def targets_latency(
    targets,
    num_classes: int,
    num_steps: int | None = None,
    first_spike_time: int = 0,
    on_target: float = 1,
    off_target: float = 0,
    interpolate: bool = False,
    threshold: float = 0.01,
    tau: float = 1,
    clip: bool = False,
    normalize: bool = False,
    linear: bool = False,
    epsilon: float = 1e-7,
    bypass: bool = False,
    dtype=np.float32,
) -> np.ndarray:
    """Target spikes: ``latency`` of one-hot labels. The label's neuron fires first, the others last, with ``clip`` never.

    Parameters
    ----------
    targets : (B,) integers in [0, num_classes)
        The labels.
    num_classes : int
        K.
    dtype : float32 or float64
        Of the result.
    num_steps, first_spike_time, on_target, off_target, interpolate, threshold, tau, clip, normalize, linear, epsilon, bypass
        See ``latency``.

    Returns
    -------
    (T, B, K)

    Raises
    ------
    TypeError
        As ``latency`` and ``to_one_hot``.
    ValueError
        As ``latency`` and ``to_one_hot``.
    """
    values = latency(
        to_one_hot(targets, num_classes, dtype),
        num_steps,
        threshold=threshold,
        tau=tau,
        first_spike_time=first_spike_time,
        on_target=on_target,
        off_target=off_target,
        clip=clip,
        normalize=normalize,
        linear=linear,
        interpolate=interpolate,
        bypass=bypass,
        epsilon=epsilon,
    )
    return values.astype(dtype, copy=False)


def to_one_hot(targets, num_classes: int, dtype=np.float32) -> np.ndarray:
    """Labels as vectors: 1 at the label, 0 elsewhere.

    Parameters
    ----------
    targets : (B,) integers in [0, num_classes)
    num_classes : int
        K.
    dtype : float32 or float64

    Returns
    -------
    (B, K)

    Raises
    ------
    TypeError
        Targets, or a ``num_classes``, that are not integers; another dtype.
    ValueError
        Targets that are not (B,), or not in their range; a ``num_classes`` below 1.
    """
    return _is_label(targets, num_classes).astype(_checked_dtype("dtype", dtype))


def from_one_hot(one_hot) -> np.ndarray:
    """The labels that ``to_one_hot`` made vectors of. snnTorch returns the numbers of the rows, 0 to B - 1, instead.

    Parameters
    ----------
    one_hot : (..., K) of any kind of numbers, or bool

    Returns
    -------
    (...) integers

    Raises
    ------
    ValueError
        Not exactly one 1 in each vector, or anything but 0 elsewhere.
    """
    one_hot = np.asarray(one_hot)
    ones = one_hot == 1
    if one_hot.ndim == 0 or not (ones.sum(-1) == 1).all() or not (ones | (one_hot == 0)).all():
        raise ValueError("one_hot must have one 1 along its last axis, and 0 elsewhere")
    return ones.argmax(-1)


def _draw(probability, stream, seed, step) -> np.ndarray:
    """probability (T, ...) -> (T, ...) bool, True with that probability."""
    seed, step = _checked_integer("seed", seed, 0, 2**64), _checked_integer("step", step, 0, 2**64)
    spikes = np.empty(probability.shape, bool)
    # A stream for each step: the random words of all of them together would take many times the memory of the spikes.
    for t, chance in enumerate(probability):
        spikes[t] = random.uniform(chance.shape, 0, 1, seed, stream, epoch=t, step=step) < chance
    return spikes


def _regular(rates) -> np.ndarray:
    """rates (T, B, K), constant over time -> (T, B, K) bool, True at floor(i / rate) for i = 0, 1, ..."""
    # Step t has a spike if an i is in [t rate, (t + 1) rate), where a product that rounding puts above its integer must not
    # move it by a step.
    starts = np.arange(len(rates) + 1)[:, None, None] * (rates[0] * (1 - 1e-12))
    return np.diff(np.ceil(starts), axis=0) > 0


def _values(spikes, on_target, off_target, interpolate, dtype) -> np.ndarray:
    """spikes (T, ...) bool -> (T, ...): ``on_target`` at spikes, elsewhere ``off_target`` or the line up to the next spike."""
    on = float(check_number("on_target", on_target, -math.inf))
    off = float(check_number("off_target", off_target, -math.inf))
    if not interpolate:
        return np.where(spikes, dtype.type(on), dtype.type(off))
    T = len(spikes)
    t = np.arange(T).reshape(-1, *[1] * (spikes.ndim - 1))
    end = np.minimum.accumulate(np.where(spikes, t, T)[::-1])[::-1]
    start = np.zeros_like(end)
    np.maximum.accumulate(np.where(spikes, t + 1, 0)[:-1], out=start[1:])
    share = np.where(end < T, (t - start) / np.maximum(end - start, 1), 0)
    return np.where(spikes, on, off + (on - off) * share).astype(dtype)


def _is_label(targets, num_classes) -> np.ndarray:
    """-> (B, K) bool, True at the label."""
    num_classes = _checked_integer("num_classes", num_classes, 1)
    targets = np.asarray(targets)
    if not np.issubdtype(targets.dtype, np.integer):
        raise TypeError(f"targets must be integers, got {targets.dtype}")
    if targets.ndim != 1 or not targets.size:
        raise ValueError(f"targets must be (B,), one label for each of at least one sample, got shape {targets.shape}")
    if targets.min() < 0 or targets.max() >= num_classes:
        raise ValueError(f"targets must be in [0, {num_classes}), got values from {targets.min()} to {targets.max()}")
    return targets[:, None] == np.arange(num_classes)


def _checked_data(data) -> np.ndarray:
    """-> the data as an array, float32 or float64, finite, with at least one axis and entry."""
    data = np.asarray(data)
    _checked_dtype("data", data.dtype)
    if data.ndim == 0 or 0 in data.shape:
        raise ValueError(f"data must have at least one axis and one value, got shape {data.shape}")
    if not np.isfinite(data).all():
        raise ValueError("data must be finite, got NaN or infinity")
    return data


def _checked_unit(data) -> np.ndarray:
    """-> the data as ``_checked_data`` returns them, in [0, 1]."""
    data = _checked_data(data)
    if data.min() < 0 or data.max() > 1:
        raise ValueError(f"data must be in [0, 1], got values from {data.min()} to {data.max()}")
    return data


def _checked_dtype(name, dtype) -> np.dtype:
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} must be float32 or float64, got {dtype}")
    return dtype


def _checked_steps(num_steps, first_spike_time) -> tuple[int | None, int]:
    """-> num_steps, None if it is that or False, first_spike_time."""
    first_spike_time = _checked_integer("first_spike_time", first_spike_time, 0)
    if num_steps is None or num_steps is False:
        return None, first_spike_time
    num_steps = _checked_integer("num_steps", num_steps, 1)
    if first_spike_time >= num_steps:
        raise ValueError(f"first_spike_time must be below num_steps = {num_steps}, got {first_spike_time}")
    return num_steps, first_spike_time


def _checked_integer(name, value, least, below=None) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least or (below is not None and value >= below):
        raise ValueError(f"{name} must be at least {least}{f' and below {below}' if below else ''}, got {value}")
    return int(value)


def _checked_positive(name, value, below=math.inf) -> float:
    if not (isinstance(value, numbers.Real) and 0 < value < below):
        limit = "" if below == math.inf else f" and below {below}"
        raise ValueError(f"{name} must be a finite number above 0{limit}, got {value!r}")
    return float(value)

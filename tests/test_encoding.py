"""Spike codes. Numbers called snnTorch's are those of ``snntorch.spikegen`` 1.0.0; the others follow from definitions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from spikeflow import encoding, random

DTYPES = (np.float32, np.float64)
INK = np.array([[0, 0.02], [0.3, 1]], np.float32)


def trains(spikes) -> list[str]:
    """spikes (T, ...) of 0 and 1 -> each neuron's train, as a string."""
    assert set(np.unique(spikes)) <= {0, 1}
    return ["".join(str(int(spike)) for spike in train) for train in spikes.reshape(len(spikes), -1).T]


def lines(values) -> np.ndarray:
    """values (T, ...) -> (neurons, T)."""
    return values.reshape(len(values), -1).T


# ---------------------------------------------------------------------------------------------------------- rate


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 1, 28, 28)], ids=str)
def test_rate_shape_and_dtype(dtype, shape):
    data = random.uniform(shape, 0, 1, 0, "data").astype(dtype)
    for spikes in (encoding.rate(data, 6), encoding.rate(data, 6, gain=np.float64(0.5), offset=np.float64(0.1))):
        assert spikes.shape == (6, *shape) and spikes.dtype == bool and spikes.flags.c_contiguous
        assert set(np.unique(spikes)) == {0, 1}
    spikes = encoding.rate(data, time_var_input=True, first_spike_time=2)
    assert spikes.shape == (2 + shape[0], *shape[1:]) and spikes.dtype == bool


@pytest.mark.parametrize("time_var_input", [False, True])
@pytest.mark.parametrize("gain, offset", [(1, 0), (0.5, 0), (1, 0.25), (-0.5, 0.75), (2, -0.5)])
def test_rate_mean_is_the_clipped_probability(time_var_input, gain, offset):
    T, B = 50, 200
    values = np.array([0, 0.1, 0.5, 0.9, 1], np.float32)
    data = np.broadcast_to(values, (T, B, 5) if time_var_input else (B, 5))
    spikes = encoding.rate(data, None if time_var_input else T, gain, offset, time_var_input=time_var_input, seed=3)
    probability = np.clip(gain * values.astype(np.float64) + offset, 0, 1)
    sigma = np.sqrt(probability * (1 - probability) / (T * B))
    assert (abs(spikes.mean((0, 1)) - probability) <= 5 * sigma + 1e-7).all()
    assert (abs(spikes.mean((1, 2)) - probability.mean()) < 5 * 0.5 / math.sqrt(5 * B)).all()
    assert (abs(spikes.mean((0, 2)) - probability.mean()) < 5 * 0.5 / math.sqrt(5 * T)).all()


def test_rate_steps_and_neurons_are_independent():
    spikes = encoding.rate(np.full((100, 20), 0.5), 40, seed=1) - 0.5
    pairs = [(spikes[1:], spikes[:-1]), (spikes[:, 1:], spikes[:, :-1]), (spikes[:, :, 1:], spikes[:, :, :-1])]
    for left, right in pairs:
        assert abs((left * right).mean()) < 5 * 0.25 / math.sqrt(left.size)


def test_rate_of_0_and_1_is_sure():
    data = np.repeat([[0.0, 1.0]], 1000, 0)
    for gain, offset in ((1, 0), (3, -1)):
        np.testing.assert_array_equal(encoding.rate(data, 20, gain, offset), np.broadcast_to(data, (20, 1000, 2)))


@pytest.mark.parametrize("value", [-0.01, 1.01])
def test_rate_refuses_data_that_are_no_shares(value):
    with pytest.raises(ValueError, match=r"data must be in \[0, 1\], got values from"):
        encoding.rate(np.array([[0.5, value]]), 3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rate_pinned_spikes(dtype):
    data = np.array([0.25, 0.5, 0.75], dtype)
    assert trains(encoding.rate(data, 16)) == ["0100000000000111", "1100111000100101", "0101111100101010"]
    assert trains(encoding.rate(data, 16, seed=7, step=5)) == ["0010010000100000", "0101100110100000", "1110101101111011"]


def test_rate_is_a_function_of_seed_and_step():
    data = np.full((10, 10), 0.5)
    keys = [(0, 0), (1, 0), (0, 1), (2**64 - 1, 2**64 - 1)]
    draws = [encoding.rate(data, 8, seed=seed, step=step) for seed, step in keys]
    for (seed, step), draw in zip(keys, draws, strict=True):
        np.testing.assert_array_equal(encoding.rate(data, 8, seed=seed, step=step), draw)
        np.testing.assert_array_equal(encoding.rate(data, 3, seed=seed, step=step), draw[:3])
    assert len({draw.tobytes() for draw in draws}) == len(keys)
    assert len({frame.tobytes() for draw in draws for frame in draw}) == 8 * len(keys)


def test_rate_first_spike_time_silences_static_and_delays_varying_data():
    data = np.full((4, 3), 0.6, np.float32)
    free, late = encoding.rate(data, 9), encoding.rate(data, 9, first_spike_time=4)
    assert not late[:4].any()
    np.testing.assert_array_equal(late[4:], free[4:])
    film = np.repeat(data[None], 9, 0)
    free, late = (encoding.rate(film, time_var_input=True, first_spike_time=first) for first in (0, 4))
    assert late.shape == (13, 4, 3) and not late[:4].any()
    np.testing.assert_array_equal(late[4:], free)


@pytest.mark.parametrize("nothing", [None, False])
def test_rate_of_varying_data_takes_no_num_steps(nothing):
    film = np.array([[0.0, 1], [1, 0], [1, 1]])
    np.testing.assert_array_equal(encoding.rate(film, nothing, time_var_input=True), film)
    assert encoding.rate(film[:, 0], time_var_input=True).tolist() == [0, 1, 1]


def test_data_stay_as_they_are():
    data = np.array([[0.2, 0.9], [0, 1]])
    kept = data.copy()
    encoding.rate(data, 4, 2, -0.1, first_spike_time=1)
    encoding.latency(data, 5, normalize=True, clip=True, interpolate=True)
    encoding.delta(data, off_spike=True)
    encoding.from_one_hot(np.eye(2))
    np.testing.assert_array_equal(data, kept)


# ------------------------------------------------------------------------------------------------------- latency


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, [11.5071, 11.5071, 11.5071, 0.6931, 0.08, 0.0202, 0.0131, 0.0101]),
        ({"tau": 5}, [57.5356, 57.5356, 57.5356, 3.4657, 0.4002, 0.101, 0.0654, 0.0503]),
        ({"tau": 0.7, "threshold": 0.1}, [9.6932, 9.6932, 9.6932, 9.6932, 1.0264, 0.1562, 0.0974, 0.0738]),
        (
            {"tau": 3, "threshold": 0.3, "first_spike_time": 2, "num_steps": 60},
            [47.0783, 47.0783, 47.0783, 47.0783, 47.0783, 4.7489, 3.481, 3.07],
        ),
        ({"num_steps": 10, "normalize": True}, [9, 9, 9, 0.5421, 0.0626, 0.0158, 0.0102, 0.0079]),
        (
            {"num_steps": 10, "normalize": True, "first_spike_time": 3, "threshold": 0.1},
            [9, 9, 9, 9, 3.6354, 3.0967, 3.0603, 3.0457],
        ),
        ({"threshold": 0.1, "epsilon": 1e-3}, [4.6151, 4.6151, 4.6151, 4.6151, 1.4663, 0.2231, 0.1391, 0.1054]),
        ({"linear": True}, [0.99, 0.99, 0.99, 0.98, 0.87, 0.5, 0.23, 0]),
        ({"linear": True, "tau": 8, "threshold": 0.2}, [6.4, 6.4, 6.4, 6.4, 6.4, 4, 1.84, 0]),
        (
            {"linear": True, "tau": 8, "first_spike_time": 2, "num_steps": 20},
            [9.92, 9.92, 9.92, 9.84, 8.96, 6, 3.84, 2],
        ),
        ({"linear": True, "normalize": True, "num_steps": 12}, [10.89, 10.89, 10.89, 10.78, 9.57, 5.5, 2.53, 0]),
        (
            {"linear": True, "normalize": True, "num_steps": 12, "first_spike_time": 4, "threshold": 0.1, "tau": 99},
            [10.3, 10.3, 10.3, 10.3, 10.09, 7.5, 5.61, 4],
        ),
    ],
    ids=str,
)
def test_latency_times_are_snntorchs(options, expected):
    data = np.array([[0, 0.004, 0.01, 0.02], [0.13, 0.5, 0.77, 1]], np.float32)
    times = encoding.latency_times(data, **options)
    assert times.dtype == np.float32 and times.shape == data.shape
    np.testing.assert_allclose(times.ravel(), expected, rtol=0, atol=6e-5)


def test_latency_times_in_float64_are_the_formulas():
    x = np.array([0.02, 0.35, 0.5, 1])
    times = encoding.latency_times(x, threshold=np.float64(0.3), tau=7, first_spike_time=2)
    seen = [max(value, 0.3 + 1e-7) for value in x]
    assert times.dtype == np.float64
    np.testing.assert_allclose(times, [2 + 7 * math.log(value / (value - 0.3)) for value in seen], rtol=1e-8)
    times = encoding.latency_times(x, threshold=0.3, tau=7, first_spike_time=2, linear=True)
    np.testing.assert_allclose(times, [2 + 7 * (1 - max(value, 0.3)) for value in x], rtol=1e-14)


def test_a_threshold_lost_to_rounding_normalizes_to_0():
    times = encoding.latency_times(np.ones(2, np.float32), 5, threshold=1e-9, normalize=True, first_spike_time=1)
    assert times.tolist() == [1, 1]


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"num_steps": 13}, ["0000000000001", "0100000000000", "1000000000000", "1000000000000"]),
        ({"num_steps": 6, "normalize": True}, ["000001", "100000", "100000", "100000"]),
        ({"num_steps": 6, "normalize": True, "clip": True}, ["000000", "100000", "100000", "100000"]),
        ({"num_steps": 6, "normalize": True, "clip": True, "threshold": 0.1}, ["000000", "000000", "100000", "100000"]),
        ({"num_steps": 8, "tau": 5, "bypass": True}, ["00000000", "00010000", "10000000", "10000000"]),
        ({"tau": 0.5, "bypass": True}, ["0000001", "1000000", "1000000", "1000000"]),
        ({"num_steps": False, "tau": 0.5, "bypass": True}, ["0000001", "1000000", "1000000", "1000000"]),
        ({"num_steps": 8, "tau": 30, "bypass": True, "clip": True}, ["00000000", "00000000", "01000000", "10000000"]),
        ({"num_steps": 5, "linear": True, "tau": 4}, ["00001", "00001", "00010", "10000"]),
        (
            {"num_steps": 6, "linear": True, "normalize": True, "first_spike_time": 2},
            ["000001", "000001", "000010", "001000"],
        ),
        (
            {"num_steps": 9, "normalize": True, "first_spike_time": 3},
            ["000000001", "000100000", "000100000", "000100000"],
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_latency_spikes_are_snntorchs(options, expected, dtype):
    spikes = encoding.latency(INK.astype(dtype), **options)
    assert trains(spikes) == expected
    assert spikes.shape[1:] == INK.shape and spikes.dtype == bool


def test_latency_rounds_a_half_to_the_even_step():
    data = np.array([0.875, 0.625, 0.375, 0.125], np.float32)
    assert trains(encoding.latency(data, 5, linear=True, tau=4)) == ["10000", "00100", "00100", "00001"]


def test_clip_keeps_data_at_the_threshold():
    for dtype in DTYPES:
        data = np.array([0.7, np.nextafter(dtype(0.7), dtype(0)), 1], dtype)
        spikes = encoding.latency(data, 4, threshold=np.float64(0.7), normalize=True, clip=True)
        assert spikes.sum(0).tolist() == [1, 0, 1]


def test_latency_of_images_is_one_spike_each():
    images = random.uniform((3, 1, 28, 28), 0, 1, 0, "images").astype(np.float32)
    spikes = encoding.latency(images, 40, tau=3)
    assert spikes.shape == (40, 3, 1, 28, 28) and spikes.dtype == bool
    np.testing.assert_array_equal(spikes.sum(0), np.ones_like(images))
    np.testing.assert_array_equal(spikes.argmax(0), np.rint(encoding.latency_times(images, tau=3)))


@pytest.mark.parametrize(
    "options, expected",
    [
        (
            {"num_steps": 5, "normalize": True},
            [[0, 0.25, 0.5, 0.75, 1], [1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 0]],
        ),
        (
            {"num_steps": 5, "linear": True, "tau": 4, "on_target": 1.25, "off_target": 0.25},
            [
                [0.25, 0.5, 0.75, 1, 1.25],
                [0.25, 0.5, 0.75, 1, 1.25],
                [0.25, 7 / 12, 11 / 12, 1.25, 0.25],
                [1.25, 0.25, 0.25, 0.25, 0.25],
            ],
        ),
        (
            {"num_steps": 4, "linear": True, "tau": 8, "bypass": True},
            [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]],
        ),
    ],
    ids=str,
)
def test_interpolated_latency_is_snntorchs(options, expected):
    values = encoding.latency(INK, interpolate=True, **options)
    assert values.dtype == np.float32
    np.testing.assert_allclose(lines(values), expected, atol=1e-6)


def test_interpolation_leads_to_no_spike_that_is_clipped_or_too_late():
    clipped = encoding.latency(INK, 5, normalize=True, clip=True, interpolate=True)
    assert trains(clipped) == ["00000", "10000", "10000", "10000"]
    late = encoding.latency(np.array([0.5, 0]), 4, linear=True, tau=4.1, interpolate=True, bypass=True)
    np.testing.assert_allclose(lines(late), [[0, 0.5, 1, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize("interpolate", [False, True])
@pytest.mark.parametrize("on, off", [(1.25, 0.25), (0.1, -1), (1, -1), (0, 1), (-2, -1), (3, 3)])
def test_spikes_have_on_target_and_silence_off_target(on, off, interpolate):
    spikes = encoding.latency(INK, 6, linear=True, tau=5) == 1
    values = encoding.latency(INK, 6, linear=True, tau=5, on_target=on, off_target=off, interpolate=interpolate)
    assert (values[spikes] == np.float32(on)).all()
    others = values[spikes.cumsum(0) - spikes == 1] if interpolate else values[~spikes]
    assert (others == np.float32(off)).all()
    targets = encoding.targets_rate([0, 1], 2, 4, 1, on_target=on, off_target=off)
    assert targets[:, 0].tolist() == np.float32([[off, off], [on, off], [on, off], [on, off]]).tolist()


# --------------------------------------------------------------------------------------------------------- delta


@pytest.mark.parametrize(
    "threshold, padding, off_spike, expected",
    [
        (1, False, False, [1, 1, 0, 1, 0, 0, 0]),
        (1, False, True, [1, 1, -1, 1, 0, 0, -1]),
        (1, True, False, [0, 1, 0, 1, 0, 0, 0]),
        (1, True, True, [0, 1, -1, 1, 0, 0, -1]),
        (0.5, False, False, [1, 1, 0, 1, 1, 0, 0]),
        (0.5, False, True, [1, 1, -1, 1, 1, 0, -1]),
        (0.5, True, False, [0, 1, 0, 1, 1, 0, 0]),
        (0.5, True, True, [0, 1, -1, 1, 1, 0, -1]),
        (0, False, False, [1, 1, 0, 1, 1, 1, 0]),
        (0, False, True, [1, 1, -1, 1, 1, 0, -1]),
        (0, True, False, [1, 1, 0, 1, 1, 1, 0]),
        (0, True, True, [0, 1, -1, 1, 1, 0, -1]),
    ],
)
def test_delta_is_snntorchs(threshold, padding, off_spike, expected):
    data = np.array([1, 2, 0, 2, 2.9, 2.9, 1.9], np.float32)
    spikes = encoding.delta(data, threshold, padding, off_spike)
    assert spikes.dtype == np.float32 and spikes.tolist() == expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_delta_goes_along_the_first_axis(dtype):
    data = np.array([[0.5, -0.5], [0.4, -0.5], [0.6, 0]], dtype)
    for off_spike, expected in ((False, [[1, 0], [0, 0], [1, 1]]), (True, [[1, -1], [0, 0], [1, 1]])):
        spikes = encoding.delta(data, threshold=0.15, off_spike=off_spike)
        assert spikes.dtype == dtype and spikes.tolist() == expected
    film = random.uniform((6, 2, 1, 4, 4), 0, 1, 0, "film").astype(dtype)
    assert encoding.delta(film).shape == film.shape


def test_delta_compares_in_the_dtype_of_the_data():
    change = np.array([0, 0.7], np.float32)  # its 0.7 is less than the 0.7 of float64
    assert encoding.delta(change, np.float64(0.7)).tolist() == [0, 1]
    assert encoding.delta(-change, np.float64(0.7), off_spike=True).tolist() == [0, -1]


# ------------------------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize(
    "rate, first, expected",
    [
        (1, 0, "111111111111"),
        (1, 3, "000111111111"),
        (0.9, 0, "111111111011"),
        (0.9, 3, "000111111111"),
        (0.7, 0, "111011011011"),
        (0.7, 3, "000111011011"),
        (0.5, 0, "101010101010"),
        (0.5, 3, "000101010101"),
        (0.3, 0, "100100100010"),
        (0.3, 3, "000100100100"),
        (0.25, 3, "000100010001"),
        (0.1, 0, "100000000010"),
        (0.1, 3, "000100000000"),
        (0, 0, "000000000000"),
    ],
)
def test_regular_trains_are_snntorchs(rate, first, expected):
    correct = encoding.targets_rate([1, 0], 2, 12, first, correct_rate=rate)
    assert correct.shape == (12, 2, 2) and correct.dtype == np.float32
    assert trains(correct) == ["0" * 12, expected, expected, "0" * 12]
    incorrect = encoding.targets_rate([1, 0], 2, 12, first, correct_rate=1, incorrect_rate=rate)
    assert trains(incorrect)[0] == trains(incorrect)[3] == expected
    assert trains(incorrect)[1] == trains(incorrect)[2] == "0" * first + "1" * (12 - first)


@pytest.mark.parametrize("T", [10, 25, 100])
def test_regular_trains_of_every_percentage_are_exact(T):
    for percent in range(1, 101):
        times, i = [], 0
        while (time := Fraction(100 * i, percent)) < T:
            times.append(math.floor(time))
            i += 1
        spikes = encoding.targets_rate([0], 1, T, correct_rate=percent / 100)
        assert np.flatnonzero(spikes).tolist() == times, percent


def test_targets_rate_has_both_rates():
    targets = encoding.targets_rate(np.array([2, 0], np.uint8), 3, 8, correct_rate=0.5, incorrect_rate=0.25)
    correct, other = "10101010", "10001000"
    assert trains(targets) == [other, other, correct, correct, other, other]


def test_targets_rate_without_steps_is_snntorchs():
    assert encoding.targets_rate([2, 0], 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert encoding.targets_rate([1, 1, 0], 2, interpolate=True).tolist() == [[0, 1], [0, 1], [1, 0]]
    values = encoding.targets_rate([2, 0], 3, num_steps=False, on_target=1.2, off_target=0.5, dtype=np.float64)
    assert values.dtype == np.float64 and values.tolist() == [[0.5, 0.5, 1.2], [1.2, 0.5, 0.5]]


def test_targets_rate_with_steps_always_has_a_time_axis():
    np.testing.assert_array_equal(encoding.targets_rate([2, 0], 3, 4), np.repeat([[[0, 0, 1], [1, 0, 0]]], 4, 0))


def test_interpolated_targets_rate_is_snntorchs():
    values = encoding.targets_rate(
        [1], 8, 8, correct_rate=0.3, incorrect_rate=0.2, on_target=1.25, off_target=0.25, interpolate=True
    )
    assert lines(values)[0].tolist() == [1.25, 0.25, 0.5, 0.75, 1, 1.25, 0.25, 0.25]
    assert lines(values)[1].tolist() == [1.25, 0.25, 0.75, 1.25, 0.25, 0.75, 1.25, 0.25]
    values = encoding.targets_rate([1], 8, 8, 2, correct_rate=0.5, interpolate=True)
    assert lines(values)[:2].tolist() == [[0] * 8, [0, 0.5, 1, 0, 1, 0, 1, 0]]


def test_interpolation_leads_up_to_the_first_spike_at_the_default_rates_too():
    values = encoding.targets_rate([0], 1, 5, 2, interpolate=True)
    assert values.ravel().tolist() == [0, 0.5, 1, 1, 1]


def test_poisson_trains():
    labels = np.arange(400) % 4
    options = dict(correct_rate=0.7, incorrect_rate=0.1, firing_pattern="poisson", seed=2)
    targets = encoding.targets_rate(labels, 4, 60, 10, **options)
    correct = encoding.to_one_hot(labels, 4) == 1
    assert targets.shape == (60, 400, 4) and not targets[:10].any() and set(np.unique(targets)) == {0, 1}
    for drawn, rate in ((targets[10:, correct], 0.7), (targets[10:, ~correct], 0.1)):
        assert abs(drawn.mean() - rate) < 5 * math.sqrt(rate * (1 - rate) / drawn.size)
    assert len({train.tobytes() for train in targets[:, correct].T}) == 400
    np.testing.assert_array_equal(encoding.targets_rate(labels, 4, 60, 10, **options), targets)
    for other in ({"step": 1}, {"seed": 3}):
        assert (encoding.targets_rate(labels, 4, 60, 10, **options | other) != targets).any()
    sure = encoding.targets_rate([0, 1], 2, 5, firing_pattern="poisson")
    assert trains(sure) == ["11111", "00000", "00000", "11111"]


def test_targets_and_data_have_streams_of_their_own():
    data = encoding.rate(np.full((50, 4), 0.5), 10)
    targets = encoding.targets_rate(np.zeros(50, int), 4, 10, 0, 0.5, 0.5, firing_pattern="poisson")
    assert (data != targets).any()


@pytest.mark.parametrize(
    "options, first, last",
    [
        ({"num_steps": 5, "normalize": True}, "10000", "00001"),
        ({"num_steps": 13}, "1000000000000", "0000000000001"),
        ({"num_steps": 5, "normalize": True, "clip": True}, "10000", "00000"),
        ({"num_steps": 6, "linear": True, "tau": 4, "first_spike_time": 1}, "010000", "000001"),
        ({"num_steps": 5, "normalize": True, "threshold": 0.5}, "10000", "00001"),
        ({"tau": 2, "bypass": True, "threshold": 0.5}, "01" + 29 * "0", 30 * "0" + "1"),
    ],
    ids=str,
)
def test_targets_latency_is_snntorchs(options, first, last):
    targets = encoding.targets_latency([2, 0], 3, **options)
    assert targets.dtype == np.float32 and targets.shape == (len(first), 2, 3)
    assert trains(targets) == [last, last, first, first, last, last]


def test_interpolated_targets_latency_is_snntorchs():
    values = encoding.targets_latency([1], 2, 5, normalize=True, interpolate=True, on_target=2, off_target=1, dtype=np.float64)
    assert values.dtype == np.float64
    assert lines(values).tolist() == [[1, 1.25, 1.5, 1.75, 2], [2, 1, 1, 1, 1]]


def test_targets_latency_passes_epsilon():
    assert len(encoding.targets_latency([0], 2, epsilon=0.01, bypass=True)) == 1 + round(math.log(2))
    assert len(encoding.targets_latency([0], 2, epsilon=1e-4, bypass=True)) == 1 + round(math.log(101))


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_hot_and_back(dtype):
    labels = np.array([3, 0, 0, 2, 4], np.uint8)
    vectors = encoding.to_one_hot(labels, 5, dtype)
    assert vectors.dtype == dtype
    np.testing.assert_array_equal(vectors, np.eye(5)[labels])
    for array in (vectors, vectors.astype(np.int8), vectors == 1):
        back = encoding.from_one_hot(array)
        assert back.dtype == np.intp and back.tolist() == labels.tolist()
    assert encoding.from_one_hot(vectors[0]) == 3
    np.testing.assert_array_equal(encoding.from_one_hot(np.stack([vectors, vectors])), [labels, labels])
    assert encoding.to_one_hot([0, 1], 2).dtype == np.float32


# ---------------------------------------------------------------------------------------------------- bad inputs

GOOD = np.array([[0.2, 0.4], [0.6, 1]])
CODES = {
    "rate": lambda data=GOOD, num_steps=20, **options: encoding.rate(data, num_steps, **options),
    "latency_times": lambda data=GOOD, num_steps=20, **options: encoding.latency_times(data, num_steps, **options),
    "latency": lambda data=GOOD, num_steps=20, **options: encoding.latency(data, num_steps, **options),
    "delta": lambda data=GOOD, **options: encoding.delta(data, **options),
    "targets_rate": lambda targets=(0, 1), num_classes=2, num_steps=20, **options: encoding.targets_rate(
        targets, num_classes, num_steps, **options
    ),
    "targets_latency": lambda targets=(0, 1), num_classes=2, num_steps=20, **options: encoding.targets_latency(
        targets, num_classes, num_steps, **options
    ),
    "to_one_hot": lambda targets=(0, 1), num_classes=2, **options: encoding.to_one_hot(targets, num_classes, **options),
}
DATA = ("rate", "latency_times", "latency", "delta")
TIMED = ("rate", "latency_times", "latency", "targets_rate", "targets_latency")
LATENCIES = ("latency_times", "latency", "targets_latency")
VALUED = ("latency", "targets_rate", "targets_latency")
LABELLED = ("targets_rate", "targets_latency", "to_one_hot")


def bad(codes, error, message, *options):
    return [pytest.param(code, option, error, message, id=f"{code}-{option}") for code in codes for option in options]


@pytest.mark.parametrize("code", CODES)
def test_what_the_bad_inputs_are_made_of_is_good(code):
    assert np.isfinite(CODES[code]()).all()


@pytest.mark.parametrize(
    "code, options, error, message",
    bad(
        DATA,
        TypeError,
        "^data must be float32 or float64, got",
        {"data": np.arange(4)},
        {"data": np.ones(4, np.uint8)},
        {"data": np.ones(4, bool)},
        {"data": np.ones(4, np.float16)},
        {"data": np.ones(4, complex)},
        {"data": ["a"]},
        {"data": None},
    )
    + bad(DATA, ValueError, "^data must be finite", {"data": np.array([0.5, np.nan])}, {"data": np.array([0.5, np.inf])})
    + bad(DATA, ValueError, "^data must have at least one axis", {"data": np.ones((0, 3))}, {"data": np.float64(0.5)})
    + bad(
        ("latency_times", "latency"),
        ValueError,
        r"^data must be in \[0, 1\], got values from",
        {"data": np.array([0.5, 1.001])},
        {"data": np.array([-0.001, 0.5])},
    )
    + bad(("latency",), ValueError, r"^data must be in \[0, 1\]", {"data": np.array([2.0]), "bypass": True})
    + bad(TIMED, TypeError, "^num_steps must be an integer", {"num_steps": 5.0}, {"num_steps": True}, {"num_steps": "5"})
    + bad(TIMED, ValueError, "^num_steps must be at least 1, got", {"num_steps": 0}, {"num_steps": -1})
    + bad(TIMED, TypeError, "^first_spike_time must be an integer", {"first_spike_time": 1.0}, {"first_spike_time": None})
    + bad(TIMED, ValueError, "^first_spike_time must be at least 0, got -1", {"first_spike_time": -1})
    + bad(TIMED, ValueError, "^first_spike_time must be below num_steps = 20, got 20", {"first_spike_time": 20})
    + bad(("rate",), ValueError, "^num_steps must be given", {"num_steps": None}, {"num_steps": False})
    + bad(("rate",), ValueError, "^num_steps must be left out", {"time_var_input": True}, {"time_var_input": 1})
    + bad(("rate",), ValueError, "^gain must be a finite number", {"gain": np.nan}, {"gain": "1"}, {"gain": None})
    + bad(("rate",), ValueError, "^offset must be a finite number", {"offset": np.inf}, {"offset": [1]})
    + bad(
        ("rate", "targets_rate"),
        TypeError,
        "^(seed|step) must be an integer",
        {"seed": 0.5, "firing_pattern": "poisson"},
        {"step": 1.0, "firing_pattern": "poisson"},
        {"seed": None, "firing_pattern": "poisson"},
    )
    + bad(
        ("rate", "targets_rate"),
        ValueError,
        "^(seed|step) must be at least 0 and below 18446744073709551616, got",
        {"seed": -1, "firing_pattern": "poisson"},
        {"step": -1, "firing_pattern": "poisson"},
        {"step": 2**64, "firing_pattern": "poisson"},
    )
    + bad(
        LATENCIES,
        ValueError,
        "^threshold must be a finite number above 0 and below 1, got",
        {"threshold": 0},
        {"threshold": 1},
        {"threshold": -0.1},
        {"threshold": np.nan},
        {"threshold": None},
    )
    + bad(
        LATENCIES,
        ValueError,
        "^tau must be a finite number above 0, got",
        {"tau": 0},
        {"tau": -1.0},
        {"tau": np.inf},
        {"tau": np.nan},
        {"tau": "1"},
    )
    + bad(LATENCIES, ValueError, "^epsilon must be a finite number above 0, got", {"epsilon": 0}, {"epsilon": np.nan})
    + bad(LATENCIES, ValueError, "^epsilon must be large enough", {"epsilon": 1e-30})
    + bad(LATENCIES, ValueError, "^num_steps must be given with normalize", {"num_steps": None, "normalize": True})
    + bad(("latency", "targets_latency"), ValueError, "^num_steps must be given, or bypass", {"num_steps": None})
    + bad(("latency",), ValueError, "^num_steps must be at least 4 for the last spike, got 3", {"num_steps": 3, "tau": 50})
    + bad(("targets_latency",), ValueError, "^num_steps must be at least 13 for the last spike, got 12", {"num_steps": 12})
    + bad(VALUED, ValueError, "^on_target must be a finite number", {"on_target": np.nan}, {"on_target": None})
    + bad(VALUED, ValueError, "^off_target must be a finite number", {"off_target": -np.inf}, {"off_target": "0"})
    + bad(
        ("delta",),
        ValueError,
        "^threshold must be a finite number of at least 0, got",
        {"threshold": -0.1},
        {"threshold": np.nan},
        {"threshold": None},
    )
    + bad(
        LABELLED,
        TypeError,
        "^targets must be integers, got",
        {"targets": [0.0, 1.0]},
        {"targets": [True]},
        {"targets": ["0"]},
        {"targets": []},
    )
    + bad(
        LABELLED,
        ValueError,
        r"^targets must be \(B,\)",
        {"targets": 1},
        {"targets": [[0, 1]]},
        {"targets": np.zeros(0, int)},
    )
    + bad(
        LABELLED,
        ValueError,
        r"^targets must be in \[0, 2\), got values from",
        {"targets": [0, 2]},
        {"targets": [-1, 0]},
    )
    + bad(LABELLED, TypeError, "^num_classes must be an integer", {"num_classes": 2.0}, {"num_classes": True})
    + bad(LABELLED, ValueError, "^num_classes must be at least 1, got 0", {"num_classes": 0})
    + bad(LABELLED, TypeError, "^dtype must be float32 or float64, got", {"dtype": np.int64}, {"dtype": np.float16})
    + bad(
        ("targets_rate",),
        ValueError,
        r"^correct_rate must be a finite number in \[0, 1\]",
        {"correct_rate": 1.1},
        {"correct_rate": -0.1},
        {"correct_rate": np.nan},
    )
    + bad(
        ("targets_rate",),
        ValueError,
        r"^incorrect_rate must be a finite number in \[0, ",
        {"incorrect_rate": 1.1},
        {"incorrect_rate": -0.1},
        {"incorrect_rate": 0.6, "correct_rate": 0.5},
    )
    + bad(
        ("targets_rate",),
        ValueError,
        "^num_steps must be given unless",
        {"num_steps": None, "first_spike_time": 1},
        {"num_steps": None, "correct_rate": 0.5},
        {"num_steps": None, "incorrect_rate": 0.5},
    )
    + bad(("targets_rate",), ValueError, "^firing_pattern must be 'regular' or 'poisson'", {"firing_pattern": "uniform"}),
)
def test_bad_input(code, options, error, message):
    if code == "rate":
        options = {name: value for name, value in options.items() if name != "firing_pattern"}
    with pytest.raises(error, match=message):
        CODES[code](**options)


@pytest.mark.parametrize(
    "vectors",
    [[0, 0], [1, 1], [[1, 0], [0, 0]], [[1, 0], [0, 2]], [1, 0.5], [1, np.nan], 1, np.zeros((2, 0))],
    ids=str,
)
def test_bad_one_hot(vectors):
    with pytest.raises(ValueError, match="^one_hot must have one 1 along its last axis"):
        encoding.from_one_hot(vectors)

from __future__ import annotations

import numpy as np
import pytest

from spikeflow import metrics


def record(*trains) -> np.ndarray:
    """One sample of some neurons, each a string of 0s and 1s over time -> (T, 1, C)."""
    return np.array([[int(spike) for spike in train] for train in trains], np.float32).T[:, None]


@pytest.mark.parametrize(
    "trains, label",
    [
        (("0111", "1000"), 0),
        (("0001", "1100"), 1),
        (("0110", "1001"), 0),
        (("0000", "0000"), 0),
    ],
    ids=["more", "fewer", "equal", "silent"],
)
def test_the_most_spikes_decide(trains, label):
    spikes = record(*trains)
    assert [metrics.accuracy_rate(spikes, [name]) for name in (label, 1 - label)] == [1, 0]
    assert metrics.accuracy_rate(spikes.sum(0), [label]) == 1
    assert metrics.accuracy_rate(spikes.astype(np.uint8), [label]) == 1


@pytest.mark.parametrize(
    "trains, label",
    [
        (("0111", "1000"), 1),
        (("0010", "0001"), 0),
        (("0010", "0010"), 0),
        (("0000", "0010"), 1),
        (("0000", "0001"), 0),
        (("0001", "0000"), 0),
    ],
    ids=["first", "first-of-late", "equal", "silent", "silent-is-last", "last-is-silent"],
)
def test_the_first_spike_decides(trains, label):
    spikes = record(*trains)
    assert [metrics.accuracy_temporal(spikes, [name]) for name in (label, 1 - label)] == [1, 0]
    assert metrics.accuracy_temporal(spikes.astype(bool), [label]) == 1


def test_groups_of_neurons_add_up():
    spikes = record("1111", "0000", "0011", "1100", "0111", "0111")
    for data in (spikes, spikes.sum(0), spikes.astype(bool), spikes.astype(np.uint8)):
        assert [metrics.accuracy_rate(data, [name], True, 3) for name in range(3)] == [0, 0, 1]
        assert [metrics.accuracy_rate(data, [name], True, 2) for name in range(2)] == [0, 1]
    assert metrics.accuracy_rate(spikes, [0]) == 1


def test_the_share_of_right_samples():
    spikes = np.concatenate([record("11", "00"), record("10", "01"), record("00", "01"), record("01", "11")], axis=1)
    assert metrics.accuracy_rate(spikes, [0, 1, 1, 1]) == 0.75
    assert metrics.accuracy_temporal(spikes, [0, 1, 1, 0]) == 0.25


@pytest.mark.parametrize(
    "metric, spikes, options, error, message",
    [
        (metrics.accuracy_rate, np.ones(3), {}, ValueError, r"spikes must be \(T, B, C\), or counts \(B, C\), got shape \(3,\)"),
        (metrics.accuracy_temporal, np.ones((3, 2)), {}, ValueError, r"spikes must be \(T, B, C\), got shape \(3, 2\)"),
        (metrics.accuracy_temporal, np.ones((0, 1, 2)), {}, ValueError, r"spikes must be \(T, B, C\)"),
        (metrics.accuracy_rate, np.ones((3, 2, 4)), {}, ValueError, r"labels must have shape \(2,\)"),
        (metrics.accuracy_temporal, np.ones((3, 2, 4)), {}, ValueError, r"labels must have shape \(2,\)"),
        (metrics.accuracy_rate, np.ones((3, 1, 4)), {"population_code": True}, ValueError, "num_classes must be an integer"),
        (metrics.accuracy_rate, np.ones((3, 1, 4)), {"population_code": True, "num_classes": 3}, ValueError, "must divide"),
        (metrics.accuracy_rate, np.ones((3, 1, 4)), {"population_code": True, "num_classes": 2}, ValueError, r"in \[0, 2\)"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_bad_arguments(metric, spikes, options, error, message):
    with pytest.raises(error, match=message):
        metric(spikes, [3], **options)

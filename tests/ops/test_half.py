"""Two-byte numbers: NumPy's float16 is the oracle; no number crosses its threshold."""

from __future__ import annotations

import numpy as np
import pytest

from spikeflow.kernels.cpu.half import Halved, halved

RNG = np.random.default_rng(0)
NUMBERS = np.concatenate(
    [
        RNG.normal(size=5000), RNG.normal(0, 1e-3, 2000), RNG.normal(0, 1e4, 2000), np.array([0.0, -0.0, 1.0, -1.0, 2.0**-14]),
        1 + np.arange(-40, 41) * 2.0**-13, [65504, 65519, 65520, 1e9, -1e30],
    ]
).astype(np.float32)  # fmt: skip


def test_rounds_as_numpy_does():
    expected = np.clip(NUMBERS, -65504, 65504).astype(np.float16).astype(np.float32)
    expected[abs(NUMBERS) < 2.0**-14] = 0
    actual = halved(NUMBERS)
    assert isinstance(actual, Halved) and actual.nbytes == 2 * len(NUMBERS)
    np.testing.assert_array_equal(actual.array(), expected)


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("threshold", [1.0, 0.7, 1.0001, 1e-3])
def test_nothing_crosses_the_threshold(threshold, inclusive):
    limit = np.float32(threshold)
    x = np.concatenate(
        [NUMBERS, np.nextafter(limit, [0, 9], dtype=np.float32), [limit], limit * (1 + np.arange(-99, 99) * 2.0**-20)]
    )
    x = x.astype(np.float32)
    y = halved(x, threshold, inclusive).array()
    above = (lambda a: a >= limit) if inclusive else (lambda a: a > limit)
    np.testing.assert_array_equal(above(y), above(x))
    ordinary = (abs(x) > 2.0**-14) & (abs(x) < 65504)
    assert (abs(y - x)[ordinary] <= 2.0**-10 * abs(x)[ordinary]).all()


def test_other_precisions_stay_as_they_are():
    x = NUMBERS.astype(np.float64)
    assert halved(x) is x

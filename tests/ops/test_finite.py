from __future__ import annotations

import numpy as np
import pytest

from spikeflow.ops.finite import PART, all_finite

SIZE = 2 * PART + 5  # several parts, the last one short


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [3, SIZE], ids=["small", "large"])
def test_every_kind_of_non_finite_number_is_found_at_every_place(dtype, size):
    array = np.linspace(-3, 3, size).astype(dtype)
    array[1] = np.finfo(dtype).max
    array[2] = np.finfo(dtype).smallest_subnormal
    assert all_finite(array)
    for bad in (np.nan, -np.nan, np.inf, -np.inf):
        for place in (0, 1, size // 2, size - 1):
            kept, array[place] = array[place], bad
            assert not all_finite(array)
            array[place] = kept
    assert all_finite(array)


def test_any_shape_and_type():
    array = np.zeros((3, PART), np.float32)
    assert all_finite(array) is True and all_finite(array.T) is True
    array[2, 7] = np.inf
    assert all_finite(array) is False and all_finite(array.T) is False and all_finite(array[:, 8:]) is True
    assert all_finite(np.zeros(0, np.float32)) and all_finite(np.float32(1)) and not all_finite(np.float64("nan"))
    assert all_finite(np.arange(5)) and not all_finite(np.array([1, np.inf], np.float16))

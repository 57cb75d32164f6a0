"""What the tests of all operations share: central differences, random numbers, and relative errors."""

from __future__ import annotations

import numpy as np

H = 1e-5


def dyadic(rng: np.random.Generator, shape: tuple[int, ...], dtype=np.float32) -> np.ndarray:
    """Multiples of 1/256 in [-1/2, 1/2]: in float32 every sum of a few hundred products of two of them is exact."""
    return (rng.integers(-128, 129, shape) / 256).astype(dtype)


def error(actual, expected) -> float:
    """|actual - expected| / |expected| in the Euclidean norm; |actual| where nothing but zero is expected."""
    actual, expected = np.ravel(actual).astype(np.float64), np.ravel(expected).astype(np.float64)
    norm = np.linalg.norm(expected)
    return float(np.linalg.norm(actual - expected) / (norm or 1.0))


def gap(left, right) -> float:
    """|<left[0], left[1]> - <right[0], right[1]>| over the norms of the first pair: 0 if the adjoint identity holds."""
    norms = np.linalg.norm(left[0]) * np.linalg.norm(left[1])
    return abs(float(np.vdot(*left)) - float(np.vdot(*right))) / (norms or 1.0)


def sampled_error(function, array: np.ndarray, gradient: np.ndarray, rng: np.random.Generator, count: int = 6) -> float:
    """The error of ``gradient`` against differences of ``function()``, which reads ``array``, at ``count`` entries.

    Half of them are the largest, half are drawn.
    """
    flat = gradient.reshape(-1)
    largest, drawn = np.argsort(-abs(flat), kind="stable")[: count // 2], rng.permutation(flat.size)[: count - count // 2]
    chosen = np.union1d(largest, drawn)
    return error(flat[chosen], [difference(function, array, index) for index in chosen])


def difference(function, array: np.ndarray, index: int) -> float:
    """d function() / d array.flat[index], of fourth order:  f' = (8 [f(h) - f(-h)] - [f(2h) - f(-2h)]) / 12 h + O(h^4)."""
    base = array.flat[index]

    def at(steps):
        array.flat[index] = base + steps * H
        return function()

    value = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * H)
    array.flat[index] = base
    return value

"""Where branches meet: backward is the derivative of forward, backends agree to the bit, and mistakes are caught."""

from __future__ import annotations

import numpy as np
import pytest
from differences import dyadic, error, gap, sampled_error

from spikeflow import backends

REFERENCE = backends.load("reference")
SHAPES = [(1, 1, 1), (2, 3, 5), (3, 2, 4, 4, 7), (2, 1, 3, 3, 64)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
FUNCTIONS = {
    "add": (lambda ops: ops.merge_add, lambda ops, dy, a, b: (dy, dy)),
    "and": (lambda ops: ops.merge_and, lambda ops, dy, a, b: ops.merge_and_backward(dy, a, b)),
    "iand": (lambda ops: ops.merge_iand, lambda ops, dy, a, b: ops.merge_iand_backward(dy, a, b)),
}
functions = pytest.mark.parametrize("name", FUNCTIONS)


def draw(shape, *more, dtype=np.float64):
    rng = np.random.default_rng([len(shape), *shape, *more])
    return [rng.uniform(0, 1, shape).astype(dtype) for _ in range(3)]


def worst(ops, name, shape, backward=None) -> float:
    """-> the largest error of both gradients against differences."""
    forward, right = FUNCTIONS[name]
    a, b, dy = draw(shape)
    gradients = (backward or right)(ops, dy, a, b)
    rng = np.random.default_rng(0)
    return max(
        sampled_error(lambda: float((dy * forward(ops)(a, b)).sum()), x, np.ascontiguousarray(gradient), rng)
        for x, gradient in zip((a, b), gradients, strict=True)
    )


@functions
@shapes
def test_backward_is_the_derivative_of_forward(ops, name, shape):
    assert worst(ops, name, shape) <= 1e-8


WRONG = {
    ("add", "one gradient for both halves"): lambda ops, dy, a, b: (dy / 2, dy / 2),
    ("and", "factors swapped"): lambda ops, dy, a, b: ops.merge_and_backward(dy, a, b)[::-1],
    ("and", "own factor"): lambda ops, dy, a, b: (dy * a, dy * b),
    ("iand", "sign"): lambda ops, dy, a, b: (dy * b, dy * (1 - a)),
    ("iand", "body and shortcut swapped"): lambda ops, dy, a, b: ops.merge_iand_backward(dy, b, a)[::-1],
    ("iand", "no complement"): lambda ops, dy, a, b: (-dy * b, dy * a),
}


@pytest.mark.parametrize(("name", "mistake"), WRONG, ids=lambda x: x)
def test_a_mistake_is_caught(ops, name, mistake):
    assert worst(ops, name, (2, 3, 5), WRONG[name, mistake]) > 1e-2


@functions
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_spikes_meet_as_their_truth_tables_say(ops, name, dtype):
    a, b = np.array([0, 0, 1, 1], dtype), np.array([0, 1, 0, 1], dtype)
    table = {"add": [0, 1, 1, 2], "and": [0, 0, 0, 1], "iand": [0, 1, 0, 0]}[name]
    y = FUNCTIONS[name][0](ops)(a, b)
    assert y.dtype == dtype and np.array_equal(y, table)


@functions
@shapes
def test_backends_agree_to_the_bit(ops, name, shape):
    forward, backward = FUNCTIONS[name]
    rng = np.random.default_rng([1, *shape])
    a, b, dy = (dyadic(rng, shape) for _ in range(3))
    assert np.array_equal(forward(ops)(a, b), forward(REFERENCE)(a, b))
    for ours, theirs in zip(backward(ops, dy, a, b), backward(REFERENCE, dy, a, b), strict=True):
        assert ours.dtype == np.float32 and np.array_equal(ours, theirs)


@shapes
def test_channels_are_put_together_and_taken_apart(ops, shape):
    parts = [draw((*shape[:-1], C), C)[0] for C in (shape[-1], 1, 3)]
    y = ops.merge_concat(parts)
    assert np.array_equal(y, np.concatenate(parts, axis=-1))
    for part, again in zip(parts, ops.merge_split(y, [part.shape[-1] for part in parts]), strict=True):
        assert np.array_equal(part, again) and again.flags.c_contiguous
    dy = draw(y.shape, 1)[0]
    pairs = zip(parts, ops.merge_split(dy, [part.shape[-1] for part in parts]), strict=True)
    assert gap((y, dy), (np.concatenate([(p * d).ravel() for p, d in pairs]), np.ones(y.size))) <= 1e-12


def test_what_is_constant_is_shown_at_every_step(ops):
    x, dy = draw((1, 2, 3))[0], draw((5, 2, 3))[0]
    y = ops.merge_repeat(x, 5)
    assert y.shape == (5, 2, 3) and (y == x).all()
    assert error(ops.rows_sum(dy), dy.sum(0, keepdims=True)) <= 1e-15 and gap((y, dy), (x, ops.rows_sum(dy))) <= 1e-12

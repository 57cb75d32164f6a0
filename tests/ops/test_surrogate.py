from __future__ import annotations

import math

import numba
import numpy as np
import pytest

from spikeflow import surrogate
from spikeflow.ops.jit import inline
from spikeflow.ops.surrogate import from_config

MAKERS = {"atan": surrogate.atan, "fast_sigmoid": surrogate.fast_sigmoid, "sigmoid": surrogate.sigmoid}
DRAWN = [
    make(float(parameter))
    for make, low, high in ((surrogate.atan, 0.2, 8), (surrogate.fast_sigmoid, 1, 100), (surrogate.sigmoid, 1, 100))
    for parameter in np.geomspace(low, high, 7)
]
DEFAULTS = [make() for make in MAKERS.values()]
functions = pytest.mark.parametrize("function", ["primitive", "derivative"])
defaults = pytest.mark.parametrize("pair", DEFAULTS, ids=lambda pair: pair.name)


def label(pair) -> str:
    return f"{pair.name}-{next(iter(pair.params.values())):.3g}"


def constants(pair, dtype=np.float64):
    return tuple(dtype(value) for value in pair.constants)


@pytest.mark.parametrize("pair", DRAWN, ids=label)
def test_derivative_is_that_of_the_primitive(pair):
    h = 1e-4 / max(pair.params.values())
    x = np.random.default_rng(0).uniform(-3, 3, 400)
    x = np.concatenate([x, x / 30, x / 1000])
    x = x[abs(x) > 3 * h]  # at 0 the derivative of the fast sigmoid has a kink
    p = constants(pair)
    near, far = (pair.primitive(x + k * h, p) - pair.primitive(x - k * h, p) for k in (1, 2))
    scale = pair.derivative(np.zeros(1), p)
    np.testing.assert_allclose((8 * near - far) / (12 * h), pair.derivative(x, p), rtol=1e-8, atol=1e-8 * scale[0])


@pytest.mark.parametrize(
    "pair, function, x, value",
    [
        (surrogate.atan(2), "derivative", 0.0, 1.0),
        (surrogate.atan(2), "derivative", 0.3, 0.52958685),
        (surrogate.atan(2), "primitive", 0.0, 0.5),
        (surrogate.atan(2), "primitive", 1 / math.pi, 0.75),
        (surrogate.fast_sigmoid(25), "derivative", 0.0, 1.0),
        (surrogate.fast_sigmoid(25), "derivative", 0.04, 0.25),
        (surrogate.fast_sigmoid(25), "derivative", -0.12, 0.0625),
        (surrogate.fast_sigmoid(25), "primitive", -0.04, -0.02),
        (surrogate.sigmoid(25), "derivative", 0.0, 6.25),
        (surrogate.sigmoid(25), "derivative", math.log(3) / 25, 25 * 3 / 16),
        (surrogate.sigmoid(25), "primitive", 0.0, 0.5),
        (surrogate.sigmoid(25), "primitive", math.log(3) / 25, 0.75),
    ],
    ids=lambda value: label(value) if isinstance(value, surrogate.Surrogate) else None,
)
def test_known_values(pair, function, x, value):
    np.testing.assert_allclose(getattr(pair, function)(x, constants(pair)), value, rtol=1e-7)


@defaults
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_finite_far_from_the_threshold(pair, dtype):
    x = np.array([-1e4, -100, -3.56, 3.56, 100, 1e4], dtype)
    p = constants(pair, dtype)
    compiled = [inline(pair.primitive), inline(pair.derivative)]
    for function, kernel in zip((pair.primitive, pair.derivative), compiled, strict=True):
        values = function(x, p)
        assert values.dtype == dtype and np.isfinite(values).all()
        np.testing.assert_allclose([kernel(number, p) for number in x], values, rtol=1e-5, atol=1e-30)
    assert (np.diff(pair.primitive(x, p)) >= 0).all() and (pair.derivative(x, p) >= 0).all()


@defaults
@functions
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_compiled_type_is_that_of_the_argument(pair, function, dtype):
    compiled = inline(getattr(pair, function))
    compiled(dtype(0.1), constants(pair, dtype))
    assert [overload.return_type for overload in compiled.nopython_signatures] == [numba.from_dtype(np.dtype(dtype))]


@pytest.mark.parametrize("pair", DRAWN, ids=label)
def test_config_makes_the_surrogate_again(pair):
    assert from_config(pair.config()) == pair
    assert pair.config()["name"] == pair.name


def test_defaults():
    assert [pair.config() for pair in DEFAULTS] == [
        {"name": "atan", "alpha": 2.0},
        {"name": "fast_sigmoid", "slope": 25.0},
        {"name": "sigmoid", "slope": 25.0},
    ]


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
def test_bad_parameter(name, value):
    with pytest.raises(ValueError, match=f"{name}: (alpha|slope) must be a positive finite number"):
        MAKERS[name](value)


def test_unknown_name():
    with pytest.raises(ValueError, match="unknown surrogate 'step'; known are atan, fast_sigmoid, sigmoid"):
        from_config({"name": "step"})

from __future__ import annotations

import copy
import functools
import math
import platform
import re

import numba
import numpy as np
import pytest

from spikeflow import surrogate
from spikeflow.ops.jit import OPTIONS, inline
from spikeflow.ops.surrogate import RATIONAL, SURROGATES, from_config

DRAWN = [
    *(surrogate.atan(alpha) for alpha in np.geomspace(0.2, 8, 7)),
    *(surrogate.fast_sigmoid(slope) for slope in np.geomspace(1, 100, 7)),
    *(surrogate.sigmoid(slope) for slope in np.geomspace(1, 100, 7)),
    surrogate.straight_through_estimator(),
    *(surrogate.triangular(threshold) for threshold in np.geomspace(0.1, 4, 5)),
    surrogate.heaviside(),
    *(surrogate.spike_rate_escape(beta, slope) for beta, slope in ((0.2, 1), (1, 25), (7, 3))),
    *(surrogate.LSO(slope) for slope in (0.01, 0.1, 1.5)),
    *(surrogate.SFS(slope, B) for slope, B in ((1, 1), (25, 0.04), (4, 0), (4, -0.5))),
]
DEFAULTS = [make() for make in SURROGATES.values()]
KINKS = {
    "fast_sigmoid": lambda: [0],
    "triangular": lambda threshold: [-threshold, 0, threshold],
    "heaviside": lambda: [0],
    "spike_rate_escape": lambda beta: [1],
    "LSO": lambda: [0],
    "SFS": lambda B: [0, B],
}
functions = pytest.mark.parametrize("function", ["primitive", "derivative"])
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def label(pair) -> str:
    return "-".join([pair.name, *(f"{value:.3g}" for value in pair.params.values())])


defaults = pytest.mark.parametrize("pair", DEFAULTS, ids=label)
compiled = functools.cache(inline)


def constants(pair, dtype=np.float64):
    return tuple(dtype(value) for value in pair.constants)


def kinks(pair) -> list[float]:
    """Where the derivative has a step or a corner."""
    find = KINKS.get(pair.name, list)
    return find(*(pair.params[key] for key in ("threshold", "beta", "B") if key in pair.params))


@pytest.mark.parametrize("pair", DRAWN, ids=label)
def test_derivative_is_that_of_the_primitive(pair):
    h = 1e-4 / max([1, *pair.params.values()])
    x = np.random.default_rng(0).uniform(-3, 3, 400)
    x = np.concatenate([x, x / 30, x / 1000])
    for kink in kinks(pair):
        x = x[abs(x - kink) > 3 * h]
    near, far = (pair.of_array(pair.primitive, x + k * h) - pair.of_array(pair.primitive, x - k * h) for k in (1, 2))
    derivative = pair.of_array(pair.derivative, x)
    assert len(x) > 900
    np.testing.assert_allclose((8 * near - far) / (12 * h), derivative, rtol=1e-8, atol=1e-8 * derivative.max())


@defaults
def test_primitive_is_continuous(pair):
    for kink in [0, *kinks(pair)]:
        below, above = pair.primitive(np.array([kink - 1e-9, kink + 1e-9]), constants(pair))
        assert abs(above - below) <= 1e-7


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
        (surrogate.straight_through_estimator(), "derivative", -2.0, 1.0),
        (surrogate.straight_through_estimator(), "primitive", -2.0, -2.0),
        (surrogate.triangular(2), "derivative", 0.0, 1.0),
        (surrogate.triangular(2), "derivative", 0.5, 0.75),
        (surrogate.triangular(2), "derivative", -1.5, 0.25),
        (surrogate.triangular(2), "derivative", -2.0, 0.0),
        (surrogate.triangular(2), "derivative", 3.0, 0.0),
        (surrogate.triangular(2), "primitive", 1.0, 0.75),
        (surrogate.triangular(2), "primitive", 5.0, 1.0),
        (surrogate.triangular(2), "primitive", -5.0, -1.0),
        (surrogate.heaviside(), "derivative", -0.04, 0.0),
        (surrogate.heaviside(), "derivative", 0.0, 0.0),
        (surrogate.heaviside(), "derivative", 0.04, 1.0),
        (surrogate.heaviside(), "primitive", -2.0, 0.0),
        (surrogate.heaviside(), "primitive", 2.0, 2.0),
        (surrogate.spike_rate_escape(), "derivative", 1.0, 25.0),
        (surrogate.spike_rate_escape(), "derivative", 0.0, 9.19698603),  # snnTorch 1.0.0, as below
        (surrogate.spike_rate_escape(2, 3), "derivative", -1.0, 0.0549469167),
        (surrogate.spike_rate_escape(2, 3), "derivative", 1.5, 1.10363832),
        (surrogate.spike_rate_escape(2, 3), "primitive", 1.0, 1.5),
        (surrogate.spike_rate_escape(2, 3), "primitive", 1 - math.log(2) / 2, 0.75),
        (surrogate.spike_rate_escape(2, 3), "primitive", 1 + math.log(2) / 2, 2.25),
        (surrogate.spike_rate_escape(2, 3), "primitive", 100.0, 3.0),
        (surrogate.LSO(), "derivative", -2.0, 0.1),  # PyTorch's leaky_relu
        (surrogate.LSO(), "derivative", 0.0, 0.1),
        (surrogate.LSO(), "derivative", 0.04, 1.0),
        (surrogate.LSO(), "primitive", -2.0, -0.2),
        (surrogate.LSO(), "primitive", 2.25, 2.25),
        (surrogate.SFS(), "derivative", 1.0, 0.0),
        (surrogate.SFS(), "derivative", 1.5, 0.000674650025),
        (surrogate.SFS(4, 0.25), "derivative", 0.04, 0.0),
        (surrogate.SFS(4, 0.25), "derivative", 0.75, 0.0625),
        (surrogate.SFS(4, -0.5), "derivative", -1.0, 0.0),
        (surrogate.SFS(4, -0.5), "derivative", -0.3, 0.20661157),
        (surrogate.SFS(4, 0.25), "primitive", 0.25, 0.0),
        (surrogate.SFS(4, 0.25), "primitive", -7.0, 0.0),
        (surrogate.SFS(4, 0.25), "primitive", 0.75, 0.75 / 4 - 0.125),
        (surrogate.SFS(4, -0.5), "primitive", 0.0, 0.5 / 3),
    ],
    ids=lambda value: label(value) if isinstance(value, surrogate.Surrogate) else None,
)
def test_known_values(pair, function, x, value):
    np.testing.assert_allclose(getattr(pair, function)(x, constants(pair)), value, rtol=1e-7)


@defaults
@functions
@dtypes
def test_compiled_and_in_arrays(pair, function, dtype):
    """Equal, of the argument's type, and finite far from the threshold."""
    name, function = function, getattr(pair, function)
    x = np.array([-1e4, -100, -3.56, -1, -0.3, -0.01, 0, 0.01, 0.7, 1, 1.01, 3.56, 100, 1e4], dtype)
    p = constants(pair, dtype)
    values, scalars = function(x, p), [compiled(function)(number, p) for number in x]
    assert values.dtype == dtype and np.isfinite(values).all()
    atol = 1e-6 if name == "primitive" else 1e-30
    np.testing.assert_allclose(scalars, np.broadcast_to(values, x.shape), rtol=1e-5, atol=atol)
    results = {signature.args[0]: signature.return_type for signature in compiled(function).nopython_signatures}
    assert results[numba.from_dtype(np.dtype(dtype))] == numba.from_dtype(np.dtype(dtype))
    assert (np.diff(values) >= 0).all() if name == "primitive" else (values >= 0).all()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="packed instructions are looked for on x86 only")
@defaults
def test_loop_over_the_derivative_is_vectorised(pair):
    assert is_vectorised(pair.derivative, constants(pair, np.float32)) == (pair.name in RATIONAL)


def is_vectorised(derivative, p) -> bool:
    """Does a float32 loop work on vectors, calling nothing for one number at a time and computing nothing in float64?"""
    derivative = compiled(derivative)

    @numba.njit(**OPTIONS)
    def loop(ds, x, p, dx):
        for n in range(len(x)):
            dx[n] = ds[n] * derivative(x[n], p)

    array = numba.float32[::1]
    loop.compile((array, array, numba.typeof(p), array))
    (code,) = loop.inspect_llvm().values()
    packed, calls = re.search(r"= fmul <\d+ x float>", code), set(re.findall(r"call float @([\w.]+)", code))
    return packed is not None and calls <= {"llvm.fabs.f32"} and "fpext" not in code


@defaults
@functions
@dtypes
def test_of_array(pair, function, dtype):
    function, x = getattr(pair, function), np.linspace(-2, 2, 6, dtype=dtype).reshape(2, 3)
    before, y = x.copy(), pair.of_array(function, x)
    assert (y.dtype, y.shape) == (dtype, (2, 3)) and not np.shares_memory(x, y)
    np.testing.assert_array_equal(y, np.broadcast_to(function(x, constants(pair, dtype)), y.shape))
    y += 1
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("pair", DRAWN, ids=label)
def test_config_makes_the_surrogate_again(pair):
    assert from_config(pair.config()) == pair == copy.deepcopy(pair)
    assert pair.config()["name"] == pair.name


def test_defaults():
    assert [pair.config() for pair in DEFAULTS] == [
        {"name": "atan", "alpha": 2.0},
        {"name": "fast_sigmoid", "slope": 25.0},
        {"name": "sigmoid", "slope": 25.0},
        {"name": "straight_through_estimator"},
        {"name": "triangular", "threshold": 1.0},
        {"name": "heaviside"},
        {"name": "spike_rate_escape", "beta": 1.0, "slope": 25.0},
        {"name": "LSO", "slope": 0.1},
        {"name": "SFS", "slope": 25.0, "B": 1.0},
    ]


def test_built_ins_are_stored_and_public():
    assert len({pair.cache_key for pair in DEFAULTS} - {None}) == len(DEFAULTS)
    assert all(pair.has_primitive and getattr(surrogate, pair.name) is SURROGATES[pair.name] for pair in DEFAULTS)
    assert set(surrogate.__all__) == {*SURROGATES, "Surrogate", "custom"}


@pytest.mark.parametrize("name, key", [(pair.name, key) for pair in DEFAULTS for key in pair.params if key != "B"])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
def test_bad_parameter(name, key, value):
    with pytest.raises(ValueError, match=f"{name}: {key} must be a positive finite number"):
        SURROGATES[name](**{key: value})


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_bad_sparsity(value):
    with pytest.raises(ValueError, match="SFS: B must be a finite number"):
        surrogate.SFS(B=value)


def test_unknown_name():
    known = "atan, fast_sigmoid, sigmoid, straight_through_estimator, triangular, heaviside, spike_rate_escape, LSO, SFS"
    with pytest.raises(ValueError, match=f"unknown surrogate 'step'; known are {known}$"):
        from_config({"name": "step"})


ONE = np.float32(1)


def mine(x, p):
    return x / (ONE + p[0] * abs(x))


def dmine(x, p):
    d = ONE + p[0] * abs(x)
    return ONE / (d * d)


def branches(x, p):
    if x > p[0]:
        return p[1]
    return p[0]


@dtypes
def test_custom_equals_the_built_in_of_the_same_formula(dtype):
    pair, same = surrogate.custom(dmine, mine, constants=[7]), surrogate.fast_sigmoid(7)
    x = np.random.default_rng(0).uniform(-3, 3, (5, 7)).astype(dtype)
    p = constants(pair, dtype)
    assert pair.constants == (7.0,) and pair.has_primitive and pair.cache_key is None
    for function in ("primitive", "derivative"):
        expected = getattr(same, function)(x, p)
        values = pair.of_array(getattr(pair, function), x)
        assert values.dtype == dtype
        np.testing.assert_array_equal(values, expected)
        code = compiled(getattr(pair, function))
        np.testing.assert_array_equal([code(number, p) for number in x.flat], expected.ravel())


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="packed instructions are looked for on x86 only")
def test_loop_over_a_custom_derivative_is_vectorised():
    assert is_vectorised(surrogate.custom(dmine, constants=[7]).derivative, (np.float32(7),))


def test_custom_function_of_scalars_and_the_type_of_its_constants():
    pair, x = surrogate.custom(branches, constants=(0.1, 0.7)), np.array([[-1, 0.05], [0.2, 3]])
    np.testing.assert_array_equal(pair.of_array(pair.derivative, x), [[0.1, 0.1], [0.7, 0.7]])
    np.testing.assert_array_equal(pair.of_array(pair.derivative, x[:0]), x[:0])
    single = pair.of_array(pair.derivative, x.astype(np.float32))
    np.testing.assert_array_equal(single, np.array([[0.1, 0.1], [0.7, 0.7]], np.float32))
    seen = []

    def spy(x, p):
        seen.append((type(x), type(p[0])))
        return x

    pair = surrogate.Surrogate("spy", {}, (0.1,), spy, spy)
    for dtype in (np.float32, np.float64):
        pair.of_array(spy, np.ones(2, dtype))
    assert set(seen) == {(np.float32, np.float32), (np.float64, np.float64)}


def test_custom_takes_a_jitted_function():
    assert surrogate.custom(numba.njit(branches), constants=(0, 1)).derivative is branches


def test_custom_without_primitive():
    pair = surrogate.custom(dmine, constants=[25], name="mine")
    assert not pair.has_primitive
    message = "surrogate 'mine' has no primitive: the smooth twin and gradcheck need one"
    with pytest.raises(ValueError, match=message):
        pair.require_primitive()
    with pytest.raises(ValueError, match=message):
        pair.of_array(pair.primitive, np.zeros(3))
    assert np.isnan(compiled(pair.primitive)(np.float32(1), (np.float32(25),)))


def test_custom_has_no_config():
    ours = surrogate.fast_sigmoid()
    for pair in (surrogate.custom(dmine, constants=[1]), surrogate.custom(ours.derivative, constants=[1], name=ours.name)):
        with pytest.raises(ValueError, match=f"surrogate '{pair.name}' has functions of its own"):
            pair.config()


@pytest.mark.parametrize(
    "function, returned",
    [(lambda x, p: 0.5 * x, "float64"), (lambda x, p: 1 / (1 + abs(x)), "float64"), (lambda x, p: x > p[0], "bool")],
)
@pytest.mark.parametrize("role", ["derivative", "primitive"])
def test_custom_function_must_keep_float32(function, returned, role):
    pair = {"derivative": branches, role: function}
    with pytest.raises(ValueError, match=rf"mine: {role} must .* but returns {returned}.* from p \(`constants`\).*np.float32"):
        surrogate.custom(**pair, constants=(0, 1), name="mine")


def test_custom_function_must_compile():
    for function, reason in (
        (lambda x, p: unknown(x), "'?unknown'? is not defined"),  # noqa: F821
        (lambda x: x, "takes 1 argument"),
        (np.tanh, "not a function"),
    ):
        with pytest.raises(ValueError, match=f"custom: derivative must be .* that Numba compiles: .*{reason}"):
            surrogate.custom(function)


def test_custom_needs_functions_and_finite_numbers():
    for arguments in ((1.0,), (branches, "primitive")):
        with pytest.raises(TypeError, match="must be a function of x and p"):
            surrogate.custom(*arguments, constants=(0, 1))
    for value in (math.inf, math.nan):
        with pytest.raises(ValueError, match="custom: constants must be finite numbers"):
            surrogate.custom(branches, constants=(0, value))
    for value in ("a", None):
        with pytest.raises((TypeError, ValueError)):
            surrogate.custom(branches, constants=(0, value))

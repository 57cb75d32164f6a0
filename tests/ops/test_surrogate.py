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
from spikeflow.kernels.jit import OPTIONS, inline
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
    *(surrogate.LeakyKReLU(leak, k) for leak, k in ((0, 1), (0, 0.3), (0.2, 3), (2, 0.5))),
    *(
        make(alpha)
        for make in (
            surrogate.ATan,
            surrogate.Sigmoid,
            surrogate.SoftSign,
            surrogate.SuperSpike,
            surrogate.PiecewiseQuadratic,
            surrogate.PiecewiseExp,
            surrogate.Erf,
            surrogate.Rect,
        )
        for alpha in (0.3, 1, 2, 4, 9)
    ),
]
DEFAULTS = [make() for make in SURROGATES.values()]
KINKS = {  # where the derivative has a step or a corner, of the parameters
    "fast_sigmoid": lambda p: [0],
    "triangular": lambda p: [-p["threshold"], 0, p["threshold"]],
    "heaviside": lambda p: [0],
    "spike_rate_escape": lambda p: [1],
    "LSO": lambda p: [0],
    "SFS": lambda p: [0, p["B"]],
    "SoftSign": lambda p: [0],
    "SuperSpike": lambda p: [0],
    "PiecewiseQuadratic": lambda p: [-1 / p["alpha"], 0, 1 / p["alpha"]],
    "PiecewiseExp": lambda p: [0],
    "LeakyKReLU": lambda p: [0],
    "Rect": lambda p: [-0.5 / p["alpha"], 0.5 / p["alpha"]],
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
    return KINKS[pair.name](pair.params) if pair.name in KINKS else []


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
        below, above = pair.of_array(pair.primitive, np.array([kink - 1e-9, kink + 1e-9]))
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


AT = [-2, -0.5, 0, 0.25, 0.5, 1]
SPIKINGJELLY = [  # derivatives and primitives at these, as SpikingJelly 2.0 computes them in float64
    (surrogate.ATan(), [0.024704523, 0.288400439, 1, 0.618486458, 0.288400439, 0.0919996684],
     [0.0502392282, 0.180453537, 0.5, 0.711922367, 0.819546463, 0.901906738]),
    (surrogate.ATan(3), [0.0166988696, 0.228949873, 1.5, 0.628163558, 0.228949873, 0.0646367568],
     [0.0336478366, 0.127761154, 0.5, 0.775969583, 0.872238846, 0.933439925]),
    (surrogate.Sigmoid(), [0.00134095068, 0.419974342, 1, 0.786447733, 0.419974342, 0.0706508249],
     [0.00033535013, 0.119202922, 0.5, 0.731058579, 0.880797078, 0.98201379]),
    (surrogate.Sigmoid(1.5), [0.0677649896, 0.326842491, 0.375, 0.362119352, 0.326842491, 0.223719678],
     [0.0474258732, 0.320821301, 0.5, 0.5926666, 0.679178699, 0.817574476]),
    (surrogate.SoftSign(), [0.04, 0.25, 1, 0.444444444, 0.25, 0.111111111], [0.1, 0.25, 0.5, 0.666666667, 0.75, 0.833333333]),
    (surrogate.SoftSign(0.5), [0.0625, 0.16, 0.25, 0.197530864, 0.16, 0.111111111],
     [0.25, 0.4, 0.5, 0.555555556, 0.6, 0.666666667]),
    (surrogate.SuperSpike(), [0.111111111, 0.444444444, 1, 0.64, 0.444444444, 0.25], None),
    (surrogate.SuperSpike(10), [1.11111111, 4.44444444, 10, 6.4, 4.44444444, 2.5], None),
    (surrogate.PiecewiseQuadratic(), [0, 0.5, 1, 0.75, 0.5, 0], [0, 0.125, 0.5, 0.71875, 0.875, 1]),
    (surrogate.PiecewiseQuadratic(2), [0, 0, 2, 1, 0, 0], [0, 0, 0.5, 0.875, 1, 1]),
    (surrogate.PiecewiseExp(), [0.0676676416, 0.30326533, 0.5, 0.389400392, 0.30326533, 0.183939721],
     [0.0676676416, 0.30326533, 0.5, 0.610599608, 0.69673467, 0.816060279]),
    (surrogate.PiecewiseExp(3), [0.00371812826, 0.33469524, 1.5, 0.708549829, 0.33469524, 0.0746806026],
     [0.00123937609, 0.11156508, 0.5, 0.763816724, 0.88843492, 0.975106466]),
    (surrogate.Erf(), [1.26982347e-07, 0.415107497, 1.12837917, 0.878782579, 0.415107497, 0.0206669854],
     [7.70862895e-09, 0.0786496035, 0.5, 0.760249939, 0.921350396, 0.997661133]),
    (surrogate.Erf(0.5), [0.103776874, 0.265003532, 0.282094792, 0.277721317, 0.265003532, 0.219695645],
     [0.0786496035, 0.361836805, 0.5, 0.570158102, 0.638163195, 0.760249939]),
    (surrogate.LeakyKReLU(), [0, 0, 1, 1, 1, 1], [0, 0, 0, 0.25, 0.5, 1]),
    (surrogate.LeakyKReLU(0.25, 2), [0.25, 0.25, 2, 2, 2, 2], [-0.5, -0.125, 0, 0.5, 1, 2]),
    (surrogate.Rect(), [0, 0, 1, 1, 0, 0], [0, 0, 0.5, 0.75, 1, 1]),
    (surrogate.Rect(2), [0, 0, 2, 0, 0, 0], [0, 0, 0.5, 1, 1, 1]),
]  # fmt: skip


@pytest.mark.parametrize("pair, derivatives, primitives", SPIKINGJELLY, ids=[label(row[0]) for row in SPIKINGJELLY])
def test_values_of_spikingjelly(pair, derivatives, primitives):
    np.testing.assert_allclose(pair.of_array(pair.derivative, np.array(AT)), derivatives, rtol=1e-8)
    if primitives is not None:
        np.testing.assert_allclose(pair.of_array(pair.primitive, np.array(AT)), primitives, rtol=1e-8)


def test_names_that_share_a_formula():
    x = np.linspace(-3, 3, 101, dtype=np.float32)
    for pair, same, factor in (
        (surrogate.ATan(3), surrogate.atan(3), 1),
        (surrogate.Sigmoid(7), surrogate.sigmoid(7), 1),
        (surrogate.SoftSign(4), surrogate.fast_sigmoid(4), 2),
        (surrogate.SuperSpike(8), surrogate.fast_sigmoid(1), 8),
        (surrogate.PiecewiseQuadratic(2), surrogate.triangular(0.5), 2),
    ):
        np.testing.assert_array_equal(pair.of_array(pair.derivative, x), factor * same.of_array(same.derivative, x))
    assert surrogate.ATan().cache_key == surrogate.atan().cache_key and surrogate.ATan() != surrogate.atan()


def test_the_primitive_of_erf_keeps_small_values():
    pair = surrogate.Erf()
    for dtype, rtol in ((np.float32, 2e-6), (np.float64, 1e-13)):  # of erfc(z), z off by a bit is 2 z^2 bits
        values = pair.of_array(pair.primitive, np.array([-2, -1, 2], dtype))
        np.testing.assert_allclose(values, [7.708628950140045e-09, 0.002338867490523633, 0.9999999922913711], rtol=rtol)


@defaults
@functions
@dtypes
def test_compiled_and_in_arrays(pair, function, dtype):
    """Equal, of the argument's type, and finite far from the threshold."""
    name, function = function, getattr(pair, function)
    x = np.array([-1e4, -100, -3.56, -1, -0.3, -0.01, 0, 0.01, 0.7, 1, 1.01, 3.56, 100, 1e4], dtype)
    p = constants(pair, dtype)
    values, scalars = pair.of_array(function, x), [compiled(function)(number, p) for number in x]
    assert values.dtype == dtype and np.isfinite(values).all()
    atol = 1e-6 if name == "primitive" else 1e-30
    np.testing.assert_allclose(scalars, values, rtol=1e-5, atol=atol)
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
    p = constants(pair, dtype)
    takes_arrays = (pair.name, function) != ("Erf", pair.primitive)
    expected = function(x, p) if takes_arrays else np.reshape([function(number, p) for number in x.flat], x.shape)
    np.testing.assert_array_equal(y, np.broadcast_to(expected, y.shape))
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
        {"name": "ATan", "alpha": 2.0},
        {"name": "Sigmoid", "alpha": 4.0},
        {"name": "SoftSign", "alpha": 2.0},
        {"name": "SuperSpike", "alpha": 1.0},
        {"name": "PiecewiseQuadratic", "alpha": 1.0},
        {"name": "PiecewiseExp", "alpha": 1.0},
        {"name": "Erf", "alpha": 2.0},
        {"name": "LeakyKReLU", "leak": 0.0, "k": 1.0},
        {"name": "Rect", "alpha": 1.0},
    ]
    assert all(type(value) is float for pair in DEFAULTS for value in (*pair.params.values(), *pair.constants))


def test_built_ins_are_stored_and_public():
    code = {pair.cache_key: (pair.primitive, pair.derivative) for pair in DEFAULTS}
    assert None not in code and all(code[pair.cache_key] == (pair.primitive, pair.derivative) for pair in DEFAULTS)
    assert len(code) == len(DEFAULTS) - 4  # ATan, Sigmoid, SuperSpike and PiecewiseExp run functions of others
    assert all(pair.has_primitive and getattr(surrogate, pair.name) is SURROGATES[pair.name] for pair in DEFAULTS)
    assert set(surrogate.__all__) == {*SURROGATES, "Surrogate", "custom"}


@pytest.mark.parametrize("name, key", [(pair.name, key) for pair in DEFAULTS for key in pair.params if key not in ("B", "leak")])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
def test_bad_parameter(name, key, value):
    with pytest.raises(ValueError, match=f"{name}: {key} must be a positive finite number"):
        SURROGATES[name](**{key: value})


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_bad_sparsity(value):
    with pytest.raises(ValueError, match="SFS: B must be a finite number"):
        surrogate.SFS(B=value)


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_bad_leak(value):
    with pytest.raises(ValueError, match="LeakyKReLU: leak must be a finite number of at least 0, got "):
        surrogate.LeakyKReLU(leak=value)


def test_unknown_name():
    known = "atan, fast_sigmoid, sigmoid, straight_through_estimator, triangular, heaviside, spike_rate_escape, LSO, SFS, "
    known += "ATan, Sigmoid, SoftSign, SuperSpike, PiecewiseQuadratic, PiecewiseExp, Erf, LeakyKReLU, Rect"
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

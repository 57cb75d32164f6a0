from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from differences import dyadic, error, sampled_error
from leaky_ops import leaky_backward, leaky_forward

from spikeflow import backends, surrogate

MAKERS = (surrogate.atan, surrogate.fast_sigmoid, surrogate.sigmoid)
RESETS = ("subtract", "zero", "none")


class Config(NamedTuple):
    """Of the given gradients: dspikes always, dmembrane for every third surrogate, so that few kernels compile."""

    T: int
    M: int
    beta: float
    threshold: float
    reset: str
    surrogate: surrogate.Surrogate
    static: bool
    dmembrane: bool

    def __str__(self) -> str:
        name, parameter = self.surrogate.name, next(iter(self.surrogate.params.values()))
        flags = f"{'static' if self.static else 'sequence'}{'-dmembrane' if self.dmembrane else ''}"
        return f"{self.T}x{self.M}-beta{self.beta}-theta{self.threshold}-{self.reset}-{name}{parameter:g}-{flags}"

    @property
    def options(self):
        """The arguments of both operations that describe the neuron."""
        return self.beta, self.threshold, self.reset, self.surrogate


def draw(seed: int) -> Config:
    rng = np.random.default_rng([1, seed])
    make, reset = MAKERS[seed % 3], RESETS[seed // 3 % 3]
    parameter = rng.uniform(1, 4) if make is surrogate.atan else rng.uniform(2, 30)
    M = int(rng.choice([1, 3, 8, 13])) if seed % 20 else 515  # more than one chunk
    beta, threshold = float(rng.choice([0, 1, 0.5, 0.9, 0.37])), float(rng.choice([1, 0.5, 1.3, -0.25]))
    dmembrane = seed % 3 == seed // 3 % 3
    return Config(int(rng.integers(1, 9)), M, beta, threshold, reset, make(round(parameter, 1)), bool(rng.integers(2)), dmembrane)


CONFIGS = [draw(seed) for seed in range(108)]
COMPILED = [config for config in CONFIGS if config.reset == "subtract" and config.surrogate.name == "fast_sigmoid"]  # few kernels
both = pytest.mark.parametrize(
    "backend, config", [("reference", config) for config in CONFIGS] + [("cpu", config) for config in COMPILED], ids=str
)


def currents(config: Config, smooth: bool) -> np.ndarray:
    """Input currents; those of a smooth twin keep all its membranes away from the fast sigmoid's kink at the threshold."""
    for attempt in range(100):
        rng = np.random.default_rng([2, attempt, config.T, config.M])
        x = rng.normal(0.4, 0.7, (1 if config.static else config.T, config.M))
        _, membrane = leaky_forward(backends.load("reference"), x, config.T, *config.options, smooth=smooth)
        if not smooth or abs(membrane[1:] - config.threshold).min() > 2e-4:
            return x
    raise AssertionError("no such currents")


def cotangents(config: Config, dtype=np.float64):
    rng = np.random.default_rng([3, config.T, config.M])
    dspikes, dmembrane = rng.normal(size=(2, config.T, config.M)).astype(dtype)
    return dspikes, dmembrane if config.dmembrane else None


def backward(ops, config, given, membrane, steps):
    """-> dx, dbeta, dthreshold."""
    dbeta, dthreshold = np.zeros((2, 1), membrane.dtype)
    return leaky_backward(ops, *given, membrane, steps, *config.options, dbeta, dthreshold), dbeta, dthreshold


@both
def test_backward_is_the_derivative_of_the_smooth_twin(ops, config):
    x, given = currents(config, smooth=True), cotangents(config)
    spikes, membrane = leaky_forward(ops, x, config.T, *config.options, smooth=True)
    flags, parameters = membrane[:-1] > config.threshold, np.array([config.beta, config.threshold])

    def loss():
        outputs = leaky_forward(
            backends.load("reference"), x, config.T, *parameters, config.reset, config.surrogate, smooth=True, flags=flags
        )
        return sum(np.vdot(d, y) for d, y in zip(given, (outputs[0], outputs[1][1:]), strict=True) if d is not None)

    dx, dbeta, dthreshold = backward(ops, config, given, membrane, len(x))
    rng = np.random.default_rng(4)
    assert sampled_error(loss, x, dx, rng) <= 1e-6
    assert sampled_error(loss, parameters, np.concatenate([dbeta, dthreshold]), rng) <= 1e-6


def derivative(pair, x: float) -> float:
    """The surrogates' derivatives, written once more."""
    if pair.name == "atan":
        return pair.params["alpha"] / 2 / (1 + (math.pi / 2 * pair.params["alpha"] * x) ** 2)
    slope = pair.params["slope"]
    if pair.name == "fast_sigmoid":
        return 1 / (1 + slope * abs(x)) ** 2
    return slope / (4 * math.cosh(slope * x / 2) ** 2)


def unrolled(config: Config, given, x):
    """-> dx, dbeta, dthreshold by explicit sums over all paths: from the membrane at step u to whatever reads it at t >= u.

    A path's weight is the product of beta k over the steps it crosses. Scalars only, one neuron after the other.
    """
    T, M = given[0].shape
    beta, threshold, reset, pair = config.options
    dx, dbeta, dthreshold = np.zeros(x.shape), 0.0, 0.0
    for n in range(M):
        m = [0.0]  # m[t] at index t + 1
        for t in range(T):
            fired = m[t] > threshold
            kept = 0.0 if fired and reset == "zero" else m[t]
            m.append(beta * kept + float(x[min(t, len(x) - 1), n]) - (threshold if fired and reset == "subtract" else 0.0))
        factor = [0.0 if reset == "zero" and m[t] > threshold else 1.0 for t in range(T)]
        for t in range(T):
            through_spike = float(given[0][t, n]) * derivative(pair, m[t + 1] - threshold)
            read = through_spike + (0.0 if given[1] is None else float(given[1][t, n]))
            dthreshold -= through_spike
            for u in range(t + 1):
                weight = math.prod([beta * factor[step] for step in range(u + 1, t + 1)])
                dx[min(u, len(x) - 1), n] += read * weight
                dbeta += read * weight * factor[u] * m[u]
                if reset == "subtract" and m[u] > threshold:
                    dthreshold -= read * weight
    return dx, dbeta, dthreshold


@both
def test_backward_of_hard_spikes_equals_the_sum_over_paths(ops, config):
    config = config._replace(M=min(config.M, 13))
    x, given = currents(config, smooth=False), cotangents(config)
    _, membrane = leaky_forward(ops, x, config.T, *config.options)
    for actual, expected in zip(backward(ops, config, given, membrane, len(x)), unrolled(config, given, x), strict=True):
        assert error(actual, expected) <= 1e-12


@pytest.mark.parametrize("config", COMPILED, ids=str)
def test_cpu_equals_reference(config):
    x, given = currents(config, smooth=False), cotangents(config)
    reference, cpu = backends.load("reference"), backends.load("cpu")
    for smooth in (False, True):
        outputs = [leaky_forward(o, x, config.T, *config.options, smooth=smooth) for o in (cpu, reference)]
        for actual, expected in zip(*outputs, strict=True):
            assert error(actual, expected) <= 1e-12
    membrane = leaky_forward(reference, x, config.T, *config.options)[1]
    results = [backward(o, config, given, membrane, len(x)) for o in (cpu, reference)]
    for actual, expected in zip(*results, strict=True):
        assert error(actual, expected) <= 1e-12


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
@pytest.mark.parametrize("beta, threshold", [(0.5, 1.0), (0.75, 0.25), (0.9, 0.3), (1.0, -0.125), (0.0, 0.0)])
def test_float32_forward_is_bit_equal(reset, static, beta, threshold):
    x = 4 * dyadic(np.random.default_rng(5), (1 if static else 25, 515))
    options = beta, threshold, reset, surrogate.atan()
    reference, cpu = (leaky_forward(backends.load(name), x, 25, *options) for name in ("reference", "cpu"))
    for actual, expected in zip(cpu, reference, strict=True):
        np.testing.assert_array_equal(actual, expected, strict=True)
    assert 0 < reference[0].mean() < 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "reset, spikes, membrane",
    [
        ("subtract", [0, 1, 0, 0, 1], [0.8, 1.2, 0.4, 1.0, 1.3]),
        ("zero", [0, 1, 0, 1, 0], [0.8, 1.2, 0.8, 1.2, 0.8]),
        ("none", [0, 1, 1, 1, 1], [0.8, 1.2, 1.4, 1.5, 1.55]),
    ],
)
def test_traces_of_snntorch(ops, dtype, reset, spikes, membrane):
    actual = leaky_forward(ops, np.full((1, 1), 0.8, dtype), 5, 0.5, 1.0, reset, surrogate.atan())
    np.testing.assert_array_equal(actual[0][:, 0], spikes)
    np.testing.assert_allclose(actual[1][:, 0], [0, *membrane], rtol=1e-6)
    assert actual[0].dtype == actual[1].dtype == dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reset, after", [("subtract", -0.5), ("zero", 0.0), ("none", 0.5)])
def test_a_membrane_equal_to_the_threshold_does_not_fire(ops, dtype, reset, after):
    x = np.array([[1.0, np.nextafter(dtype(1), dtype(2))], [0, 0]], dtype)
    spikes, membrane = leaky_forward(ops, x, 2, 0.5, 1.0, reset, surrogate.atan())
    np.testing.assert_array_equal(spikes, [[0, 1], [0, 0]])
    np.testing.assert_allclose(membrane[2], [0.5, after], atol=1e-6)


def test_a_reset_flag_is_strict_in_backward_too(ops):
    membrane = np.array([[0.0], [1.0], [0.5]])  # fires nowhere
    dthreshold = np.zeros(1)
    leaky_backward(ops, None, np.ones((2, 1)), membrane, 2, 0.5, 1.0, "subtract", surrogate.atan(), np.zeros(1), dthreshold)
    assert dthreshold == 0


def test_a_negative_threshold_resets_at_the_first_step(ops):
    x = np.zeros((1, 1))
    _, membrane = leaky_forward(ops, x, 3, 0.5, -0.5, "subtract", surrogate.atan())
    np.testing.assert_array_equal(membrane[:, 0], [0, 0.5, 0.75, 0.875])


@pytest.mark.parametrize("reset", RESETS)
def test_only_a_membrane_gradient(ops, reset):
    config = CONFIGS[0]._replace(T=6, M=8, beta=0.9, reset=reset, surrogate=surrogate.atan(), static=False, dmembrane=True)
    x, (_, dmembrane) = currents(config, smooth=False), cotangents(config)
    _, membrane = leaky_forward(ops, x, config.T, *config.options)
    both = backward(ops, config, (np.zeros_like(dmembrane), dmembrane), membrane, len(x))
    for actual, expected in zip(backward(ops, config, (None, dmembrane), membrane, len(x)), both, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-14)


def test_fixed_parameters_change_nothing_else(ops):
    config = CONFIGS[0]._replace(dmembrane=False)
    x, given = currents(config, smooth=False), cotangents(config)
    _, membrane = leaky_forward(ops, x, config.T, *config.options)
    dx, dbeta, dthreshold = backward(ops, config, given, membrane, len(x))
    for beta, threshold in ((None, None), (np.zeros(1), None), (None, np.zeros(1))):
        alone = leaky_backward(ops, *given, membrane, len(x), *config.options, beta, threshold)
        np.testing.assert_array_equal(alone, dx)
        assert beta is None or beta == dbeta
        assert threshold is None or threshold == dthreshold


def test_gradients_are_added(ops):
    config = CONFIGS[0]
    x, given = currents(config, smooth=False), cotangents(config)
    _, membrane = leaky_forward(ops, x, config.T, *config.options)
    _, *once = backward(ops, config, given, membrane, len(x))
    sums = np.ones(1), np.ones(1)
    leaky_backward(ops, *given, membrane, len(x), *config.options, *sums)
    np.testing.assert_allclose(sums, 1 + np.array(once), rtol=1e-12)


def test_float32_gradients(ops):
    config = Config(12, 515, 0.9, 1.0, "subtract", surrogate.fast_sigmoid(), static=True, dmembrane=False)
    x, given = currents(config, smooth=False).astype(np.float32), cotangents(config, np.float32)
    _, membrane = leaky_forward(ops, x, config.T, *config.options)
    results = backward(ops, config, given, membrane, 1)
    assert [result.dtype for result in results] == [np.float32] * 3
    exact = backward(ops, config, [given[0].astype(float), None], membrane.astype(float), 1)
    for actual, expected in zip(results, exact, strict=True):
        assert error(actual, expected) <= 1e-5


def _slope_one(x, p):
    return x - x + p[0]


def _slope_two(x, p):
    return x - x + p[0] + p[0]


def test_a_changed_surrogate_of_the_same_name_is_not_taken_from_the_store(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEFLOW_CACHE_DIR", str(tmp_path))
    for function, slope in ((_slope_one, 1), (_slope_two, 2)):
        pair = surrogate.Surrogate("mine", {"scale": 1.0}, (1.0,), function, function)
        dx = leaky_backward(backends.load("cpu"), np.ones((1, 1)), None, np.zeros((2, 1)), 1, 0.5, 1.0, "none", pair, None, None)
        assert dx == slope

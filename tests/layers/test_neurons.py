from __future__ import annotations

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import surrogate


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"beta": 1.5}, ValueError, r"beta must be in \[0, 1\], got 1.5"),
        ({"beta": -0.1}, ValueError, r"beta must be in \[0, 1\]"),
        ({"beta": float("nan")}, ValueError, "beta must be a finite number"),
        ({"beta": "0.5"}, ValueError, "beta must be a finite number or an array of them, got '0.5'"),
        ({"beta": np.array([0.5, np.nan])}, ValueError, "beta must be a finite number or an array of them"),
        ({"beta": np.array([0.5, 1.2])}, ValueError, r"beta must be in \[0, 1\]"),
        ({"beta": []}, ValueError, "beta must be a finite number or an array of them"),
        ({"beta": [[0.5], [0.5, 0.6]]}, ValueError, "beta must be a finite number or an array of them"),
        ({"beta": None}, ValueError, "beta must be a finite number"),
        ({"threshold": float("inf")}, ValueError, "threshold must be a finite number"),
        ({"graded_spikes_factor": True}, ValueError, "graded_spikes_factor must be a finite number"),
        ({"reset_mechanism": "add"}, ValueError, "reset_mechanism must be one of subtract, zero, none, got 'add'"),
        ({"reset_mechanism": 0}, ValueError, "reset_mechanism must be one of"),
        ({"spike_grad": "atan"}, TypeError, "spike_grad must come from spikeflow.surrogate"),
        ({"spike_grad": surrogate.atan}, TypeError, "spike_grad must come from spikeflow.surrogate"),
        ({"spike_grad": {"name": "step"}}, ValueError, "unknown surrogate 'step'"),
    ],
    ids=str,
)
def test_bad_option(options, error, message):
    with pytest.raises(error, match=message):
        sf.Leaky(**{"beta": 0.5, **options})


def test_beta_is_required():
    with pytest.raises(TypeError, match="beta"):
        sf.Leaky()


def test_defaults_are_those_of_snntorch():
    neuron = sf.Leaky(0.5)
    assert neuron.threshold == 1 and neuron.reset_mechanism == "subtract"
    assert neuron.spike_grad == surrogate.atan(2)
    assert not neuron.learn_beta and not neuron.learn_threshold


@pytest.mark.parametrize("shape", [(3,), (2, 4, 5)])
def test_output_has_the_shape_of_the_input(shape):
    assert sf.Leaky(0.5).output_shape(shape) == shape


@pytest.mark.parametrize("beta, clamped", [(-0.5, 0), (0, 0), (0.25, 0.25), (1, 1), (1.5, 1)])
def test_a_learned_beta_is_clamped_in_forward(backend, beta, clamped):
    neuron = sf.Leaky(0.5, reset_mechanism="none", learn_beta=True)
    net = sf.Sequential(neuron, dtype=np.float64, backend=backend)
    net.parameters()[0].value[...] = beta
    _, membrane = net.forward(np.full((1, 1), 0.5), num_steps=4)
    np.testing.assert_allclose(membrane[:, 0, 0], [0.5 * sum(clamped**k for k in range(t + 1)) for t in range(4)])


@pytest.mark.parametrize("beta, counts", [(-0.5, False), (0, True), (0.25, True), (1, True), (1.5, False)])
def test_beta_has_a_gradient_inside_the_interval_only_bounds_included(backend, beta, counts):
    net = sf.Sequential(sf.Leaky(0.5, learn_beta=True, learn_threshold=True), dtype=np.float64, backend=backend)
    parameter, threshold = net.parameters()
    parameter.value[...] = beta
    spikes, _ = net.forward(np.full((1, 1), 0.5), num_steps=4)
    net.backward(np.ones_like(spikes))
    assert (parameter.grad != 0) == counts
    assert threshold.grad != 0
    assert parameter.value == beta  # clamped where it is used, not where it is kept


@pytest.mark.parametrize("reset, code", [("subtract", 0), ("zero", 1), ("none", 2)])
def test_constants_of_snntorch(reset, code):
    expected = {"beta": 0.5, "threshold": 0.7, "graded_spikes_factor": 1, "reset_mechanism_val": code}
    assert sf.Leaky(0.5, 0.7, reset_mechanism=reset).snntorch_constants() == expected

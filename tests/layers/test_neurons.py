from __future__ import annotations

import inspect
import pydoc

import numpy as np
import pytest
from layer_passes import assert_same_bits, passes

import spikeflow as sf
from spikeflow import layers, surrogate
from spikeflow.kernels.cpu import parallel

CHANNELS = np.array([0.25, 0.75])[:, None, None]
FIRING = {  # every neuron that fires, with the numbers that it takes
    "Leaky": lambda **options: sf.Leaky(**{"beta": 0.5, **options}),
    "Lapicque": lambda **options: sf.Lapicque(**{"beta": 0.5, "R": 2, **options}),
    "Synaptic": lambda **options: sf.Synaptic(**{"alpha": 0.5, "beta": 0.5, **options}),
    "Alpha": lambda **options: sf.Alpha(**{"alpha": 0.75, "beta": 0.25, "threshold": 0.5, **options}),
    "RLeaky": lambda **options: sf.RLeaky(**{"beta": 0.5, "V": -0.5, "all_to_all": False, **options}),
    "RSynaptic": lambda **options: sf.RSynaptic(**{"alpha": 0.5, "beta": 0.5, "V": -0.5, "all_to_all": False, **options}),
}
LEARNED = {  # options of each that can be learned, by the numbers above
    "Leaky": ("beta",), "Lapicque": ("beta",), "Synaptic": ("alpha", "beta"), "Alpha": ("alpha", "beta"), "RLeaky": ("beta", "V"),
    "RSynaptic": ("alpha", "beta", "V"),
}  # fmt: skip
every_neuron = pytest.mark.parametrize("name", FIRING)


def learning(name):
    """-> options with which a neuron learns all that it can."""
    own = {f"learn_{number}": True for number in LEARNED[name] if number != "V"}
    return {**own, "learn_threshold": True, "learn_graded_spikes_factor": True}


def alone(neuron, backend="reference", dtype=np.float64):
    return sf.Sequential(neuron, backend=backend, dtype=dtype)


def draw(*shape, dtype=np.float64):
    return (2 * np.random.default_rng(0).random(shape)).astype(dtype)


# ---------------------------------------------------------------------------------------------- options


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
    ids=lambda value: getattr(value, "__name__", None) or str(value).partition(" at 0x")[0],
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


DECAYS = [
    (make, decay)
    for make, names in [
        (lambda **o: sf.Leaky(**o), ("beta",)),
        (lambda **o: sf.LeakyIntegrator(**o), ("beta",)),
        (lambda **o: sf.Lapicque(**o), ("beta",)),
        (lambda **o: sf.Synaptic(**{"alpha": 0.5, "beta": 0.5, **o}), ("alpha", "beta")),
        (lambda **o: sf.Alpha(**{"alpha": 0.9, "beta": 0.5, **o}), ("alpha", "beta")),
        (lambda **o: sf.RLeaky(all_to_all=False, **o), ("beta",)),
        (lambda **o: sf.RSynaptic(**{"alpha": 0.5, "beta": 0.5, "all_to_all": False, **o}), ("alpha", "beta")),
    ]
    for decay in names
]


@pytest.mark.parametrize("make, decay", DECAYS, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("value", [1.5, -0.1, [0.5, 1.01], [[-0.01], [0.5]]], ids=str)
def test_a_decay_outside_of_its_bounds_is_refused_by_name(make, decay, value):
    with pytest.raises(ValueError, match=rf"^{decay} must be in \[0, 1\], got"):
        make(**{decay: value})


@every_neuron
@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"reset_mechanism": "add"}, ValueError, "reset_mechanism must be one of subtract, zero, none, got 'add'"),
        ({"spike_grad": {"name": "step"}}, ValueError, "unknown surrogate 'step'; known are atan, fast_sigmoid, .*SFS"),
        ({"spike_grad": "atan"}, TypeError, "spike_grad must come from spikeflow.surrogate"),
        ({"threshold": "1"}, ValueError, "threshold must be a finite number"),
        ({"threshold": [1, np.inf]}, ValueError, "threshold must be a finite number or an array of them"),
        ({"graded_spikes_factor": np.nan}, ValueError, "graded_spikes_factor must be a finite number"),
        ({"colour": 1}, TypeError, "colour"),
        ({"init_hidden": True}, TypeError, "init_hidden"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_bad_option_of_every_neuron_is_refused_by_name(name, options, error, message):
    with pytest.raises(error, match=message):
        FIRING[name](**options)


@pytest.mark.parametrize("option", ["threshold", "reset_mechanism", "spike_grad", "inhibition"])
def test_an_integrator_knows_no_option_of_neurons_that_fire(option):
    with pytest.raises(TypeError, match=option):
        sf.LeakyIntegrator(0.5, **{option: 1})


@pytest.mark.parametrize("make", [sf.Lapicque, sf.Alpha], ids=lambda make: make.__name__)
def test_a_neuron_without_a_reset_at_once_says_so(make):
    with pytest.raises(TypeError, match="reset_delay"):
        make(0.9, 0.5, reset_delay=False)


@pytest.mark.parametrize(
    "alpha, beta", [(0.5, 0.6), (0.5, 0.5), (0.0, 0.0), ([0.9, 0.5], 0.6), (0.9, [0.5, 0.9]), ([0.9, 0.8], [0.8, 0.9])], ids=str
)
def test_alpha_must_be_above_beta(alpha, beta):
    with pytest.raises(ValueError, match="alpha must be greater than beta, got alpha="):
        sf.Alpha(alpha, beta)


def test_decays_of_alpha_that_fit_no_common_shape_are_refused_by_name():
    with pytest.raises(ValueError, match="alpha.*beta"):
        sf.Alpha(np.full(3, 0.9), np.full(4, 0.5))


@pytest.mark.parametrize("alpha, beta", [(0.5, 0.75), (0.6, 0.6), (1.5, 1.2)], ids=["crossed", "met", "met at the bound"])
def test_learned_decays_of_alpha_that_have_crossed_are_refused_when_it_runs(alpha, beta):
    net = alone(sf.Alpha(0.9, 0.5, learn_alpha=True, learn_beta=True))
    for parameter, value in zip(net.parameters(), (alpha, beta), strict=True):
        parameter.value[...] = value
    for run in (net.forward, net.stream, net.predict, net.record):
        with pytest.raises(ValueError, match="alpha must be greater than beta"):
            run(draw(3, 2, 4))


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "beta is needed, or R and C; got R=None, C=None"),
        ({"R": 2}, "beta is needed, or R and C; got R=2, C=None"),
        ({"C": 2}, "beta is needed, or R and C; got R=None, C=2"),
        ({"beta": 0.6, "R": 2, "C": 1}, r"beta=0.6 contradicts 1 - time_step / \(R C\) = 0.5"),
        ({"beta": [0.5, 0.6], "R": 2, "C": 1}, "contradicts"),
        ({"beta": 0.5, "R": 2, "C": 1, "time_step": 0.5}, "contradicts"),
        ({"R": 1, "C": 1, "time_step": 2}, r"beta must be in \[0, 1\], got -1"),
        ({"beta": 1, "C": 1}, "beta must be below 1 where C is given"),
        ({"beta": False}, "beta must be a finite number"),
        *(
            ({"beta": 0.5, name: value}, f"{name} must be a positive finite number, got ")
            for name in ("R", "C", "time_step")
            for value in (0, -1.0, np.inf, np.nan, "1", [1, 2])
        ),
    ],
    ids=str,
)
def test_bad_numbers_of_lapicque(options, message):
    with pytest.raises(ValueError, match=message):
        sf.Lapicque(**options)


@pytest.mark.parametrize("shape", [(4,), (3, 1), (2, 3), (1, 4)], ids=str)
@every_neuron
def test_an_array_that_does_not_fit_the_samples_is_refused_by_name(name, shape):
    net = sf.Sequential(sf.Linear(2, 3), FIRING[name](threshold=np.ones(shape)), backend="reference")
    with pytest.raises(ValueError, match=r"layer 1 \(\w+\(.*threshold of shape .* does not fit samples of shape \(3,\)"):
        net.forward(np.ones((1, 2), np.float32), 2)


@pytest.mark.parametrize("option", ["beta", "graded_spikes_factor"])
def test_an_array_that_does_not_fit_images_is_refused_by_name(option):
    net = sf.Sequential(sf.Conv2d(1, 2, 2), sf.Leaky(**{"beta": 0.5, option: np.full((3, 1, 1), 0.5)}), backend="reference")
    with pytest.raises(ValueError, match=rf"{option} of shape \(3, 1, 1\) does not fit samples of shape \(2, 3, 3\)"):
        net.forward(np.ones((1, 1, 4, 4), np.float32), 2)


def test_inhibition_of_images_is_refused():
    net = sf.Sequential(sf.Conv2d(1, 2, 2), sf.Leaky(0.5, inhibition=True), backend="reference")
    with pytest.raises(ValueError, match=r"layer 1 .*expects samples of shape \(F,\), since it has inhibition.*\(2, 3, 3\)"):
        net.forward(np.ones((1, 1, 4, 4), np.float32), 2)


def test_an_integrator_must_be_the_last_layer():
    with pytest.raises(ValueError, match=r"layer 1 \(LeakyIntegrator\(0.5\)\) never fires, so that it must be the last layer"):
        sf.Sequential(sf.Linear(2, 3), sf.LeakyIntegrator(0.5), sf.Linear(3, 2), sf.Leaky(0.5))


LOSSES = [sf.losses.ce_rate_loss(), sf.losses.mse_count_loss(), sf.losses.ce_membrane_loss() + sf.losses.ce_rate_loss()]


@pytest.mark.parametrize("loss_fn", LOSSES, ids=repr)
def test_a_loss_of_the_spikes_of_an_integrator_is_refused(loss_fn):
    net = sf.Sequential(sf.Linear(2, 3), sf.LeakyIntegrator(0.5), backend="reference")
    with pytest.raises(ValueError, match=r"reads spikes, but the last layer \(LeakyIntegrator\(0.5\)\) never fires"):
        net.loss_and_grad(np.ones((2, 2), np.float32), np.array([0, 1]), loss_fn, num_steps=3)
    assert not any(parameter.grad.any() for parameter in net.parameters())


# ---------------------------------------------------------------------------------------------- defaults, help

COMMON = {
    "threshold": 1.0, "spike_grad": surrogate.atan(2), "reset_mechanism": "subtract", "learn_threshold": False,
    "inhibition": False, "graded_spikes_factor": 1.0, "learn_graded_spikes_factor": False,
}  # fmt: skip
RECURRENT = {
    "V": 1.0, "all_to_all": True, "linear_features": 3, "conv2d_channels": None, "kernel_size": None, "learn_recurrent": True,
}  # fmt: skip
DEFAULTS = {
    "Leaky": (sf.Leaky(0.5), {"learn_beta": False, "reset_delay": True}),
    "Lapicque": (sf.Lapicque(0.5), {"R": None, "C": None, "time_step": 1.0, "learn_beta": False}),
    "Synaptic": (sf.Synaptic(0.5, 0.5), {"learn_alpha": False, "learn_beta": False, "reset_delay": True}),
    "Alpha": (sf.Alpha(0.9, 0.5), {"learn_alpha": False, "learn_beta": False, "reset_mechanism": "zero"}),
    "RLeaky": (sf.RLeaky(0.5, linear_features=3), {**RECURRENT, "learn_beta": False, "reset_delay": True}),
    "RSynaptic": (
        sf.RSynaptic(0.5, 0.5, linear_features=3), {**RECURRENT, "learn_alpha": False, "learn_beta": False, "reset_delay": True}
    ),
}  # fmt: skip


@every_neuron
def test_defaults_are_snntorchs_and_all_options_are_in_the_signature_and_in_help(name):
    neuron, own = DEFAULTS[name]
    expected = COMMON | own
    decays = set(neuron.own_names)
    assert {key: getattr(neuron, key) for key in expected} == expected
    options = inspect.signature(type(neuron)).parameters
    assert set(options) == set(expected) | decays
    assert neuron.config().keys() == {"type", *options}
    given = {"linear_features", "spike_grad"} | (set() if name == "Lapicque" else decays)
    assert {key: p.default for key, p in options.items() if key not in given | decays} == {
        key: value for key, value in expected.items() if key not in given
    }
    assert (options["beta"].default is None) if name == "Lapicque" else (options["beta"].default is inspect.Parameter.empty)
    text = pydoc.render_doc(type(neuron), renderer=pydoc.plaintext)
    assert all(key in text for key in options) and "**common" not in text.splitlines()[2]


def test_an_integrator_has_two_options():
    assert list(inspect.signature(sf.LeakyIntegrator).parameters) == ["beta", "learn_beta"]
    assert sf.LeakyIntegrator(0.5).learn_beta is False


# ---------------------------------------------------------------------------------------------- sequences worked out by hand

X = (1.5, 1, 0, 3, 1)  # beta and alpha 1/2, threshold 1: all numbers are exact
SEQUENCES = {  # neuron, reset, delay -> membranes as given out, spikes
    # 1.5 | 0.75 + 1 - 1 | 0.375 | 0.1875 + 3 | 1.59375 + 1 - 1
    ("Leaky", "subtract", True): ((1.5, 0.75, 0.375, 3.1875, 1.59375), "10011"),
    # 1.5 | 0 + 1, which is not above 1 | 0.5 | 0.25 + 3 | 0 + 1
    ("Leaky", "zero", True): ((1.5, 1, 0.5, 3.25, 1), "10010"),
    ("Leaky", "none", True): ((1.5, 1.75, 0.875, 3.4375, 2.71875), "11011"),
    # 1.5 - 1 | 0.25 + 1 - 1 | 0.125 | 0.0625 + 3 - 1 | 1.03125 + 1 - 1 for step 3 once more, and then not for step 4
    ("Leaky", "subtract", False): ((0.5, 0.25, 0.125, 2.0625, 1.03125), "11011"),
    # 1.5 -> 0 | 1 | 0.5 | 3.25 -> 0 | 1
    ("Leaky", "zero", False): ((0, 1, 0.5, 0, 1), "10010"),
    ("Leaky", "none", False): ((1.5, 1.75, 0.875, 3.4375, 2.71875), "11011"),
    # R (1 - beta) = 1: Leaky's
    ("Lapicque", "subtract", True): ((1.5, 0.75, 0.375, 3.1875, 1.59375), "10011"),
    # 1.5 | 0 without the input | 0 | 3 | 0 without the input
    ("Lapicque", "zero", True): ((1.5, 0, 0, 3, 0), "10010"),
    ("Lapicque", "none", True): ((1.5, 1.75, 0.875, 3.4375, 2.71875), "11011"),
    # i: 1.5 | 0.75 + 1 | 0.875 | 0.4375 + 3 | 1.71875 + 1; m: 1.5 | 0.75 + 1.75 - 1 | 0.75 + 0.875 - 1 | ...
    ("Synaptic", "subtract", True): ((1.5, 1.5, 0.625, 3.75, 3.59375), "11011"),
    # 1.5 | 0 | 0.875 | 0.4375 + 3.4375 | 0
    ("Synaptic", "zero", True): ((1.5, 0, 0.875, 3.875, 0), "10010"),
    ("Synaptic", "none", True): ((1.5, 2.5, 2.125, 4.5, 4.96875), "11111"),
    # 1.5 - 1 | 0.25 + 1.75 - 1 | 0.5 + 0.875 - 1 | 0.1875 + 3.4375 - 1 | 1.3125 + 2.71875 - 1 for step 3 once more
    ("Synaptic", "subtract", False): ((0.5, 1, 0.375, 2.625, 3.03125), "11111"),
    # 1.5 -> 0 | 1.75 -> 0 | 0.875 | 0.4375 + 3.4375 -> 0 | 2.71875 -> 0
    ("Synaptic", "zero", False): ((0, 0, 0.875, 0, 0), "11011"),
    ("Synaptic", "none", False): ((1.5, 2.5, 2.125, 4.5, 4.96875), "11111"),
    # V = -1/2: 1.5 | 0.75 + 0.5 - 1 | 0.125 | 0.0625 + 3 | 1.53125 + 0.5 - 1
    ("RLeaky", "subtract", True): ((1.5, 0.25, 0.125, 3.0625, 1.03125), "10011"),
    ("RLeaky", "zero", True): ((1.5, 0, 0, 3, 0), "10010"),
    # 1.5 | 0.75 + 0.5 | 0.625 - 0.5 | 0.0625 + 3 | 1.53125 + 0.5
    ("RLeaky", "none", True): ((1.5, 1.25, 0.125, 3.0625, 2.03125), "11011"),
    # 1.5 - 1 | 0.25 + 0.5 | 0.375 | 0.1875 + 3 - 1 | 1.09375 + 0.5 - 1 for step 3 once more: below 1, so that it gets it back
    ("RLeaky", "subtract", False): ((0.5, 0.75, 0.375, 2.1875, 1.59375), "10010"),
    ("RLeaky", "zero", False): ((0, 0.5, 0.25, 0, 0.5), "10010"),
    ("RLeaky", "none", False): ((1.5, 1.25, 0.125, 3.0625, 2.03125), "11011"),
    # i: 1.5 | 0.75 + 0.5 | 0.625 | 0.3125 + 3 - 0.5 | 1.40625 + 0.5; m: 1.5 | 0.75 + 1.25 - 1 | 0.5 + 0.625 | ...
    ("RSynaptic", "subtract", True): ((1.5, 1, 1.125, 2.375, 2.09375), "10111"),
    # i: 1.5 | 1.25 | 0.625 | 3.3125 | 2.15625
    ("RSynaptic", "zero", True): ((1.5, 0, 0.625, 3.625, 0), "10010"),
    # i: 1.5 | 1.25 | 0.125 | 2.5625 | 1.78125
    ("RSynaptic", "none", True): ((1.5, 2, 1.125, 3.125, 3.34375), "11111"),
    # i: 1.5 | 1.25 | 0.125 | 3.0625 | 2.03125; m: 0.5 | 1.5 - 1 | 0.375 | 3.25 - 1 | 1.125 + 2.03125 - 1 for step 3
    ("RSynaptic", "subtract", False): ((0.5, 0.5, 0.375, 2.25, 2.15625), "11011"),
    ("RSynaptic", "zero", False): ((0, 0, 0.125, 0, 0), "11011"),
    ("RSynaptic", "none", False): ((1.5, 2, 1.125, 3.125, 3.34375), "11111"),
}  # fmt: skip


@pytest.mark.parametrize("name, reset, delay", SEQUENCES, ids=lambda value: {True: "delayed", False: "at-once"}.get(value, value))
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_a_sequence_worked_out_by_hand(name, reset, delay, dtype):
    neuron = FIRING[name](reset_mechanism=reset, **({} if delay else {"reset_delay": False}))
    spikes, membrane = alone(neuron, dtype=dtype).forward(np.array(X, dtype).reshape(5, 1, 1))
    expected, fires = SEQUENCES[name, reset, delay]
    assert membrane.ravel().tolist() == list(expected)
    assert "".join(f"{spike:g}" for spike in spikes.ravel()) == fires
    assert spikes.dtype == membrane.dtype == dtype


@pytest.mark.parametrize(
    "reset, expected, fires",
    [
        # tau = 2; e: 4 | 2 | 1 | 0.5 | 4.25 | 2.125; h: -4 | -1 | -0.25 | -0.0625 | -4.015625 | -1.00390625; m = 2 (e + h)
        ("none", (0, 2, 1.5, 0.875, 0.46875, 2.2421875), "011001"),
        # e: 4 | 2 | 0 | 0 | 4 | 2; h: -4 | -1 | 0 | 0 | -4 | -1
        ("zero", (0, 2, 0, 0, 0, 2), "010001"),
        # at step 2: e = 1 - 1, h = 0, m = 2 (1 - 0.25) - 1
        ("subtract", (0, 2, 0.5, 0, 0, 2), "010001"),
    ],
)
def test_a_sequence_of_alpha_worked_out_by_hand(reset, expected, fires):
    net = alone(sf.Alpha(0.5, 0.25, reset_mechanism=reset))
    spikes, membrane = net.forward(np.array([4.0, 0, 0, 0, 4, 0]).reshape(6, 1, 1))
    np.testing.assert_allclose(membrane.ravel(), expected, rtol=1e-14, atol=1e-14)
    assert "".join(f"{spike:g}" for spike in spikes.ravel()) == fires


@pytest.mark.parametrize(
    "options",
    [
        {"beta": 0.5, "R": 2}, {"beta": 0.5, "C": 1}, {"R": 2, "C": 1}, {"beta": 0.5, "R": 2, "C": 1},
        {"R": 2, "C": 0.25, "time_step": 0.25}, {"beta": 0.5, "C": 0.25, "time_step": 0.25},
    ],
    ids=str,
)  # fmt: skip
def test_all_ways_to_say_the_same_lapicque(options):
    neuron = sf.Lapicque(**options)
    assert neuron.beta == 0.5 and neuron.resistance == 2
    _, membrane = alone(neuron).forward(np.array(X).reshape(5, 1, 1))
    assert membrane.ravel().tolist() == list(SEQUENCES["Lapicque", "subtract", True][0])


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("resistance", [None, 4.0])
def test_a_given_beta_of_lapicque_is_the_decay_of_its_impulse_response(beta, resistance):
    x = np.zeros((6, 1, 1))
    x[0] = 1
    _, membrane = alone(sf.Lapicque(beta, R=resistance, threshold=9)).forward(x)
    gain = (resistance or 1) * (1 - beta)
    np.testing.assert_allclose(membrane.ravel(), [gain * beta**t for t in range(6)], rtol=1e-14)


# ---------------------------------------------------------------------------------------------- neurons that are others

RESETS = [(reset, delay) for reset in ("subtract", "zero", "none") for delay in (True, False)]


@pytest.mark.parametrize("reset, delay", [pair for pair in RESETS if pair != ("zero", True)])
def test_synaptic_without_a_synaptic_current_is_leaky(reset, delay):
    options = {"reset_mechanism": reset, "reset_delay": delay, "learn_beta": True, "learn_threshold": True}
    x, nets = draw(7, 5, 4), [alone(neuron) for neuron in (sf.Synaptic(0, 0.5, **options), sf.Leaky(0.5, **options))]
    actual, expected = (passes(net, x) for net in nets)
    assert_same_bits(actual[:2], expected[:2])
    np.testing.assert_allclose(actual[2], expected[2], rtol=1e-12, atol=1e-12)
    assert actual[3].keys() == expected[3].keys() == {"0.beta", "0.threshold"}
    for key, gradient in actual[3].items():
        np.testing.assert_allclose(gradient, expected[3][key], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_an_integrator_has_the_membrane_of_a_leaky_that_never_fires(dtype):
    x = draw(7, 5, 4, dtype=dtype)
    never = sf.Leaky(0.7, 1e9, surrogate.triangular(), "none", learn_beta=True)
    (_, *actual, down), (_, *expected, also) = (
        passes(alone(neuron, dtype=dtype), x) for neuron in (sf.LeakyIntegrator(0.7, learn_beta=True), never)
    )
    assert_same_bits(actual, expected)
    np.testing.assert_allclose(down["0.beta"], also["0.beta"], rtol=1e-6)


def test_an_integrator_gives_no_spikes(backend):
    net = alone(sf.LeakyIntegrator(0.5), backend, np.float32)
    for spikes in (net.forward(draw(4, 3, 2, dtype=np.float32))[0], net.predict(9 * draw(4, 3, 2, dtype=np.float32))):
        assert spikes.shape == (4, 3, 2) and not spikes.any()


@every_neuron
@pytest.mark.parametrize("shape, wide", [((5,), (5,)), ((5,), (1,)), ((2, 3, 4), (2, 1, 1)), ((2, 3, 4), (2, 3, 4))], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_arrays_filled_with_one_number_are_that_number(name, shape, wide, dtype):
    scalar = FIRING[name](graded_spikes_factor=1.5, **learning(name))
    numbers = {key: np.full(wide, getattr(scalar, key)) for key in ("threshold", "graded_spikes_factor", *LEARNED[name])}
    x = draw(6, 7, *shape, dtype=dtype)
    arrays = FIRING[name](**numbers, **learning(name))
    actual, expected = (passes(alone(neuron, dtype=dtype), x) for neuron in (arrays, scalar))
    assert 0 < (expected[0] != 0).mean() < 1
    assert_same_bits(actual[:3], expected[:3])
    assert actual[3].keys() == expected[3].keys() and len(actual[3]) == 2 + len(LEARNED[name])
    for key, gradient in expected[3].items():
        assert actual[3][key].shape == wide and gradient.shape == ()
        np.testing.assert_allclose(actual[3][key].sum(), gradient, rtol=1e-4 if dtype == np.float32 else 1e-10, err_msg=key)


@pytest.mark.parametrize("name", [name for name in FIRING if not name.startswith("R")])  # spikes fed back change the membrane
@pytest.mark.parametrize("factor", [0.5, -2.0, 0.0])
def test_the_graded_factor_scales_the_spikes_and_nothing_else(name, factor):
    x = draw(6, 5, 4)
    plain, graded = (alone(FIRING[name](graded_spikes_factor=number)).forward(x) for number in (1, factor))
    assert plain[0].any()
    assert_same_bits(graded, (factor * plain[0], plain[1]))


@every_neuron
@pytest.mark.parametrize("threshold", [0.5, np.array([0.9, 0.2, 0.5, 0.7, 0.3])], ids=["one", "each its own"])
def test_under_inhibition_only_the_furthest_above_its_threshold_fires(name, threshold):
    x = draw(9, 7, 5)
    spikes, membrane = alone(FIRING[name](threshold=threshold, inhibition=True)).forward(x)
    above = membrane - threshold
    winners = np.arange(5) == above.argmax(-1)[..., None]
    np.testing.assert_array_equal(spikes, winners & (above > 0))
    assert spikes.sum(-1).max() == 1 and ((above > 0).sum(-1) > 1).any() and len(set(above.argmax(-1).flat)) > 2


def test_of_equals_the_first_fires_and_all_above_are_reset():
    x = np.zeros((2, 1, 4))
    x[0, 0] = [1, 3, 3, 2]
    spikes, membrane = alone(sf.Leaky(0.5, inhibition=True)).forward(x)
    np.testing.assert_array_equal(spikes[:, 0], [[0, 1, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(membrane[1, 0], [0.5, 0.5, 0.5, 0])


# ---------------------------------------------------------------------------------------------- learning

SHAPES = [
    ((5,), ()), ((5,), (1,)), ((5,), (5,)), ((2, 3, 4), ()), ((2, 3, 4), (1,)), ((2, 3, 4), (4,)), ((2, 3, 4), (1, 4)),
    ((2, 3, 4), (3, 1)), ((2, 3, 4), (2, 1, 1)), ((2, 3, 4), (1, 3, 1)), ((2, 3, 4), (2, 3, 4)), ((3, 4), (3, 1)),
    ((1,), (1,)), ((1, 1, 1), (1, 1, 1)),
]  # fmt: skip


@every_neuron
@pytest.mark.parametrize("shape, wide", SHAPES, ids=str)
def test_a_gradient_has_the_shape_of_its_parameter_and_sums_those_of_the_neurons(name, shape, wide):
    """Beside a network in which each neuron has numbers of its own, equal to those it shares."""
    rng, scalar = np.random.default_rng(2), FIRING[name]()
    numbers = {key: getattr(scalar, key) * rng.uniform(0.9, 1.1, wide) for key in ("threshold", *LEARNED[name])}
    full = {key: np.array(np.broadcast_to(value, shape)) for key, value in numbers.items()}
    x = draw(6, 7, *shape)
    shared, own = (passes(alone(FIRING[name](**values, **learning(name))), x) for values in (numbers, full))
    assert_same_bits(shared[:3], own[:3])
    axes = tuple(i for i, n in enumerate((1,) * (len(shape) - len(wide)) + wide) if n == 1)
    for key, gradient in shared[3].items():
        expected = own[3][key] if key == "0.graded_spikes_factor" else own[3][key].sum(axes).reshape(wide)
        assert gradient.shape == expected.shape and gradient.any(), key
        np.testing.assert_allclose(gradient, expected, rtol=1e-10, err_msg=key)


@pytest.mark.parametrize("wide", [(), (2,), (2, 1, 1)], ids=str)
def test_a_lapicque_of_capacitances_takes_every_shape(wide):
    shape = (2, 3, 4) if len(wide) == 3 else (2,)
    beta, x = np.full(wide, 0.5), draw(4, 3, *shape)
    results = [passes(alone(sf.Lapicque(beta=beta, learn_beta=True, **given)), x) for given in ({"C": 1}, {"R": 2})]
    assert_same_bits(*(result[:3] for result in results))
    np.testing.assert_array_equal(results[0][3]["0.beta"], results[1][3]["0.beta"])


@pytest.fixture
def restore_threads():
    before = parallel.get_num_threads()
    yield
    parallel.set_num_threads(before)


@pytest.mark.parametrize(
    "backend, dtype, name",
    [*(("reference", dtype, name) for dtype in ("float32", "float64") for name in FIRING), ("cpu", "float32", "Leaky")],
)
def test_learned_numbers_are_the_same_bits_on_any_number_of_threads(restore_threads, backend, dtype, name):
    states, x, labels = [], draw(5, 37, 4, dtype=dtype), np.arange(37) % 3
    for threads in (1, 2):
        parallel.set_num_threads(threads)
        neuron = FIRING[name](threshold=np.linspace(0.3, 0.6, 3), **learning(name))
        net = sf.Sequential(sf.Linear(4, 3), neuron, backend=backend, dtype=dtype)
        optimizer, before = sf.optim.Adam(net.parameters(), lr=0.01), net.state_dict()
        for _ in range(3):
            optimizer.zero_grad()
            net.loss_and_grad(x, labels, sf.losses.ce_count_loss())
            optimizer.step()
        states.append(net.state_dict())
    assert len(before) == 4 + len(LEARNED[name])
    for key, value in states[0].items():
        assert value.dtype == dtype and (value != before[key]).any(), key
        np.testing.assert_array_equal(value, states[1][key], strict=True)


@every_neuron
def test_a_static_input_equals_its_repetition_for_every_neuron(name):
    net, x = alone(FIRING[name](**learning(name))), draw(7, 5)
    static, repeated = passes(net, x, 6), passes(net, np.array([x] * 6))
    assert static[0].any()
    assert_same_bits(static[:2], repeated[:2])
    np.testing.assert_allclose(static[2], repeated[2].sum(0), rtol=1e-6, atol=1e-12)
    for key, gradient in static[3].items():
        np.testing.assert_allclose(gradient, repeated[3][key], rtol=1e-6, err_msg=key)


@every_neuron
def test_prediction_and_record_and_the_loss_in_one_go_agree_with_forward(name):
    neuron = FIRING[name](threshold=np.linspace(0.3, 0.6, 6), **learning(name))
    net = sf.Sequential(sf.Linear(4, 6), neuron, sf.Linear(6, 3), sf.Leaky(0.5, 0.2), backend="reference", dtype=np.float64)
    x, labels, loss_fn = draw(5, 9, 4), np.arange(9) % 3, sf.losses.ce_count_loss()
    spikes, membrane = net.forward(x)
    loss, dspikes = loss_fn(spikes, labels)
    net.backward(dspikes)
    gradients = [parameter.grad.copy() for parameter in net.parameters()]
    net.zero_grad()
    assert_same_bits(net.loss_and_grad(x, labels, loss_fn)[1:], [spikes])
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        assert gradient.any()
        np.testing.assert_allclose(parameter.grad, gradient, rtol=1e-9, atol=1e-15, err_msg=parameter.name)
    record = net.record(x)
    assert_same_bits([net.predict(x), *record["3"].values()], [spikes, spikes, membrane])
    np.testing.assert_array_equal(record["1"]["spikes"] != 0, record["1"]["membrane"] > np.linspace(0.3, 0.6, 6))


# ---------------------------------------------------------------------------------------------- surrogates of one's own

ONE = np.float32(1)


def my_slope(x, p):
    d = ONE + p[0] * abs(x)
    return ONE / (d * d)


@pytest.mark.parametrize("backend, name", [*(("reference", name) for name in FIRING), ("cpu", "Leaky")])
def test_a_surrogate_of_ones_own_with_a_known_formula_gives_the_same_bits(backend, name):
    x, results = draw(5, 6, 4, dtype=np.float32), []
    for spike_grad in (surrogate.custom(my_slope, constants=(25,)), surrogate.fast_sigmoid(25)):
        net = sf.Sequential(sf.Linear(4, 5), FIRING[name](spike_grad=spike_grad), backend=backend)
        *outputs, gradients = passes(net, x)
        results.append([*outputs, *gradients.values()])
    assert results[0][2].any()
    assert_same_bits(*results)


def test_a_neuron_with_a_surrogate_of_ones_own_can_be_shown():
    neuron = sf.Leaky(0.5, spike_grad=surrogate.custom(my_slope, constants=(25,), name="mine"))
    assert repr(neuron).startswith("Leaky(0.5") and "mine" in repr(neuron)
    assert repr(sf.Sequential(sf.Linear(4, 5), neuron, backend="reference")).count("Leaky(0.5") == 1


def test_an_error_about_the_shape_comes_through_with_a_surrogate_of_ones_own():
    neuron = sf.Leaky(np.full(4, 0.5), spike_grad=surrogate.custom(my_slope, constants=(25,)))
    with pytest.raises(ValueError, match=r"beta of shape \(4,\) does not fit samples of shape \(5,\)"):
        alone(neuron).forward(draw(2, 3, 5))


# ---------------------------------------------------------------------------------------------- between convolutions


def test_a_number_for_each_channel_between_convolutions_on_both_backends():
    """Where a plain Leaky would be fused with its neighbours. Weights and pixels are multiples of 1/16: sums are exact."""
    x, results = np.round(draw(5, 1, 8, 8, dtype=np.float32) * 16) / 16, []
    outer = np.random.default_rng(1).normal(size=(4, 5, 2, 2, 2)).astype(np.float32)
    for backend in ("cpu", "reference"):
        net = sf.Sequential(
            sf.Conv2d(1, 2, 3), sf.Leaky(CHANNELS, 0.25), sf.Conv2d(2, 2, 3), sf.MaxPool2d(2), sf.LeakyIntegrator(CHANNELS),
            backend=backend,
        )  # fmt: skip
        for parameter in net.parameters():
            parameter.value[...] = np.round(parameter.value * 16) / 16
        outputs = [array for record in net.record(x, 4).values() for array in record.values()]
        net.loss_and_grad(x, None, lambda spikes, membrane, labels: (0, None, outer), num_steps=4)
        results.append((outputs, [parameter.grad for parameter in net.parameters()]))
    assert 0 < results[1][0][0].mean() < 1
    assert_same_bits(results[0][0], results[1][0])
    for ours, theirs in zip(results[0][1], results[1][1], strict=True):
        assert theirs.any()
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * abs(theirs).max())


def test_every_layer_is_listed_as_a_neuron():
    assert {neuron.__name__ for neuron in layers.NEURONS} == {
        *FIRING,
        "LeakyIntegrator",
        "IFNode",
        "LIFNode",
        "ParametricLIFNode",
    }

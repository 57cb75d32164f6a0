from __future__ import annotations

import json

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import layers, surrogate

FEATURES = np.array([0.3, 1 / 3, 0.9])
CHANNELS = np.array([0.3, 0.7])[:, None, None]
EVERY = [
    sf.Conv2d(3, 4, 5),
    sf.Conv2d(1, 2, 3, stride=2, padding=1, bias=False),
    sf.Flatten(),
    sf.Linear(6, 5),
    sf.Linear(6, 5, bias=False),
    sf.MaxPool2d(2),
    sf.MaxPool2d(3, stride=1),
    sf.Leaky(0.5),
    sf.Leaky(0.9, 0.5, surrogate.fast_sigmoid(10), "zero", learn_beta=True, learn_threshold=True),
    sf.Leaky(beta=1, spike_grad=surrogate.sigmoid(), reset_mechanism="none"),
    sf.Leaky(FEATURES, FEATURES / 2, surrogate.SFS(10, -0.5), learn_beta=True, reset_delay=False, inhibition=True),
    sf.Leaky(np.float32(0.9), np.int64(2), graded_spikes_factor=CHANNELS, learn_graded_spikes_factor=True),
    sf.LeakyIntegrator(FEATURES, learn_beta=True),
    sf.Lapicque(FEATURES, C=np.float32(0.7), learn_beta=True, inhibition=True),
    sf.Lapicque(R=2, C=3, time_step=0.1, threshold=FEATURES),
    sf.Lapicque(0.9, R=3, spike_grad=surrogate.triangular(0.5)),
    sf.Synaptic(FEATURES, 0.9, 0.5, surrogate.spike_rate_escape(2, 3), "zero", learn_alpha=True, reset_delay=False),
    sf.Synaptic(CHANNELS, CHANNELS / 3, learn_beta=True, learn_threshold=True, graded_spikes_factor=2),
    sf.Alpha(0.9, FEATURES / 2, reset_mechanism="subtract", learn_alpha=True, learn_beta=True, inhibition=True),
    sf.Alpha(CHANNELS, CHANNELS / 2, CHANNELS / 4, surrogate.LSO()),
    sf.RLeaky(FEATURES, V=-FEATURES, all_to_all=False, learn_beta=True, learn_recurrent=False),
    sf.RLeaky(0.9, linear_features=np.int64(3), inhibition=True, learn_threshold=True),
    sf.RLeaky(CHANNELS, conv2d_channels=2, kernel_size=3, learn_recurrent=False, reset_delay=False),
    sf.RSynaptic(FEATURES, 0.9, V=0.3, all_to_all=False, graded_spikes_factor=FEATURES),
    sf.RSynaptic(0.8, CHANNELS, conv2d_channels=2, kernel_size=1, learn_alpha=True, spike_grad=surrogate.heaviside()),
]
NEURONS = [layer for layer in EVERY if isinstance(layer, layers.Neuron)]


@pytest.mark.parametrize("layer", EVERY, ids=repr)
def test_config_round_trip_through_json(layer):
    config = json.loads(json.dumps(layer.config()))
    again = layers.from_config(config)
    assert type(again) is type(layer)
    assert again.config() == config == layer.config()
    assert repr(again) == repr(layer)


@pytest.mark.parametrize("layer", EVERY, ids=repr)
def test_a_copy_has_the_same_options_and_belongs_to_no_network(layer):
    again = layer.unused_copy()
    assert type(again) is type(layer) and again is not layer
    assert again.config() == layer.config() and repr(again) == repr(layer)
    assert again.name == "" and again.params == {}


@pytest.mark.parametrize("layer", NEURONS, ids=repr)
def test_a_neuron_keeps_arrays_and_surrogate_through_its_description(layer):
    again = layers.from_config(json.loads(json.dumps(layer.config())))
    assert again.spike_grad == layer.spike_grad and again.learned == layer.learned
    for name in layer.number_names():
        np.testing.assert_array_equal(getattr(again, name), getattr(layer, name), strict=True)
    assert not any(isinstance(getattr(again, name), list) for name in layer.number_names())


def sample(layer):
    """-> the shape of samples that this neuron of ours takes."""
    images = getattr(layer, "conv2d_channels", None) or any(np.ndim(getattr(layer, key)) == 3 for key in layer.number_names())
    return (2, 3, 4) if images else (3,)


@pytest.mark.parametrize("layer", NEURONS, ids=repr)
def test_a_saved_neuron_predicts_the_same(layer, tmp_path):
    shape, rng = sample(layer), np.random.default_rng(0)
    net = sf.Sequential(layer.unused_copy(), dtype=np.float64, backend="reference", seed=5)
    for parameter in net.parameters():
        parameter.value *= rng.uniform(0.97, 1, parameter.value.shape)
    net.save(tmp_path / "net.npz")
    again, x = sf.load(tmp_path / "net.npz", backend="reference"), 3 * rng.random((6, 4, *shape))
    assert again.config() == net.config() and repr(again) == repr(net)
    outputs = net.forward(x)
    assert outputs[1].any()
    for ours, theirs in zip(again.forward(x), outputs, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(again.predict(x), outputs[0])


def test_a_layer_keeps_its_numbers_when_the_callers_array_changes():
    beta = np.array([0.5, 0.25])
    layer = sf.Leaky(beta, learn_beta=True)
    net = sf.Sequential(layer, backend="reference", dtype=np.float64)
    beta[:] = 0
    net.parameters()[0].value[...] = 1
    assert layer.config()["beta"] == [0.5, 0.25]


@pytest.mark.parametrize(
    "config, message",
    [
        (
            {"type": "Conv3d"},
            r"unknown layer 'Conv3d' \(did you mean 'Conv2d'\?\); known are AvgPool2d, BatchNorm1d, BatchNorm2d, ",
        ),
        ({}, "unknown layer None"),
        ({"type": "Linear", "in_features": 3}, "layer Linear: .*out_features"),
        ({"type": "Flatten", "axis": 1}, "layer Flatten: .*axis"),
        ({"type": "Leaky", "beta": 0.5, "spike_grad": {"name": "step"}}, "unknown surrogate 'step'"),
        (
            {"type": "Alpha", "alpha": 0.5, "beta": 0.5, "spike_grad": {}},
            "unknown surrogate None; known are atan, fast_sigmoid, ",
        ),
        ({"type": "Leaky", "beta": 0.5, "spike_grad": {"name": "atan", "slope": 1}}, "layer Leaky: .*slope"),
        ({"type": "Leaky", "beta": 0.5, "spike_grad": {"name": "atan", "alpha": -1}}, "alpha must be a positive finite number"),
        ({"type": "LeakyIntegrator", "beta": 0.5, "threshold": 1}, "layer LeakyIntegrator: .*threshold"),
        ({"type": "Lapicque", "beta": 0.5, "reset_delay": False}, "layer Lapicque: .*reset_delay"),
        ({"type": "Alpha", "alpha": 0.5, "beta": 0.5}, "alpha must be greater than beta"),
        ({"type": "RLeaky", "beta": [0.5, 1.5], "all_to_all": False}, r"beta must be in \[0, 1\]"),
        ({"type": "RSynaptic", "alpha": 0.5, "beta": 0.5}, "all_to_all=True needs either"),
        ({"type": "Synaptic", "beta": 0.5}, "layer Synaptic: .*alpha"),
        ({"type": "Neuron"}, "unknown layer 'Neuron'"),
    ],
)
def test_bad_config(config, message):
    with pytest.raises(ValueError, match=message):
        layers.from_config(config)


def test_from_config_leaves_the_description_alone():
    config = sf.Linear(2, 3).config()
    before = dict(config)
    layers.from_config(config)
    assert config == before


@pytest.mark.parametrize(
    "layer, shown",
    [
        (sf.Conv2d(1, 12, 5), "Conv2d(1, 12, 5)"),
        (sf.Conv2d(1, 12, 5, padding=2, bias=False), "Conv2d(1, 12, 5, padding=2, bias=False)"),
        (sf.Linear(6, 5), "Linear(6, 5)"),
        (sf.MaxPool2d(2), "MaxPool2d(2"),
        (sf.Flatten(), "Flatten()"),
        (sf.Leaky(0.5, reset_mechanism="zero"), "Leaky(0.5"),
        (sf.LeakyIntegrator(FEATURES), "LeakyIntegrator(array(3,))"),
        (sf.RLeaky(CHANNELS, conv2d_channels=2, kernel_size=3), "RLeaky(array(2, 1, 1), conv2d_channels=2, kernel_size=3, "),
        (sf.Lapicque(R=2, C=1, time_step=0.5), "Lapicque(beta=0.75, R=2.0, C=1.0, time_step=0.5, "),
    ],
    ids=repr,
)
def test_repr_shows_what_was_chosen(layer, shown):
    assert repr(layer).startswith(shown)


def test_repr_of_a_parameter():
    net = sf.Sequential(sf.Linear(2, 3), sf.Leaky(0.5))
    assert repr(net.parameters()[0]) == "Parameter('0.weight', shape=(3, 2), dtype=float32)"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "layer, shapes",
    [
        (lambda: sf.Conv2d(3, 4, 5), {"weight": (4, 3, 5, 5), "bias": (4,)}),
        (lambda: sf.Conv2d(3, 4, 5, bias=False), {"weight": (4, 3, 5, 5)}),
        (lambda: sf.Linear(6, 5), {"weight": (5, 6), "bias": (5,)}),
        (lambda: sf.Linear(6, 5, bias=False), {"weight": (5, 6)}),
        (lambda: sf.MaxPool2d(2), {}),
        (lambda: sf.Flatten(), {}),
        (lambda: sf.Leaky(0.5), {}),
        (lambda: sf.Leaky(0.5, learn_beta=True), {"beta": ()}),
        (lambda: sf.Leaky(0.5, learn_threshold=True), {"threshold": ()}),
        (lambda: sf.Leaky(0.5, learn_beta=True, learn_threshold=True), {"beta": (), "threshold": ()}),
        (lambda: sf.Leaky(FEATURES, CHANNELS, learn_beta=True, learn_threshold=True), {"beta": (3,), "threshold": (2, 1, 1)}),
        (lambda: sf.Leaky(0.5, learn_graded_spikes_factor=True), {"graded_spikes_factor": ()}),
        (lambda: sf.Lapicque(FEATURES, learn_beta=True), {"beta": (3,)}),
        (lambda: sf.Synaptic(FEATURES, 0.5, learn_alpha=True, learn_beta=True), {"alpha": (3,), "beta": ()}),
        (lambda: sf.Alpha(0.9, 0.5, learn_alpha=True, learn_threshold=True), {"alpha": (), "threshold": ()}),
        (lambda: sf.RLeaky(0.5, all_to_all=False), {"V": ()}),
        (lambda: sf.RLeaky(0.5, V=FEATURES, all_to_all=False, learn_beta=True), {"beta": (), "V": (3,)}),
        (lambda: sf.RLeaky(0.5, all_to_all=False, learn_recurrent=False), {}),
        (lambda: sf.RLeaky(0.5, linear_features=3), {"recurrent.weight": (3, 3), "recurrent.bias": (3,)}),
        (
            lambda: sf.RSynaptic(0.5, 0.5, conv2d_channels=2, kernel_size=3, learn_alpha=True),
            {"alpha": (), "recurrent.weight": (2, 2, 3, 3), "recurrent.bias": (2,)},
        ),
    ],
    ids=lambda value: repr(value()) if callable(value) and not isinstance(value, type) else None,
)
def test_parameters_have_the_names_and_shapes_of_torch(layer, shapes, dtype):
    net = sf.Sequential(sf.Leaky(0.5), layer(), sf.Leaky(0.5), dtype=dtype)
    assert {p.name: p.value.shape for p in net.parameters()} == {f"1.{key}": shape for key, shape in shapes.items()}
    for parameter in net.parameters():
        assert parameter.value.dtype == parameter.grad.dtype == dtype
        assert parameter.grad.shape == parameter.value.shape and not parameter.grad.any()


@pytest.mark.parametrize("layer", [lambda: sf.Conv2d(3, 40, 5), lambda: sf.Linear(75, 200)], ids=["conv", "linear"])
def test_initial_values_fill_the_interval_of_torch(layer):
    net = sf.Sequential(layer(), sf.Leaky(0.5), seed=1, dtype=np.float64)
    bound = 1 / np.sqrt(75)  # of the number of inputs to one output
    for parameter in net.parameters():
        largest = abs(parameter.value).max()
        assert 0.9 * bound < largest <= bound
    weight = net.parameters()[0].value
    assert abs(weight.mean()) < 0.05 * bound
    assert weight.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)


@pytest.mark.parametrize("method, count", [("output_shape", 1), ("forward", 4), ("backward", 6)])
def test_a_layer_must_define_its_methods(method, count):
    with pytest.raises(NotImplementedError, match=f"a layer must define {method}"):
        getattr(layers.Layer(), method)(*[None] * count)


# ---------------------------------------------------------------------------------------------- snnTorch's constants

PLAIN = {"threshold": 1.0, "graded_spikes_factor": 1.0, "reset_mechanism_val": 0}
STORED = {  # a neuron of snnTorch 1.0 -> what its state dict holds
    "Leaky": (lambda: sf.Leaky(FEATURES, 0.7), {**PLAIN, "beta": FEATURES, "threshold": 0.7}),
    "Leaky, of channels": (lambda: sf.Leaky(CHANNELS, CHANNELS), {**PLAIN, "beta": CHANNELS, "threshold": CHANNELS}),
    "Leaky, learned": (lambda: sf.Leaky(FEATURES, learn_beta=True, reset_mechanism="none"), {
        **PLAIN, "beta": FEATURES, "reset_mechanism_val": 2,
    }),
    "Synaptic": (lambda: sf.Synaptic(0.8, FEATURES, learn_alpha=True), {**PLAIN, "alpha": 0.8, "beta": FEATURES}),
    "Alpha": (lambda: sf.Alpha(FEATURES, 0.2), {**PLAIN, "alpha": FEATURES, "beta": 0.2, "reset_mechanism_val": 1}),
    "RLeaky": (lambda: sf.RLeaky(0.9, FEATURES, False, learn_recurrent=False), {**PLAIN, "beta": 0.9, "V": FEATURES}),
}  # fmt: skip


def as_snntorch(constants):
    """-> entries of layer 1: snnTorch keeps its numbers in float32."""
    return {f"1.{key}": np.asarray(value, np.int64 if "val" in key else np.float32) for key, value in constants.items()}


@pytest.mark.parametrize("name", STORED)
def test_constants_of_snntorch_are_accepted_when_equal_and_refused_when_not(name):
    make, constants = STORED[name]
    net = sf.Sequential(sf.Leaky(0.5, learn_beta=True), make(), backend="reference")
    state = {"0.beta": np.array(0.25)} | as_snntorch(constants)
    net.load_state_dict(state)
    assert net.state_dict()["0.beta"] == 0.25
    kept = {parameter.name for parameter in net.parameters()}
    for key in state.keys() - kept:
        other = state[key] + np.linspace(0, 1, max(state[key].size, 2))[-state[key].size :].reshape(state[key].shape)
        with pytest.raises(ValueError, match=rf"{key} is [^,]*, but layer 1 "):
            net.load_state_dict(state | {"0.beta": np.array(0.75), key: other})
    assert net.state_dict()["0.beta"] == 0.25
    with pytest.raises(ValueError, match=r"unknown \['1\.mem'\]"):
        net.load_state_dict(state | {"1.mem": np.zeros(3)})


@pytest.mark.parametrize("shape", [(4,), (2, 1, 1)], ids=str)
def test_a_constant_of_another_shape_is_refused_by_name(shape):
    net = sf.Sequential(sf.Leaky(0.5, learn_beta=True), sf.Leaky(0.5, FEATURES), backend="reference")
    with pytest.raises(ValueError, match=r"1\.threshold"):
        net.load_state_dict({"0.beta": np.array(0.5), "1.threshold": np.ones(shape)})


def test_an_integrator_knows_no_constants_of_snntorch():
    net = sf.Sequential(sf.LeakyIntegrator(0.5), backend="reference")
    with pytest.raises(ValueError, match=r"unknown \['0\.beta'\]"):
        net.load_state_dict({"0.beta": np.array(0.5)})

from __future__ import annotations

import json

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import layers, surrogate

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
]


@pytest.mark.parametrize("layer", EVERY, ids=repr)
def test_config_round_trip_through_json(layer):
    config = json.loads(json.dumps(layer.config()))
    again = layers.from_config(config)
    assert type(again) is type(layer)
    assert again.config() == config == layer.config()
    assert repr(again) == repr(layer)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"type": "Conv3d"}, "unknown layer 'Conv3d'; known are Conv2d, Flatten, Linear, MaxPool2d, Alpha, Lapicque, Leaky, "),
        ({}, "unknown layer None"),
        ({"type": "Linear", "in_features": 3}, "layer Linear: .*out_features"),
        ({"type": "Flatten", "axis": 1}, "layer Flatten: .*axis"),
        ({"type": "Leaky", "beta": 0.5, "spike_grad": {"name": "step"}}, "unknown surrogate 'step'"),
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

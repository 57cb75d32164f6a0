"""What a network shows of itself: recorded gradients, the neurons' health, recurrences in numbers, spikes as input."""

from __future__ import annotations

import importlib
import re
import sys

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import layers
from spikeflow.ops.neurons.model import scalar
from spikeflow.recurrences import OWN, explain


def csnn(backend="reference", **options):
    return sf.Sequential(
        sf.Conv2d(1, 4, 3), sf.MaxPool2d(2), sf.Leaky(0.6, 0.3), sf.Conv2d(4, 5, 3), sf.MaxPool2d(2), sf.Leaky(0.6, 0.2),
        sf.Flatten(), sf.Linear(5, 6), sf.RLeaky(0.8, linear_features=6, threshold=0.3), sf.Linear(6, 3), sf.LeakyIntegrator(0.8),
        backend=backend, **options,
    )  # fmt: skip


def draw(batch=9):
    rng = np.random.default_rng(0)
    return rng.random((batch, 1, 13, 13), np.float32), rng.integers(0, 3, batch)


# ---------------------------------------------------------------------------------------------- record(..., backward=True)


def test_recorded_gradients_add_up_to_those_of_the_biases(backend):
    net, (images, labels), loss_fn = csnn(backend), draw(), sf.losses.ce_membrane_loss()
    record = net.record(images, num_steps=8, backward=True, labels=labels, loss_fn=loss_fn)
    net.zero_grad()
    net.loss_and_grad(images, labels, loss_fn, num_steps=8)
    gradients = {parameter.name: parameter.grad for parameter in net.parameters()}
    for bias, layer in (("0.bias", "2"), ("3.bias", "5"), ("7.bias", "8"), ("8.recurrent.bias", "8"), ("9.bias", "10")):
        found = record[layer]["dmembrane"]  # of all these neurons dL/dcurrent is dL/dmembrane
        assert found.shape == record[layer]["membrane"].shape
        total = found.sum((0, 1, 3, 4)) if found.ndim == 5 else found.sum((0, 1))
        np.testing.assert_allclose(total, gradients[bias], rtol=2e-4, atol=1e-5)


def test_the_last_layers_gradients_are_the_losss():
    net = sf.Sequential(sf.Linear(4, 3), sf.Leaky(0.9, 0.2), backend="reference")
    images, labels = np.random.default_rng(0).random((5, 4), np.float32), np.arange(5) % 3
    loss_fn = sf.losses.ce_rate_loss()
    record = net.record(images, num_steps=6, backward=True, labels=labels, loss_fn=loss_fn)
    _, dspikes = loss_fn(record["1"]["spikes"], labels)
    np.testing.assert_allclose(record["1"]["dspikes"], dspikes, rtol=1e-5)
    whole = net.record(images, num_steps=6)
    for key in ("spikes", "membrane"):
        np.testing.assert_array_equal(record["1"][key], whole["1"][key])


def test_recording_leaves_the_gradients_alone():
    net, (images, labels) = csnn(), draw()
    for parameter in net.parameters():
        parameter.grad[...] = 7
    net.record(images, num_steps=4, backward=True, labels=labels, loss_fn=sf.losses.ce_membrane_loss())
    assert all((parameter.grad == 7).all() for parameter in net.parameters())


@pytest.mark.parametrize("loss_fn", [None, lambda spikes, membrane, labels: (0.0, spikes, None)], ids=["none", "function"])
def test_recording_backward_needs_a_loss(loss_fn):
    images, labels = draw()
    with pytest.raises(ValueError, match="backward=True needs a loss of spikeflow.losses as loss_fn"):
        csnn().record(images, num_steps=2, backward=True, labels=labels, loss_fn=loss_fn)


# ---------------------------------------------------------------------------------------------- health


def test_health_counts_who_never_and_always_fires(backend):
    net = sf.Sequential(sf.Leaky(0.0, 0.5, reset_mechanism="none"), backend=backend)
    images = np.array([[0.1, 0.9, 0.7, 0.2], [0.3, 0.9, 0.1, 0.4]], np.float32)
    (row,) = net.health(images, num_steps=4).layers
    assert (row.name, row.layer) == ("0", "Leaky")
    assert (row.rate, row.silent, row.saturated) == (3 / 8, 0.5, 0.25)
    assert (row.lowest, row.highest) == (np.float32(0.1), np.float32(0.9))
    slopes = sf.surrogate.atan().of_array(sf.surrogate.atan().derivative, images - np.float32(0.5))
    assert row.gradient == pytest.approx(slopes.mean(), rel=1e-5)  # at its threshold atan's derivative is 1
    assert not row.dead


def test_health_does_not_depend_on_blocks_nor_on_what_is_fused():
    images, _ = draw(37)
    rows = [net.health(images, num_steps=7).layers for net in (csnn(), csnn("cpu"), csnn("cpu", events=False))]
    for one, *others in zip(*rows, strict=True):
        for other in others:
            assert other.rate == pytest.approx(one.rate, rel=0.02)
            assert other.gradient == pytest.approx(one.gradient, rel=0.02)


def test_health_names_the_dead():
    net = sf.Sequential(sf.Linear(4, 3), sf.Leaky(0.9, 1e6), sf.Linear(3, 2), sf.LeakyIntegrator(0.5), backend="reference")
    health = net.health(np.ones((2, 4), np.float32), num_steps=3)
    assert health.dead == ["1"]
    assert [row.dead for row in health.layers] == [True, False]
    assert re.search(r"1 Leaky +0.00% +100.0% +0.0%", str(health))


def test_health_takes_the_membrane_before_its_reset():
    net = sf.Sequential(sf.Leaky(0.5, 1.0, reset_delay=False, reset_mechanism="zero"), backend="reference")
    (row,) = net.health(np.full((1, 1), 1.5, np.float32), num_steps=1).layers
    pair = sf.surrogate.atan()
    assert row.gradient == pytest.approx(float(pair.derivative(np.float64(0.5), pair.constants)), rel=1e-6)


# ---------------------------------------------------------------------------------------------- explain

LAYERS = {
    "leaky": sf.Leaky(0.9, learn_beta=True),
    "at once": sf.Leaky(0.9, reset_delay=False, reset_mechanism="zero", inhibition=True),
    "lapicque": sf.Lapicque(0.75, R=2.0),
    "synaptic": sf.Synaptic(0.5, 0.8, reset_delay=False),
    "alpha": sf.Alpha(0.9, 0.6, 0.5),
    "rleaky": sf.RLeaky(0.9, V=0.3, all_to_all=False, graded_spikes_factor=2.0),
    "rsynaptic": sf.RSynaptic(0.5, 0.8, linear_features=3),
    "integrator": sf.LeakyIntegrator([0.9, 0.3]),
}


@pytest.mark.parametrize("name", LAYERS)
def test_explain_puts_numbers_in_and_shows_what_the_layer_computes(name):
    layer = LAYERS[name].unused_copy()
    x = np.array([0.8, 0.9, 0.7, 1.1])
    text = sf.explain(layer, x)
    assert "{" not in text.partition("\n")[2] and "forward" in text and "backward" in text
    if name == "rsynaptic":
        assert "W z[t-1]" in text
        return
    rows = [line.split() for line in text.splitlines() if re.match(r" +\d+ ", line)]
    head = next(line.split() for line in text.splitlines() if line.startswith("  t"))
    table = dict(zip(head, np.array(rows, float).T, strict=True))
    width = 2 if name == "integrator" else 1
    net = sf.Sequential(layer, dtype=np.float64, backend="reference")
    spikes, membrane = net.forward(np.repeat(x[:, None, None], width, 2))
    np.testing.assert_allclose(table["z"], spikes[:, 0, 0], atol=5.1e-5)
    np.testing.assert_allclose(table["m"], membrane[:, 0, 0], atol=5.1e-5)
    given = {"dspikes": np.ones_like(spikes)} if layer.model.fires else {"dmembrane": np.ones_like(membrane)}
    dx = net.backward(**given, input_grad=True)
    np.testing.assert_allclose(table["dx"], dx[:, 0, 0], atol=5.1e-5)


def test_explain_shows_one_neurons_numbers():
    assert "0.3 m[t-1]" in explain(LAYERS["integrator"], neuron=1)
    assert "0.9 m[t-1]" in explain(LAYERS["integrator"])


OPTIONS = {"Lapicque": {"beta": 0.9}, "RLeaky": {"beta": 0.9, "linear_features": 2}, "Alpha": {"alpha": 0.9, "beta": 0.5}}
OPTIONS |= {"Synaptic": {"alpha": 0.9, "beta": 0.5}, "RSynaptic": {"alpha": 0.9, "beta": 0.5, "linear_features": 2}}
OPTIONS |= {"Leaky": {"beta": 0.9}, "LeakyIntegrator": {"beta": 0.9}}


@pytest.mark.parametrize("neuron", layers.NEURONS, ids=lambda neuron: neuron.__name__)
def test_every_neuron_is_explained(neuron):
    layer = neuron(**OPTIONS.get(neuron.__name__, {}))
    text = explain(layer)
    assert "its own step" not in text, "put its own step into words: recurrences.OWN, or NODES"
    if layer.neuron in OWN:
        assert set(re.findall(r"{(\w+)}", " ".join(OWN[layer.neuron][0]))) == set(scalar(layer.neuron).PARAMS)


@pytest.mark.parametrize("like", ["leaky", "lif_node"])
def test_a_neuron_that_nobody_described_is_shown_by_its_numbers(monkeypatch, like):
    from spikeflow.ops.neurons import model

    for module in ("", ".scalar", ".reference"):
        monkeypatch.setitem(
            sys.modules,
            f"{model.__package__}.mine_{like}{module}",
            importlib.import_module(f"spikeflow.ops.neurons.{like}{module}"),
        )
    base = sf.Leaky if like == "leaky" else sf.LIFNode
    layer = type("Mine", (base,), {"neuron": f"mine_{like}", "__doc__": "One's own."})(*([0.9] if like == "leaky" else []))
    mine, theirs = explain(layer), explain(base(*([0.9] if like == "leaky" else [])))
    assert f"(its own step, with {', '.join(scalar(like).PARAMS)}: see spikeflow.ops.neurons." in mine
    assert mine.partition("steps, L =")[2] == theirs.partition("steps, L =")[2]


@pytest.mark.parametrize(
    "layer, options, error, message",
    [
        (sf.Flatten(), {}, TypeError, "layer must be a neuron layer"),
        (sf.Leaky(0.5), {"current": [[1.0]]}, ValueError, r"current must be \(T,\) finite numbers"),
        (sf.Leaky(0.5), {"current": [np.nan]}, ValueError, "current must be"),
        (sf.Leaky([0.5, 0.6]), {"neuron": 2}, ValueError, r"neuron must be in \[0, 2\), got 2"),
        (sf.Leaky(0.5), {"neuron": -1}, ValueError, "neuron must be in"),
    ],
    ids=["layer", "axes", "nan", "neuron", "negative"],
)
def test_bad_explain(layer, options, error, message):
    with pytest.raises(error, match=message):
        explain(layer, **options)


# ---------------------------------------------------------------------------------------------- spikes as input

FIRST = {
    "Linear": lambda: [sf.Flatten(), sf.Linear(64, 5)],
    "Linear of rows": lambda: [sf.Linear(64, 5)],
    "Conv2d": lambda: [sf.Conv2d(1, 6, 3), sf.MaxPool2d(2), sf.Leaky(0.9), sf.Flatten(), sf.Linear(54, 5)],
    "MaxPool2d": lambda: [sf.MaxPool2d(2), sf.Conv2d(1, 4, 3), sf.Leaky(0.9), sf.Flatten(), sf.Linear(16, 5)],
    "Leaky": lambda: [sf.Leaky(0.5, 0.7), sf.Flatten(), sf.Linear(64, 5)],
}


def outputs(make, spikes, **options):
    """-> spikes, membrane, dL/dinput and gradients of a network on input spikes, weights being multiples of 1/64."""
    net = sf.Sequential(*make(), sf.Leaky(0.9), **options)
    for parameter in net.parameters():
        parameter.value[...] = np.round(parameter.value * 192) / 64
    results = list(net.forward(spikes))
    results.append(net.backward(results[0] - np.float32(0.25), input_grad=True))
    return results + [parameter.grad for parameter in net.parameters()]


@pytest.mark.parametrize("name", FIRST)
def test_spikes_of_bool_enter_as_bits(name):
    spikes = np.random.default_rng(0).random((70, 9, 1, 8, 8)) < 0.3
    if name == "Linear of rows":
        spikes = spikes.reshape(70, 9, 64)
    bits = outputs(FIRST[name], spikes)
    assert 0 < bits[0].mean() < 1
    for options in ({"events": False}, {"backend": "reference"}):
        for given in (spikes, spikes.astype(np.float32)):
            for ours, expected in zip(bits[:2], outputs(FIRST[name], given, **options)[:2], strict=True):
                np.testing.assert_array_equal(ours, expected, strict=True)
    for ours, expected in zip(bits[2:], outputs(FIRST[name], spikes, backend="reference")[2:], strict=True):
        assert np.linalg.norm(ours - expected) <= 1e-5 * np.linalg.norm(expected)


def test_spikes_in_pieces_give_the_same_bits():
    net = sf.Sequential(*FIRST["Conv2d"](), sf.Leaky(0.9))
    spikes = np.random.default_rng(0).random((9, 3, 1, 8, 8)) < 0.3
    whole, state, parts = net.forward(spikes), None, []
    for part in (spikes[:2], spikes[2:]):
        *output, state = net.stream(part, state)
        parts.append(output)
    for expected, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate(pieces), expected)

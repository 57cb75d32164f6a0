"""``spikeflow parity``: backends that agree, and ones that are wrong in every way that the report judges."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import backends, cli, parity, random

T, B = 6, 3
NETWORK = """
[network]
name = "small"
input = [1, 28, 28]

[[layers]]
type = "AvgPool2d"
kernel_size = 4

[[layers]]
type = "Flatten"

[[layers]]
type = "Linear"
in_features = 49
out_features = 10

[[layers]]
type = "Leaky"
beta = 0.5

[training]
num_steps = 3
"""


def network(**options):
    layers = (
        sf.Conv2d(1, 3, 3), sf.MaxPool2d(2), sf.Leaky(0.5, threshold=0.25), sf.Flatten(), sf.Linear(27, 5), sf.Leaky(0.75, 0.5),
    )  # fmt: skip
    return sf.Sequential(*layers, seed=1, **options)


def images(dtype=np.float32):
    return random.uniform((B, 1, 8, 8), 0, 1, 3, "images").astype(dtype)


def compare(net=None, num_steps=T, x=None, **options):
    net = network() if net is None else net
    x = images(net.dtype) if x is None else x
    return parity.parity(net, x, np.arange(B), sf.losses.ce_rate_loss(), num_steps, **options)


@pytest.fixture
def broken(monkeypatch):
    """-> a function that makes the backend "broken": the reference, with operations changed by {name: change(result)}."""
    load = backends.load

    def make(**changes):
        reference = vars(load("reference"))

        def changed(name):
            return lambda *args, **options: changes[name](reference[name](*args, **options), *args)

        table = SimpleNamespace(**{**reference, **{name: changed(name) for name in changes}})
        monkeypatch.setattr(backends, "load", lambda name: table if name == "broken" else load(name))

    return make


def test_cpu_agrees_with_the_reference_and_neither_is_changed():
    net = network()
    before = net.state_dict()
    report = compare(net, backends=["cpu"])
    assert report.passed and set(report.losses) == {"reference", "cpu"}
    assert [row.name for row in report.layers] == ["2", "5"] and all(row.spikes for row in report.layers)
    assert [row.name for row in report.gradients] == ["0.input", "0.weight", "0.bias", "3.input", "4.weight", "4.bias"]
    assert all(row.norm > 0 and row.alone < 1e-5 and (row.whole or 0) < 1e-5 for row in report.gradients)
    assert all((value == before[name]).all() for name, value in net.state_dict().items())
    assert not any(parameter.grad.any() for parameter in net.parameters())


def test_dyadic_numbers_make_forward_equal_to_the_bit():
    report = compare(backends=["cpu"], dyadic=True)
    assert report.passed and all(row.exact and not row.whole_membrane and not row.whole_spikes for row in report.layers)
    assert "equal to the bit where it must be" in str(report)


def test_batch_normalisation_need_not_be_exact():
    layers = sf.Linear(64, 8), sf.BatchNorm1d(8), sf.IFNode(v_threshold=0.25), sf.Linear(8, 5), sf.IFNode(v_threshold=0.25)
    report = compare(layers, x=images().reshape(B, -1), backends=["cpu"], dyadic=True)
    assert report.passed and not any(row.exact for row in (*report.layers, *report.gradients))


def test_a_loss_of_the_membrane_reaches_every_layer():
    net = sf.Sequential(sf.Linear(4, 6), sf.Leaky(0.5, 0.1), sf.Linear(6, 3), sf.LeakyIntegrator(0.5))
    x = random.uniform((B, 4), 0, 1, 0, "x").astype(np.float32)
    report = parity.parity(net, x, np.arange(B), sf.losses.ce_membrane_loss(), T, ["cpu"], rescale=True)
    assert report.passed and all(row.norm > 0 for row in report.gradients) and report.layers[1].spikes == 0


def test_sequences_and_graded_spikes_are_compared_too():
    graded, recurrent = sf.Leaky(0.5, 0.1, graded_spikes_factor=2.0), sf.RLeaky(0.5, 0.2, linear_features=3)
    net = sf.Sequential(sf.Linear(4, 6), graded, sf.Linear(6, 3), recurrent)
    x = random.uniform((T, B, 4), 0, 1, 0, "x").astype(np.float32)
    report = compare(net, None, x, backends=["cpu"])
    assert report.passed and report.gradients[-1].name.startswith("3.recurrent.")


@pytest.mark.parametrize(
    "name, change, found",
    [
        ("linear_forward", lambda y, *_: y * np.float32(1.0001), "broken, 5: membranes differ alone"),
        ("conv2d_forward", lambda y, *_: -y, "broken, 2: .* spikes of .* places differ alone"),
        ("linear_backward", lambda dx, *_: dx * np.float32(1.001), "broken, 3.input: gradients differ alone"),
        ("max_pool2d_backward", lambda dx, *_: dx[:, ::-1].copy(), "broken, 0.weight: gradients differ alone"),
    ],
    ids=["linear", "conv", "linear-backward", "pool-backward"],
)
def test_a_wrong_backend_is_found_where_it_is_wrong(broken, name, change, found):
    broken(**{name: change})
    report = compare(backends=["broken"])
    assert not report.passed and any(re.match(found, problem) for problem in report.problems), report
    assert "BEYOND ITS BOUND: broken" in str(report)


def test_a_last_bit_is_found_by_dyadic_numbers_alone(broken):
    broken(linear_forward=lambda y, *_: np.nextafter(y, np.float32(np.inf)))
    assert compare(backends=["broken"]).passed
    report = compare(backends=["broken"], dyadic=True)
    assert report.problems == ["broken, 5: differs (whole and alone), but must be equal to the bit"]


def test_a_spike_at_the_threshold_may_differ_and_hides_its_gradients(broken):
    broken(linear_forward=lambda y, *_: y * np.float32(1.000001))
    net = sf.Sequential(sf.Linear(2, 3, bias=False), sf.Leaky(0.0, 1.0, reset_mechanism="none"), backend="reference")
    net.load_state_dict({"0.weight": np.array([[1.0, 0.0], [0.5, 0.0], [0.25, 0.0]])})  # the first reaches 1, and does not fire
    x, labels = np.ones((1, 2), np.float32), np.array([0])
    report = parity.parity(net, x, labels, sf.losses.ce_rate_loss(), 1, backends=["broken"])
    assert report.passed and report.layers[0].alone_spikes == 1
    assert "(flips)" in str(report) and "2 gradients behind spikes that differ are not judged" in str(report)


def test_silent_layers_are_made_to_fire():
    net = network()
    net.load_state_dict({name: value / 16 for name, value in net.state_dict().items()})
    assert not compare(net, backends=[]).layers
    silent, fires = (compare(net, backends=["cpu"], rescale=rescale) for rescale in (False, True))
    assert not any(row.spikes for row in silent.layers) and all(row.spikes for row in fires.layers)


def test_what_cannot_run_here_is_left_out_and_said(monkeypatch):
    load = backends.load

    def refuse(name):
        if name == "cuda":
            raise RuntimeError("no card")
        return load(name)

    monkeypatch.setattr(backends, "load", refuse)
    assert parity.available() == (["reference", "cpu"], {"cuda": "no card"})
    assert parity.available(np.float64)[1] == {"cuda": "it computes in float32 only"}
    assert "cuda is left out: no card" in str(compare())


def test_wrong_arguments_are_named():
    with pytest.raises(TypeError, match="loss_fn must be a loss"):
        parity.parity(network(), images(), np.arange(B), max, T)
    with pytest.raises(ValueError, match="backend must be one of .*'metal'"):
        compare(backends=["metal"])


def test_the_command_line(tmp_path, capsys, monkeypatch):
    path = tmp_path / "small.toml"
    path.write_text(NETWORK)
    words = ["parity", str(path), "--backend", "cpu"]
    assert cli.main(words) == 0 and "within bounds" in capsys.readouterr().out
    assert cli.main([*words, "--dyadic", "--json", "--batch-size", "3", "--num-steps", "2"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["passed"] and facts["layers"][0]["places"] == 2 * 3 * 10 and facts["bounds"]["membrane"] == parity.MEMBRANE
    network().save(tmp_path / "net.npz")
    assert cli.main(["parity", str(tmp_path / "net.npz"), "--backend", "cpu"]) == 0
    monkeypatch.setattr(parity, "MEMBRANE", -1.0)
    assert cli.main(words) == 1 and "membranes differ alone" in capsys.readouterr().out
    assert cli.main(["parity", "no-such"]) == 2 and cli.main([*words, "--channels", "3"]) == 2
    assert cli.main(["parity", "csnn-mnist", "--batch-size", "0"]) == 2

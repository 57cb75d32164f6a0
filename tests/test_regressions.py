"""Mistakes that were found by use, each with its smallest case."""

import dataclasses
import functools
import os
import subprocess
import sys

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import surrogate
from spikeflow.kernels import jit


def rows_net(**options):
    return sf.Sequential(sf.Flatten(), sf.Linear(12, 5), sf.Leaky(0.5), **options)


def test_gradcheck_of_a_sequence_of_matrices_compares_the_input_in_its_own_order():
    images = np.random.default_rng(0).normal(size=(6, 4, 3, 4))
    report = sf.gradcheck(rows_net(), images, np.array([0, 1, 2, 3]), sf.losses.ce_rate_loss(), num_steps=None)
    assert report.passed, f"\n{report}"


def test_a_surrogate_of_ones_own_trains_and_is_checked_but_cannot_be_written_down(tmp_path):
    mine = dataclasses.replace(surrogate.fast_sigmoid(10), derivative=lambda x, p: 1 / (1 + p[0] * abs(x)) ** 2)
    net = sf.Sequential(sf.Linear(3, 2), sf.Leaky(0.5, spike_grad=mine), backend="reference")
    images, labels = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32), np.array([0, 1, 0, 1])
    assert sf.gradcheck(net, images, labels, sf.losses.ce_rate_loss()).passed
    with pytest.raises(ValueError, match="functions of its own"):
        net.save(tmp_path / "net.npz")
    assert not list(tmp_path.iterdir())


def test_the_choice_of_dense_kernels_is_part_of_the_description():
    net = rows_net(events=False)
    assert sf.Sequential.from_config(net.config()).events is False


def test_a_forward_that_fails_leaves_nothing_to_go_backward_from():
    net = rows_net()
    net.forward(np.ones((2, 3, 4), np.float32), 2)
    with pytest.raises(ValueError, match="NaN"):
        net.forward(np.full((2, 3, 4), np.nan, np.float32), 2)
    with pytest.raises(RuntimeError, match="forward"):
        net.backward(np.ones((2, 2, 5), np.float32))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_backward_sees_the_weights_that_forward_saw(backend):
    x, dspikes = np.ones((2, 4), np.float32), np.ones((3, 2, 2), np.float32)
    gradients = []
    for change in (1, 2):
        net = sf.Sequential(sf.Linear(4, 3), sf.Leaky(0.5), sf.Linear(3, 2), sf.Leaky(0.5), backend=backend)
        net.forward(x, 3)
        for parameter in net.parameters():
            parameter.value *= change
        gradients.append(net.backward(dspikes, input_grad=True))
    assert np.array_equal(*gradients) and gradients[0].any()


def test_a_loss_that_reads_something_unknown_is_refused():
    class Both(sf.losses.ce_rate_loss):
        inputs = ("spikes", "membrane")

    with pytest.raises(ValueError, match="inputs must be"):
        rows_net().loss_and_grad(np.ones((2, 3, 4), np.float32), np.array([0, 1]), Both(), 2)


def test_layers_of_a_network_that_could_not_be_made_stay_free():
    layers = sf.Linear(4, 3), sf.Leaky(0.5)
    with pytest.raises(ValueError, match="seed"):
        sf.Sequential(*layers, seed=2**64)
    assert sf.Sequential(*layers, seed=0).parameters()


def test_an_empty_cache_variable_means_the_default_folder(monkeypatch):
    monkeypatch.setenv("SPIKEFLOW_CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", os.path.join(os.sep, "somewhere"))
    assert jit.cache_folder().parts[-3:] == ("somewhere", "spikeflow", "jit")


def test_a_user_without_a_home_can_compute(tmp_path):
    code = "import pathlib\ndef none(*_): raise RuntimeError('no home')\npathlib.Path.home = none\n"
    code += "import numpy as np, spikeflow as sf\nnet = sf.Sequential(sf.Linear(3, 2), sf.Leaky(0.5))\n"
    code += "print(net.predict(np.ones((1, 3), np.float32), 2).shape)"
    hidden = ("SPIKEFLOW_CACHE_DIR", "XDG_CACHE_HOME")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0 and result.stdout == "(2, 1, 2)\n", result.stderr


def test_long_sums_of_the_weight_gradient_stay_accurate_in_float32():
    # 100,000 positive products, each row of the same sign: one long float32 sum would be off by 5e-6.
    from spikeflow import backends

    rng = np.random.default_rng(0)
    x = rng.random((100, 34, 34, 1), np.float32)
    dy = rng.random((100, 32, 32, 3), np.float32)
    dweight = np.zeros((3, 1, 3, 3), np.float32)
    ops = backends.load("cpu")
    ops.conv2d_backward(dy, x, ops.conv2d_pack(dweight), 1, 0, dweight, None, False)
    exact = np.zeros((3, 1, 3, 3))
    reference = backends.load("reference")
    reference.conv2d_backward(dy.astype(float), x.astype(float), exact, 1, 0, exact, None, False)
    assert np.linalg.norm(dweight - exact) <= 1e-6 * np.linalg.norm(exact)


@pytest.mark.parametrize("ending", ["linear", "conv"])
def test_neuron_between_two_pools_runs_once(ending):
    """The convolution before the first pool runs the neuron too; the second pool was then left out, since the neuron was given
    out twice. With a convolution of stride 4 behind it the shapes fit all the same, and the numbers were wrong."""
    rng = np.random.default_rng(0)
    x = np.round(rng.random((3, 1, 16, 16)) * 16).astype(np.float32) / 16
    lif = functools.partial(sf.Leaky, beta=0.5, threshold=0.25)
    x = x if ending == "linear" else x[..., :14, :14].copy()
    spikes = {}
    for name, options in {"rules": {}, "plain": {"events": False}, "reference": {"backend": "reference"}}.items():
        front = [sf.Conv2d(1, 4, 3), lif(), sf.Conv2d(4, 5, 3), sf.MaxPool2d(2), lif(), sf.MaxPool2d(2)]
        behind = [] if ending == "linear" else [sf.Conv2d(5, 12, 2, stride=4), lif()]
        rows = [sf.Flatten(), sf.Linear(45 if ending == "linear" else 12, 10), lif()]
        net = sf.Sequential(*front, *behind, *rows, seed=1, **options)
        for parameter in net.parameters():
            parameter.value = np.round(parameter.value * 256) / 64  # dyadic: exact in any order
        spikes[name] = net.predict(x, 5)
    assert spikes["reference"].any()
    assert np.array_equal(spikes["rules"], spikes["reference"]) and np.array_equal(spikes["plain"], spikes["reference"])

"""Whole networks on the device beside the processor's: spikes, losses, gradients, parameters after some steps."""

from __future__ import annotations

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import surrogate
from spikeflow.kernels.cuda import gpu

LIF = {"beta": 0.5, "spike_grad": surrogate.fast_sigmoid(slope=25)}
B, T = 2, 3


def csnn():
    """Tutorial 6's network, small."""
    return (
        sf.Conv2d(1, 2, 3), sf.MaxPool2d(2), sf.Leaky(**LIF), sf.Conv2d(2, 3, 2), sf.MaxPool2d(2), sf.Leaky(**LIF),
        sf.Flatten(), sf.Linear(3 * 4, 3), sf.Leaky(**LIF),
    )  # fmt: skip


def normalised():
    """SpikingJelly's Fashion-MNIST network, small."""
    return (
        sf.Conv2d(1, 3, 3, padding=1, bias=False), sf.BatchNorm2d(3), sf.IFNode(), sf.MaxPool2d(2),
        sf.Conv2d(3, 3, 3, padding=1, bias=False), sf.BatchNorm2d(3), sf.IFNode(), sf.MaxPool2d(2),
        sf.Flatten(), sf.Linear(3 * 4, 5, bias=False), sf.IFNode(), sf.Linear(5, 3, bias=False), sf.IFNode(),
    )  # fmt: skip


def odd():
    """What nothing is fused in: a pool that overlaps, an average, other neurons, rows that are not square."""
    return (
        sf.Conv2d(2, 3, 3, stride=2, padding=1), sf.Leaky(0.9, threshold=0.5, reset_mechanism="zero"), sf.MaxPool2d(2, 1),
        sf.AvgPool2d(2), sf.Synaptic(0.5, 0.75, threshold=0.25), sf.Flatten(), sf.Linear(3 * 2, 4),
        sf.Alpha(0.75, 0.5, threshold=0.1), sf.Linear(4, 2), sf.Leaky(0.5, reset_delay=False),
    )  # fmt: skip


NETWORKS = {"csnn": (csnn, (1, 12, 12), 3), "normalised": (normalised, (1, 8, 8), 8), "odd": (odd, (2, 7, 9), 3)}


def pair(name, host="reference"):
    """-> the network on the host and on the device, with dyadic weights, and images that are multiples of 1/16."""
    make, shape, share = NETWORKS[name]
    nets = [sf.Sequential(*make(), seed=3, backend=backend) for backend in (host, "cuda")]
    for net in nets:
        for parameter in net.parameters():
            parameter.value = np.round(128 * (parameter.value + abs(parameter.value).max() / share)) / 32
    rng = np.random.default_rng(5)
    return *nets, (rng.integers(0, 17, (B, *shape)) / 16).astype(np.float32), rng.integers(0, 2, B)


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_is_equal_to_the_bit_and_gradients_agree(name):
    host, cuda, images, labels = pair(name)
    if name == "normalised":  # statistics in float32 need not be
        host.eval(), cuda.eval()
    spikes, membrane = host.forward(images, num_steps=T)
    found, membrane_found = cuda.forward(images, num_steps=T)
    assert 0 < spikes.mean() < 1
    np.testing.assert_array_equal(found, spikes)
    np.testing.assert_array_equal(membrane_found, membrane)
    dspikes = np.random.default_rng(1).standard_normal(spikes.shape).astype(np.float32)
    dx, dx_found = (net.backward(dspikes, 2 * dspikes, input_grad=True) for net in (host, cuda))
    np.testing.assert_allclose(dx_found, dx, rtol=1e-4, atol=1e-5)
    for one, other in zip(host.parameters(), cuda.parameters(), strict=True):
        np.testing.assert_allclose(other.grad, one.grad, rtol=1e-4, atol=1e-5, err_msg=one.name)


@pytest.mark.parametrize(
    ("name", "optimizer", "loss_fn"),
    [
        ("csnn", lambda p: sf.optim.Adam(p, lr=1e-2), sf.losses.ce_rate_loss()),
        ("normalised", lambda p: sf.optim.SGD(p, lr=0.1, momentum=0.9), sf.losses.mse_rate_loss()),
        ("odd", lambda p: sf.optim.Adam(p, lr=1e-2), sf.losses.ce_max_membrane_loss() + 1e-2 * sf.losses.l1_rate_sparsity()),
    ],
)
def test_training_follows_the_processors_losses(name, optimizer, loss_fn):
    host, cuda, images, labels = pair(name, host="cpu" if name == "csnn" else "reference")
    losses = []
    for net in (host, cuda):
        update, losses_of = optimizer(net.parameters()), []
        for _ in range(3):
            net.zero_grad()
            loss, _ = net.loss_and_grad(images, labels, loss_fn, num_steps=T)
            update.step()
            losses_of.append(loss)
        losses.append(losses_of)
    assert losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    for key, value in host.state_dict().items():
        np.testing.assert_allclose(cuda.state_dict()[key], value, rtol=1e-3, atol=1e-4, err_msg=key)


def test_a_step_allocates_nothing_and_repeats_its_launches():
    _, net, images, labels = pair("csnn")
    update, loss_fn, seen = sf.optim.Adam(net.parameters()), sf.losses.ce_rate_loss(), []
    for _ in range(3):
        with gpu.launches() as launches:
            net.zero_grad()
            net.loss_and_grad(images, labels, loss_fn, num_steps=T)
            update.step()
        arena = net._device_arenas["step"]
        arrays = [[id(arg) for arg in launch.args if hasattr(arg, "copy_to_host")] for launch in launches]
        seen.append((arena.allocations, [(launch.kernel, launch.grid, launch.threads) for launch in launches], arrays))
    assert seen[1][0] == seen[2][0]
    assert seen[1][1] == seen[2][1]
    assert len(seen[1][1]) < 40


def test_sequences_of_bits_and_of_numbers():
    host, cuda, _, labels = pair("csnn")
    sequence = np.random.default_rng(2).random((T, B, 1, 12, 12)) < 0.3
    for x in (sequence, sequence.astype(np.float32)):
        np.testing.assert_array_equal(cuda.predict(x), host.predict(x))
    losses = [net.loss_and_grad(sequence, labels, sf.losses.mse_count_loss())[0] for net in (host, cuda)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_parts_of_a_sequence_give_the_whole():
    host, cuda, images, _ = pair("odd")
    whole, state = host.predict(images, num_steps=5), None
    parts = []
    for steps in (2, 3):
        spikes, _, state = cuda.stream(images, state, num_steps=steps)
        parts.append(spikes)
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_record_shows_every_neuron():
    host, cuda, images, labels = pair("odd")
    for options in ({}, {"backward": True, "labels": labels, "loss_fn": sf.losses.ce_rate_loss()}):
        expected, found = (net.record(images, num_steps=T, **options) for net in (host, cuda))
        for name, arrays in expected.items():
            for key, array in arrays.items():
                np.testing.assert_allclose(found[name][key], array, rtol=1e-5, atol=1e-6, err_msg=f"{name} {key}")


def test_a_loss_of_ones_own():
    host, cuda, images, labels = pair("csnn")

    def loss_fn(spikes, membrane, labels):
        return float((spikes**2).sum()), 2 * spikes, membrane

    losses = [net.loss_and_grad(images, labels, loss_fn, num_steps=T)[0] for net in (host, cuda)]
    assert losses[0] == losses[1] > 0
    for one, other in zip(host.parameters(), cuda.parameters(), strict=True):
        np.testing.assert_allclose(other.grad, one.grad, rtol=1e-4, atol=1e-5, err_msg=one.name)


def test_learned_numbers_of_neurons():
    options = {"learn_beta": True, "learn_threshold": True}
    nets = [
        sf.Sequential(sf.Linear(6, 5), sf.Leaky(np.full(5, 0.5), **options), sf.Linear(5, 2), sf.Leaky(0.5, **options), backend=b)
        for b in ("reference", "cuda")
    ]
    x = np.random.default_rng(0).random((B, 6)).astype(np.float32) * 3
    updates = [sf.optim.SGD(net.parameters(), lr=0.1) for net in nets]
    for _ in range(3):
        losses = []
        for net, update in zip(nets, updates, strict=True):
            net.zero_grad()
            losses.append(net.loss_and_grad(x, np.array([0, 1]), sf.losses.ce_membrane_loss(), num_steps=T)[0])
            update.step()
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        np.testing.assert_allclose(other.value, one.value, rtol=1e-4, atol=1e-6, err_msg=one.name)


def test_parameters_move_between_host_and_device():
    _, net, images, _ = pair("csnn")
    before = net.predict(images, num_steps=T)
    state = net.state_dict()
    assert before.any()
    for parameter in net.parameters()[-2:]:
        parameter.value[...] = -1
    assert not net.predict(images, num_steps=T).any()
    net.load_state_dict(state)
    np.testing.assert_array_equal(net.predict(images, num_steps=T), before)


def test_what_the_device_cannot_do_is_refused():
    layers = lambda: (sf.Linear(2, 2), sf.Leaky(0.5))  # noqa: E731
    with pytest.raises(ValueError, match="dtype must be float32 with backend='cuda'"):
        sf.Sequential(*layers(), backend="cuda", dtype=np.float64)
    with pytest.raises(ValueError, match="amp is an option of backend='cpu'"):
        sf.Sequential(*layers(), backend="cuda", amp=True)
    with pytest.raises(ValueError, match="memory is planned for backend='cpu'"):
        sf.Sequential(*layers(), backend="cuda").plan(4, 5)


def test_gradcheck_of_a_network_on_the_device():
    net = sf.Sequential(sf.Linear(4, 3), sf.Leaky(0.5, spike_grad=surrogate.atan()), seed=1, backend="cuda")
    images = np.random.default_rng(0).random((2, 4)).astype(np.float32)
    assert sf.gradcheck(net, images, np.array([0, 1]), sf.losses.ce_rate_loss(), num_steps=3).passed

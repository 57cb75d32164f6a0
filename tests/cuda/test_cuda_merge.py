"""Where branches meet, on the device: the host's numbers, and a branching network beside the reference."""

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import backends
from spikeflow.kernels.cuda import gpu

SHAPES = [(1, 1, 1), (2, 3, 5), (2, 1, 2, 2, 3)]


def draw(shape, count):
    return [np.random.default_rng(i).integers(-8, 8, shape).astype(np.float32) / 8 for i in range(count)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_functions_are_the_references(shape):
    (a, b, dy), host, device = draw(shape, 3), backends.load("reference"), backends.load("cuda")
    on = [gpu.to_device(array) for array in (a, b, dy)]
    for name in ("merge_add", "merge_and", "merge_iand"):
        np.testing.assert_array_equal(gpu.to_host(getattr(device, name)(*on[:2])), getattr(host, name)(a, b))
    for name in ("merge_and_backward", "merge_iand_backward"):
        pairs = zip(getattr(device, name)(on[2], *on[:2]), getattr(host, name)(dy, a, b), strict=True)
        for ours, theirs in pairs:
            np.testing.assert_array_equal(gpu.to_host(ours), theirs)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_channels_are_put_together_and_taken_apart(shape):
    parts, device = [draw((*shape[:-1], C), 1)[0] + C for C in (shape[-1], 1, 3)], backends.load("cuda")
    y = device.merge_concat([gpu.to_device(part) for part in parts])
    np.testing.assert_array_equal(gpu.to_host(y), np.concatenate(parts, axis=-1))
    for part, again in zip(parts, device.merge_split(y, [part.shape[-1] for part in parts]), strict=True):
        np.testing.assert_array_equal(gpu.to_host(again), part)


def test_what_is_constant_is_shown_at_every_step():
    (x,) = draw((1, 2, 3), 1)
    y = gpu.to_host(backends.load("cuda").merge_repeat(gpu.to_device(x), 4))
    assert y.shape == (4, 2, 3) and (y == x).all()


def network(connect, backend):
    neuron = lambda: sf.Leaky(0.5, 0.25, sf.surrogate.atan(2))  # noqa: E731
    block = sf.Residual(sf.Linear(4, 4), neuron(), shortcut=sf.Sequential(sf.Linear(4, 4), neuron()), connect=connect)
    last = sf.Parallel(
        sf.Sequential(sf.Linear(8 if connect == "concat" else 4, 3), neuron()),
        sf.Linear(8 if connect == "concat" else 4, 2),
        merge=None,
    )
    net = sf.Sequential(sf.Linear(3, 4), neuron(), block, last, seed=1, backend=backend)
    for parameter in net.parameters():
        parameter.value = np.round(parameter.value * 8) / 8
    return net


@pytest.mark.parametrize("connect", ["add", "and", "iand", "concat"])
def test_a_branching_network_is_the_references(connect):
    x, y, T = np.random.default_rng(0).integers(0, 9, (3, 3)).astype(np.float32) / 4, np.arange(3) % 2, 3
    losses, found = (sf.losses.ce_rate_loss(), sf.losses.ce_membrane_loss()), []
    for backend in ("reference", "cuda"):
        net = network(connect, backend)
        (spikes, membrane), (none, output) = net.forward(x, T)
        assert none is None
        loss, _ = net.loss_and_grad(x, y, losses, T)
        found.append((spikes, membrane, output, net.predict(x, T)[1], loss, {p.name: np.array(p.grad) for p in net.parameters()}))
    (*ours, loss, gradients), (*theirs, expected, references) = found
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    assert loss == pytest.approx(expected, rel=1e-6)
    largest = max(np.linalg.norm(gradient) for gradient in references.values())
    for name, gradient in references.items():
        assert np.linalg.norm(gradients[name] - gradient) <= 1e-5 * max(np.linalg.norm(gradient), 0.01 * largest), name

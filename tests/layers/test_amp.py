"""Half precision for what waits for the backward pass: the same spikes and losses, almost the same gradients, half the bytes."""

from __future__ import annotations

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import surrogate
from spikeflow.engine.forms import Normalised
from spikeflow.kernels.cpu.half import Halved
from spikeflow.layers import BatchNorm1d, BatchNorm2d, Conv2d, Flatten, IFNode, Leaky, LIFNode, Linear, MaxPool2d, Synaptic

RNG = np.random.default_rng(0)
IMAGES = RNG.random((20, 1, 12, 12)).astype(np.float32)
LABELS = RNG.integers(0, 5, 20)


def csnn(node, **options):
    return sf.Sequential(
        Conv2d(1, 8, 3, padding=1, bias=False), BatchNorm2d(8), node(), MaxPool2d(2),
        Conv2d(8, 8, 3, padding=1, bias=False), BatchNorm2d(8), node(), MaxPool2d(2),
        Flatten(), Linear(72, 20, bias=False), BatchNorm1d(20), node(), Linear(20, 5), node(), seed=0, **options,
    )  # fmt: skip


def leaky(**options):
    neuron = {"beta": 0.7, "spike_grad": surrogate.atan(2)}
    return sf.Sequential(
        Conv2d(1, 8, 3), MaxPool2d(2), Leaky(**neuron), Conv2d(8, 8, 2), MaxPool2d(2), Leaky(**neuron), Flatten(),
        Linear(32, 20), Synaptic(alpha=0.6, learn_beta=True, reset_delay=False, **neuron), Linear(20, 5), Leaky(**neuron),
        seed=0, **options,
    )  # fmt: skip


NETWORKS = {
    "hard": lambda **options: csnn(lambda: IFNode(surrogate_function=surrogate.ATan()), **options),
    "soft": lambda **options: csnn(lambda: LIFNode(tau=1.5, v_reset=None, detach_reset=True), **options),
    "leaky": leaky,
}


def livelier(net):
    for parameter in net.parameters():
        if parameter.value.ndim > 1:
            parameter.value *= 4
    return net


@pytest.mark.parametrize("name", ["leaky", *(pytest.param(name, marks=pytest.mark.slow) for name in ("hard", "soft"))])
def test_spikes_and_loss_stay_and_gradients_almost(name):
    results = []
    for amp in (False, True):
        net = livelier(NETWORKS[name](amp=amp))
        loss, spikes = net.loss_and_grad(IMAGES, LABELS, sf.losses.mse_rate_loss(), num_steps=6)
        again = livelier(NETWORKS[name](amp=amp))
        outputs, membrane = again.forward(IMAGES, 6)
        again.backward(sf.losses.mse_rate_loss()(outputs, LABELS)[1])
        results.append((loss, spikes, outputs, membrane, net, again))
    exact, half = results
    assert exact[0] == half[0] and exact[1].any()
    for one, other in zip(exact[1:4], half[1:4], strict=True):
        np.testing.assert_array_equal(one, other)
    differs = False
    for nets in zip(exact[4:], half[4:], strict=True):
        for one, other in zip(*(net.parameters() for net in nets), strict=True):
            norm = np.linalg.norm(one.grad)
            assert np.linalg.norm(one.grad - other.grad) <= 1e-2 * norm, one.name
            differs |= not np.array_equal(one.grad, other.grad)
    assert differs


def bytes_kept(net):
    """Bytes of arrays of numbers that neurons and batch normalisations keep, but for the last neuron; and of their bits."""
    net.forward(IMAGES, 6)
    call, seen = net._last, {}
    for kept in [*(keep for block in call.kept for keep in block[:-1]), *call.joint_kept.values()]:
        stack = [kept]
        while stack:
            item = stack.pop()
            if isinstance(item, Halved) or (isinstance(item, np.ndarray) and item.dtype == np.float32 and item.ndim > 1):
                seen[id(item)] = item.nbytes
            elif isinstance(item, (tuple, list)):
                stack += item
            elif hasattr(item, "trajectory"):
                stack += [item.trajectory, item.x] if item.trajectory is not None else [item.x]
            elif isinstance(item, Normalised):
                stack.append(item.x)
    return sum(seen.values())


def test_numbers_take_half_the_bytes():
    exact, half = (bytes_kept(livelier(NETWORKS["hard"](amp=amp))) for amp in (False, True))
    images = IMAGES.nbytes  # and the spikes that the narrow last layer reads as numbers: both stay as they are
    narrow = 6 * 20 * 20 * 4
    assert half - images - narrow == pytest.approx((exact - images - narrow) / 2, rel=0.05)


def test_description_carries_it(tmp_path):
    net = NETWORKS["hard"](amp=True)
    net.save(tmp_path / "net.npz")
    assert sf.load(tmp_path / "net.npz").amp and not NETWORKS["hard"]().amp

"""Neurons that hear each other through a matrix or a convolution, on the device beside the reference."""

from __future__ import annotations

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import surrogate
from spikeflow.kernels.cuda import gpu
from spikeflow.ops.rows import cuda, reference

COMMON = {"spike_grad": surrogate.fast_sigmoid(slope=5), "threshold": 0.5}
LAYERS = {
    "weights": lambda: (sf.RLeaky(0.75, 0.5, all_to_all=False, **COMMON), sf.Linear(3, 2), sf.Leaky(0.5, **COMMON)),
    "matrix": lambda: (sf.Linear(3, 4), sf.RLeaky(0.75, linear_features=4, **COMMON), sf.Linear(4, 2), sf.Leaky(0.5, **COMMON)),
    "convolution": lambda: (sf.RLeaky(0.75, conv2d_channels=2, kernel_size=3, reset_delay=False, **COMMON),),
    "learned": lambda: (sf.Linear(3, 4), sf.RSynaptic(0.5, 0.75, linear_features=4, learn_alpha=True, learn_beta=True, **COMMON)),
}
every_network = pytest.mark.parametrize("name", LAYERS)
T, B = 4, 2


def pair(name):
    """-> the same network twice, the reference and the device's, with weights of a few bits; a sequence (T, B, ...)."""
    nets = [sf.Sequential(*LAYERS[name](), seed=1, backend=backend) for backend in ("reference", "cuda")]
    for net in nets:
        for parameter in (parameter for parameter in net.parameters() if parameter.value.ndim):
            parameter.value = np.round(16 * (parameter.value + abs(parameter.value).max() / 3)) / 8
    shape = (2, 2, 3) if name == "convolution" else (3,)
    return *nets, np.random.default_rng(0).integers(0, 9, (T, B, *shape)).astype(np.float32) / 4


def gradients(net):
    return {parameter.name: parameter.grad.copy() for parameter in net.parameters()}


def check(found, expected):
    assert abs(found - expected).max() <= 1e-5 * abs(expected).max()


@every_network
@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
def test_forward_is_equal_to_the_bit_and_gradients_agree(name, static):
    *nets, x = pair(name)
    shown = (x[0], T) if static else (x,)
    (spikes, membrane), (ours, ours_membrane) = (net.forward(*shown) for net in nets)
    np.testing.assert_array_equal(ours, spikes, strict=True)
    np.testing.assert_array_equal(ours_membrane, membrane, strict=True)
    assert spikes.any() and not spikes.all()
    given = np.random.default_rng(1).normal(size=(2, *spikes.shape)).astype(np.float32)
    check(*(net.backward(*given, input_grad=True) for net in nets[::-1]))
    expected, found = (gradients(net) for net in nets)
    for key in expected:
        assert expected[key].any(), key
        check(found[key], expected[key])


@pytest.mark.parametrize("name", ["matrix", "learned"])
def test_truncated_gradients_agree(name):
    *nets, x = pair(name)
    for net in nets:
        net.loss_and_grad(x, np.array([0, 1]), sf.losses.ce_rate_loss(), truncate=2)
    expected, found = (gradients(net) for net in nets)
    for key in expected:
        check(found[key], expected[key])


def test_parts_of_a_sequence_give_the_whole():
    _, net, x = pair("matrix")
    whole, _ = net.forward(x)
    first, _, state = net.stream(x[:1])
    second, _, _ = net.stream(x[1:], state)
    np.testing.assert_array_equal(np.concatenate([first, second]), whole)


def test_a_step_repeats_its_launches_and_allocates_nothing():
    _, net, x = pair("matrix")
    steps = []
    for _ in range(2):
        with gpu.launches() as launches:
            net.loss_and_grad(x, np.array([0, 1]), sf.losses.ce_rate_loss())
        steps.append([(launch.kernel.name, launch.grid, launch.threads) for launch in launches])
        allocated = net._device_arenas["step"].allocations
    assert steps[0] == steps[1] and allocated == net._device_arenas["step"].allocations > 0


def test_operations_on_steps_equal_the_references():
    rng = np.random.default_rng(2)
    a, b, c = (rng.normal(size=(n, 3, 7)).astype(np.float32) for n in (2, 2, 1))
    on_device = [gpu.to_device(array) for array in (a, b, c)]
    for found, expected in (
        (cuda.rows_zeros((2, 5), np.float32), reference.rows_zeros((2, 5), np.float32)),
        (cuda.rows_add(*on_device[:2]), reference.rows_add(a, b)),
        (cuda.rows_join(on_device), reference.rows_join([a, b, c])),
    ):
        np.testing.assert_array_equal(gpu.to_host(found), expected, strict=True)
    np.testing.assert_allclose(gpu.to_host(cuda.rows_sum(on_device[0])), reference.rows_sum(a), rtol=1e-6, strict=True)
    for copy, x, y in ((reference.rows_copy, c, a[1]), (cuda.rows_copy, on_device[2], on_device[0][1])):
        copy(x, y)
    np.testing.assert_array_equal(gpu.to_host(on_device[0]), a)

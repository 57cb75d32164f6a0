"""What neurons learn, on the device beside the reference: params, gradients, and that nothing waits for the host."""

from __future__ import annotations

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import surrogate
from spikeflow.engine import learned_on_device
from spikeflow.kernels.cuda import gpu
from spikeflow.ops.neurons import learned_cuda

B, T, F = 2, 3, 5
SOFT = {"spike_grad": surrogate.atan(alpha=1)}
COMMON = {"learn_threshold": True, "learn_graded_spikes_factor": True, **SOFT}
OWN = {  # type, decays and the like, what else it learns
    "Leaky": (sf.Leaky, {"beta": 0.75}, COMMON),
    "Lapicque": (sf.Lapicque, {"beta": 0.625}, {"R": 2.5, **COMMON}),
    "Synaptic": (sf.Synaptic, {"alpha": 0.5, "beta": 0.75}, COMMON),
    "RLeaky": (sf.RLeaky, {"beta": 0.75, "V": 0.5}, {"all_to_all": False, **COMMON}),
    "RSynaptic": (sf.RSynaptic, {"alpha": 0.5, "beta": 0.75, "V": 0.25}, {"all_to_all": False, **COMMON}),
}
SHAPES = {"one": (), "each": (F,), "channels": (2, 1, 1)}


def neuron(name, kind="one"):
    """-> a layer that learns all that it can, with one number for all, for each feature, or for each channel."""
    make, numbers, options = OWN[name]
    learned = {f"learn_{key}": True for key in numbers if key != "V"}
    spread = np.linspace(0, 0.125, int(np.prod(SHAPES[kind]))).reshape(SHAPES[kind])
    numbers = {key: value + spread for key, value in {**numbers, "threshold": 0.5, "graded_spikes_factor": 1.25}.items()}
    return make(**numbers, **learned, **options)


def network(name, kind):
    """-> layers with the neuron at both ends of a product, so that each of its gradients depends on others."""
    if kind == "channels":
        first, second = sf.Conv2d(1, 2, 2), sf.Conv2d(2, 2, 2)
        return first, neuron(name, kind), second, neuron(name, kind), sf.Flatten(), sf.Linear(2 * 1 * 2, 2), sf.Leaky(0.5, **SOFT)
    return sf.Linear(4, F), neuron(name, kind), sf.Linear(F, F), neuron(name, kind)


def parametric():
    w = sf.ParametricLIFNode(3.0, v_threshold=0.5, surrogate_function=surrogate.ATan())
    return sf.Linear(4, F), w, sf.Linear(F, F), sf.ParametricLIFNode(8.0, v_reset=None, decay_input=False, v_threshold=0.25)


def integrator():
    beta = np.linspace(0.5, 0.75, F)
    return sf.Linear(4, F), neuron("Leaky"), sf.Linear(F, F), sf.LeakyIntegrator(beta, learn_beta=True)


def recurrent():
    numbers = {"alpha": 0.5, "beta": np.linspace(0.5, 0.75, F), "learn_alpha": True, "learn_beta": True}
    return sf.Linear(4, F), sf.RSynaptic(**numbers, linear_features=F, threshold=0.5, learn_threshold=True, **SOFT)


def alpha():
    """Of which decays and threshold are learned; and the threshold alone, of each neuron."""
    both = sf.Alpha(0.75, 0.5, threshold=0.25, learn_alpha=True, learn_beta=True, learn_threshold=True, **SOFT)
    return sf.Linear(4, F), both, sf.Linear(F, F), sf.Alpha(0.75, 0.5, threshold=np.full(F, 0.125), learn_threshold=True, **SOFT)


NETWORKS = {
    **{f"{name}-{kind}": (lambda name=name, kind=kind: network(name, kind)) for name in OWN for kind in ("one", "each")},
    **{f"{name}-channels": (lambda name=name: network(name, "channels")) for name in ("Leaky", "Lapicque", "RSynaptic")},
    "ParametricLIFNode": parametric, "LeakyIntegrator": integrator, "matrix": recurrent, "Alpha": alpha,
}  # fmt: skip
every_network = pytest.mark.parametrize("name", NETWORKS)


def make(name, backend):
    """-> a network with weights that make its neurons fire, and a batch for it."""
    net = sf.Sequential(*NETWORKS[name](), seed=1, backend=backend)
    for parameter in net.parameters():
        if parameter.name.endswith(("weight", "bias")):
            parameter.value = np.round(64 * (parameter.value + abs(parameter.value).max() / 3)) / 32
    shape = (1, 3, 4) if name.endswith("channels") else (4,)
    return net, np.random.default_rng(0).integers(0, 9, (B, *shape)).astype(np.float32) / 8


def learned(net):
    names = {f"{layer.name}.{option}" for layer in net.layers for option in getattr(layer, "learned", ())}
    return [parameter for parameter in net.parameters() if parameter.name in names]


def train(net, x, steps=1):
    """Steps of SGD -> the gradients of each. What comes from outside is positive, so that sums do not cancel."""
    update, seen = sf.optim.SGD(net.parameters(), lr=1e-4), []
    for _ in range(steps):
        net.zero_grad()
        shape = net.forward(x, num_steps=T)[0].shape
        net.backward(*(0.5 + np.random.default_rng(2).random((2, *shape)).astype(np.float32)))
        seen.append({parameter.name: parameter.grad.copy() for parameter in net.parameters()})
        update.step()
    return seen


@every_network
def test_training_steps_agree_with_the_references(name):
    (host, x), (cuda, _) = (make(name, backend) for backend in ("reference", "cuda"))
    assert learned(host)
    for step, (expected, found) in enumerate(zip(*(train(net, x, steps=2) for net in (host, cuda)), strict=True)):
        for key, gradient in expected.items():
            assert gradient.any(), key
            np.testing.assert_allclose(found[key], gradient, rtol=1e-5, atol=1e-5 * abs(gradient).max(), err_msg=f"{step} {key}")


def samples(net, x):
    """-> the layers that learn, each with the shape of its samples."""
    shape, found = x.shape[1:], []
    for layer in net.layers:
        found += [(layer, shape)] if getattr(layer, "learned", ()) else []
        shape = layer.output_shape(shape)
    return found


@every_network
def test_rows_of_params_are_the_references(name):
    (host, x), (cuda, _) = (make(name, backend) for backend in ("reference", "cuda"))
    for (theirs, shape), (ours, _) in zip(samples(host, x), samples(cuda, x), strict=True):
        values = np.random.default_rng(4).uniform(-0.5, 1.5, 60).astype(np.float32)  # decays beyond their bounds too
        for key in () if name == "Alpha" else theirs.learned:
            some = values[: theirs.params[key].value.size].reshape(theirs.params[key].value.shape)
            values = values[some.size :]
            theirs.params[key].value = ours.params[key].value = some
        expected = theirs.prepare(host._ops, shape, np.dtype(np.float32))
        found = learned_on_device.prepare(ours, cuda._ops, shape, np.dtype(np.float32))
        assert isinstance(found.params, np.ndarray) == (ours.learned_rows() is None)
        rows = found.params if isinstance(found.params, np.ndarray) else gpu.to_host(found.params)
        np.testing.assert_allclose(rows, expected.params, rtol=1e-6, strict=True)


@pytest.mark.parametrize("w", [-90.0, -20.0, -3.5, 0.0, 2.0, 17.0, 90.0])
def test_sigmoids_and_their_slopes(w):
    numbers, rows = (gpu.to_device(np.full(1, value, np.float32)) for value in (w, 0))
    dw = gpu.to_device(np.full(1, 1, np.float32))
    learned_cuda.set_row("sigmoid", numbers, rows, (1,), rows)
    learned_cuda.add_gradient("sigmoid", gpu.to_device(np.full(1, 4, np.float32)), numbers, rows, (1,), dw)
    q = np.exp(-np.logaddexp(0, -w))
    np.testing.assert_allclose(gpu.to_host(rows), q, rtol=1e-6)
    np.testing.assert_allclose(gpu.to_host(dw), 1 + 4 * q * np.exp(-np.logaddexp(0, w)), rtol=1e-6)


def test_clamps_pass_gradients_inside_and_at_their_bounds():
    w = np.array([-0.1, 0, 0.25, 1, 1.5], np.float32)
    resistance, drow = (np.arange(k, k + 5, dtype=np.float32) for k in (1, 7))
    inside = np.array([0, 1, 1, 1, 0], np.float32)
    for how, row, slope in (
        ("clamped", np.clip(w, 0, 1), inside), ("complement", resistance * (1 - np.clip(w, 0, 1)), -resistance * inside)
    ):  # fmt: skip
        numbers, at_zero, ours, down, dw = (gpu.to_device(a) for a in (w, resistance, 0 * w, drow, np.ones(5, np.float32)))
        learned_cuda.set_row(how, numbers, at_zero, (5,), ours)
        learned_cuda.add_gradient(how, down, numbers, at_zero, (5,), dw)
        np.testing.assert_array_equal(gpu.to_host(ours), row)
        np.testing.assert_array_equal(gpu.to_host(dw), 1 + drow * slope)


@pytest.mark.parametrize("option", [(), (1,), (5,), (4, 1), (1, 5), (3, 1, 1), (3, 4, 5), (3, 1, 5), (1, 4, 1)], ids=str)
def test_numbers_are_spread_over_samples_and_summed_as_numpy_does(option):
    shape, rng = (3, 4, 5), np.random.default_rng(0)
    w, drow = (rng.integers(-9, 9, some).astype(np.float32) for some in (option, (4, 5, 3)))
    row = gpu.empty(drow.size)
    numbers, down, dw = (gpu.to_device(a) for a in (w, drow.reshape(-1), 0 * w))
    learned_cuda.set_row("itself", numbers, row, shape, row)
    learned_cuda.add_gradient("itself", down, numbers, row, shape, dw)
    np.testing.assert_array_equal(gpu.to_host(row), np.moveaxis(np.broadcast_to(w, shape), 0, -1).reshape(-1))
    order = np.broadcast_to(np.arange(w.size).reshape(option), shape)
    expected = np.bincount(np.moveaxis(order, 0, -1).reshape(-1), drow.reshape(-1))
    np.testing.assert_array_equal(gpu.to_host(dw), expected.reshape(option))


def address(array):
    """-> where an array of the device lies, in the simulator too."""
    return array.__cuda_array_interface__["data"][0] if hasattr(array, "__cuda_array_interface__") else array._ary.ctypes.data


STAYS = [name for name in NETWORKS if name.endswith(("-one", "-channels")) or "-" not in name and name != "Alpha"]


@pytest.mark.parametrize("name", STAYS)
def test_a_step_waits_for_nothing_and_repeats_its_launches_on_the_same_arrays(name, monkeypatch):
    (net, x), copies, seen = make(name, "cuda"), [], []
    for way in ("to_host", "to_device"):
        copy = getattr(gpu, way)
        monkeypatch.setattr(gpu, way, lambda array, *to, copy=copy, way=way: copies.append((way, array.size)) or copy(array, *to))
    update = sf.optim.SGD(net.parameters(), lr=1e-4)
    for _ in range(3):
        net.zero_grad()
        copies.clear()
        with gpu.launches() as launches:
            _, spikes = net.loss_and_grad(x, np.array([0, 1]), sf.losses.ce_membrane_loss(), num_steps=T)
        arrays = [[address(array) for array in launch.args if len(getattr(array, "shape", ()))] for launch in launches]
        kernels = [(launch.kernel, launch.grid, launch.threads) for launch in launches]
        seen.append((kernels, arrays, net._device_arenas["step"].allocations, list(copies)))
        update.step()
    assert seen[1] == seen[2]
    assert seen[2][3] == [("to_device", x.size), ("to_device", B), ("to_host", 1), ("to_host", spikes.size)]
    assert {launch.kernel.name.split("-")[0] for launch in launches} >= {"learned_row", "learned_gradient"}


def test_decays_of_alpha_that_pass_each_other_are_refused():
    net, x = make("Alpha", "cuda")
    net.parameters()[2].value = 0.25
    with pytest.raises(ValueError, match="alpha must be greater than beta"):
        net.predict(x, num_steps=T)

"""Optimizers on the device: the steps against NumPy's, neighbours in one launch, and a state that moves between backends."""

import inspect

import numpy as np
import pytest

from spikeflow import optim
from spikeflow.kernels.cuda import gpu
from spikeflow.layers.base import Parameter
from spikeflow.ops.adam import cpu as adam_cpu
from spikeflow.ops.adam import cuda as adam_cuda
from spikeflow.ops.adam import reference as adam_reference
from spikeflow.ops.sgd import cpu as sgd_cpu
from spikeflow.ops.sgd import cuda as sgd_cuda
from spikeflow.ops.sgd import reference as sgd_reference

SHAPES = [(3, 2), (5,), (1,), (2, 2, 3)]
ADAM = [
    (0.9, 0.999, 0.01, 0.3, 1e-8, 1.0, 0.1),
    (0.8, 0.9, 0.1, 1.0, 1e-3, 0.99, 0.0),
    (0.9, 0.9, 0.1, 0.5, 1e-3, 0.8, 0.2),
]  # b1 to decay
SGD = [(0.1, 0.0, 1.0, 0.0, False), (0.1, 0.0, 1.0, 0.2, False), (0.1, 0.9, 0.5, 0.0, False), (0.1, 0.9, 1.0, 0.2, True)]


def draw(number, *shape):
    return np.random.default_rng(number).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    "cpu, cuda, reference, name",
    [(adam_cpu, adam_cuda, adam_reference, "adam_step"), (sgd_cpu, sgd_cuda, sgd_reference, "sgd_step")],
    ids=["adam", "sgd"],
)
def test_arguments_are_the_references(cpu, cuda, reference, name):
    expected = inspect.signature(getattr(reference, name))
    assert inspect.signature(getattr(cpu, name)) == inspect.signature(getattr(cuda, name)) == expected


@pytest.mark.parametrize("options", ADAM, ids=["adam", "adamw", "both"])
@pytest.mark.parametrize("shape", [(1,), (21,), (3, 2, 5)], ids=str)
def test_adam(shape, options):
    arrays = [draw(i, *shape) for i in range(3)] + [abs(draw(3, *shape))]
    results = []
    for step in (adam_cpu.adam_step, adam_reference.adam_step):
        results.append([array.copy() for array in arrays])
        step(*results[-1], *options)
    on_device = [gpu.to_device(array) for array in arrays]
    adam_cuda.adam_step(*on_device, *options)
    for one, cpu, reference in zip(map(gpu.to_host, on_device), *results, strict=True):
        np.testing.assert_allclose(one, cpu, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(one, reference, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("options", SGD, ids=["plain", "decay", "momentum", "nesterov"])
def test_sgd(options):
    arrays = [draw(i, 21) for i in range(3)]
    results = []
    for step in (sgd_cpu.sgd_step, sgd_reference.sgd_step):
        results.append([array.copy() for array in arrays])
        step(*results[-1], *options)
    on_device = [gpu.to_device(array) for array in arrays]
    sgd_cuda.sgd_step(*on_device, *options)
    for one, cpu, reference in zip(map(gpu.to_host, on_device), *results, strict=True):
        np.testing.assert_allclose(one, cpu, rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(cpu, reference)
    without = gpu.to_device(arrays[0])
    if options[1] == 0:
        sgd_cuda.sgd_step(without, gpu.to_device(arrays[1]), None, *options)
        np.testing.assert_allclose(gpu.to_host(without), results[0][0], rtol=1e-6, atol=1e-7)


def test_an_infinite_value_without_decay_is_not_made_nan():
    value = gpu.to_device(np.array([np.inf], np.float32))
    sgd_cuda.sgd_step(value, gpu.to_device(np.ones(1, np.float32)), None, 0.1)
    assert gpu.to_host(value) == np.inf


class Store:
    """Parameters on the device, as a network has them."""

    def __init__(self, parameters):
        self.parameters, self.changes = parameters, 0
        self.values, self.grads = (
            gpu.to_device(np.concatenate([getattr(p, name).reshape(-1) for p in parameters])) for name in ("value", "grad")
        )
        offset = 0
        for parameter in parameters:
            parameter.place = self, offset, parameter.value.size
            offset += parameter.value.size

    def bring(self):
        self.grads = gpu.to_device(np.concatenate([p.grad.reshape(-1) for p in self.parameters]), self.grads)

    def touched(self):
        """As if everybody asked for the values."""
        self.changes += 1
        values = gpu.to_host(self.values)
        for parameter in self.parameters:
            _, offset, size = parameter.place
            parameter.value = values[offset : offset + size].reshape(parameter.value.shape)


def parameters(shapes=SHAPES):
    return [Parameter(f"{i}.weight", draw(i, *shape)) for i, shape in enumerate(shapes)]


def set_grads(parameters, step):
    for i, parameter in enumerate(parameters):
        parameter.grad = draw(100 * step + i, *parameter.grad.shape)


MAKE = {
    "sgd": lambda groups: optim.SGD(groups, lr=0.1),
    "momentum": lambda groups: optim.SGD(groups, lr=0.1, momentum=0.9, dampening=0.5, weight_decay=0.1),
    "adam": lambda groups: optim.Adam(groups, lr=0.1, weight_decay=0.1),
    "adamw": lambda groups: optim.AdamW(groups, lr=0.1),
}


def agree(one, other):
    """Values and states."""
    for p, q in zip(one.parameters, other.parameters, strict=True):
        np.testing.assert_allclose(p.value, q.value, rtol=1e-5, atol=1e-6)
    (state, arrays), (other_state, other_arrays) = one.state_dict(), other.state_dict()
    assert state == other_state
    for name, array in arrays.items():
        assert (array.shape, array.dtype) == (other_arrays[name].shape, other_arrays[name].dtype)
        np.testing.assert_allclose(array, other_arrays[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MAKE)
def test_neighbours_are_one_launch(name):
    host, device = parameters(), parameters()
    store = Store(device)
    optimizers = [MAKE[name](group) for group in (host, device)]
    for step in range(3):
        if step == 2:
            for optimizer in optimizers:
                optimizer.lr = 0.02
        with gpu.launches() as launches:
            for optimizer in optimizers:
                set_grads(optimizer.parameters, step)
                optimizer.step()
        assert step == 0 or len(launches) == 1
    assert store.changes == 3
    agree(*optimizers)


def test_groups_gaps_and_parameters_on_the_host():
    optimizers = []
    for on_device in (False, True):
        own = parameters([(2, 3), (4,), (2,), (5,), (3,), (2,)])
        if on_device:
            Store(own[:5])
        groups = [{"params": [own[0], own[1], own[3], own[5]]}, {"params": [own[4], own[2]], "lr": 0.01}]
        optimizers.append(optim.Adam(groups, lr=0.1))
    for step in range(2):
        with gpu.launches() as launches:
            for optimizer in optimizers:
                set_grads(optimizer.parameters, step)
                optimizer.step()
    assert len(launches) == 4  # 0 and 1, 3; 4, 2
    agree(*optimizers)


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_a_state_moves_between_backends(name):
    host, device = parameters(), parameters()
    Store(device)
    one, other = MAKE[name](host), MAKE[name](device)
    set_grads(host, 0)
    one.step()
    for source, target in ((one, other), (other, one)):
        target.load_state_dict(*source.state_dict())
        for p, q in zip(target.parameters, source.parameters, strict=True):
            p.value = q.value
            if p.place:
                gpu.to_device(q.value.reshape(-1), p.place[0].values[p.place[1] : p.place[1] + p.place[2]])
        agree(one, other)
        for optimizer in (one, other):
            set_grads(optimizer.parameters, 1)
            optimizer.step()
        agree(one, other)


def test_a_state_that_only_some_neighbours_have():
    """Those without start anew: their velocity is their gradient, whatever the dampening."""
    host, device = parameters(), parameters()
    Store(device)
    optimizers = [MAKE["momentum"](group) for group in (host, device)]
    set_grads(host, 0)
    optimizers[0].step()
    state, arrays = optimizers[0].state_dict()
    arrays.pop("1.weight/velocity")
    state["arrays"].remove("1.weight/velocity")
    for p, q in zip(host, parameters(), strict=True):
        p.value = q.value
    for step in (1, 2):
        for optimizer in optimizers:
            if step == 1:
                optimizer.load_state_dict(state, arrays)
            set_grads(optimizer.parameters, step)
            optimizer.step()
        agree(*optimizers)


def test_an_emptied_state_starts_anew():
    device = parameters()
    Store(device)
    optimizer = MAKE["momentum"](device)
    fresh = optimizer.state_dict()
    for step in range(2):
        set_grads(device, step)
        optimizer.step()
    optimizer.load_state_dict(*fresh)
    set_grads(device, 5)
    before = [p.value.copy() for p in device]
    optimizer.step()
    for i, (parameter, value) in enumerate(zip(device, before, strict=True)):
        np.testing.assert_allclose(optimizer.state_dict()[1][f"{i}.weight/velocity"], parameter.grad + 0.1 * value, rtol=1e-5)


@pytest.mark.parametrize("base", [optim.Optimizer, optim.SGD])
def test_an_optimizer_of_ones_own_works_on_the_hosts_copies(base):
    class Plain(base):
        def update(self, value, grad, state, group):
            value -= group["lr"] * grad

    device = parameters()
    Store(device)
    set_grads(device, 0)
    expected = [p.value - 0.5 * p.grad for p in device]
    Plain(device, lr=0.5).step()
    for parameter, value in zip(device, expected, strict=True):
        np.testing.assert_allclose(parameter.value, value, rtol=1e-6)


def test_the_second_step_allocates_nothing():
    device = parameters()
    Store(device)
    optimizer = MAKE["adam"](device)
    for step in range(3):
        set_grads(device, step)
        with gpu.launches() as launches:
            optimizer.step()
        if step == 1:
            numbers, allocations = launches[0].args[-1], optimizer._device.arena.allocations
    assert launches[0].args[-1] is numbers and optimizer._device.arena.allocations == allocations

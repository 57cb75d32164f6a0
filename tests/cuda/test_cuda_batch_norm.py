"""Batch normalisation on the device: each pass against NumPy's, the statistics, and whole layers."""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest

from spikeflow.engine import batch_norm_on_device
from spikeflow.engine.forms import Centred, Normalised, Summed
from spikeflow.engine.rules import batch_norm
from spikeflow.engine.steps import Kind
from spikeflow.kernels.cuda import gpu
from spikeflow.layers import BatchNorm1d, BatchNorm2d
from spikeflow.ops.batch_norm import cpu, cuda, reference

SHAPES = [(2, 1), (3, 11), (29, 3), (37, 5)]
NAMES = ["batch_norm_sums", "batch_norm_forward", "batch_norm_backward_sums", "batch_norm_backward"]
TABLE = {name: getattr(cuda, name) for name in dir(cuda) if name.startswith("batch_norm")}
DEVICE, HOST = (
    SimpleNamespace(device=True, **TABLE),
    SimpleNamespace(device=False, **{name: getattr(cpu, name) for name in NAMES}),
)


def draw(*shape, mean=2.0, deviation=1.5, seed=0):
    return np.random.default_rng([seed, *shape]).normal(mean, deviation, shape).astype(np.float32)


def eighths(*shape, seed=0):
    return (np.random.default_rng([seed, *shape]).integers(-24, 25, shape) / 8).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_the_references(name):
    assert inspect.signature(getattr(cuda, name)) == inspect.signature(getattr(reference, name))


@pytest.mark.parametrize("N, C", SHAPES)
def test_sums_are_exact_where_they_can_be(N, C):
    x, dy, center = eighths(N, C), eighths(N, C, seed=1), eighths(C)
    arrays = [gpu.to_device(array) for array in (x, dy, center)]
    forward = cuda.batch_norm_sums(arrays[0], arrays[2])
    backward = cuda.batch_norm_backward_sums(arrays[1], arrays[0], arrays[2])
    assert forward.dtype == backward.dtype == np.float32
    np.testing.assert_array_equal(gpu.to_host(forward), reference.batch_norm_sums(x, center))
    np.testing.assert_array_equal(gpu.to_host(backward), reference.batch_norm_backward_sums(dy, x, center))
    parts = gpu.to_host(cuda.batch_norm_backward_partials(arrays[1], arrays[0], arrays[2]))
    np.testing.assert_array_equal(parts.sum(0), gpu.to_host(backward))


@pytest.mark.parametrize("N, C", SHAPES)
def test_passes(N, C):
    x, dy, numbers = draw(N, C), draw(N, C, seed=1), draw(3, C)
    on_device = [gpu.to_device(array) for array in (x, dy, *numbers)]
    y = gpu.to_host(cuda.batch_norm_forward(on_device[0], *on_device[2:4]))
    np.testing.assert_array_equal(y, reference.batch_norm_forward(x, *numbers[:2]))  # to the bit
    dx = gpu.to_host(cuda.batch_norm_backward(on_device[1], on_device[0], *on_device[2:]))
    np.testing.assert_allclose(dx, reference.batch_norm_backward(dy, x, *numbers), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize("N, C", SHAPES)
def test_statistics_of_a_batch(N, C, momentum):
    x, gamma, beta = draw(N, C, mean=100.0), draw(C), draw(C, seed=1)
    running, tracked = (draw(C), abs(draw(C))), np.array([2], np.int64)
    on_device = [gpu.to_device(array) for array in (x, gamma, beta, *running, tracked)]
    with gpu.launches() as launches:
        found = cuda.batch_norm_training(*on_device, 1e-5, momentum, 3, True)
    assert len(launches) == 2 and len({id(array) for array in found}) == 4
    wide = x.astype(np.float64)
    mean, var = wide.mean(0), wide.var(0)
    inverse = 1 / np.sqrt(var + 1e-5)
    expected = gamma * inverse, beta - gamma * inverse * mean, mean, inverse
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(gpu.to_host(one), other, rtol=2e-5)
    n, share = 3 * N, 1 / 3 if momentum is None else momentum
    assert gpu.to_host(on_device[5]) == 3
    for estimate, old, new in zip(on_device[3:5], running, (mean, var * n / (n - 1)), strict=True):
        np.testing.assert_allclose(gpu.to_host(estimate), (1 - share) * old + share * new, rtol=1e-5)


def test_estimates_that_are_not_to_follow_stay():
    before = draw(3), abs(draw(3)), np.array([4], np.int64)
    arrays = [gpu.to_device(array) for array in before]
    cuda.batch_norm_training(
        gpu.to_device(draw(9, 3)), gpu.to_device(draw(3)), gpu.to_device(draw(3)), *arrays, 1e-5, 0.1, 1, False
    )
    for one, other in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(gpu.to_host(one), other)


@pytest.mark.parametrize("learned", [True, False])
def test_gradients_from_sums_and_from_partial_ones(learned):
    S, C, n = 5, 3, 40
    parts, (inverse, scale, mean, dgamma, dbeta) = draw(S, 2, C), draw(5, C)
    first, second = parts.sum(0)
    expected = scale, -scale * inverse * inverse * second / n, -scale * first / n + scale * inverse * inverse * second / n * mean
    for sums in (parts, parts.sum(0)):
        numbers = [gpu.to_device(array) for array in (inverse, scale, mean)]
        gradients = [gpu.to_device(array) for array in (dgamma, dbeta)]
        found = cuda.batch_norm_gradients(gpu.to_device(sums), *numbers, n, *(gradients if learned else (None, None)))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(gpu.to_host(one), other, rtol=1e-5)
        added = (second * inverse, first) if learned else (0, 0)
        for one, old, new in zip(gradients, (dgamma, dbeta), added, strict=True):
            np.testing.assert_allclose(gpu.to_host(one), old + new, rtol=1e-5)


class OnDevice:
    """A parameter whose array is on the device."""

    def __init__(self, parameter):
        self.value = parameter.value
        self.array, self.darray = (gpu.to_device(np.atleast_1d(array)) for array in (parameter.value, parameter.grad))


def make(affine, momentum, images):
    """-> the same layer on the host and on the device."""
    layers = []
    for _ in range(2):
        layer = (BatchNorm2d if images else BatchNorm1d)(3, momentum=momentum, affine=affine)
        layer.initialize("1", np.float32, 0)
        for key, parameter in layer.params.items():
            if key != "num_batches_tracked":
                parameter.value[...] = abs(draw(3, mean=len(key)))
        layers.append(layer)
    layers[1].params = {key: OnDevice(parameter) for key, parameter in layers[1].params.items()}
    return layers


def as_numbers(x, ops):
    x = x.array(ops) if isinstance(x, (Normalised, Centred)) else x
    return gpu.to_host(x) if ops.device else x


def step_of(layer, ops, training):
    """-> the layer's step on the host, by its rule, or on the device."""
    backend, shape = "cuda" if ops.device else "cpu", (3, 3, 3) if layer.input_rank == 3 else (3,)
    kind = Kind(backend, shape, np.dtype(np.float32), static=False, binary=False, training=training)
    steps = batch_norm_on_device if ops.device else batch_norm
    return (steps.Trained if training else steps.Evaluated)((layer,), [shape, shape], kind)


def grads_of(layer, ops):
    trained = {key: parameter for key, parameter in layer.params.items() if layer.trains(key)}
    return {layer.name: {key: p.darray if ops.device else p.grad for key, p in trained.items()}}


def gradients_of(layer, device):
    return {
        key: gpu.to_host(parameter.darray) if device else parameter.grad
        for key, parameter in layer.params.items()
        if layer.trains(key)
    }


@pytest.mark.parametrize(
    "affine, momentum, images, summed", [(True, 0.1, True, False), (True, None, False, True), (False, 0.2, True, True)]
)
def test_layers_in_training(affine, momentum, images, summed):
    shape = (2, 3, 2, 3, 3) if images else (3, 5, 3)
    x, dy = draw(*shape), draw(*shape, mean=0.0, seed=1)
    results = []
    for layer, ops in zip(make(affine, momentum, images), (HOST, DEVICE), strict=True):
        run = SimpleNamespace(training=True, updates=True, num_steps=2 * len(x))
        x_, dy_ = (gpu.to_device(array) if ops.device else array for array in (x, dy))
        step = step_of(layer, ops, training=True)
        (y,), kept = step.forward_batch(ops, None, [x_], run)
        if summed:
            rows = dy_.reshape(-1, 3), x_.reshape(-1, 3)
            dy_ = Summed(dy_, ops.batch_norm_backward_sums(*rows, y.mean))
        grads = grads_of(layer, ops)
        (dx,) = step.backward_batch(ops, None, [dy_], kept, grads, True)
        assert step.backward_batch(ops, None, [dy_], kept, grads, False) == [None]  # adds to the gradients, too
        values = [gpu.to_host(p.array) if ops.device else np.atleast_1d(p.value) for p in layer.params.values()]
        results.append([as_numbers(y, ops), as_numbers(dx, ops), *gradients_of(layer, ops.device).values(), *values])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(other, one, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("affine, summed", [(True, True), (True, False), (False, True)])
def test_layers_in_evaluation(affine, summed):
    x, dy = draw(2, 5, 3), draw(2, 5, 3, mean=0.0, seed=1)
    results = []
    for layer, ops in zip(make(affine, 0.1, False), (HOST, DEVICE), strict=True):
        x_, dy_ = (gpu.to_device(array) if ops.device else array for array in (x, dy))
        step, grads = step_of(layer, ops, training=False), grads_of(layer, ops)
        y, kept = step.forward(ops, None, x_, None)
        assert isinstance(y, Normalised)
        mean = layer.params["running_mean"]
        if summed:
            sums = ops.batch_norm_backward_sums(dy_.reshape(-1, 3), x_.reshape(-1, 3), mean.array if ops.device else mean.value)
            dy_ = Summed(dy_, sums)
        dx = step.backward(ops, None, dy_, kept, grads, True)
        assert step.backward(ops, None, dy_, kept, grads, False) is None
        results.append([as_numbers(y, ops), as_numbers(dx, ops), *gradients_of(layer, ops.device).values()])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(other, one, rtol=2e-5, atol=1e-5)


def test_one_sample_is_refused_on_the_device_too():
    layer = make(True, 0.1, False)[1]
    run = SimpleNamespace(training=True, updates=True, num_steps=2)
    with pytest.raises(ValueError, match="at least 2 samples"):
        step_of(layer, DEVICE, training=True).forward_batch(DEVICE, None, [gpu.to_device(draw(2, 1, 3))], run)

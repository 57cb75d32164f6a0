from __future__ import annotations

import hashlib
import itertools
import math
import os
import re
import signal
import warnings

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import surrogate
from spikeflow.engine import host

LIF = {"beta": 0.5, "spike_grad": surrogate.fast_sigmoid(slope=25)}
LOSSES = [
    sf.losses.ce_rate_loss(weight=[0.5, 2.0, 1.0]),
    sf.losses.ce_count_loss(),
    sf.losses.ce_membrane_loss(),
    sf.losses.ce_max_membrane_loss(),
    sf.losses.mse_count_loss(correct_rate=0.8, incorrect_rate=0.2),
    sf.losses.mse_membrane_loss(),
    sf.losses.ce_temporal_loss(),
    sf.losses.mse_temporal_loss(on_target=1, off_target=3),
    sf.losses.ce_rate_loss() + sf.losses.l1_rate_sparsity(1e-2) + 0.5 * sf.losses.ce_membrane_loss(),
]
every_loss = pytest.mark.parametrize("loss_fn", LOSSES, ids=repr)
BATCHES = pytest.mark.parametrize("batch", [1, 3, 4, 5, 9])  # blocks hold four samples


def csnn(backend="cpu", dtype=np.float32, seed=0, **options):
    """A small convolutional network for images (1, 8, 8); weights scaled so that every layer spikes."""
    net = sf.Sequential(
        sf.Conv2d(1, 4, 3, padding=1), sf.MaxPool2d(2), sf.Leaky(**LIF, **options),
        sf.Conv2d(4, 6, 3, bias=False), sf.Leaky(**LIF), sf.Flatten(), sf.Linear(24, 3), sf.Leaky(**LIF),
        backend=backend, dtype=dtype, seed=seed,
    )  # fmt: skip
    for parameter in net.parameters():
        if parameter.name.endswith("weight"):
            parameter.value *= 3
    return net


def mlp(backend="cpu", dtype=np.float32, **options):
    net = sf.Sequential(
        sf.Linear(6, 5), sf.Leaky(**LIF, **options), sf.Linear(5, 3), sf.Leaky(**LIF), backend=backend, dtype=dtype
    )
    for parameter in net.parameters():
        if parameter.name.endswith("weight"):
            parameter.value *= 4
    return net


def draw(batch=5, shape=(1, 8, 8), dtype=np.float32, steps=None, classes=3):
    """-> images (B, ...), or a sequence (T, B, ...), and labels."""
    rng = np.random.default_rng(0)
    axes = (batch, *shape) if steps is None else (steps, batch, *shape)
    return rng.uniform(0, 2, axes).astype(dtype), rng.integers(0, classes, batch)


def quantize(net, grain=64):
    """Parameters become multiples of 1/64, so that sums in float32 are exact: bits can be compared."""
    for parameter in net.parameters():
        parameter.value[...] = np.round(parameter.value * grain) / grain
    return net


def gradients(net) -> list[np.ndarray]:
    return [parameter.grad.copy() for parameter in net.parameters()]


def assert_same_bits(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


def error(actual, expected) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


# ---------------------------------------------------------------------------------------------- forward and backward


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@BATCHES
def test_forward(backend, dtype, batch):
    net = csnn(backend, dtype)
    spikes, membrane = net.forward(draw(batch, dtype=dtype)[0], num_steps=6)
    assert spikes.shape == membrane.shape == (6, batch, 3)
    assert spikes.dtype == membrane.dtype == dtype
    np.testing.assert_array_equal(spikes, membrane > 1)
    assert 0 < spikes.mean() < 1


@BATCHES
def test_a_sample_does_not_depend_on_the_rest_of_its_batch(backend, batch):
    net, (images, _) = csnn(backend, np.float64), draw(batch, dtype=np.float64)
    spikes, membrane = net.forward(images, num_steps=5)
    for b in range(batch):
        alone = net.forward(images[b : b + 1], num_steps=5)
        np.testing.assert_array_equal(alone[0][:, 0], spikes[:, b])
        np.testing.assert_allclose(alone[1][:, 0], membrane[:, b], rtol=1e-12)


def test_the_backends_agree_to_the_bit_on_exact_sums():
    images, _ = draw(7)
    images = np.round(images * 16) / np.float32(16)
    outputs = [quantize(csnn(name)).forward(images, num_steps=9) for name in ("cpu", "reference")]
    assert_same_bits(*outputs)
    assert 0 < outputs[0][0].mean() < 1


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_the_backends_agree_on_gradients(reset):
    images, labels = draw(7, dtype=np.float64)
    results = []
    for name in ("cpu", "reference"):
        net = csnn(name, np.float64, learn_beta=True, learn_threshold=True, reset_mechanism=reset)
        loss, spikes = net.loss_and_grad(images, labels, LOSSES[0], num_steps=5)
        results.append([loss, spikes, *gradients(net)])
    for actual, expected in zip(*results, strict=True):
        assert error(actual, expected) <= 1e-12


def test_outputs_may_be_images(backend):
    """Channel first outside, whatever the engine does inside."""
    net = sf.Sequential(sf.Conv2d(2, 3, 1, bias=False), sf.Leaky(0.5), backend=backend, dtype=np.float64)
    weight = net.parameters()[0]
    images = draw(5, (2, 3, 4), np.float64)[0]
    spikes, membrane = net.forward(images, num_steps=2)
    current = np.einsum("bchw,oc->bohw", images, weight.value[:, :, 0, 0])
    assert spikes.shape == (2, 5, 3, 3, 4)
    np.testing.assert_allclose(membrane[0], current, rtol=1e-12)
    dmembrane = np.zeros_like(membrane)
    dmembrane[0] = np.random.default_rng(1).normal(size=current.shape)
    dimages = net.backward(dmembrane=dmembrane, input_grad=True)
    np.testing.assert_allclose(dimages, np.einsum("bohw,oc->bchw", dmembrane[0], weight.value[:, :, 0, 0]), rtol=1e-12)
    np.testing.assert_allclose(weight.grad[:, :, 0, 0], np.einsum("bohw,bchw->oc", dmembrane[0], images), rtol=1e-12)
    assert net.predict(images, num_steps=2, counts=True).shape == (5, 3, 3, 4)
    assert net.record(images, num_steps=2)["1"]["membrane"].shape == membrane.shape


def test_backward_takes_spikes_membranes_or_both(backend):
    net, (images, _) = csnn(backend, np.float64), draw(dtype=np.float64)
    spikes, _ = net.forward(images, num_steps=5)
    dspikes, dmembrane = np.random.default_rng(1).normal(size=(2, *spikes.shape))
    results = []
    for given in ({"dspikes": dspikes}, {"dmembrane": dmembrane}, {"dspikes": dspikes, "dmembrane": dmembrane}):
        net.zero_grad()
        dimages = net.backward(**given, input_grad=True)
        results.append([dimages, *gradients(net)])
    for one, other, both in zip(*results, strict=True):
        assert error(one + other, both) <= 1e-12


def test_backward_adds_to_the_gradients(backend):
    net, (images, _) = csnn(backend), draw(3)
    spikes, _ = net.forward(images, num_steps=4)
    assert net.backward(np.ones_like(spikes)) is None
    once = gradients(net)
    net.backward(np.ones_like(spikes))
    assert_same_bits(gradients(net), [2 * gradient for gradient in once])
    net.zero_grad()
    assert not any(gradient.any() for gradient in gradients(net))


@pytest.mark.parametrize("steps", [None, 4], ids=["static", "sequence"])
@pytest.mark.parametrize("make, shape", [(csnn, (1, 8, 8)), (mlp, (6,))], ids=["csnn", "mlp"])
def test_input_gradient_has_the_shape_of_the_input(backend, make, shape, steps):
    images, _ = draw(5, shape, steps=steps)
    net = make(backend)
    spikes, _ = net.forward(images, num_steps=4 if steps is None else None)
    dimages = net.backward(np.ones_like(spikes), input_grad=True)
    assert dimages.shape == images.shape and dimages.dtype == np.float32 and dimages.any()


def test_backward_without_forward(backend):
    net = csnn(backend)
    with pytest.raises(RuntimeError, match="forward"):
        net.backward(np.zeros((5, 5, 3), np.float32))
    net.loss_and_grad(*draw(), LOSSES[0], num_steps=5)
    net.predict(draw()[0], num_steps=5)
    with pytest.raises(RuntimeError, match="forward"):
        net.backward(np.zeros((5, 5, 3), np.float32))


def test_no_state_survives_a_call(backend):
    net, (images, labels) = csnn(backend), draw()
    first = net.forward(images, num_steps=5)
    net.forward(draw(7)[0], num_steps=3)
    net.loss_and_grad(images, labels, LOSSES[0], num_steps=5)
    assert_same_bits(net.forward(images, num_steps=5), first)


@pytest.mark.parametrize("make, shape", [(csnn, (1, 8, 8)), (mlp, (6,))], ids=["csnn", "mlp"])
def test_images_may_change_between_forward_and_backward(backend, make, shape):
    images, _ = draw(3, shape)
    net = make(backend)
    results = []
    for factor in (1, 0):
        net.zero_grad()
        spikes, _ = net.forward(images, num_steps=4)
        images *= factor
        net.backward(np.ones_like(spikes))
        results.append(gradients(net))
    assert_same_bits(*results)


def test_arrays_of_any_memory_layout(backend):
    net, (images, labels) = csnn(backend), draw()
    expected = net.loss_and_grad(images, labels, LOSSES[0], num_steps=4)
    wide = np.zeros((10, 1, 16, 8), np.float32)
    wide[::2, :, ::2] = images
    for other in (np.asfortranarray(images), wide[::2, :, ::2]):
        assert not other.flags.c_contiguous
        assert_same_bits(net.loss_and_grad(other, labels, LOSSES[0], num_steps=4), expected)
    spikes, _ = net.forward(images, num_steps=4)
    dspikes = np.random.default_rng(1).normal(size=spikes.shape)
    results = []
    for layout in (np.ascontiguousarray, np.asfortranarray):
        net.zero_grad()
        net.backward(layout(dspikes))
        results.append(gradients(net))
    assert_same_bits(*results)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2, 2)], ids=str)
def test_samples_of_any_rank_keep_their_order(backend, shape):
    images = draw(2, shape, np.float64)[0]
    flat = sf.Sequential(sf.Flatten(), sf.Leaky(0.5), backend=backend, dtype=np.float64)
    np.testing.assert_array_equal(flat.forward(images, num_steps=1)[1][0], images.reshape(2, -1))
    same = sf.Sequential(sf.Leaky(0.5), backend=backend, dtype=np.float64)
    np.testing.assert_array_equal(same.forward(images, num_steps=1)[1][0], images)


# ---------------------------------------------------------------------------------------------- the fused path


@every_loss
@BATCHES
def test_loss_and_grad_equals_forward_loss_backward(backend, loss_fn, batch):
    net, (images, labels) = csnn(backend), draw(batch)
    loss, spikes = net.loss_and_grad(images, labels, loss_fn, num_steps=5)
    fused = gradients(net)
    net.zero_grad()
    outputs = net.forward(images, num_steps=5)
    expected, *given = loss_fn.evaluate(*outputs, labels)
    net.backward(*given)
    assert type(loss) is float and loss == pytest.approx(expected, rel=1e-12)
    assert_same_bits([spikes, *fused], [outputs[0], *gradients(net)])
    assert batch < 4 or all(gradient.any() for gradient in fused)


@every_loss
def test_a_plain_function_works_as_a_loss(backend, loss_fn):
    net, (images, labels) = csnn(backend), draw(9)
    loss, spikes = net.loss_and_grad(images, labels, loss_fn.evaluate, num_steps=5)
    by_plain = gradients(net)
    net.zero_grad()
    declared, other = net.loss_and_grad(images, labels, loss_fn, num_steps=5)
    assert type(loss) is float and loss == pytest.approx(declared, rel=1e-12)
    assert_same_bits([spikes, *by_plain], [other, *gradients(net)])


def test_targets_may_be_times_and_membranes(backend):
    net, (images, _) = csnn(backend), draw(9)
    rng = np.random.default_rng(2)
    cases = {
        sf.losses.mse_temporal_loss(target_is_time=True): rng.integers(0, 5, (9, 3)),
        sf.losses.mse_temporal_loss(target_is_time=True, multi_spike=True, tolerance=1): rng.integers(0, 5, (2, 9, 3)),
        sf.losses.mse_membrane_loss(time_var_targets=True): rng.random((5, 9, 3)),
    }
    for loss_fn, targets in cases.items():
        net.zero_grad()
        loss, _ = net.loss_and_grad(images, targets, loss_fn, num_steps=5)
        fused = gradients(net)
        net.zero_grad()
        expected, *given = loss_fn.evaluate(*net.forward(images, num_steps=5), targets)
        net.backward(*given)
        assert loss == pytest.approx(expected, rel=1e-12)
        assert_same_bits(fused, gradients(net))
        assert fused[0].any()


def test_a_plain_function_may_read_both_outputs(backend):
    net, (images, labels) = csnn(backend, np.float64), draw(dtype=np.float64)
    weights = np.random.default_rng(1).normal(size=(2, 5, 5, 3))

    def plain(spikes, membrane, labels):
        return np.vdot(weights[0], spikes) + np.vdot(weights[1], membrane), *weights

    loss, spikes = net.loss_and_grad(images, labels, plain, num_steps=5)
    fused = gradients(net)
    net.zero_grad()
    outputs = net.forward(images, num_steps=5)
    net.backward(*weights)
    assert loss == plain(*outputs, labels)[0]
    assert_same_bits([spikes, *fused], [outputs[0], *gradients(net)])


def test_a_sequence_through_the_fused_path(backend):
    net, (sequence, labels) = csnn(backend), draw(5, steps=4)
    loss, spikes = net.loss_and_grad(sequence, labels, LOSSES[0])
    expected, _ = net.forward(sequence)
    np.testing.assert_array_equal(spikes, expected)
    assert loss == pytest.approx(LOSSES[0](expected, labels)[0], rel=1e-12)


# ---------------------------------------------------------------------------------------------- static input


def test_a_static_input_equals_its_repetition(backend):
    images, labels = draw(6)
    images = np.round(images * 16) / np.float32(16)
    net = quantize(csnn(backend))
    static = net.forward(images, num_steps=7)
    assert_same_bits(net.forward(np.repeat(images[None], 7, axis=0)), static)


@pytest.mark.parametrize("make, shape", [(csnn, (1, 8, 8)), (mlp, (6,))], ids=["csnn", "mlp"])
def test_gradients_of_a_static_input_are_those_of_its_repetition(backend, make, shape):
    images, _ = draw(6, shape, np.float64)
    results = []
    for repeated in (False, True):
        net = make(backend, np.float64, learn_beta=True, learn_threshold=True)
        given = (np.repeat(images[None], 5, axis=0), None) if repeated else (images, 5)
        spikes, _ = net.forward(*given)
        dimages = net.backward(np.random.default_rng(1).normal(size=spikes.shape), input_grad=True)
        results.append([dimages.sum(0) if repeated else dimages, *gradients(net)])
    for static, repeated in zip(*results, strict=True):
        assert error(static, repeated) <= 1e-11


# ---------------------------------------------------------------------------------------------- plain loops


class Node:
    """A number that remembers how it was made: reverse-mode differentiation, one scalar at a time."""

    made = itertools.count()

    def __init__(self, value, parents=()):
        self.value, self.parents, self.grad, self.order = float(value), parents, 0.0, next(Node.made)

    def __add__(self, other):
        return Node(self.value + other.value, ((self, 1.0), (other, 1.0)))

    def __mul__(self, other):
        return Node(self.value * other.value, ((self, other.value), (other, self.value)))

    def spike(self, threshold, slope):
        """A step forward, the fast sigmoid's derivative backward, for the membrane and the threshold."""
        x = self.value - threshold.value
        derivative = 1 / (1 + slope * abs(x)) ** 2
        return Node(x > 0, ((self, derivative), (threshold, -derivative)))


def differentiate(outputs, cotangents):
    nodes, waiting = {}, list(outputs)
    while waiting:
        node = waiting.pop()
        if node.order not in nodes:
            nodes[node.order] = node
            waiting.extend(parent for parent, _ in node.parents)
    for node, cotangent in zip(outputs, cotangents, strict=True):
        node.grad += cotangent
    for order in sorted(nodes, reverse=True):
        for parent, derivative in nodes[order].parents:
            parent.grad += derivative * nodes[order].grad


def loop_network(images, parameters, beta, threshold, last, reset, num_steps, stride):
    """conv - pool - leaky - flatten - linear - leaky in nested loops; nodes in, spikes {(t, b, o)} and membranes out."""
    weight, bias, matrix, offset = (np.asarray(p, object) for p in parameters)
    zero, minus = Node(0), Node(-1)
    B, C, H, W = images.shape
    O, _, K, _ = weight.shape
    height, width = (H - K) // stride + 1, (W - K) // stride + 1
    spikes, membranes = {}, {}

    def neuron(before, current, beta, threshold):
        """m[t-1], x[t] -> m[t]; the reset flag is a constant."""
        if before.value > threshold.value and reset == "zero":
            return current
        m = beta * before + current
        return m + minus * threshold if before.value > threshold.value and reset == "subtract" else m

    for b in range(B):
        hidden = {place: zero for place in np.ndindex(O, height // 2, width // 2)}
        output = [zero] * len(matrix)
        for t in range(num_steps):
            convolved = {}
            for o, i, j in np.ndindex(O, height, width):
                total = bias[o]
                for c, k, m in np.ndindex(C, K, K):
                    total = total + weight[o, c, k, m] * images[b, c, stride * i + k, stride * j + m]
                convolved[o, i, j] = total
            row = []
            for o, i, j in hidden:
                window = [convolved[o, 2 * i + k, 2 * j + m] for k, m in np.ndindex(2, 2)]
                hidden[o, i, j] = neuron(hidden[o, i, j], max(window, key=lambda node: node.value), beta, threshold)
                row.append(hidden[o, i, j].spike(threshold, 25))
            for o in range(len(matrix)):
                total = offset[o]
                for f, spike in enumerate(row):
                    total = total + matrix[o, f] * spike
                output[o] = neuron(output[o], total, *last)
                spikes[t, b, o], membranes[t, b, o] = output[o].spike(last[1], 25), output[o]
    return spikes, membranes


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("stride", [1, 2])
def test_hard_spikes_and_their_gradients_equal_plain_loops(backend, reset, stride):
    side, options = 6 if stride == 1 else 10, {"reset_mechanism": reset, "learn_beta": True, "learn_threshold": True}
    net = sf.Sequential(
        sf.Conv2d(2, 3, 3, stride=stride), sf.MaxPool2d(2), sf.Leaky(**LIF, **options),
        sf.Flatten(), sf.Linear(12, 4), sf.Leaky(0.8, 0.6, LIF["spike_grad"], **options),
        backend=backend, dtype=np.float64,
    )  # fmt: skip
    for parameter in net.parameters():
        if parameter.name.endswith("weight"):
            parameter.value *= 3
    images = draw(2, (2, side, side), np.float64)[0]
    spikes, membrane = net.forward(images, num_steps=4)
    dspikes, dmembrane = np.random.default_rng(1).normal(size=(2, *spikes.shape))
    dimages = net.backward(dspikes, dmembrane, input_grad=True)

    make = np.vectorize(Node, otypes=[object])
    nodes, pixels = {p.name: make(p.value) for p in net.parameters()}, make(images)
    beta, threshold, *last = (nodes[name].item() for name in ("2.beta", "2.threshold", "5.beta", "5.threshold"))
    weights = [nodes[name] for name in ("0.weight", "0.bias", "4.weight", "4.bias")]
    outputs = loop_network(pixels, weights, beta, threshold, last, reset, 4, stride)
    for record, actual in zip(outputs, (spikes, membrane), strict=True):
        for place, node in record.items():
            assert actual[place] == pytest.approx(node.value, rel=1e-12, abs=1e-12)
    assert 0 < spikes.mean() < 1
    places = list(outputs[0])
    differentiate([record[place] for record in outputs for place in places], [d[p] for d in (dspikes, dmembrane) for p in places])
    grad = np.vectorize(lambda node: node.grad, otypes=[float])
    for parameter in net.parameters():
        assert error(parameter.grad, grad(nodes[parameter.name])) <= 1e-12
    assert error(dimages, grad(pixels)) <= 1e-12


# ---------------------------------------------------------------------------------------------- same seed, same bits


def digest(net) -> str:
    return hashlib.sha256(b"".join(parameter.value.tobytes() for parameter in net.parameters())).hexdigest()


def train(steps=50, backend="cpu"):
    """Some steps of Adam on 70 samples."""
    net, (images, labels) = csnn(backend, learn_beta=True, learn_threshold=True), draw(70)
    optimizer = sf.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        net.zero_grad()
        losses.append(net.loss_and_grad(images, labels, LOSSES[0], num_steps=4)[0])
        optimizer.step()
    return net, losses


@pytest.fixture
def restore_threads():
    before = sf.get_num_threads()
    yield
    sf.set_num_threads(before)


def test_training_gives_the_same_bits_on_any_number_of_threads(restore_threads, monkeypatch):
    monkeypatch.setattr(host, "MOST", 4)  # small blocks, and
    monkeypatch.setattr(host, "LANES", 4)  # fewer lanes than blocks, so that they take turns
    results = {}
    for threads in (1, 2, 3, 4, 8):
        sf.set_num_threads(threads)
        net, losses = train()
        outputs = net.forward(draw(70)[0], num_steps=4)
        results[threads] = digest(net), tuple(losses), net.backward(*outputs, input_grad=True).tobytes()
    assert len(set(results.values())) == 1
    losses = results[1][1]
    assert losses[-1] < losses[0] and digest(csnn(learn_beta=True, learn_threshold=True)) != results[1][0]


def test_the_same_seed_makes_the_same_weights(backend):
    assert digest(csnn(backend)) == digest(csnn()) != digest(csnn(seed=1))
    wide = csnn(dtype=np.float64)
    for parameter, single in zip(wide.parameters(), csnn().parameters(), strict=True):
        np.testing.assert_allclose(parameter.value, single.value, rtol=1e-6)


def test_weights_depend_on_the_layer_they_belong_to():
    net = sf.Sequential(sf.Linear(4, 4), sf.Linear(4, 4), sf.Leaky(0.5))
    assert not np.array_equal(net.parameters()[0].value, net.parameters()[2].value)


# ---------------------------------------------------------------------------------------------- blocks


def test_blocks_are_of_four_to_sixteen_samples():
    assert [host.block_size(batch) for batch in (1, 9, 10, 31, 32, 128, 1000)] == [4, 4, 5, 15, 16, 16, 16]


def test_a_batch_of_32_and_more_has_blocks_for_two_threads_and_one_of_128_for_eight():
    assert all(-(-batch // host.block_size(batch)) >= 2 for batch in range(32, 1000))
    assert all(-(-batch // host.block_size(batch)) >= 8 for batch in range(128, 1000))


@pytest.mark.parametrize("batch", [1, 4, 5, 37, 300])
def test_every_sample_is_in_one_block(batch):
    net = sf.Sequential(sf.Linear(3, 2), sf.Leaky(0.5), backend="reference")
    call = net._call(np.ones((batch, 3), np.float32), 2)
    samples = [b for block in call.blocks for b in range(batch)[block]]
    assert samples == list(range(batch))


# ---------------------------------------------------------------------------------------------- predict and record


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 5, 11, 256])
@pytest.mark.parametrize("steps", [None, 4], ids=["static", "sequence"])
def test_predict_equals_forward_for_any_batch_size(backend, batch_size, steps):
    net, (images, _) = csnn(backend, np.float64), draw(11, dtype=np.float64, steps=steps)
    num_steps = 4 if steps is None else None
    spikes, _ = net.forward(images, num_steps)
    np.testing.assert_array_equal(net.predict(images, num_steps, batch_size), spikes, strict=True)
    counts = net.predict(images, num_steps, batch_size, counts=True)
    np.testing.assert_array_equal(counts, spikes.sum(0), strict=True)


def test_predict_leaves_the_latest_forward_in_place(backend):
    net, (images, _) = csnn(backend), draw()
    results = []
    for disturbed in (False, True):
        net.zero_grad()
        spikes, _ = net.forward(images, num_steps=4)
        if disturbed:
            net.predict(images[:2], num_steps=9)
            net.record(images[:2], num_steps=9)
        net.backward(np.ones_like(spikes))
        results.append(gradients(net))
    assert_same_bits(*results)


@pytest.mark.parametrize("steps", [None, 4], ids=["static", "sequence"])
def test_record(backend, steps):
    net, (images, _) = csnn(backend), draw(6, steps=steps)
    num_steps = 4 if steps is None else None
    record = net.record(images, num_steps)
    assert list(record) == ["2", "4", "7"]
    assert_same_bits([record["7"]["spikes"], record["7"]["membrane"]], net.forward(images, num_steps))
    for name, shape in (("2", (4, 4, 4)), ("4", (6, 2, 2)), ("7", (3,))):
        spikes, membrane = record[name]["spikes"], record[name]["membrane"]
        assert spikes.shape == membrane.shape == (4, 6, *shape)
        np.testing.assert_array_equal(spikes, membrane > 1)
        assert 0 < spikes.mean() < 1


def test_record_is_channel_first(backend):
    """What the first neuron did is what a network that ends there returns."""
    net, (images, _) = csnn(backend), draw()
    short = sf.Sequential(sf.Conv2d(1, 4, 3, padding=1), sf.MaxPool2d(2), sf.Leaky(**LIF), backend=backend)
    short.load_state_dict({name: value for name, value in net.state_dict().items() if name.startswith("0.")})
    recorded = net.record(images, num_steps=3)["2"]
    assert_same_bits(short.forward(images, num_steps=3), [recorded["spikes"], recorded["membrane"]])


# ---------------------------------------------------------------------------------------------- parameters and state


NAMES = ["0.weight", "0.bias", "2.beta", "2.threshold", "3.weight", "6.weight", "6.bias"]


def test_parameters_are_named_as_in_torch():
    net = csnn(learn_beta=True, learn_threshold=True)
    assert [parameter.name for parameter in net.parameters()] == list(net.state_dict()) == NAMES


def test_state_dict_holds_copies():
    net = csnn()
    state = net.state_dict()
    state["0.bias"] += 1
    assert not np.array_equal(state["0.bias"], net.state_dict()["0.bias"])


def test_a_state_moves_to_another_network(backend):
    net, other, (images, _) = csnn(), csnn(backend, seed=1), draw()
    values = [parameter.value for parameter in other.parameters()]
    other.load_state_dict(net.state_dict())
    assert all(parameter.value is value for parameter, value in zip(other.parameters(), values, strict=True))
    assert digest(other) == digest(net)
    assert not np.array_equal(csnn(backend, seed=1).forward(images, 5)[1], other.forward(images, 5)[1])


def test_a_state_of_another_dtype_is_converted():
    net = csnn()
    net.load_state_dict({name: value.astype(np.float64) for name, value in csnn(seed=1).state_dict().items()})
    assert digest(net) == digest(csnn(seed=1))


CONSTANTS = {"beta": 0.5, "threshold": 1.0, "graded_spikes_factor": 1.0, "reset_mechanism_val": 0}


def test_constants_of_snntorch_are_accepted_when_equal():
    net = csnn()
    constants = {f"{layer}.{key}": np.array(value) for layer in (2, 4, 7) for key, value in CONSTANTS.items()}
    net.load_state_dict({**csnn(seed=1).state_dict(), **constants})
    assert digest(net) == digest(csnn(seed=1))


BAD_STATES = {
    "other-beta": ({"2.beta": np.array(0.6)}, r"2\.beta is 0\.6, but layer 2 .* has 0\.5"),
    "other-threshold": ({"7.threshold": np.array(2.0)}, r"7\.threshold is 2\.0, but layer 7"),
    "other-reset": ({"4.reset_mechanism_val": np.array(1)}, r"4\.reset_mechanism_val is 1, but layer 4"),
    "graded-spikes": ({"2.graded_spikes_factor": np.array(3.0)}, r"2\.graded_spikes_factor"),
    "constant-of-no-neuron": ({"0.beta": np.array(0.5)}, r"unknown \['0\.beta'\]"),
    "constant-of-no-layer": ({"8.beta": np.array(0.5)}, r"unknown \['8\.beta'\]"),
    "unknown": ({"5.weight": np.zeros(3)}, r"unknown \['5\.weight'\]"),
    "missing": ({"6.bias": None}, r"missing \['6\.bias'\]"),
    "shape": ({"6.weight": np.zeros((24, 3))}, r"6\.weight must have shape \(3, 24\), got \(24, 3\)"),
    "broadcastable-shape": ({"6.bias": np.zeros(1)}, r"6\.bias must have shape \(3,\), got \(1,\)"),
    "nan": ({"6.bias": np.array([0, np.nan, 0])}, r"6\.bias holds NaN, infinity"),
    "infinity": ({"6.bias": np.array([0, np.inf, 0])}, r"6\.bias holds NaN, infinity"),
}


@pytest.mark.parametrize("name", BAD_STATES)
def test_a_state_that_does_not_fit_changes_nothing(name):
    entries, message = BAD_STATES[name]
    net = csnn()
    before = digest(net)
    state = {key: value for key, value in {**csnn(seed=1).state_dict(), **entries}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        net.load_state_dict(state)
    assert digest(net) == before


@pytest.mark.filterwarnings("ignore:overflow", "ignore:Casting complex values")
@pytest.mark.parametrize("value", [1e300, 1j], ids=["overflow", "complex"])
def test_a_value_that_the_dtype_cannot_hold_changes_nothing(value):
    net = csnn()
    before = digest(net)
    with pytest.raises((ValueError, TypeError)):
        net.load_state_dict({**net.state_dict(), "6.bias": np.full(3, value)})
    assert digest(net) == before


def test_a_state_with_gaps():
    net = csnn()
    net.load_state_dict({"0.bias": np.ones(4), "9.weight": np.ones(2)}, strict=False)
    expected = {**csnn().state_dict(), "0.bias": np.ones(4, np.float32)}
    assert_same_bits(net.state_dict().values(), expected.values())
    with pytest.raises(ValueError, match="0.bias must have shape"):
        net.load_state_dict({"0.bias": np.ones(5)}, strict=False)
    with pytest.raises(ValueError, match=r"2\.beta is"):
        net.load_state_dict({"2.beta": np.array(0.6)}, strict=False)


# ---------------------------------------------------------------------------------------------- description


def test_config_round_trip(backend):
    net = csnn(backend, np.float64, seed=3, learn_beta=True, reset_mechanism="zero")
    again = sf.Sequential.from_config(net.config(), backend=backend)
    assert again.config() == net.config() and repr(again) == repr(net) and again.backend == backend
    for parameter, scaled in zip(again.parameters(), net.parameters(), strict=True):
        factor = 3 if parameter.name.endswith("weight") else 1
        np.testing.assert_array_equal(factor * parameter.value, scaled.value, strict=True)


def test_repr_shows_every_layer():
    lines = repr(csnn()).splitlines()
    assert lines[0] == "Sequential(" and lines[-1] == ")" and len(lines) == 10
    assert lines[1].strip() == "(0): Conv2d(1, 4, 3, padding=1)"
    assert lines[7].strip() == "(6): Linear(24, 3)"


# ---------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "layers, options, error, message",
    [
        ((), {}, ValueError, "got no layer at all"),
        ((sf.LeakyIntegrator(0.5), sf.Leaky(0.5)), {}, ValueError, r"layer 0 \(LeakyIntegrator.* must be the last layer"),
        ((sf.Linear(2, 3), "Leaky"), {}, TypeError, "layer 1 must be a spikeflow layer, got 'Leaky'"),
        ((sf.Leaky,), {}, TypeError, "layer 0 must be a spikeflow layer"),
        (([sf.Leaky(0.5)],), {}, TypeError, "layer 0 must be a spikeflow layer"),
        ((sf.Leaky(0.5),), {"backend": "gpu"}, ValueError, "backend must be one of reference, cpu.* got 'gpu'"),
        ((sf.Leaky(0.5),), {"dtype": np.float16}, ValueError, "dtype must be float32 or float64, got float16"),
        ((sf.Leaky(0.5),), {"dtype": int}, ValueError, "dtype must be float32 or float64, got int"),
        ((sf.Leaky(0.5),), {"seed": -1}, ValueError, "seed must be at least 0"),
        ((sf.Leaky(0.5),), {"seed": 0.5}, TypeError, "seed must be an integer"),
        ((sf.Leaky(0.5),), {"seed": None}, TypeError, "seed must be an integer"),
    ],
    ids=[
        "no-layers",
        "never-fires",
        "a-name",
        "a-class",
        "a-list",
        "backend",
        "float16",
        "int",
        "negative-seed",
        "fractional-seed",
        "no-seed",
    ],
)
def test_bad_network(layers, options, error, message):
    with pytest.raises(error, match=message):
        sf.Sequential(*layers, **options)


@pytest.mark.parametrize("make", [lambda: sf.Linear(3, 3), lambda: sf.Leaky(0.5), sf.Flatten], ids=["linear", "leaky", "flatten"])
def test_a_layer_belongs_to_one_place_in_one_network(make):
    layer = make()
    sf.Sequential(layer, sf.Leaky(0.5))
    with pytest.raises(ValueError, match="already belongs to a network; make a layer for each place"):
        sf.Sequential(layer, sf.Leaky(0.5))
    twice = make()
    with pytest.raises(ValueError, match="already belongs to a network"):
        sf.Sequential(twice, twice, sf.Leaky(0.5))


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def spoiled(value):
    images = zeros(2, 1, 8, 8)
    images[1, 0, 3, 4] = value
    return images


BAD_IMAGES = {
    "float64": ((zeros(2, 1, 8, 8, dtype=np.float64), 3), TypeError, r"images are float64, .*images\.astype\(np\.float32\)$"),
    "uint8": ((zeros(2, 1, 8, 8, dtype=np.uint8), 3), TypeError, r"images are uint8, .*\.astype\(np\.float32\) / 255$"),
    "int64": ((zeros(2, 1, 8, 8, dtype=np.int64), 3), TypeError, r"images are int64, .*\.astype\("),
    "big-endian": ((zeros(2, 1, 8, 8, dtype=">f4"), 3), TypeError, r"images are >f4, .*\.astype\("),
    "list": (([[1.0]], 3), TypeError, r"images are float64, .*\.astype\("),
    "no-channel-axis": ((zeros(2, 8, 8), 3), ValueError, r"images must have 4 axes, \(B, \.\.\.\).*\(C, H, W\); got \(2, 8, 8\)"),
    "one-image": ((zeros(1, 8, 8), 3), ValueError, "images must have 4 axes"),
    "sequence-with-num_steps": ((zeros(3, 2, 1, 8, 8), 3), ValueError, r"a sequence comes without num_steps"),
    "batch-without-num_steps": ((zeros(2, 1, 8, 8), None), ValueError, r"images must have 5 axes, \(T, B, \.\.\.\)"),
    "no-samples": ((zeros(0, 1, 8, 8), 3), ValueError, "images must .* at least one sample"),
    "no-samples-in-a-sequence": ((zeros(3, 0, 1, 8, 8), None), ValueError, "images must .* at least one sample"),
    "no-time-steps": ((zeros(0, 2, 1, 8, 8), None), ValueError, "images must .* at least one sample"),
    "no-pixels": ((zeros(2, 1, 0, 8), 3), ValueError, "images must"),
    "two-channels": ((zeros(2, 2, 8, 8), 3), ValueError, r"layer 0 .* expects images of shape \(1, H, W\)"),
    "small": ((zeros(2, 1, 3, 3), 3), ValueError, r"layer 3 .* expects padded images of at least 3 x 3"),
    "other-size": ((zeros(2, 1, 12, 12), 3), ValueError, r"layer 6 .* expects rows of 24 features"),
    "nan": ((spoiled(np.nan), 3), ValueError, "images hold NaN or infinity"),
    "infinity": ((spoiled(-np.inf), 3), ValueError, "images hold NaN or infinity"),
    "zero-steps": ((zeros(2, 1, 8, 8), 0), ValueError, "num_steps must be at least 1, got 0"),
    "negative-steps": ((zeros(2, 1, 8, 8), -2), ValueError, "num_steps must be at least 1"),
    "fractional-steps": ((zeros(2, 1, 8, 8), 2.5), TypeError, "num_steps must be an integer"),
    "boolean-steps": ((zeros(2, 1, 8, 8), True), TypeError, "num_steps must be an integer"),
}


@pytest.mark.parametrize("method", ["forward", "predict", "record", "loss_and_grad"])
@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images(name, method):
    (images, num_steps), error, message = BAD_IMAGES[name]
    labels = [np.zeros(2, int), LOSSES[0]] if method == "loss_and_grad" else []
    with pytest.raises(error, match=message):
        getattr(csnn("reference"), method)(images, *labels, num_steps=num_steps)


@pytest.mark.parametrize(
    "images, num_steps, message",
    [
        (zeros(6), 3, r"images must have 2 axes, \(B, \.\.\.\) with samples of shape \(F,\); got \(6,\)"),
        (zeros(2, 3, 6), 3, "a sequence comes without num_steps"),
        (zeros(2, 7), 3, r"layer 0 \(Linear\(6, 5\)\) expects rows of 6 features"),
        (zeros(2, 6), None, "images must have 3 axes"),
    ],
    ids=["one-row", "sequence-with-num_steps", "features", "batch-without-num_steps"],
)
def test_bad_rows(backend, images, num_steps, message):
    with pytest.raises(ValueError, match=message):
        mlp(backend).forward(images, num_steps)


@pytest.mark.parametrize("images, num_steps", [(np.float32(3), 2), (zeros(6), None)], ids=["scalar", "one-axis"])
def test_predict_refuses_what_has_too_few_axes(images, num_steps):
    with pytest.raises(ValueError, match="images must have"):
        mlp().predict(images, num_steps)


def test_float32_images_into_a_float64_network():
    with pytest.raises(TypeError, match=r"images\.astype\(np\.float64\)"):
        csnn(dtype=np.float64).forward(zeros(2, 1, 8, 8), 3)


@pytest.mark.parametrize("batch_size, error", [(0, ValueError), (-1, ValueError), (2.0, TypeError)])
def test_bad_batch_size(batch_size, error):
    with pytest.raises(error, match="batch_size must be"):
        csnn().predict(zeros(2, 1, 8, 8), 3, batch_size)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["0.weight", "2.beta", "6.bias"])
def test_parameters_that_are_not_finite(backend, name, value):
    net = csnn(backend, learn_beta=True)
    next(parameter for parameter in net.parameters() if parameter.name == name).value.flat[0] = value
    with pytest.raises(ValueError, match=f"parameter {name} holds NaN or infinity"):
        net.forward(zeros(2, 1, 8, 8), 3)


@pytest.mark.parametrize(
    "labels, error, message",
    [
        ([0, 3], ValueError, r"labels must be in \[0, 3\)"),
        ([-1, 0], ValueError, r"labels must be in \[0, 3\)"),
        ([0, 1, 2], ValueError, r"labels must have shape \(2,\)"),
        ([], TypeError, "labels must be integers"),
        ([0.0, 1.0], TypeError, "labels must be integers, got float64"),
    ],
    ids=["too-large", "negative", "too-many", "none", "float"],
)
def test_bad_labels(labels, error, message):
    net = csnn()
    with pytest.raises(error, match=message):
        net.loss_and_grad(zeros(2, 1, 8, 8), labels, LOSSES[0], num_steps=3)
    assert not any(gradient.any() for gradient in gradients(net))


def test_a_loss_over_classes_needs_rows():
    net = sf.Sequential(sf.Conv2d(1, 2, 3), sf.Leaky(0.5))
    with pytest.raises(ValueError, match=r"ce_rate_loss needs outputs of shape \(C,\) per sample, got \(2, 6, 6\)"):
        net.loss_and_grad(zeros(2, 1, 8, 8), [0, 1], LOSSES[0], num_steps=3)


@pytest.mark.parametrize("name", ["dspikes", "dmembrane"])
@pytest.mark.parametrize("shape", [(3, 2, 4), (2, 3), (3, 2), (4, 2, 3), (3, 2, 1), ()], ids=str)
def test_gradients_of_a_wrong_shape(backend, name, shape):
    net = csnn(backend)
    net.forward(zeros(2, 1, 8, 8), 3)
    with pytest.raises(ValueError, match=re.escape(f"{name} must have the shape (3, 2, 3) of what forward returned")):
        net.backward(**{name: zeros(*shape)})
    assert not any(gradient.any() for gradient in gradients(net))


def test_backward_needs_a_gradient(backend):
    net = csnn(backend)
    net.forward(zeros(2, 1, 8, 8), 3)
    with pytest.raises(ValueError, match="backward needs dspikes, dmembrane, or both"):
        net.backward()


# ---------------------------------------------------------------------------------------------- processes and threads


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_network_works_in_a_forked_child(restore_threads):
    sf.set_num_threads(2)
    expected = digest(train(steps=2)[0])  # the pool of the parent exists
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on: fork beside threads
        child = os.fork()
    if child == 0:
        signal.alarm(60)  # a child that waits for its parent's threads ends too
        status = 1
        try:
            status = 0 if digest(train(steps=2)[0]) == expected else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_a_loss_that_raises_leaves_the_network_usable(backend):
    class Broken(sf.losses.ce_rate_loss):
        def partial(self, record, labels, normaliser):
            raise ArithmeticError("broken")

    net, (images, labels) = csnn(backend), draw(9)
    with pytest.raises(ArithmeticError, match="broken"):
        net.loss_and_grad(images, labels, Broken(), num_steps=3)
    loss, _ = net.loss_and_grad(images, labels, LOSSES[0], num_steps=3)
    assert math.isfinite(loss)

"""Kernels that skip the zeros of spikes and of pooled gradients, against the plain operations composed.

Inputs are dyadic, so that every sum is exact in any order and equality means equal bits.
"""

from dataclasses import dataclass

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import backends, surrogate
from spikeflow.ops.events import Pooled, Routed, SpikeWords

CPU = backends.load("cpu")


@dataclass(frozen=True)
class Config:
    T: int
    B: int
    H: int
    W: int
    C: int
    O: int
    K: int
    stride: int
    padding: int
    density: float

    def __str__(self):
        return f"T{self.T}-{self.B}x{self.H}x{self.W}x{self.C}-O{self.O}-K{self.K}-s{self.stride}-p{self.padding}-{self.density}"


def draw_configs(count):
    rng = np.random.default_rng(5)
    for _ in range(count):
        K = int(rng.integers(1, 8))
        H, W = (int(n) + max(K - 2, 1) for n in rng.integers(1, 7, 2))
        padding = int(rng.integers(0, 3))
        padding = max(padding, -(-(K - min(H, W)) // 2))
        channels = [int(rng.choice([1, 3, 12, 20])), int(rng.choice([1, 5, 16, 64, 70]))]
        shape = int(rng.choice([1, 3, 63, 64, 65, 130])), int(rng.integers(1, 4)), H, W, *channels
        yield Config(*shape, K, int(rng.integers(1, 4)), padding, float(rng.choice([0, 0.02, 0.2, 0.7, 1])))


def dyadic(rng, *shape):
    """Multiples of 1/16 below 2: sums of some thousand products stay exact in float32."""
    return (rng.integers(-32, 33, shape) / 16).astype(np.float32)


def pack(spikes):
    """spikes (T, B, ...) -> SpikeWords, by the definition: bit t mod 64 of word t / 64 is the spike at step t."""
    T = len(spikes)
    words = np.zeros((-(-T // 64), *spikes.shape[1:]), np.uint64)
    for t in range(T):
        words[t // 64] |= spikes[t].astype(np.uint64) << np.uint64(t % 64)
    return SpikeWords(words, T)


def merge(x):
    return np.ascontiguousarray(x.reshape(-1, *x.shape[2:]))


@pytest.fixture(params=list(draw_configs(60)), ids=str)
def case(request):
    config = request.param
    rng = np.random.default_rng(7)
    spikes = (rng.random((config.T, config.B, config.H, config.W, config.C)) < config.density).astype(np.float32)
    return config, spikes, CPU.conv2d_pack(dyadic(rng, config.O, config.C, config.K, config.K)), dyadic(rng, config.O), rng


def composed(config, spikes, packed, bias):
    y = CPU.conv2d_forward(merge(spikes), packed, bias, config.stride, config.padding)
    return y.reshape(config.T, config.B, *y.shape[1:])


def gradients(config, packed):
    return np.zeros_like(packed.weight), np.zeros(config.O, np.float32)


def test_forward_is_the_dense_one_bit_for_bit(case):
    config, spikes, packed, bias, _ = case
    expected = composed(config, spikes, packed, bias)
    got = CPU.conv2d_forward_events(pack(spikes), packed, bias, config.stride, config.padding)
    assert np.array_equal(got, expected)
    without = CPU.conv2d_forward_events(pack(spikes), packed, None, config.stride, config.padding)
    assert np.array_equal(without, composed(config, spikes, packed, None))


def test_backward_is_the_dense_one_bit_for_bit(case):
    config, spikes, packed, bias, rng = case
    dy = dyadic(rng, *composed(config, spikes, packed, bias).shape)
    ours, theirs = gradients(config, packed), gradients(config, packed)
    geometry = packed, config.stride, config.padding
    dx = CPU.conv2d_backward_events(dy, pack(spikes), *geometry, *ours, True)
    expected = CPU.conv2d_backward(merge(dy), merge(spikes), *geometry, *theirs, True)
    assert np.array_equal(ours[0], theirs[0]) and np.array_equal(ours[1], theirs[1])
    assert np.array_equal(merge(dx), expected)


@pytest.mark.parametrize(("K", "stride"), [(2, 2), (3, 3), (2, 3)])
def test_pooling_on_the_way_and_back_is_the_dense_one_bit_for_bit(case, K, stride):
    config, spikes, packed, bias, rng = case
    y = composed(config, spikes, packed, bias)
    if min(y.shape[2:4]) < K:
        pytest.skip("the convolution's output is smaller than the pooling window")
    pooled, winner = CPU.max_pool2d_forward(merge(y), K, stride)
    got = CPU.conv2d_forward_events(pack(spikes), packed, bias, config.stride, config.padding, (K, stride))
    assert isinstance(got, Pooled) and got.unpooled == y.shape
    assert np.array_equal(merge(got.y), pooled) and np.array_equal(merge(got.winner), winner)

    dy = dyadic(rng, *got.y.shape)
    routed = Routed(dy, got.winner, y.shape, K, stride)
    unpooled = CPU.max_pool2d_backward(merge(dy), winner, merge(y).shape, K, stride)
    ours, theirs = gradients(config, packed), gradients(config, packed)
    geometry = packed, config.stride, config.padding
    dx = CPU.conv2d_backward_events(routed, pack(spikes), *geometry, *ours, True)
    expected = CPU.conv2d_backward(unpooled, merge(spikes), *geometry, *theirs, True)
    assert np.array_equal(ours[0], theirs[0]) and np.array_equal(ours[1], theirs[1])
    assert np.array_equal(merge(dx), expected)


def test_a_nan_weight_reaches_the_outputs_whose_window_holds_a_spike_there():
    weight = np.ones((2, 1, 1, 1), np.float32)
    weight[1] = np.nan
    spikes = np.array([[1, 0]], np.float32).reshape(1, 1, 1, 2, 1)
    y = CPU.conv2d_forward_events(pack(spikes), CPU.conv2d_pack(weight), None, 1, 0)
    assert np.array_equal(y[0, 0, 0], [[1, np.nan], [0, 0]], equal_nan=True)


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("T", [1, 64, 100])
@pytest.mark.parametrize("static", [True, False], ids=["static", "sequence"])
def test_a_neuron_s_words_hold_its_spikes(reset, T, static):
    x = np.random.default_rng(T).normal(0.5, 1, (1 if static else T, 700)).astype(np.float32)
    spikes, membrane = CPU.leaky_forward(x, T, 0.9, 1.0, reset, surrogate.atan())
    words, same = CPU.leaky_forward_words(x, T, 0.9, 1.0, reset, surrogate.atan())
    assert np.array_equal(words, pack(spikes).words) and np.array_equal(membrane, same) and 0 < spikes.mean() < 1
    assert np.array_equal(SpikeWords(words, T).dense(np.float32), spikes)


def networks(**options):
    lif = {"beta": 0.5, "spike_grad": surrogate.fast_sigmoid(25)}
    return {
        "pool before the neuron": lambda: sf.Sequential(
            sf.Conv2d(1, 6, 3), sf.MaxPool2d(2), sf.Leaky(**lif), sf.Conv2d(6, 9, 3, padding=1), sf.MaxPool2d(2), sf.Leaky(**lif),
            sf.Flatten(), sf.Linear(9 * 3 * 3, 5), sf.Leaky(**lif), **options,
        ),
        "pool after the neuron": lambda: sf.Sequential(
            sf.Conv2d(1, 6, 3, padding=1), sf.Leaky(**lif), sf.MaxPool2d(2), sf.Conv2d(6, 8, 3, stride=2), sf.Leaky(**lif),
            sf.Flatten(), sf.Linear(8 * 3 * 3, 5), sf.Leaky(**lif), **options,
        ),
        "overlapping pool": lambda: sf.Sequential(
            sf.Conv2d(1, 6, 3), sf.Leaky(**lif), sf.Conv2d(6, 8, 3), sf.MaxPool2d(3, 2), sf.Leaky(**lif),
            sf.Flatten(), sf.Linear(8 * 4 * 4, 5), sf.Leaky(**lif), **options,
        ),
        "rows": lambda: sf.Sequential(
            sf.Flatten(), sf.Linear(14 * 14, 40), sf.Leaky(**lif), sf.Linear(40, 30), sf.Leaky(**lif), sf.Linear(30, 5),
            sf.Leaky(**lif), **options,
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize("static", [True, False], ids=["static", "sequence"])
def test_networks_compute_the_same_with_and_without_events(name, static):
    rng = np.random.default_rng(11)
    T = 70
    images = dyadic(rng, *(() if static else (T,)), 6, 1, 14, 14)
    labels = rng.integers(0, 5, 6)
    results = []
    for options in ({"events": True}, {"events": False}, {"backend": "reference"}):
        net = networks(**options)[name]()
        for parameter in net.parameters():
            parameter.value[...] = np.round(parameter.value * 64) / 16  # dyadic, and large enough to spike
        loss, spikes = net.loss_and_grad(images, labels, sf.losses.ce_rate_loss(), num_steps=T if static else None)
        record = net.record(images, num_steps=T if static else None)
        results.append((loss, spikes, record, [p.grad.copy() for p in net.parameters()]))
    loss, spikes, record, grads = results[0]
    for other in results[1:]:
        assert loss == pytest.approx(other[0], rel=1e-12) and np.array_equal(spikes, other[1])
        for layer in record:
            assert record[layer]["spikes"].any()
            for kind in ("spikes", "membrane"):
                assert np.array_equal(record[layer][kind], other[2][layer][kind])
        for ours, theirs in zip(grads, other[3], strict=True):
            assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)

"""Operations that take several layers at once, against those layers one after the other.

Forward they give equal bits. Backward the sums run in another order: float32 leaves a few units of 6e-8 for each of some dozen
sums that follow each other, float64 as many of 1e-16.
"""

import numpy as np
import pytest
from leaky_ops import leaky_backward, leaky_forward
from spikes import draw_spikes, merge, pack

from spikeflow import backends, surrogate
from spikeflow.ops.events import Awaited, Fired, Routed, SpikeWords

CPU = backends.load("cpu")
RESETS = {"subtract": surrogate.atan(), "zero": surrogate.fast_sigmoid(25), "none": surrogate.sigmoid(10)}


def assert_close(actual, expected):
    bound = 1e-5 if expected.dtype == np.float32 else 1e-12
    assert actual.dtype == expected.dtype and expected.any()
    assert np.linalg.norm(actual - expected) <= bound * np.linalg.norm(expected)


def composed(spikes, packed, bias, stride, padding, pool, neuron):
    """-> words, membrane, winner, unpooled."""
    y = CPU.conv2d_forward_events(pack(spikes), packed, bias, stride, padding)
    pooled, winner = CPU.max_pool2d_forward(merge(y), *pool)
    T = len(spikes)
    words, membrane = leaky_forward(CPU, pooled.reshape(T, -1), T, *neuron, words=True)
    return words, membrane, winner, y.shape


@pytest.mark.parametrize(
    "O, dtype, pool_stride, reset",
    [
        (5, np.float32, 2, "subtract"),
        (70, np.float32, 2, "subtract"),
        (64, np.float32, 3, "zero"),  # gaps between the pool's windows
        (70, np.float64, 2, "none"),
    ],
)
def test_convolution_pool_and_neuron_at_once_equal_the_three_bit_for_bit(O, dtype, pool_stride, reset):
    rng, pool = np.random.default_rng(O), (2, pool_stride)
    packed = CPU.conv2d_pack(rng.normal(0, 0.3, (O, 3, 3, 3)).astype(dtype))
    bias, neuron = rng.normal(0.2, 0.3, O).astype(dtype), (0.9, 0.7, reset, RESETS[reset])
    for T, stride, padding in ((1, 1, 0), (50, 1, 1), (65, 2, 1), (130, 1, 0)):
        spikes = draw_spikes(rng, (T, 3, 7, 6, 3), 0.3)
        words, membrane, winner, unpooled = composed(spikes, packed, bias, stride, padding, pool, neuron)
        got = CPU.conv2d_forward_events(pack(spikes), packed, bias, stride, padding, pool, neuron)
        assert isinstance(got, Fired) and got.unpooled == unpooled and got.spikes.num_steps == T
        np.testing.assert_array_equal(got.spikes.words.reshape(words.shape), words, strict=True)
        np.testing.assert_array_equal(got.membrane, membrane, strict=True)
        np.testing.assert_array_equal(merge(got.winner), winner, strict=True)
        assert 0 < got.spikes.dense(np.float32).mean() < 1
        if T == 50:
            without = CPU.conv2d_forward_events(pack(spikes), packed, None, stride, padding, pool, neuron)
            np.testing.assert_array_equal(without.membrane, composed(spikes, packed, None, stride, padding, pool, neuron)[1])


@pytest.mark.parametrize(
    "reset, dtype", [("subtract", np.float32), ("zero", np.float32), ("zero", np.float64), ("none", np.float32)]
)
@pytest.mark.parametrize("T", [1, 65])
def test_the_gradient_forward_in_time_is_the_one_backward_in_time(reset, dtype, T):
    rng, neuron = np.random.default_rng(T), (0.9, 0.8, reset, RESETS[reset])
    current = rng.normal(0.3, 0.5, (1, 1100)).astype(dtype)  # three slices of neurons, the last one short
    spikes, membrane = leaky_forward(CPU, current, T, *neuron)
    assert 0 < spikes.mean() < 1
    dspikes = rng.normal(size=spikes.shape).astype(dtype)
    expected = leaky_backward(CPU, dspikes, None, membrane, 1, *neuron, None, None)
    assert_close(CPU.leaky_backward_static(dspikes, current, *neuron), expected)


# dtype, T, B, H, W, C, O, K, stride, pool stride, reset
FUSED = [
    (np.float32, 50, 3, 12, 12, 12, 64, 5, 1, 2, "subtract"),  # the second layer of Tutorial 6
    (np.float32, 65, 2, 9, 11, 3, 70, 3, 2, 2, "none"),
    (np.float32, 1, 2, 8, 8, 3, 5, 3, 1, 3, "none"),  # gaps between the pool's windows
    (np.float64, 130, 2, 7, 6, 3, 9, 3, 1, 2, "zero"),
]


@pytest.mark.parametrize("dtype, T, B, H, W, C, O, K, stride, pool_stride, reset", FUSED)
def test_neuron_and_convolution_backward_at_once_equal_the_two(dtype, T, B, H, W, C, O, K, stride, pool_stride, reset):
    rng, neuron = np.random.default_rng(T), (0.9, 0.8, reset, RESETS[reset])
    current = rng.normal(0.1, 0.4, (1, B * H * W * C)).astype(dtype)
    words, membrane = leaky_forward(CPU, current, T, *neuron, words=True)
    spikes = SpikeWords(words.reshape(-1, B, H, W, C), T)
    assert 0 < spikes.dense(np.float32).mean() < 1
    packed = CPU.conv2d_pack(rng.normal(0, 0.3, (O, C, K, K)).astype(dtype))
    unpooled = T, B, (H - K) // stride + 1, (W - K) // stride + 1, O
    pooled = T, B, (unpooled[2] - 2) // pool_stride + 1, (unpooled[3] - 2) // pool_stride + 1, O
    dy = Routed(rng.normal(size=pooled).astype(dtype), rng.integers(0, 4, pooled, np.uint8), unpooled, 2, pool_stride)
    before = rng.normal(size=packed.weight.shape).astype(dtype)  # gradients are added to what is there
    ours, theirs = before.copy(), before.copy()

    dcurrent = CPU.conv2d_leaky_backward(Awaited(dy, spikes, packed, stride, ours), current, *neuron)
    dx = CPU.conv2d_backward_events(dy, spikes, packed, stride, 0, theirs, None, True)
    expected = leaky_backward(CPU, dx.reshape(T, -1), None, membrane, 1, *neuron, None, None)
    assert_close(dcurrent, expected)
    assert_close(ours, theirs)
    assert not np.array_equal(ours, before)

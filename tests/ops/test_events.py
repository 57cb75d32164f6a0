"""Kernels that skip the zeros of spikes and of pooled gradients, against the plain operations composed.

Inputs are dyadic, so that every sum is exact in any order and equality means equal bits; but where the order itself is tested.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from leaky_ops import leaky_forward
from spikes import draw_spikes, dyadic, merge, pack

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


# ---------------------------------------------------------------------------------------------- the index


@pytest.mark.parametrize("T", [1, 63, 64, 65, 130])
@pytest.mark.parametrize("density", [0, 0.03, 0.5, 1])
@pytest.mark.parametrize("trains", [None, 5], ids=["independent", "shared"])
def test_the_index_holds_exactly_the_spikes(T, density, trains):
    B, H, W, C = shape = 3, 5, 4, 7
    spikes = draw_spikes(np.random.default_rng(T), (T, *shape), density, trains)
    spikes[:, 0, 0] = 0  # silent neurons, whatever the density
    packed = pack(spikes)
    for padding in (0, 2, 1):  # of the same spikes: one frame's index must not serve for another
        index = packed.index(padding)
        frame = [(0, 0), (0, 0), (padding, padding), (padding, padding), (0, 0)]
        words = np.pad(packed.words, frame)
        D, _, high, wide, _ = words.shape
        for b in range(B):
            flat = words[:, b].reshape(D, -1).T  # (places, D)
            active = np.flatnonzero(flat.any(1))
            count = len(active)
            np.testing.assert_array_equal(index.places[b, :count], active)
            pixels = np.arange(high)[:, None] * wide + np.arange(wide + 1)
            np.testing.assert_array_equal(index.starts[b], np.searchsorted(active, pixels * C))
            assert index.starts[b, -1, -1] == count
            distinct = np.unique(flat[active], axis=0) if count else flat[:0]
            patterns = index.patterns[b, : index.counts[b]]
            assert index.counts[b] == len(distinct)
            np.testing.assert_array_equal(patterns[np.lexsort(patterns.T[::-1])], distinct)
            np.testing.assert_array_equal(patterns[index.trains[b, :count]], flat[active])


@pytest.mark.parametrize("different", [0, 1, 2])
def test_trains_that_differ_in_one_word_only_are_told_apart(different):
    rng = np.random.default_rng(different)
    words = np.broadcast_to(rng.integers(1, 2**63, (3, 1, 1, 1, 1), np.uint64), (3, 2, 6, 6, 9)).copy()
    words[different] = rng.integers(1, 2**63, (6, 9), np.uint64)  # a train for each column and channel
    index = SpikeWords(words, 192).index(0)
    assert (index.counts == 6 * 9).all()
    trains = index.trains.reshape(2, 6, 6, 9)
    for b in range(2):
        np.testing.assert_array_equal(index.patterns[b, trains[b]], np.moveaxis(words[:, b], 0, -1))


# ---------------------------------------------------------------------------------------------- sums that are rounded once


KINDS = ["ordinary", "heavy tail", "float64"]


def draw_weight(kind, O, C, K):
    """Weights that are no dyadic numbers; of a heavy tail, one is a million times as large as the others."""
    weight = np.random.default_rng(3).normal(0, 0.1, (O, C, K, K)).astype(np.float64 if kind == "float64" else np.float32)
    if kind == "heavy tail":
        weight[:, 0, 0, 0] *= 1e6
    return weight


@pytest.mark.parametrize(("kind", "accumulator"), [("ordinary", np.int32), ("heavy tail", np.float64), ("float64", np.float64)])
def test_integers_count_only_where_they_lose_nothing(kind, accumulator):
    assert CPU.conv2d_pack(draw_weight(kind, 5, 4, 3)).units[0].dtype == accumulator


def test_a_large_weight_costs_no_accuracy_where_its_neuron_is_silent():
    weight = draw_weight("heavy tail", 5, 4, 3)
    spikes = draw_spikes(np.random.default_rng(0), (20, 2, 6, 6, 4), 0.3)
    spikes[..., 0] = 0
    y = CPU.conv2d_forward_events(pack(spikes), CPU.conv2d_pack(weight), None, 1, 0)
    sums, _ = exact_sums(spikes, weight, 0)
    assert np.linalg.norm(y - sums) <= 2.0**-23 * np.linalg.norm(sums)  # plain sums in float32 reach half of it


@pytest.fixture(params=KINDS)
def kind(request):
    """Of weights; those of a heavy tail are summed in float64, as those of the largest windows are."""
    return request.param


@pytest.fixture
def rounded_once(kind):
    """-> a function of spikes -> their convolution, bias included."""
    weight = draw_weight(kind, 5, 4, 3)
    packed, bias = CPU.conv2d_pack(weight), np.linspace(-1, 1, 5).astype(weight.dtype)
    return lambda spikes: CPU.conv2d_forward_events(pack(spikes), packed, bias, 1, 1)


def test_a_current_does_not_depend_on_how_a_sequence_is_cut(rounded_once):
    spikes = draw_spikes(np.random.default_rng(0), (130, 2, 6, 5, 4), 0.4)
    whole = rounded_once(spikes)
    for cuts in ([1], [63], [64], [65], [129], [5, 30, 64, 100]):
        parts = [rounded_once(part) for part in np.split(spikes, cuts)]
        np.testing.assert_array_equal(np.concatenate(parts), whole, strict=True)


def test_a_current_does_not_depend_on_the_rest_of_the_batch(rounded_once):
    spikes = draw_spikes(np.random.default_rng(0), (50, 5, 6, 5, 4), 0.3)
    spikes[:, 1] = 0
    spikes[:, 2] = draw_spikes(np.random.default_rng(1), (50, 6, 5, 4), 0.5, 3)  # few trains beside many
    whole = rounded_once(spikes)
    for b in range(5):
        np.testing.assert_array_equal(rounded_once(spikes[:, b : b + 1]), whole[:, b : b + 1], strict=True)


@pytest.mark.parametrize("T", [1, 50, 65])
def test_a_current_does_not_depend_on_which_neurons_share_a_train(rounded_once, T):
    image = 6, 5, 4
    neurons = np.arange(1, math.prod(image) + 1).reshape(image)
    code = np.stack([neurons >> bit & 1 for bit in range(neurons.max().item().bit_length())])[:, None].astype(np.float32)
    spikes = draw_spikes(np.random.default_rng(0), (T, 1, *image), 0.4, 6)
    apart = np.concatenate([spikes, code])
    assert pack(spikes).index(1).counts[0] <= 6 and pack(apart).index(1).counts[0] == neurons.size
    np.testing.assert_array_equal(rounded_once(apart)[:T], rounded_once(spikes), strict=True)


def exact_sums(spikes, weight, padding):
    """-> (1) without bias, each sum correctly rounded to float64, and the number of its terms; stride 1."""
    framed = np.pad(spikes, [(0, 0), (0, 0), (padding, padding), (padding, padding), (0, 0)]).astype(bool)
    O, _, K, _ = weight.shape
    windows = np.lib.stride_tricks.sliding_window_view(framed, (K, K), axis=(2, 3))  # (T, B, H', W', C, K, K)
    rows = weight.astype(np.float64).reshape(O, -1)
    sums = np.empty((*windows.shape[:4], O))
    for place in np.ndindex(windows.shape[:4]):
        chosen = rows[:, windows[place].reshape(-1)]
        sums[place] = [math.fsum(terms) for terms in chosen]
    return sums, windows.sum((4, 5, 6))[..., None]


def assert_rounded_once(spikes, weight, padding):
    """The sum of weights that are each off by half a unit, rounded once: well within one unit for each, and one last place."""
    packed = CPU.conv2d_pack(weight)
    y = CPU.conv2d_forward_events(pack(spikes), packed, None, 1, padding)
    sums, terms = exact_sums(spikes, weight, padding)
    scale = packed.units[1][: len(weight)].astype(np.float64)
    assert np.isfinite(y).all()
    assert (abs(y.astype(np.float64) - sums) <= np.spacing(abs(y)) + terms * scale).all()
    return y


@pytest.mark.parametrize("C, K", [(1, 1), (4, 3), (20, 5)])
def test_currents_are_sums_of_the_weights_rounded_once(kind, C, K):
    weight = draw_weight(kind, 5, C, K)
    for density in (0.1, 0.6):
        y = assert_rounded_once(draw_spikes(np.random.default_rng(0), (20, 2, 4, 5, C), density), weight, K // 2)
        assert y.any()


@pytest.mark.parametrize("size", [0, 1e-38, 1e-20, 1e20, 1e38])
@pytest.mark.parametrize("signs", ["one", "both"])
def test_currents_of_extreme_weights(size, signs):
    weight = np.full((5, 3, 1, 1), size, np.float32)  # three of the largest stay below the largest float32
    if signs == "both":
        weight[::2, 1] *= -1
    y = assert_rounded_once(draw_spikes(np.random.default_rng(0), (9, 2, 4, 5, 3), 0.5), weight, 0)
    assert y.any() == (size != 0)


def test_whole_numbers_cost_no_more_than_single_precision():
    """Their rounding is a small part of the last place of the largest sum, for weights as layers are initialised."""
    weight = np.random.default_rng(0).uniform(-1, 1, (64, 12, 5, 5)).astype(np.float32)
    units, scale = CPU.conv2d_pack(weight).units
    assert units.dtype == np.int32
    sizes = abs(weight).sum((1, 2, 3), dtype=np.float64)
    assert (scale <= np.spacing(sizes.astype(np.float32)) / 32).all()
    assert abs(units.astype(np.int64)).sum((1, 2)).max() < 2**31  # and no sum overflows


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("T", [1, 64, 100])
@pytest.mark.parametrize("static", [True, False], ids=["static", "sequence"])
def test_a_neuron_s_words_hold_its_spikes(reset, T, static):
    x = np.random.default_rng(T).normal(0.5, 1, (1 if static else T, 700)).astype(np.float32)
    spikes, membrane = leaky_forward(CPU, x, T, 0.9, 1.0, reset, surrogate.atan())
    words, same = leaky_forward(CPU, x, T, 0.9, 1.0, reset, surrogate.atan(), words=True)
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

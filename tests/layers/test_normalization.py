"""Batch normalisation layers: statistics, modes, joints, gradients, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from layer_passes import assert_same_bits, passes

import spikeflow as sf
from spikeflow.layers import AvgPool2d, BatchNorm1d, BatchNorm2d, Conv2d, Flatten, IFNode, Leaky, Linear, MaxPool2d

RNG = np.random.default_rng(3)
IMAGES = RNG.random((20, 1, 8, 8)).astype(np.float32)
LABELS = RNG.integers(0, 3, 20)


def make(backend="cpu", dtype=np.float32, **options):
    """Three segments: the batch normalisations of images and of rows are joints."""
    net = sf.Sequential(
        Conv2d(1, 5, 3, padding=1, bias=False), BatchNorm2d(5), IFNode(), MaxPool2d(2),
        Conv2d(5, 6, 3, padding=1, bias=False), BatchNorm2d(6), IFNode(), MaxPool2d(2),
        Flatten(), Linear(24, 7, bias=False), BatchNorm1d(7), IFNode(), Linear(7, 3), IFNode(),
        seed=1, backend=backend, dtype=dtype, **options,
    )  # fmt: skip
    for parameter in net.parameters():  # so that the last layers fire
        if parameter.name in ("10.bias", "12.bias"):
            parameter.value += parameter.value.dtype.type(0.6)
    return net


def rows_of(net, name):
    return {key: net.state_dict()[f"{name}.{key}"] for key in ("running_mean", "running_var", "num_batches_tracked")}


def test_statistics_are_those_of_the_batch_and_estimates_follow():
    net = sf.Sequential(BatchNorm1d(4, momentum=0.3), Leaky(0.5))
    x = np.random.default_rng(0).normal(3, 2, (3, 10, 4)).astype(np.float32)
    _, membrane = net.forward(x)
    expected = (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + 1e-5)
    np.testing.assert_allclose(membrane[0], expected[0], atol=1e-5)
    found = rows_of(net, "0")
    np.testing.assert_allclose(found["running_mean"], 0.3 * x.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(found["running_var"], 0.7 + 0.3 * x.reshape(-1, 4).var(0, ddof=1), rtol=1e-5)
    assert found["num_batches_tracked"] == 1


def test_momentum_none_averages_all_batches():
    net = sf.Sequential(BatchNorm1d(2, momentum=None), Leaky(0.5))
    xs = np.random.default_rng(0).normal(3, 2, (4, 3, 10, 2)).astype(np.float32)
    for x in xs:
        net.forward(x)
    np.testing.assert_allclose(rows_of(net, "0")["running_mean"], xs.mean((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_before_a_constant_input_once_is_as_good_as_at_every_step(backend):
    T = 4
    once, at_every_step = make(backend), make(backend)
    loss = sf.losses.mse_rate_loss()
    first = once.loss_and_grad(IMAGES, LABELS, loss, num_steps=T)
    second = at_every_step.loss_and_grad(np.tile(IMAGES, (T, 1, 1, 1, 1)), LABELS, loss)
    assert first[1].any()
    np.testing.assert_array_equal(first[1], second[1])
    for one, other in zip(once.parameters(), at_every_step.parameters(), strict=True):
        np.testing.assert_allclose(one.grad, other.grad, rtol=0, atol=2e-5 * abs(one.grad).max() + 1e-9)
    for name in ("1", "5", "10"):
        for one, other in zip(rows_of(once, name).values(), rows_of(at_every_step, name).values(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_the_variance_counts_the_steps_of_a_constant_input():
    net = sf.Sequential(BatchNorm1d(1), Leaky(0.5))
    net.forward(np.array([[0.0], [2.0]], np.float32), num_steps=3)
    assert rows_of(net, "0")["running_var"] == pytest.approx(0.9 + 0.1 * 6 / 5)  # var 1 of n = 3 * 2 rows


@pytest.mark.parametrize("training", [True, False])
def test_backends_and_modes_agree(training):
    """Fused, plain and reference: 20 samples are two blocks."""
    results = []
    for options in ({}, {"events": False}, {"backend": "reference"}):
        net = make(**options).train(training)
        results.append(passes(net, IMAGES, 4))
    assert results[0][0].any()
    for spikes, membrane, dx, grads in results[1:]:
        np.testing.assert_array_equal(spikes, results[0][0])
        np.testing.assert_allclose(membrane, results[0][1], atol=1e-5)
        np.testing.assert_allclose(dx, results[0][2], atol=1e-5 * abs(dx).max())
        for name, gradient in grads.items():
            np.testing.assert_allclose(gradient, results[0][3][name], atol=2e-5 * abs(gradient).max() + 1e-9)


def test_loss_and_grad_is_forward_loss_backward():
    loss = sf.losses.mse_rate_loss()
    fused, plain = make(), make()
    value, spikes = fused.loss_and_grad(IMAGES, LABELS, loss, num_steps=4)
    outputs, _ = plain.forward(IMAGES, 4)
    expected, dspikes = loss(outputs, LABELS)
    plain.backward(dspikes)
    np.testing.assert_array_equal(spikes, outputs)
    assert value == pytest.approx(expected, rel=1e-6)
    for one, other in zip(fused.parameters(), plain.parameters(), strict=True):
        np.testing.assert_allclose(one.grad, other.grad, rtol=0, atol=1e-6 * abs(other.grad).max() + 1e-10)
    assert_same_bits(fused.state_dict().values(), plain.state_dict().values())


def test_memory_that_is_used_again_does_not_leak_into_results():
    net, fresh = make(), make()
    loss = sf.losses.mse_rate_loss()
    for batch in (slice(0, 20), slice(0, 7), slice(3, 20)):
        net.zero_grad()
        net.loss_and_grad(IMAGES[batch], LABELS[batch], loss, num_steps=3)
        other = make()
        other.loss_and_grad(IMAGES[batch], LABELS[batch], loss, num_steps=3)
        assert_same_bits([p.grad for p in net.parameters()], [p.grad for p in other.parameters()])
    spikes, _ = fresh.eval().forward(IMAGES, 3)
    assert_same_bits([fresh.predict(IMAGES, 3, batch_size=6)], [spikes])


def test_bits_do_not_depend_on_threads():
    before = sf.get_num_threads()
    results = []
    for threads in (1, 3):
        sf.set_num_threads(threads)
        net = make()
        net.loss_and_grad(IMAGES, LABELS, sf.losses.mse_rate_loss(), num_steps=4)
        results.append([*(p.grad.copy() for p in net.parameters()), *net.state_dict().values()])
    sf.set_num_threads(before)
    assert_same_bits(*results)


@pytest.mark.parametrize("training", [True, False])
def test_finite_differences(training):
    net = make(dtype=np.float64).train(training)
    report = sf.gradcheck(net, IMAGES[:6], LABELS[:6], sf.losses.mse_rate_loss(), num_steps=3, entries=6, directions=2)
    assert report.passed, report


def test_finite_differences_over_blocks_with_average_pools():
    net = sf.Sequential(
        Conv2d(1, 3, 3, bias=False), BatchNorm2d(3), Leaky(0.8), AvgPool2d(2),
        Conv2d(3, 2, 2, bias=False), BatchNorm2d(2, affine=False), Leaky(0.5), AvgPool2d(2, stride=1),
        Flatten(), Linear(2, 3), Leaky(0.5), dtype=np.float64,
    )  # fmt: skip
    images = np.random.default_rng(0).random((9, 1, 8, 8))
    report = sf.gradcheck(net, images, np.arange(9) % 3, sf.losses.ce_rate_loss(), num_steps=3, entries=6, directions=2)
    assert report.passed, report


def test_prediction_streaming_and_recording_are_in_evaluation_mode():
    net = make()
    for _ in range(3):
        net.forward(IMAGES, 4)
    state = net.state_dict()
    whole = net.predict(IMAGES, 4)
    assert_same_bits([net.predict(IMAGES, 4, batch_size=3)], [whole])
    first, _, carried = net.stream(IMAGES, num_steps=1)
    rest, _, _ = net.stream(IMAGES, carried, num_steps=3)
    assert_same_bits([np.concatenate([first, rest])], [whole])
    assert_same_bits([net.record(IMAGES, 4)["13"]["spikes"]], [whole])
    assert_same_bits(net.state_dict().values(), state.values())
    net.eval()
    assert_same_bits([net.forward(IMAGES, 4)[0]], [whole])
    assert_same_bits(net.state_dict().values(), state.values())


def test_description_and_state_make_it_again(tmp_path):
    net = make()
    net.forward(IMAGES, 4)
    net.save(tmp_path / "net.npz")
    again = sf.load(tmp_path / "net.npz")
    assert_same_bits(again.state_dict().values(), net.state_dict().values())
    assert_same_bits([again.predict(IMAGES, 4)], [net.predict(IMAGES, 4)])
    assert set(net.state_dict()) >= {"1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert {p.name for p in net.parameters() if p.name.startswith("1.")} == {"1.weight", "1.bias"}


def test_one_sample_is_refused_in_training():
    net = make()
    with pytest.raises(ValueError, match=r"layer 1 \(BatchNorm2d\(5\)\).*at least 2 samples.*net.eval"):
        net.forward(IMAGES[:1], 4)
    net.eval().forward(IMAGES[:1], 4)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_features": 0}, "num_features must be at least 1"),
        ({"num_features": 2, "eps": -1}, "eps must be a number at least 0"),
        ({"num_features": 2, "eps": None}, "eps must be a number"),
        ({"num_features": 2, "momentum": 2}, r"momentum must be a number in \[0, 1\]"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        BatchNorm2d(**options)


def test_another_number_of_channels_is_refused():
    net = sf.Sequential(Conv2d(1, 4, 3), BatchNorm2d(5), Leaky(0.5))
    with pytest.raises(ValueError, match=r"layer 1 .*expects images of shape \(5, H, W\)"):
        net.forward(IMAGES, 2)

"""Sequences in pieces: streaming gives the bits of the whole, truncated gradients are those of a detached state."""

from __future__ import annotations

import numpy as np
import pytest

import spikeflow as sf
from spikeflow.engine.steps import Given

NEURONS = {
    "Leaky": lambda: sf.Leaky(0.7),
    "Leaky, at once, graded": lambda: sf.Leaky(0.7, reset_delay=False, graded_spikes_factor=1.5, learn_beta=True),
    "Synaptic": lambda: sf.Synaptic(0.5, 0.7, learn_alpha=True),
    "Alpha": lambda: sf.Alpha(0.9, 0.6, threshold=0.3),
    "RLeaky": lambda: sf.RLeaky(0.7, linear_features=6, learn_beta=True),
    "RSynaptic, one to one": lambda: sf.RSynaptic(0.5, 0.7, V=0.5, all_to_all=False),
}
every_neuron = pytest.mark.parametrize("make", NEURONS.values(), ids=list(NEURONS))


def dense(make, **options):
    return sf.Sequential(sf.Linear(4, 6), make(), sf.Linear(6, 3), sf.Leaky(0.8, 0.5), **options)


def csnn(**options):
    return sf.Sequential(
        sf.Conv2d(1, 4, 3), sf.MaxPool2d(2), sf.Leaky(0.6, 0.3), sf.Conv2d(4, 5, 3), sf.MaxPool2d(2), sf.Leaky(0.6, 0.2),
        sf.Flatten(), sf.Linear(5, 3), sf.Leaky(0.8, 0.1), **options,
    )  # fmt: skip


def draw(*shape, dtype=np.float32):
    return (2 * np.random.default_rng(0).random(shape)).astype(dtype)


def streamed(net, x, ends):
    """-> spikes, membrane of the pieces of x that end at these steps."""
    state, outputs, start = None, [], 0
    for end in ends:
        *output, state = net.stream(x[start:end], state)
        outputs.append(output)
        start = end
    return [np.concatenate(parts) for parts in zip(*outputs, strict=True)]


@every_neuron
def test_pieces_give_the_same_bits(backend, make):
    net, x = dense(make, backend=backend), draw(11, 19, 4)
    whole = net.forward(x)
    assert whole[0].any() and not whole[0].all()
    for ends in ((11,), (1, 2, 7, 11)):
        for actual, expected in zip(streamed(net, x, ends), whole, strict=True):
            np.testing.assert_array_equal(actual, expected)


def test_pieces_of_images_give_the_same_bits(backend):
    net, x = csnn(backend=backend), draw(70, 3, 1, 13, 13)
    whole = net.forward(x)
    assert whole[0].any()
    for actual, expected in zip(streamed(net, x, (3, 66, 70)), whole, strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_a_static_image_in_pieces_gives_the_same_bits(backend):
    net, x = csnn(backend=backend), draw(3, 1, 13, 13)
    whole, (first, _, state), kept = net.forward(x, num_steps=9), net.stream(x, num_steps=4), {}
    kept = {name: array.copy() for name, array in state.items()}
    second, _, _ = net.stream(x, state, num_steps=5)
    np.testing.assert_array_equal(np.concatenate([first, second]), whole[0])
    for name, array in state.items():
        np.testing.assert_array_equal(array, kept[name])  # handed in, not changed


def test_the_state_has_a_row_for_each_state_and_the_batch_behind():
    net = dense(NEURONS["Synaptic"])
    *_, state = net.stream(draw(2, 5, 4))
    assert {name: array.shape for name, array in state.items()} == {"1": (2, 5, 6), "3": (1, 5, 3)}
    *_, state = csnn().stream(draw(2, 5, 1, 13, 13))
    assert state["2"].shape == (1, 5, 4, 5, 5)


def test_streaming_leaves_the_latest_forward_in_place():
    net, x, results = dense(NEURONS["Leaky"]), draw(4, 2, 4), []
    for streams in (False, True):
        net.zero_grad()
        spikes, _ = net.forward(x)
        if streams:
            net.stream(x[::-1].copy())
        net.backward(np.ones_like(spikes))
        results.append([parameter.grad.copy() for parameter in net.parameters()])
    for actual, expected in zip(*results, strict=True):
        assert expected.any()
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: {}, r"state must be what stream returned for the part before: .*\(2, 5, 6\).*got {}"),
        (lambda state: [1], "got list"),
        (lambda state: state | {"1": state["1"][:, :4]}, r"got .*\(2, 4, 6\)"),
        (lambda state: state | {"5": state["1"]}, "state must be"),
        (lambda state: state | {"1": state["1"].astype(complex)}, "real numbers"),
    ],
    ids=["empty", "list", "batch", "layer", "complex"],
)
def test_bad_state(change, message):
    net = dense(NEURONS["Synaptic"])
    *_, state = net.stream(draw(2, 5, 4))
    with pytest.raises(ValueError, match=message):
        net.stream(draw(2, 5, 4), change(state))


# ---------------------------------------------------------------------------------------------- truncated


def loss_fn(spikes, membrane, labels):
    weights = np.random.default_rng(1).normal(size=(2, *spikes.shape)).astype(spikes.dtype)
    return float(np.vdot(weights[0], spikes) + np.vdot(weights[1], membrane)), *weights


def gradients(net, x, truncate):
    net.zero_grad()
    net.loss_and_grad(x, None, loss_fn, truncate=truncate)
    return {parameter.name: parameter.grad.copy() for parameter in net.parameters()}


@every_neuron
@pytest.mark.parametrize("K", [7, 20])
def test_truncation_at_the_end_or_behind_is_none(make, K):
    net, x = dense(make, dtype=np.float64, backend="reference"), draw(7, 5, 4, dtype=np.float64)
    whole, truncated = gradients(net, x, None), gradients(net, x, K)
    for name, gradient in whole.items():
        np.testing.assert_array_equal(truncated[name], gradient)


@every_neuron
@pytest.mark.parametrize("K", [1, 3])
def test_truncated_gradients_are_those_of_detached_pieces(make, K):
    """Each piece is run and differentiated alone, by a network whose neurons start in the state that the piece before left."""
    net, x = dense(make, dtype=np.float64, backend="reference"), draw(7, 4, 4, dtype=np.float64)  # one block
    weights = loss_fn(*net.forward(x), None)[1:]
    expected, state = dict.fromkeys(gradients(net, x, K), 0.0), None
    for start in range(0, 7, K):
        part = slice(start, start + K)
        call = net._call(x[part], None, streams=True)
        states = {name: array.reshape(len(array), -1) for name, array in net._checked_state(call, state).items()}
        _, kept = call.forward_block(0, states=states)
        grads = [step.gradients() for step in call.steps]
        call.backward_block(0, kept, [Given(*(w[part] for w in weights))], grads, False)
        *_, state = net.stream(x[part], state)
        for name, gradient in (item for found in grads for item in found.items()):
            for key, value in gradient.items():
                expected[f"{name}.{key}"] += value
    actual = gradients(net, x, K)
    for name, gradient in actual.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-10, atol=1e-12, err_msg=name)
    whole = gradients(net, x, None)
    assert any(abs(whole[name] - gradient).max() > 1e-6 for name, gradient in actual.items())


def test_a_fused_network_truncates_too():
    x, labels = draw(5, 1, 13, 13), np.arange(5) % 3
    results = []
    for backend in ("cpu", "reference"):
        net = csnn(backend=backend)
        net.loss_and_grad(x, labels, sf.losses.ce_rate_loss(), num_steps=8, truncate=3)
        results.append({parameter.name: parameter.grad for parameter in net.parameters()})
    for name, gradient in results[0].items():
        np.testing.assert_allclose(gradient, results[1][name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("K, error", [(0, ValueError), (-1, ValueError), (2.0, TypeError)])
def test_bad_truncation(K, error):
    with pytest.raises(error, match="truncate"):
        gradients(dense(NEURONS["Leaky"]), draw(3, 2, 4), K)

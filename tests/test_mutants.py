"""Would the checker notice? Wrong backward passes, one mistake each, are put in place of the right ones, and must be caught."""

from __future__ import annotations

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import backends
from spikeflow.kernels.cpu import parallel

CONVOLUTIONS, NEURONS = ("0", "3"), ("2", "4", "7")


def rows(layers, *keys) -> set[str]:
    return {f"{layer}.{key}" for layer in layers for key in keys}


WEIGHTS = rows(("0", "3", "6"), "weight", "bias") | rows(NEURONS, "beta", "threshold")


def csnn(backend, reset):
    """Every layer, stride, padding, a square linear layer, and parameters in every neuron."""
    options = {"learn_beta": True, "learn_threshold": True, "reset_mechanism": reset}
    return sf.Sequential(
        sf.Conv2d(1, 3, 3, padding=1), sf.MaxPool2d(2), sf.Leaky(0.6, 0.9, **options),
        sf.Conv2d(3, 4, 3, stride=2, padding=1), sf.Leaky(0.8, 0.7, **options),
        sf.Flatten(), sf.Linear(16, 16), sf.Leaky(0.7, 0.5, **options),
        backend=backend, dtype=np.float64,
    )  # fmt: skip


def loss_fn(spikes, membrane, labels):
    """A loss of both outputs."""
    by_spikes, dspikes = sf.losses.ce_rate_loss()(spikes, labels)
    by_membrane, dmembrane = sf.losses.ce_membrane_loss()(membrane, labels)
    return by_spikes + by_membrane, dspikes, dmembrane


def check(backend, reset="subtract", loss=loss_fn):
    """Two blocks of samples whose background is flat, so that windows of the pooling tie."""
    rng = np.random.default_rng(0)
    images = np.zeros((6, 1, 8, 8))
    images[:, :, 2:6, 3:8] = rng.uniform(0.5, 1.5, (6, 1, 4, 5))
    return sf.gradcheck(csnn(backend, reset), images, rng.integers(0, 16, 6), loss, num_steps=4, entries=3, directions=1)


def failed(report) -> set[str]:
    return {row.name for row in report.rows if row.verdict == "FAILED"}


# ---------------------------------------------------------------------------------------------- layers without time


def make_conv2d(wrong=None):
    """The reference's loop over the taps, written once more, with at most one mistake."""

    def backward(dy, x, weight, stride, padding, dweight, dbias, input_grad):
        K, height, width = weight.shape[-1], dy.shape[1], dy.shape[2]
        x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        dx, step = np.zeros_like(x), 1 if wrong == "stride ignored" else stride
        dbias += dy.mean((0, 1, 2)) if wrong == "bias averaged" else dy.sum((0, 1, 2))
        for k, m in np.ndindex(K, K):
            tap = np.s_[:, k : k + (height - 1) * step + 1 : step, m : m + (width - 1) * step + 1 : step]
            to = {"dw transposed": (m, k), "dw flipped": (K - 1 - k, K - 1 - m)}.get(wrong, (k, m))
            by = {"dx flipped": (K - 1 - k, K - 1 - m), "dx transposed": (m, k)}.get(wrong, (k, m))
            dweight[:, :, to[0], to[1]] += np.einsum("nijo,nijc->oc", dy, x[tap])
            dx[tap] += dy @ weight[:, :, by[0], by[1]]
        first = padding - 1 if wrong == "padding off by one" else padding
        return dx[:, first : first + x.shape[1] - 2 * padding, first : first + x.shape[2] - 2 * padding].copy()

    return {"conv2d_backward": backward}


def make_pool(wrong=None):
    """The windows' maxima are looked up in the input that the forward pass saw."""
    forward = backends.load("reference").max_pool2d_forward
    seen = []

    def remembering(x, K, stride, **frozen):
        y, winner = forward(x, K, stride, **frozen)
        seen.append((winner, x))
        return y, winner

    def backward(dy, winner, shape, K, stride):
        x, dx = next(x for kept, x in seen if np.shares_memory(kept, winner)), np.zeros(shape)
        for place in np.ndindex(*dy.shape):
            n, i, j, c = place
            window = np.s_[n, i * stride : i * stride + K, j * stride : j * stride + K, c]
            maxima = np.argwhere(x[window] == x[window].max())
            chosen = {"last maximum": maxima[-1:], "all maxima": maxima}.get(wrong, maxima[:1])
            for k, m in chosen:
                dx[window][k, m] += dy[place]
        return dx

    return {"max_pool2d_forward": remembering, "max_pool2d_backward": backward}


def make_linear(wrong=None):
    def backward(dy, x, weight, dweight, dbias, input_grad):
        dweight += x.T @ dy if wrong == "dw transposed" else dy.T @ x
        dbias += dy.sum(0)
        return dy @ (weight.T if wrong == "dx transposed" else weight)

    return {"linear_backward": backward}


def make_flatten(wrong=None):
    def backward(dy, shape):
        N, H, W, C = shape
        return (dy.reshape(N, H, W, C) if wrong else dy.reshape(N, C, H, W).transpose(0, 2, 3, 1)).copy()

    return {"flatten_backward": backward}


# ---------------------------------------------------------------------------------------------- the neuron


def make_leaky(wrong=None):
    """The recursion of the leaky neuron, written once more, with at most one mistake."""

    def backward(model, dspikes, dmembrane, trajectory, input_steps, params, x=None, learns=(), truncate=None, **twin):
        membrane, (threshold, _, _, beta) = trajectory.membrane, params[:, 0]
        reset, surrogate, dbeta, dthreshold = model.reset, model.surrogate, np.zeros(1), np.zeros(1)
        T, M = len(membrane) - 1, membrane.shape[1]
        dx, carry = np.zeros((input_steps, M)), np.zeros(M)
        for t in reversed(range(1 if wrong == "first step forgotten" else 0, T)):
            m, before = membrane[t + 1], membrane[t]
            fired = before > threshold
            k = np.where(fired & (reset == "zero"), 0.0, 1.0)
            compared = {
                "surrogate one step early": before,
                "surrogate of the reset membrane": m - threshold * (m > threshold),
                "surrogate without the threshold": m + threshold,
            }.get(wrong, m)
            through = dspikes[t] * surrogate.derivative(compared - threshold, surrogate.constants)
            g = through + carry
            if dmembrane is not None and wrong != "dmembrane ignored":
                g = g + dmembrane[t]
            if input_steps == 1 and wrong == "static input: last step only":
                dx[0] = g if t == T - 1 else dx[0]
            else:
                dx[min(t, input_steps - 1)] += g
            dbeta += np.sum(g * (1 if wrong == "dbeta without k" else k) * (m if wrong == "dbeta one step late" else before))
            if wrong != "dthreshold without the spike":
                dthreshold -= np.sum(through)
            if reset == "subtract" and wrong != "dthreshold without the reset":
                dthreshold -= np.sum(g[fired])
            carry = (1 if wrong == "carry without beta" else beta) * (1 if wrong == "carry without k" else k) * g
            if wrong == "reset differentiated":
                carry = carry - threshold * g * surrogate.derivative(before - threshold, surrogate.constants)
            if wrong == "no carry":
                carry = np.zeros(M)
        return dx, np.array([dthreshold, np.zeros(1), np.zeros(1), dbeta])

    return {"neuron_backward": backward}


# ---------------------------------------------------------------------------------------------- what is caught, and where

OPERATIONS = {
    "convolution: dw transposed": (make_conv2d, "dw transposed", rows(CONVOLUTIONS, "weight")),
    "convolution: dw flipped": (make_conv2d, "dw flipped", rows(CONVOLUTIONS, "weight")),
    "convolution: dx flipped": (make_conv2d, "dx flipped", {"0.weight", "2.beta", "input"}),
    "convolution: dx transposed": (make_conv2d, "dx transposed", {"0.weight", "2.beta", "input"}),
    "convolution: padding off by one": (make_conv2d, "padding off by one", {"0.weight", "2.beta", "input"}),
    "convolution: stride ignored": (make_conv2d, "stride ignored", {"0.weight", "2.beta", "3.weight", "input"}),
    "convolution: bias averaged": (make_conv2d, "bias averaged", {"3.bias"}),
    "pooling: last maximum": (make_pool, "last maximum", {"input"}),
    "pooling: all maxima": (make_pool, "all maxima", {"input"}),
    "linear: dw transposed": (make_linear, "dw transposed", {"6.weight"}),
    "linear: dx transposed": (make_linear, "dx transposed", {"0.weight", "3.weight", "4.beta", "input"}),
    "flatten: channel last": (make_flatten, "channel last", {"0.weight", "3.weight", "4.beta", "input"}),
    "neuron: carry without beta": (make_leaky, "carry without beta", WEIGHTS | {"input"}),
    "neuron: no carry": (make_leaky, "no carry", WEIGHTS | {"input"}),
    "neuron: first step forgotten": (make_leaky, "first step forgotten", {"0.weight", "6.weight", "7.threshold", "input"}),
    "neuron: surrogate one step early": (make_leaky, "surrogate one step early", WEIGHTS | {"input"}),
    "neuron: surrogate of the reset membrane": (make_leaky, "surrogate of the reset membrane", WEIGHTS | {"input"}),
    "neuron: surrogate without the threshold": (make_leaky, "surrogate without the threshold", WEIGHTS | {"input"}),
    "neuron: dmembrane ignored": (make_leaky, "dmembrane ignored", WEIGHTS | {"input"}),
    "neuron: static input, last step only": (make_leaky, "static input: last step only", {"0.weight", "0.bias", "input"}),
    "neuron: dbeta one step late": (make_leaky, "dbeta one step late", rows(NEURONS, "beta")),
    "neuron: dthreshold without the reset": (make_leaky, "dthreshold without the reset", rows(NEURONS, "threshold")),
    "neuron: dthreshold without the spike": (make_leaky, "dthreshold without the spike", rows(NEURONS, "threshold")),
    "neuron: reset differentiated": (make_leaky, "reset differentiated", WEIGHTS - {"7.bias"} | {"input"}),
}
RESET_TO_ZERO = {
    "dbeta without k": rows(NEURONS, "beta"),
    "carry without k": WEIGHTS - {"7.threshold"} | {"input"},
}


def install(monkeypatch, backend, operations):
    for name, operation in operations.items():
        monkeypatch.setattr(backends.load(backend), name, operation)


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_the_right_one_passes(backend, reset):
    report = check(backend, reset)
    assert report.passed, f"\n{report}"


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("make", [make_conv2d, make_pool, make_linear, make_flatten, make_leaky])
def test_without_a_mistake_these_pass_too(monkeypatch, make, reset):
    install(monkeypatch, "reference", make())
    report = check("reference", reset)
    assert report.passed, f"\n{report}"


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_wrong_operation_is_caught(monkeypatch, name):
    make, wrong, where = OPERATIONS[name]
    install(monkeypatch, "reference", make(wrong))
    report = check("reference")
    assert not report.passed and failed(report) >= where, f"\n{report}"


@pytest.mark.parametrize("wrong", RESET_TO_ZERO)
def test_a_wrong_reset_to_zero_is_caught(monkeypatch, wrong):
    install(monkeypatch, "reference", make_leaky(wrong))
    report = check("reference", "zero")
    assert not report.passed and failed(report) >= RESET_TO_ZERO[wrong], f"\n{report}"


def scaled(operation, argument, factor):
    """The operation, with what it adds to its argument of this number, or returns as that row of dparams, times ``factor``."""

    def mutant(*arguments, **options):
        before = arguments[argument].copy()
        result = operation(*arguments, **options)
        arguments[argument][...] = before + factor * (arguments[argument] - before)
        return result

    def mutant_row(*arguments, **options):
        dx, dparams = operation(*arguments, **options)
        dparams[argument] *= factor
        return dx, dparams

    return mutant_row if operation.__name__ == "neuron_backward" else mutant


@pytest.mark.parametrize(
    "name, argument, where",
    [
        ("conv2d_backward", 5, rows(CONVOLUTIONS, "weight")),
        ("conv2d_backward", 6, rows(CONVOLUTIONS, "bias")),
        ("linear_backward", 3, {"6.weight"}),
        ("neuron_backward", 3, rows(NEURONS, "beta")),
        ("neuron_backward", 0, rows(NEURONS, "threshold")),
    ],
    ids=["conv-weight", "conv-bias", "linear-weight", "beta", "threshold"],
)
def test_one_part_in_a_thousand_is_caught_where_it_is(monkeypatch, backend, name, argument, where):
    if backend == "cpu" and name.startswith("linear"):
        pytest.skip("on this backend a linear layer behind a Flatten is a convolution")
    install(monkeypatch, backend, {name: scaled(getattr(backends.load(backend), name), argument, 1.001)})
    if backend == "cpu":
        where = where | {parameter.replace("3.", "6.") for parameter in where if parameter[0] == "3" and parameter[2:] != "beta"}
    report = check(backend)
    assert not report.passed and failed(report) == where, f"\n{report}"


class NoMeanOverTime(sf.losses.ce_rate_loss):
    def partial(self, record, labels, normaliser):
        loss, gradient = super().partial(record, labels, normaliser)
        return loss, gradient * len(record)


class NoMeanOverTheBatch(sf.losses.ce_rate_loss):
    def partial(self, record, labels, normaliser):
        loss, gradient = super().partial(record, labels, normaliser)
        return loss, gradient * normaliser


class NoTarget(sf.losses.ce_rate_loss):
    def partial(self, record, labels, normaliser):
        loss, gradient = super().partial(record, labels, normaliser)
        gradient[:, np.arange(len(labels)), labels] += 1 / (len(record) * normaliser)
        return loss, gradient


@pytest.mark.parametrize("mutant", [NoMeanOverTime, NoMeanOverTheBatch, NoTarget], ids=lambda mutant: mutant.__name__)
def test_a_wrong_loss_is_caught(backend, mutant):
    assert check(backend, loss=sf.losses.ce_rate_loss()).passed
    report = check(backend, loss=mutant())
    assert not report.passed and failed(report) == WEIGHTS | {"input"}, f"\n{report}"


@pytest.mark.parametrize("lanes", [slice(0, 1), slice(1, None), [0, 0, 1]], ids=["last-lost", "first-lost", "first-twice"])
def test_a_wrong_sum_over_lanes_is_caught(monkeypatch, backend, lanes):
    def run(task, count, right=parallel.run):
        results = right(task, count)
        return results[lanes] if isinstance(lanes, slice) else [results[lane] for lane in lanes]

    monkeypatch.setattr(parallel, "run", run)
    report = check(backend)
    assert not report.passed and failed(report) == WEIGHTS, f"\n{report}"


def test_a_layer_that_hides_its_input_gradient_is_caught(monkeypatch, backend):
    right = sf.Leaky.backward

    def backward(self, *arguments, **options):
        return right(self, *arguments, **options) * (self.name != "4")

    monkeypatch.setattr(sf.Leaky, "backward", backward)
    report = check(backend)
    assert not report.passed
    assert {row.name: row.verdict for row in report.rows}["0.weight"] == "FAILED"

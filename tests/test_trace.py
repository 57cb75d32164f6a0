"""A run of snnTorch, written down by benchmarks/make_trace.py, must come out of spikeflow.

Its weights and images are multiples of 1/256: the sums of its convolutions are exact in any order, so that spikes and
membranes are compared bit for bit.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import spikeflow as sf

TRACE = Path(__file__).parent / "traces" / "csnn_snntorch.npz"
NEURONS = ("2", "5", "8")


@pytest.fixture(scope="module")
def trace() -> dict[str, np.ndarray]:
    with np.load(TRACE, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module", params=["cpu", "reference"])
def net(request, trace) -> sf.Sequential:
    lif = dict(beta=float(trace["beta"]), spike_grad=sf.surrogate.fast_sigmoid(slope=float(trace["slope"])))
    net = sf.Sequential(
        sf.Conv2d(1, 4, 3), sf.MaxPool2d(2), sf.Leaky(**lif),
        sf.Conv2d(4, 6, 3), sf.MaxPool2d(2), sf.Leaky(**lif),
        sf.Flatten(), sf.Linear(24, 5), sf.Leaky(**lif),
        backend=request.param,
    )  # fmt: skip
    net.load_state_dict(part(trace, "weight"))
    return net


def part(trace: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    """-> the entries "kind/NAME" by NAME."""
    return {key.partition("/")[2]: value for key, value in trace.items() if key.startswith(f"{kind}/")}


@pytest.mark.parametrize("layer", NEURONS)
def test_the_trace_is_worth_comparing_with(trace, layer):
    assert 0 < trace[f"spikes/{layer}"].mean() < 1


def test_spikes_and_membranes_are_snntorchs_bit_for_bit(net, trace):
    record = net.record(trace["images"], num_steps=int(trace["num_steps"]))
    assert set(record) == set(NEURONS)
    for layer in NEURONS:
        np.testing.assert_array_equal(record[layer]["spikes"], trace[f"spikes/{layer}"])
        np.testing.assert_array_equal(record[layer]["membrane"], trace[f"membrane/{layer}"])


def test_loss_and_gradients_are_snntorchs(net, trace):
    net.zero_grad()
    steps = int(trace["num_steps"])
    loss, _ = net.loss_and_grad(trace["images"], trace["labels"], sf.losses.ce_rate_loss(), num_steps=steps)
    assert loss == pytest.approx(float(trace["loss"]), rel=1e-6)
    expected = part(trace, "grad")
    assert {parameter.name for parameter in net.parameters()} == set(expected)
    for parameter in net.parameters():
        error = np.linalg.norm(parameter.grad - expected[parameter.name])
        assert error <= 1e-5 * np.linalg.norm(expected[parameter.name]), parameter.name

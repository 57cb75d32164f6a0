"""Runs of snnTorch and SpikingJelly, written down by benchmarks/make_trace*.py, must come out of spikeflow.

Weights and inputs are multiples of 1/256. In the network, the sums of convolutions are then exact in any order, so that spikes
and membranes are compared bit for bit. Single neurons are compared state by state, streamed one step at a time; the nodes, which
are SpikingJelly's, are compared as sequences.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import spikeflow as sf

TRACES = Path(__file__).parent / "traces"
TRACE = TRACES / "csnn_snntorch.npz"
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


# ---------------------------------------------------------------------------------------------------- single neurons


RUNS = (
    "leaky", "leaky_at_once", "lapicque", "synaptic", "alpha_zero", "alpha_subtract", "rleaky_linear", "rleaky_one_to_one",
    "rsynaptic_linear", "leaky_integrator",
)  # fmt: skip
COMPILED = tuple(name for name in RUNS if name != "alpha_subtract")  # each neuron with its default reset


@pytest.fixture(scope="module")
def runs() -> dict[str, dict[str, np.ndarray]]:
    with np.load(TRACES / "neurons_snntorch.npz", allow_pickle=False) as file:
        arrays = dict(file)
    return {
        name: part(arrays, name) | {"labels": arrays["labels"]} for name in {key.split("/")[0] for key in arrays if "/" in key}
    }


@pytest.fixture(
    scope="module",
    params=[(name, "reference") for name in RUNS] + [(name, "cpu") for name in COMPILED],
    ids=lambda pair: "-".join(pair),
)
def neuron(request, runs):
    """-> the run, and the same layer in spikeflow with its loss."""
    name, backend = request.param
    run = runs[name]
    case = json.loads(str(run["case"]))
    options = case["options"] | {key: value if value.ndim else float(value) for key, value in part(run, "number").items()}
    if case["neuron"] != "LeakyIntegrator":
        options["spike_grad"] = case["spike_grad"]
    net = sf.Sequential(getattr(sf, case["neuron"])(**options), backend=backend)
    net.load_state_dict({f"0.{key}": value for key, value in part(run, "weight").items()}, strict=False)
    first, *others = (getattr(sf.losses, loss["name"])(**loss["options"]) for loss in case["loss"])
    return run, net, sum(others, first)


def error(a, b) -> float:
    """-> |a - b| / |b|."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def test_there_is_a_run_of_each_neuron(runs):
    assert set(runs) == set(RUNS)


def test_a_neurons_spikes_and_states_are_snntorchs(neuron):
    run, net, _ = neuron
    state = None
    for t, current in enumerate(run["x"]):
        spikes, _, state = net.stream(current[None], state)
        np.testing.assert_array_equal(spikes[0], run["spikes"][t])
        np.testing.assert_allclose(state["0"], run["states"][t], rtol=0, atol=1e-6)


def test_a_neurons_loss_and_gradients_are_snntorchs(neuron):
    run, net, loss_fn = neuron
    net.zero_grad()
    loss, _ = net.loss_and_grad(run["x"], run["labels"], loss_fn)
    assert loss == pytest.approx(float(run["loss"]), rel=1e-6)
    expected = part(run, "grad")
    gradients = {parameter.name.partition(".")[2]: parameter.grad.copy() for parameter in net.parameters()}
    spikes, membrane = net.forward(run["x"])
    gradients["x"] = net.backward(*loss_fn.evaluate(spikes, membrane, run["labels"])[1:], input_grad=True)
    assert set(gradients) == set(expected)
    for name, gradient in gradients.items():
        assert error(gradient, expected[name]) <= 1e-5, name


# ---------------------------------------------------------------------------------------------------- nodes


NODE_RUNS = tuple(
    f"{node}_{reset}" for node in ("if", "lif", "plif") for reset in ("hard", "hard_detached", "soft", "soft_detached")
)
COMPILED_NODES = ("if_soft", "lif_hard", "plif_hard_detached")


@pytest.fixture(scope="module")
def node_runs() -> dict[str, dict[str, np.ndarray]]:
    with np.load(TRACES / "nodes_spikingjelly.npz", allow_pickle=False) as file:
        arrays = dict(file)
    return {name: part(arrays, name) for name in {key.split("/")[0] for key in arrays if "/" in key}}


@pytest.fixture(
    scope="module",
    params=[(name, "reference") for name in NODE_RUNS] + [(name, "cpu") for name in COMPILED_NODES],
    ids=lambda pair: "-".join(pair),
)
def node(request, node_runs):
    """-> the run, and the same layer in spikeflow."""
    name, backend = request.param
    run = node_runs[name]
    case = json.loads(str(run["case"]))
    layer = getattr(sf, case["neuron"])(**case["options"], surrogate_function=case["surrogate_function"])
    net = sf.Sequential(layer, backend=backend)
    net.load_state_dict({f"0.{key}": value for key, value in part(run, "weight").items()})
    return run, net


def test_there_is_a_run_of_each_node(node_runs):
    assert set(node_runs) == set(NODE_RUNS)


def test_a_nodes_spikes_and_membranes_are_spikingjellys(node):
    run, net = node
    spikes, membrane = net.forward(run["x"])
    np.testing.assert_array_equal(spikes, run["spikes"])
    np.testing.assert_allclose(membrane, run["membrane"], rtol=0, atol=1e-6 if "weight/w" in run else 0)


def test_a_nodes_gradients_are_spikingjellys(node):
    run, net = node
    net.zero_grad()
    net.forward(run["x"])
    gradients = {"x": net.backward(run["dspikes"], run["dmembrane"], input_grad=True)}
    gradients |= {parameter.name.partition(".")[2]: parameter.grad for parameter in net.parameters()}
    expected = part(run, "grad")
    assert set(gradients) == set(expected)
    for name, gradient in gradients.items():
        assert error(gradient, expected[name]) <= 1e-5, name


def test_a_membrane_at_the_threshold_is_a_spike_of_spikingjelly(node_runs):
    for name in ("if_hard", "if_soft"):
        run = node_runs[name]
        options = json.loads(str(run["case"]))["options"]
        start = np.full_like(run["membrane"][:1], options["v_reset"] or 0)
        before = np.concatenate([start, run["membrane"][:-1]]) + run["x"]  # exact
        there = before == options["v_threshold"]
        assert there.any() and run["spikes"][there].all()


SEW = TRACES / "sew_spikingjelly.npz"


def sew_network(kind: str, backend: str) -> sf.Sequential:
    """The network of benchmarks/make_trace_sew.py."""

    def conv(channels, size):
        return sf.Conv2d(channels, 5, size, padding=size // 2, bias=False)

    def node():
        return sf.IFNode(surrogate_function=sf.surrogate.ATan())

    if kind == "branches":
        met, channels = sf.Parallel(sf.Sequential(conv(5, 3), node()), sf.Sequential(conv(5, 1), node())), 10
    else:
        met, channels = sf.Residual(conv(5, 3), node(), conv(5, 1), node(), connect=kind), 5
    last = sf.Linear(36 * channels, 3, bias=False), node()
    return sf.Sequential(conv(2, 3), node(), met, sf.Flatten(), *last, backend=backend)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("kind", ["add", "and", "iand", "branches"])
def test_branches_meet_as_spikingjellys_do(kind, backend):
    with np.load(SEW, allow_pickle=False) as file:
        trace = {key.removeprefix(f"{kind}/"): value for key, value in file.items() if key.startswith(f"{kind}/")}
    net = sew_network(kind, backend)
    net.load_state_dict(part(trace, "weight"))
    spikes, _ = net.forward(trace["x"])
    assert np.array_equal(spikes, trace["spikes"])
    rates = [record["spikes"].mean() for record in net.eval().record(trace["x"]).values()]
    assert np.allclose(rates, trace["rates"], rtol=1e-6, atol=0)
    net.forward(trace["x"])
    found = {"x": net.backward(trace["dspikes"], input_grad=True)}
    found |= {parameter.name: parameter.grad for parameter in net.parameters()}
    expected = part(trace, "grad")
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        assert np.linalg.norm(found[name] - gradient) <= 1e-5 * np.linalg.norm(gradient), name

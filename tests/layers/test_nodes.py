"""SpikingJelly's neurons as layers."""

from __future__ import annotations

import inspect
import json
import math
import pydoc
import re

import numpy as np
import pytest
from layer_passes import assert_same_bits, passes

import spikeflow as sf
from spikeflow import layers, surrogate
from spikeflow.recurrences import NODES as RECURRENCES

FEATURES = np.array([0.3, 0.5, 0.7, 0.9, 0.4])
CHANNELS = np.array([0.25, 0.75])[:, None, None]
MAKERS = {"IFNode": sf.IFNode, "LIFNode": sf.LIFNode, "ParametricLIFNode": sf.ParametricLIFNode}
every_node = pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
NODES = {  # with all options
    "IF": sf.IFNode(),
    "IF, soft": sf.IFNode(v_reset=None),
    "IF, detached": sf.IFNode(0.7, -0.2, detach_reset=True),
    "LIF": sf.LIFNode(),
    "LIF, undecayed, soft": sf.LIFNode(1.7, False, v_reset=None, surrogate_function=surrogate.atan()),
    "LIF, each its own": sf.LIFNode(1 + FEATURES, True, FEATURES, -FEATURES),
    "LIF, soft, detached": sf.LIFNode(1.5, v_threshold=0.8, v_reset=None, detach_reset=True),
    "PLIF": sf.ParametricLIFNode(),
    "PLIF, undecayed": sf.ParametricLIFNode(1.4, False, 0.9, -0.3),
    "PLIF, soft, detached": sf.ParametricLIFNode(3.0, v_reset=None, detach_reset=True),
}
every_option = pytest.mark.parametrize("name", NODES)


def alone(neuron, backend="reference", dtype=np.float64):
    return sf.Sequential(neuron, backend=backend, dtype=dtype)


def draw(*shape, dtype=np.float64):
    return (2 * np.random.default_rng(0).random(shape)).astype(dtype)


# ---------------------------------------------------------------------------------------------- options


DEFAULTS = {
    "IFNode": {},
    "LIFNode": {"tau": 2.0, "decay_input": True},
    "ParametricLIFNode": {"init_tau": 2.0, "decay_input": True},
}


@every_node
def test_options_are_spikingjellys_in_their_order(make):
    expected = DEFAULTS[make.__name__] | {"v_threshold": 1.0, "v_reset": 0.0}
    assert list(inspect.signature(make).parameters) == [*expected, "surrogate_function", "detach_reset"]
    node = make()
    assert {name: getattr(node, name) for name in expected} == expected
    assert node.surrogate_function == surrogate.Sigmoid(alpha=4) and node.detach_reset is False
    text = pydoc.render_doc(make, renderer=pydoc.plaintext)
    assert "Beside SpikingJelly 2.0" in text and all(name in text for name in expected)


@pytest.mark.parametrize(
    "make, options, error, message",
    [
        (sf.IFNode, {"v_threshold": math.nan}, ValueError, "v_threshold must be a finite number or an array of them, got nan"),
        (sf.IFNode, {"v_reset": -math.inf}, ValueError, "v_reset must be a finite number"),
        (sf.IFNode, {"v_reset": "0"}, ValueError, "v_reset must be a finite number"),
        (sf.IFNode, {"v_reset": 1.0}, ValueError, "v_reset must be below v_threshold, or the neuron would go on firing without"),
        (sf.LIFNode, {"v_reset": 1.5}, ValueError, "v_reset must be below v_threshold.*got v_reset=1.5, v_threshold=1.0"),
        (sf.LIFNode, {"v_threshold": [1, 0]}, ValueError, "v_reset must be below v_threshold"),
        (sf.IFNode, {"v_threshold": [1, 2], "v_reset": [0, 0, 0]}, ValueError, "v_reset and v_threshold must fit together"),
        (sf.LIFNode, {"tau": 1}, ValueError, "tau must be greater than 1, got 1"),
        (sf.LIFNode, {"tau": [2, 0.5]}, ValueError, "tau must be greater than 1"),
        (sf.LIFNode, {"tau": math.inf}, ValueError, "tau must be a finite number"),
        (sf.ParametricLIFNode, {"init_tau": 1.0}, ValueError, "init_tau must be one number greater than 1, got 1.0"),
        (sf.ParametricLIFNode, {"init_tau": [2, 3]}, ValueError, r"init_tau must be one number greater than 1, got \[2, 3\]"),
        (sf.IFNode, {"surrogate_function": "atan"}, TypeError, "surrogate_function must come from .*, such as Sigmoid"),
        (sf.IFNode, {"surrogate_function": surrogate.ATan}, TypeError, "surrogate_function must come from spikeflow.surrogate"),
        (sf.IFNode, {"surrogate_function": {"name": "step"}}, ValueError, "unknown surrogate 'step'"),
        (sf.IFNode, {"step_mode": "m"}, TypeError, "step_mode"),
        (sf.LIFNode, {"inhibition": True}, TypeError, "inhibition"),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value).partition(" at 0x")[0],
)  # fmt: skip
def test_bad_option(make, options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


def test_a_number_that_fits_no_sample_is_refused():
    with pytest.raises(ValueError, match=r"v_reset of shape \(5,\) does not fit samples of shape \(3,\)"):
        alone(sf.IFNode(v_reset=-FEATURES)).forward(draw(4, 2, 3))


@every_option
def test_descriptions_make_equal_nodes(name):
    node = NODES[name]
    for again in (layers.from_config(json.loads(json.dumps(node.config()))), node.unused_copy()):
        assert type(again) is type(node) and repr(again) == repr(node)
        assert again.config() == node.config() and again.model == node.model
        for number in node.number_names():
            np.testing.assert_array_equal(getattr(again, number), getattr(node, number), strict=True)


@every_option
def test_a_saved_node_predicts_the_same(name, tmp_path):
    net, x = alone(NODES[name].unused_copy()), draw(6, 4, 5)
    for parameter in net.parameters():
        parameter.value[...] = 0.3
    net.save(tmp_path / "net.npz")
    again = sf.load(tmp_path / "net.npz", backend="reference")
    assert net.forward(x)[0].any()
    assert_same_bits(again.forward(x), net.forward(x))


# ---------------------------------------------------------------------------------------------- forward

X = (0.5, 0.5, 0.25, 1.5, 0.75)  # threshold 1, tau 2: all numbers are exact
HARD = {"v_reset": -0.25}
SEQUENCES = {  # membranes as given out, spikes
    # from -0.25: 0.25 | 0.75 | 1, which fires | 1.25 | 0.5
    "IF, hard": (sf.IFNode(**HARD), 1, (0.25, 0.75, -0.25, -0.25, 0.5), "00110"),
    # 0.5 | 1 - 1 | 0.25 | 1.75 - 1 | 1.5 - 1
    "IF, soft": (sf.IFNode(v_reset=None), 1, (0.5, 0, 0.25, 0.75, 0.5), "01011"),
    # (m + 4 x - 0.25) / 2: 0.75 | 1.25 | 0.25 | 3 | 1.25
    "LIF, hard": (sf.LIFNode(**HARD), 4, (0.75, -0.25, 0.25, -0.25, -0.25), "01011"),
    # (m + 4 x) / 2: 1 - 1 | 1 - 1 | 0.5 | 3.25 - 1 | 2.625 - 1
    "LIF, soft": (sf.LIFNode(v_reset=None), 4, (0, 0, 0.5, 2.25, 1.625), "11011"),
    # m / 2 - 0.125 + x: 0.25 | 0.5 | 0.375 | 1.5625 | 0.5
    "LIF, undecayed": (sf.LIFNode(decay_input=False, **HARD), 1, (0.25, 0.5, 0.375, -0.25, 0.5), "00010"),
    "PLIF, hard": (sf.ParametricLIFNode(**HARD), 4, (0.75, -0.25, 0.25, -0.25, -0.25), "01011"),
    "PLIF, soft": (sf.ParametricLIFNode(v_reset=None), 4, (0, 0, 0.5, 2.25, 1.625), "11011"),
    "PLIF, undecayed": (sf.ParametricLIFNode(decay_input=False, **HARD), 1, (0.25, 0.5, 0.375, -0.25, 0.5), "00010"),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_sequence_worked_out_by_hand(name):
    node, factor, expected, fires = SEQUENCES[name]
    for dtype in (np.float32, np.float64):
        x = factor * np.array(X, dtype).reshape(5, 1, 1)
        spikes, membrane = alone(node.unused_copy(), dtype=dtype).forward(x)
        assert membrane.ravel().tolist() == list(expected)
        assert "".join(f"{spike:g}" for spike in spikes.ravel()) == fires
        assert spikes.dtype == membrane.dtype == dtype


@every_node
def test_a_node_fires_at_its_threshold(backend, make):
    net = alone(make(v_reset=None), backend, np.float32)
    x = np.array([1 - 2**-24, 1, 1 + 2**-23], np.float32) * (1 if make is sf.IFNode else 2)
    spikes, _ = net.forward(x[None], num_steps=1)
    assert spikes.ravel().tolist() == [0, 1, 1]


@every_option
def test_without_input_the_membrane_stays_where_it_starts(name):
    node = NODES[name].unused_copy()
    spikes, membrane = alone(node).forward(np.zeros((3, 2, 5)))
    assert not spikes.any()
    np.testing.assert_array_equal(membrane, np.broadcast_to(node.initial_state, membrane.shape))


def test_numbers_of_their_own_are_neurons_side_by_side():
    x = draw(7, 3, 5)
    together = passes(alone(sf.LIFNode(1 + FEATURES, True, FEATURES, -FEATURES)), x)
    for i, number in enumerate(FEATURES):
        net = alone(sf.LIFNode(1 + number, True, number, -number))
        assert_same_bits(net.forward(np.ascontiguousarray(x[..., i : i + 1])), [y[..., i : i + 1] for y in together[:2]])
    assert together[0].any()


def test_numbers_of_channels():
    x = draw(7, 3, 2, 2, 2)
    spikes, membrane = alone(sf.IFNode(CHANNELS, -CHANNELS)).forward(x)
    for c, number in enumerate(CHANNELS.ravel()):
        net = alone(sf.IFNode(number, -number))
        expected = net.forward(np.ascontiguousarray(x[:, :, c : c + 1]))
        assert_same_bits([spikes[:, :, c : c + 1], membrane[:, :, c : c + 1]], expected)


def csnn(**options):
    """-> a convolutional network of the three nodes, its weights multiples of 1/64."""
    nodes = {"v_threshold": 0.25, "v_reset": -0.25, "surrogate_function": surrogate.ATan()}
    net = sf.Sequential(
        sf.Conv2d(1, 4, 3), sf.MaxPool2d(2), sf.IFNode(**nodes), sf.Conv2d(4, 5, 3), sf.MaxPool2d(2),
        sf.LIFNode(decay_input=False, **nodes), sf.Flatten(), sf.Linear(5, 3), sf.ParametricLIFNode(**nodes), **options,
    )  # fmt: skip
    for parameter in net.parameters():
        parameter.value[...] = np.round(parameter.value * 768) / 64
    return net


@pytest.mark.parametrize("steps", [6, None], ids=["static", "sequence"])
def test_spikes_of_nodes_travel_as_bits(steps):
    x = np.round(draw(6, 9, 1, 13, 13, dtype=np.float32) * 64) / 64
    x = x[0] if steps else x
    ours, expected = (passes(csnn(**options), x, steps) for options in ({}, {"backend": "reference"}))
    assert 0 < expected[0].mean() < 1
    assert_same_bits(ours[:2], expected[:2])
    gradients, others = ({"input": results[2], **results[3]} for results in (ours, expected))
    for key, gradient in gradients.items():
        assert np.linalg.norm(gradient - others[key]) <= 1e-5 * np.linalg.norm(others[key]), key
    assert "8.w" in gradients and all(gradient.any() for gradient in gradients.values())


# ---------------------------------------------------------------------------------------------- backward


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("v_reset", [-0.5, None], ids=["hard", "soft"])
def test_gradients_of_two_steps_worked_out_by_hand(v_reset, detach):
    """The loss is the last membrane of a neuron that fires at the first step."""
    net, theta, pair = alone(sf.IFNode(0.75, v_reset, surrogate.ATan(), detach)), 0.75, surrogate.ATan()
    net.forward(np.array([1.5, 0.25]).reshape(2, 1, 1))
    second, first = net.backward(dmembrane=np.array([0.0, 1]).reshape(2, 1, 1), input_grad=True)[::-1].ravel()
    start, after = (0, 0.75) if v_reset is None else (v_reset, v_reset)
    slopes, jumps = [], []
    for u in (start + 1.5, after + 0.25):
        slopes.append(0 if detach else float(pair.derivative(np.float64(u - theta), pair.constants)))
        jumps.append(-theta if v_reset is None else v_reset - u)
    fires = (1, 1) if v_reset is None else (1, 0)
    kept = [1 - s * (v_reset is not None) + jump * slope for s, jump, slope in zip(fires, jumps, slopes, strict=True)]
    np.testing.assert_allclose([first, second], [kept[0] * kept[1], kept[1]], rtol=1e-13)


COMPILED = ("IF, soft", "LIF, soft, detached", "PLIF, undecayed")


@pytest.mark.parametrize("backend, name", [("reference", name) for name in NODES] + [("cpu", name) for name in COMPILED])
def test_gradcheck_passes(backend, name):
    rng = np.random.default_rng(0)
    x, labels = rng.uniform(0, 1.5, (5, 5, 4)), rng.integers(0, 3, 5)
    net = sf.Sequential(
        sf.Linear(4, 5), NODES[name].unused_copy(), sf.Linear(5, 3), sf.LIFNode(decay_input=False), backend=backend
    )
    report = sf.gradcheck(net, x, labels, sf.losses.mse_membrane_loss(), num_steps=None, entries=6, directions=2)
    assert report.passed, f"\n{report}"
    assert ("1.w" in {row.name for row in report.rows}) == name.startswith("PLIF")


@pytest.mark.parametrize(
    "changes", [{"detach_reset": True}, {"v_reset": None}, {"decay_input": False}], ids=lambda d: next(iter(d))
)
def test_gradcheck_notices_the_backward_of_another_node(monkeypatch, changes):
    node, other = sf.ParametricLIFNode(1.5, v_reset=-0.2), sf.ParametricLIFNode(**{"init_tau": 1.5, "v_reset": -0.2, **changes})
    net = sf.Sequential(sf.Linear(4, 5), node, sf.Linear(5, 3), sf.LeakyIntegrator(0.8), backend="reference")
    backward = net._ops.neuron_backward

    def confused(model, *arguments, **options):
        return backward(other.model if model.key.node else model, *arguments, **options)

    monkeypatch.setattr(net._ops, "neuron_backward", confused)
    x, labels = draw(5, 5, 4), np.arange(5) % 3
    assert not sf.gradcheck(net, x, labels, sf.losses.ce_membrane_loss(), num_steps=None, entries=6, directions=2).passed


# ---------------------------------------------------------------------------------------------- w


@pytest.mark.parametrize("init_tau", [1.1, 2, 2.5, 100.0])
def test_w_is_the_inverse_sigmoid_of_the_decay(init_tau):
    node = sf.ParametricLIFNode(init_tau)
    net = alone(node)
    (w,) = net.parameters()
    assert w.name == "0.w" and w.value.shape == () and w.value == -math.log(init_tau - 1)
    assert node.tau == pytest.approx(init_tau, rel=1e-14)
    w.value[...] = -1.5
    assert node.tau == pytest.approx(1 + math.exp(1.5), rel=1e-14)


@pytest.mark.parametrize("w, passes_through", [(800.0, 1), (-800.0, 0)])
def test_an_extreme_w_is_harmless(w, passes_through):
    net = alone(sf.ParametricLIFNode(v_threshold=9))
    net.parameters()[0].value[...] = w
    _, membrane = net.forward(np.array([[0.5, 2.0]]), num_steps=3)
    np.testing.assert_array_equal(membrane[-1], [[0.5 * passes_through, 2.0 * passes_through]])


def test_a_state_of_spikingjelly_loads():
    net = sf.Sequential(sf.Linear(3, 2), sf.IFNode(), sf.Linear(2, 2), sf.ParametricLIFNode(), backend="reference")
    state = {name: np.asarray(value) for name, value in net.state_dict().items()} | {"3.w": np.array(0.25, np.float32)}
    net.load_state_dict(state)
    assert net.state_dict()["3.w"] == 0.25 and list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias", "3.w"]
    for unknown in ("1.threshold", "1.reset_mechanism_val", "3.tau"):
        with pytest.raises(ValueError, match=re.escape(f"unknown ['{unknown}']")):
            net.load_state_dict(state | {unknown: np.array(1.0)})


def test_w_learns():
    net = sf.Sequential(
        sf.Linear(4, 6), sf.ParametricLIFNode(), sf.Linear(6, 3), sf.LeakyIntegrator(0.9), seed=1, backend="reference"
    )
    images, labels = draw(12, 4, dtype=np.float32), np.arange(12) % 3
    optimizer, loss_fn, losses = sf.optim.Adam(net.parameters(), lr=0.05), sf.losses.ce_membrane_loss(), []
    for _ in range(30):
        net.zero_grad()
        losses.append(net.loss_and_grad(images, labels, loss_fn, num_steps=6)[0])
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]
    assert abs(net.state_dict()["1.w"]) > 0.1


# ---------------------------------------------------------------------------------------------- what a network does with them


@every_option
def test_pieces_give_the_same_bits(name):
    net = sf.Sequential(sf.Linear(4, 5), NODES[name].unused_copy(), sf.IFNode(v_reset=-0.5), backend="reference")
    x = draw(9, 3, 4, dtype=np.float32)
    whole = net.forward(x)
    state, outputs = None, []
    for piece in (slice(0, 2), slice(2, 3), slice(3, 9)):
        *output, state = net.stream(x[piece], state)
        outputs.append(output)
    assert whole[0].any()
    assert_same_bits([np.concatenate(parts) for parts in zip(*outputs, strict=True)], whole)
    assert {key: array.shape for key, array in state.items()} == {"1": (1, 3, 5), "2": (1, 3, 5)}


def test_pieces_of_images_start_at_each_channels_reset(backend):
    net, x = alone(sf.IFNode(CHANNELS, -CHANNELS), backend, np.float32), draw(4, 3, 2, 2, 2, dtype=np.float32)
    spikes, membrane, _ = net.stream(x)
    assert_same_bits([spikes, membrane], net.forward(x))


def test_a_record_holds_the_membrane_after_its_reset_and_the_gradient_before_it(backend):
    net, x = alone(sf.IFNode(v_reset=-0.25), backend), draw(6, 3, 4)
    labels, loss_fn = np.arange(3), sf.losses.ce_rate_loss()
    record = net.record(x, backward=True, labels=labels, loss_fn=loss_fn)["0"]
    spikes, membrane = net.forward(x)
    assert_same_bits([record["spikes"], record["membrane"]], [spikes, membrane])
    assert (membrane[spikes == 1] == -0.25).all() and spikes.any()
    dx = net.backward(loss_fn(spikes, labels)[1], input_grad=True)
    np.testing.assert_allclose(record["dmembrane"], dx, rtol=1e-10)  # u[t] = m[t-1] + x[t]


def test_health_takes_the_membrane_before_its_reset(backend):
    pair = surrogate.Sigmoid()
    (row,) = alone(sf.IFNode(surrogate_function=pair), backend).health(np.full((1, 1), 1.5), num_steps=1).layers
    assert (row.layer, row.rate, row.lowest, row.highest) == ("IFNode", 1, 0, 0)
    assert row.gradient == pytest.approx(float(pair.derivative(np.float64(0.5), pair.constants)), rel=1e-6)


@every_option
def test_explain_shows_what_the_node_computes(name):
    node, x = NODES[name].unused_copy(), np.array([0.8, 1.9, 0.7, 1.1])
    text = sf.explain(node, x)
    lines = text.splitlines()
    assert "{" not in text.partition("\n")[2] and any(line.startswith("forward, from m[-1] = ") for line in lines)
    assert "H(x) = 1 if x >= 0 else 0" in text and ("is a constant" in text) == node.detach_reset
    rows = [line.split() for line in lines if re.match(r" +\d+ ", line)]
    head = next(line.split() for line in lines if line.startswith("  t"))
    table = dict(zip(head, np.array(rows, float).T, strict=True))
    net = alone(node)
    spikes, membrane = net.forward(np.repeat(x[:, None, None], 5, 2))
    np.testing.assert_allclose(table["z"], spikes[:, 0, 0], atol=5.1e-5)
    np.testing.assert_allclose(table["m"], membrane[:, 0, 0], atol=5.1e-5)
    dx = net.backward(np.ones_like(spikes), input_grad=True)
    np.testing.assert_allclose(table["dx"], dx[:, 0, 0], atol=5.1e-5)
    gradients = dict(re.findall(r"dL/d(\w+) (-?[\d.]+)", lines[-1]))
    assert gradients.keys() == ({"threshold", "q"} if name.startswith("PLIF") else {"threshold"})


def test_every_nodes_recurrence_is_explained():
    assert {neuron for neuron, _ in RECURRENCES} == {make.neuron for make in MAKERS.values()}
    for (neuron, _), (forward, _) in RECURRENCES.items():
        own = {"if_node": set(), "lif_node": {"v_reset", "tau"}, "parametric_lif_node": {"v_reset", "q"}}[neuron]
        assert set(re.findall(r"{(\w+)}", " ".join(forward))) == own

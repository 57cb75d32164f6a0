"""Networks that branch: names, numbers beside the reference, gradients, and all that looks into a network."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import spikeflow as sf
from spikeflow.engine.check import CheckError
from spikeflow.layers.containers import leaves
from spikeflow.parity import parity

CONNECTS = ("add", "and", "iand", "concat")


def neuron(**options):
    return sf.Leaky(0.6, 0.4, sf.surrogate.atan(2), **options)


def conv(C=3):
    return sf.Conv2d(C, C, 3, padding=1)


def sew(connect, norm=False, **options):
    """A residual block of spikes, as in a SEW-ResNet, behind a spiking convolution."""
    body = [conv(), *([sf.BatchNorm2d(3)] if norm else []), neuron(), conv(), neuron()]
    channels = 6 if connect == "concat" else 3
    return sf.Sequential(
        sf.Conv2d(1, 3, 3), neuron(), sf.Residual(*body, connect=connect), sf.MaxPool2d(2),
        sf.Flatten(), sf.Linear(4 * channels, 4), neuron(), seed=3, **options,
    )  # fmt: skip


def nested(**options):
    """Containers within containers, a shortcut with weights, and one branch that is constant while the other is not."""
    inner = sf.Residual(sf.Linear(6, 6), neuron(), shortcut=sf.Sequential(sf.Linear(6, 6), neuron()), connect="iand")
    return sf.Sequential(
        sf.Parallel(sf.Linear(5, 6), sf.Sequential(sf.Linear(5, 2), neuron(learn_beta=True))),
        sf.Sequential(sf.Linear(8, 6), neuron(), inner),
        sf.Residual(sf.Linear(6, 6)), neuron(), seed=1, **options,
    )  # fmt: skip


def heads(**options):
    return sf.Sequential(
        sf.Linear(5, 6), neuron(),
        sf.Parallel(
            sf.Sequential(sf.Linear(6, 3), neuron()), sf.Linear(6, 4), sf.Sequential(sf.Linear(6, 3), sf.LeakyIntegrator(0.5)),
            merge=None,
        ), seed=2, **options,
    )  # fmt: skip


LOSSES = sf.losses.ce_rate_loss(), sf.losses.mse_membrane_loss(), sf.losses.ce_membrane_loss()


def case(make, static=True, T=5, B=9, dtype=np.float32):
    rng = np.random.default_rng(0)
    shape = (1, 6, 6) if make not in (nested, heads) else (5,)
    x = 2 * rng.random((B, *shape) if static else (T, B, *shape)).astype(dtype)
    return x, rng.integers(0, 3, B), T if static else None


NETWORKS = {
    **{f"sew {connect}": lambda connect=connect, **options: sew(connect, **options) for connect in CONNECTS},
    **{f"sew {connect}, normalised": lambda connect=connect, **options: sew(connect, True, **options) for connect in CONNECTS},
    "nested": nested,
    "heads": heads,
}
networks = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)


def loss_of(make):
    return LOSSES if make is heads else sf.losses.ce_rate_loss()


def flat(outputs) -> list[np.ndarray]:
    """All arrays of what a network gives, of one head or of several."""
    if outputs is None:
        return []
    return [outputs] if isinstance(outputs, np.ndarray) else [array for part in outputs for array in flat(part)]


def gradients(net, x, y, loss, num_steps) -> dict[str, np.ndarray]:
    net.zero_grad()
    net.loss_and_grad(x, y, loss, num_steps)
    return {parameter.name: parameter.grad.copy() for parameter in net.parameters()}


def distances(found, expected) -> dict[str, float]:
    """-> of each gradient its distance, as a share of its norm or of a hundredth of the largest."""
    largest = max(np.linalg.norm(theirs) for theirs in expected.values())
    assert largest > 0
    return {
        name: np.linalg.norm(found[name] - theirs) / max(np.linalg.norm(theirs), 0.01 * largest)
        for name, theirs in expected.items()
    }


@networks
@pytest.mark.parametrize("static", [True, False])
def test_the_processor_gives_what_the_reference_gives(make, static):
    x, y, T = case(make, static)
    reference = make(backend="reference")
    expected, outputs = gradients(reference, x, y, loss_of(make), T), flat(reference.forward(x, T))
    for options in ({}, {"events": False}, {"block_size": 2}):
        net = make(**options)
        assert max(distances(gradients(net, x, y, loss_of(make), T), expected).values()) <= 2e-5
        for ours, theirs in zip(flat(net.forward(x, T)), outputs, strict=True):
            assert np.allclose(ours, theirs, atol=1e-5)


@networks
def test_gradients_are_those_of_finite_differences(make):
    x, y, T = case(make, B=4, T=3, dtype=np.float64)
    report = sf.gradcheck(make(dtype=np.float64), x, y, loss_of(make), T, entries=4, directions=1)
    verdicts = {row.name: row.verdict for row in report.rows}
    before = ("2.body.0.bias",) if "2.body.1.weight" in verdicts and verdicts["2.body.0.bias"] == "undecidable" else ()
    assert {name: found for name, found in verdicts.items() if found != "ok" and name not in before} == {}, str(report)


@networks
def test_forward_and_backward_are_loss_and_grad(make):
    x, y, T = case(make)
    net, loss = make(), loss_of(make)
    expected = gradients(make(), x, y, loss, T)
    outputs = net.forward(x, T)
    if make is heads:
        targets = [each.check(y, 5, 9, membrane.shape[2:]) for each, (_, membrane) in zip(LOSSES, outputs, strict=True)]
        parts = zip(LOSSES, outputs, targets, strict=True)
        found = [each.gradients(*pair, target, each.normaliser(target))[1:] for each, pair, target in parts]
        given = tuple(zip(*found, strict=True))
    else:
        given = loss(outputs[0], y)[1], None
    dx = net.backward(*given, input_grad=True)
    assert dx.shape == x.shape
    found = {parameter.name: parameter.grad for parameter in net.parameters()}
    assert max(distances(found, expected).values()) <= 1e-5


@networks
def test_threads_and_pieces_give_the_same_bits(make):
    x, y, _ = case(make, static=False, B=40)
    net, loss = make(), loss_of(make)
    before, found = sf.get_num_threads(), []
    for threads in (1, 3):
        sf.set_num_threads(threads)
        found.append(gradients(net, x, y, loss, None))
    sf.set_num_threads(before)
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])
    net.eval()
    whole, first = net.forward(x), net.stream(x[:2])
    second = net.stream(x[2:], first[-1])
    pair = zip(*whole, strict=True) if make is heads else whole
    for entire, one, other in zip(pair, first, second, strict=False):
        parts = [np.concatenate(parts) for parts in zip(flat([one]), flat([other]), strict=True)]
        assert all(np.array_equal(part, array) for part, array in zip(parts, flat([entire]), strict=True))
    shown = [pair[0] if pair[0] is not None else pair[1] for pair in (whole if make is heads else [whole])]
    assert all(np.array_equal(a, b) for a, b in zip(flat(net.predict(x, batch_size=7)), shown, strict=True))


@networks
def test_all_that_looks_into_a_network_sees_nested_layers(make, tmp_path):
    x, y, T = case(make)
    net = make()
    neurons = [layer.name for layer in leaves(net.layers) if isinstance(layer, sf.layers.Neuron)]
    assert list(net.record(x, T)) == neurons
    record = net.record(x, T, backward=True, labels=y, loss_fn=loss_of(make))
    assert list(record) == neurons and all(
        set(rows) == {"spikes", "membrane", "dspikes", "dmembrane"} for rows in record.values()
    )
    assert [row.name for row in net.health(x, T).layers] == neurons
    assert [row.name for row in net.summary(x.shape[1:], T).layers] == [layer.name for layer in leaves(net.layers)]
    assert net.summary(x.shape[1:], T, images=x).driven <= net.summary(x.shape[1:], T).macs
    assert {layer.name for layer in net.plan(20, T, x.shape[1:]).layers} == {layer.name for layer in leaves(net.layers)}
    assert list(net.stream(x, num_steps=T)[-1]) == neurons
    net.save(tmp_path / "net.npz")
    for again in (sf.load(tmp_path / "net.npz"), sf.Sequential.from_config(net.config()), pickle.loads(pickle.dumps(net))):
        assert repr(again) == repr(net) and again.config() == net.config()
        assert all(np.array_equal(a, b) for a, b in zip(flat(again.predict(x, T)), flat(net.predict(x, T)), strict=True))


def test_names_are_those_that_pytorch_would_give():
    names = {name.rpartition(".")[0] for name in nested().state_dict()}
    assert names == {"0.0.0", "0.1.0", "0.1.1", "1.0", "1.2.body.0", "1.2.shortcut.0", "2.body.0"}
    assert list(sew("add").state_dict())[:4] == ["0.weight", "0.bias", "2.body.0.weight", "2.body.0.bias"]


@pytest.mark.parametrize("connect", CONNECTS)
def test_blocks_that_wait_for_each_other_keep_what_branches_put_aside(connect):
    """Batch statistics are joints; so are very large weights, in training and in evaluation."""
    x, y, T = case(sew, B=40)
    whole, blocks = sew(connect, True, block_size=40), sew(connect, True, block_size=3)
    found = distances(gradients(blocks, x, y, sf.losses.ce_rate_loss(), T), gradients(whole, x, y, sf.losses.ce_rate_loss(), T))
    assert max(found.values()) <= 1e-3

    def wide(**options):
        block = sf.Residual(sf.Linear(1500, 1500), neuron(), connect=connect)
        ends = sf.Linear(3000 if connect == "concat" else 1500, 2)
        return sf.Sequential(sf.Linear(4, 1500), neuron(), block, ends, neuron(), seed=0, **options)

    x = np.random.default_rng(0).random((40, 4), np.float32)
    net, plain = wide(), wide(events=False)
    assert np.array_equal(net.predict(x, 3), plain.predict(x, 3))
    found, expected = (gradients(each, x, y % 2, sf.losses.ce_rate_loss(), 3) for each in (net, plain))
    assert max(distances(found, expected).values()) <= 1e-5


def test_a_network_may_end_with_anything():
    x, y, T = case(nested)
    net = sf.Sequential(sf.Linear(5, 6), neuron(), sf.Linear(6, 3), seed=0)
    spikes, membrane = net.forward(x, T)
    assert spikes is None and membrane.shape == (5, 9, 3)
    assert np.array_equal(net.predict(x, T), membrane)
    loss, output = net.loss_and_grad(x, y, sf.losses.ce_membrane_loss(), T)
    assert np.isfinite(loss) and np.array_equal(output, membrane)
    with pytest.raises(ValueError, match=r"ce_rate_loss.* reads spikes, but the last layer \(Linear\(6, 3\)\) never fires"):
        net.loss_and_grad(x, y, sf.losses.ce_rate_loss(), T)
    net.forward(x, T)
    with pytest.raises(ValueError, match="dspikes must be None where no neuron ends the network"):
        net.backward(np.ones_like(membrane))
    still = sf.Sequential(sf.Linear(5, 3), seed=0)
    y = still.forward(x, T)[1]
    assert y.shape == (5, 9, 3) and (y == y[:1]).all()
    still.backward(None, np.ones_like(y))
    assert np.allclose(still.layers[0].params["bias"].grad, 45)


def test_heads_take_and_give_tuples():
    x, y, T = case(heads)
    net = heads()
    pairs = net.forward(x, T)
    assert [None if spikes is None else spikes.shape for spikes, _ in pairs] == [(5, 9, 3), None, (5, 9, 3)]
    one = net.loss_and_grad(x, y, LOSSES, T)[0]
    assert one == net.loss_and_grad(x, (y, y, y), LOSSES, T)[0] != net.loss_and_grad(x, (y, (y + 1) % 3, y), LOSSES, T)[0]
    few, labels = x[:3], [0, 1, 2]  # as many labels as heads
    assert net.loss_and_grad(few, labels, LOSSES, T)[0] == net.loss_and_grad(few, 3 * (np.array(labels),), LOSSES, T)[0]
    alone = [each.evaluate(*pair, y)[0] for each, pair in zip(LOSSES, net.forward(x, T), strict=True)]
    assert one == pytest.approx(sum(alone), rel=1e-6)
    same = net.loss_and_grad(x, y, sf.losses.ce_membrane_loss(), T)[0]
    assert same == pytest.approx(sum(sf.losses.ce_membrane_loss()(m, y)[0] for _, m in net.forward(x, T)), rel=1e-6)

    def callable_loss(spikes, membrane, labels):
        assert len(spikes) == len(membrane) == 3 and labels is y
        loss, dmembrane = sf.losses.ce_membrane_loss()(membrane[1], labels)
        return loss, None, (np.zeros_like(membrane[0]), dmembrane, np.zeros_like(membrane[2]))

    net.zero_grad()
    net.loss_and_grad(x, y, callable_loss, T)
    grads = {parameter.name: parameter.grad for parameter in net.parameters()}
    assert grads["2.1.0.weight"].any() and not grads["2.0.0.weight"].any() and not grads["2.2.0.weight"].any()
    assert [counts.shape for counts in net.predict(x, T, counts=True)] == [(9, 3), (9, 4), (9, 3)]
    with pytest.raises(TypeError, match="one for each of 3 heads"):
        net.loss_and_grad(x, y, "ce", T)
    with pytest.raises(ValueError, match="dmembrane must be a tuple of 3"):
        net.backward(None, np.ones((5, 9, 3)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sf.Residual(), "body must hold at least one layer"),
        (lambda: sf.Residual(neuron(), connect="or"), "connect must be one of add, and, iand, concat, got 'or'"),
        (lambda: sf.Residual(conv(), shortcut=3), "shortcut must be spikeflow layers, got 3"),
        (lambda: sf.Parallel(conv()), "branches must be at least two, got 1"),
        (lambda: sf.Parallel(conv(), conv(), merge="or"), "merge must be 'concat', 'add' or None, got 'or'"),
        (lambda: sf.Sequential(sf.Parallel(conv(), conv(), merge=None), neuron()), "layer 0 .* must be the last layer"),
        (lambda: sf.Sequential(sf.Residual(sf.LeakyIntegrator(0.5)), neuron()), "never fires, so that it must be the last"),
        (lambda: sf.Sequential(sf.Parallel(shared := conv(), shared), neuron()), "layer 0 .* already belongs"),
        (lambda: sf.Sequential(nested()[:2], neuron()), "layer 0 .* already belongs to a network; make .* or a copy"),
    ],
)
def test_containers_that_cannot_be(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([sf.Residual(sf.Linear(3, 4))], "merges by 'add', so that branches must have one shape, got 4 and 3"),
        ([sf.Parallel(sf.Conv2d(1, 2, 3), sf.Conv2d(1, 2, 1))], "concatenates channels, .* got 2 x 2 x 2 and 2 x 4 x 4"),
        ([sf.Residual(neuron(), connect="and")], "layer 0 .* merges by 'and', so that both branches must give spikes"),
        ([neuron(), sf.Residual(neuron(graded_spikes_factor=2.0), connect="iand")], "layer 1 .* must give spikes"),
        ([neuron(), sf.AvgPool2d(2), sf.Residual(neuron(), connect="and")], "layer 2 .* must give spikes"),
        ([neuron(), sf.Residual(neuron()), sf.Residual(neuron(), connect="and")], "layer 2 .* must give spikes"),
    ],
)
def test_branches_that_do_not_meet(layers, message):
    net = sf.Sequential(*layers)
    x = np.ones((2, 1, 4, 4) if isinstance(layers[0], sf.Parallel) or len(layers) > 1 else (2, 3), np.float32)
    with pytest.raises(ValueError, match=message):
        net.forward(x, 2)


def test_a_slice_shares_and_a_copy_owns():
    x, y, T = case(sew)
    net = sew("add")
    part = net[:3]
    assert part.forward(x, T)[1].shape == (5, 9, 3, 4, 4) and len(part) == 3 and net[-1] is net.layers[-1]
    assert part.parameters()[0] is net.parameters()[0]
    twin = part.copy()
    twin.layers[0].params["weight"].value[...] = 0
    assert net.layers[0].params["weight"].value.any()
    assert list(net[4:].copy().state_dict()) == ["1.weight", "1.bias"]
    with pytest.raises(ValueError, match="a slice must hold at least one layer"):
        net[7:]


def test_weights_that_were_given_stay_in_a_larger_network():
    drawn, seeded = (sf.Sequential(sf.Sequential(sf.Linear(4, 3), neuron(), seed=s), sf.Linear(3, 2), seed=5) for s in (0, 9))
    assert all(np.array_equal(value, seeded.state_dict()[name]) for name, value in drawn.state_dict().items())
    trained = sf.Sequential(sf.Linear(4, 3), neuron())
    trained.layers[0].params["weight"].value += 1
    copied = sew("add")[:3].copy()
    larger = sf.Sequential(trained, sf.Linear(3, 2), seed=5, dtype=np.float64)
    assert np.array_equal(larger.state_dict()["0.0.weight"], trained.layers[0].params["weight"].value)
    assert larger.layers[0] is trained and trained.forward(np.ones((2, 4)), 3)[0].dtype == np.float64
    before = copied.state_dict()
    outer = sf.Sequential(copied, sf.Flatten(), sf.Linear(48, 2), seed=7).state_dict()
    assert all(np.array_equal(outer[f"0.{name}"], value) for name, value in before.items())


@pytest.mark.parametrize("make", [lambda: sew("iand"), nested])
def test_a_layer_runs_by_itself(make):
    net = make().eval()
    x, _, _ = case(nested if make is nested else sew, static=False)
    records = net.record(x)
    for layer in net.layers:
        found = layer(x)
        if isinstance(layer, sf.layers.Neuron):
            spikes, membrane, state = found
            assert np.array_equal(spikes, records[layer.name]["spikes"])
            assert np.allclose(membrane, records[layer.name]["membrane"], atol=1e-6)
            *_, half = layer(x[:2])
            rest, _, last = layer(x[2:], half)
            assert np.array_equal(rest, spikes[2:]) and np.array_equal(last, state)
            found = spikes
        elif isinstance(found, tuple):
            found = found[1] if found[0] is None else found[0]
        x = found
    assert np.array_equal(x, records[net.layers[-1].name]["spikes"])
    with pytest.raises(RuntimeError, match="belongs to no network"):
        neuron()(x)


def test_a_planted_rule_inside_a_branch_is_named(monkeypatch):
    from spikeflow.engine import rules
    from spikeflow.engine.rule import Rule
    from spikeflow.engine.steps import Plain

    class Halved(Plain):
        def forward(self, ops, packed, x, run):
            y, kept = super().forward(ops, packed, x, run)
            return y / 2, kept

    planted = Rule(
        "planted", (sf.Linear,), guard=lambda place: "body" in place.layers[0].name, make=lambda place: Halved(*place.covered(1))
    )
    monkeypatch.setattr(rules, "RULES", [planted, *rules.RULES])
    monkeypatch.setenv("SPIKEFLOW_CHECK", "1")
    x, _, T = case(nested)
    with pytest.raises(CheckError, match=r"step 1.2.body.0, made by rule planted"):
        nested().forward(x, T)


@networks
@pytest.mark.parametrize("dyadic", [True, False])
def test_parity_compares_every_layer(make, dyadic):
    x, y, T = case(make, B=5)
    report = parity(make(), x, y, loss_of(make), T, backends=["cpu"], dyadic=dyadic)
    assert report.passed, str(report)
    net = make()
    assert {row.name for row in report.layers} == {
        layer.name for layer in leaves(net.layers) if isinstance(layer, sf.layers.Neuron)
    }
    named = {row.name for row in report.gradients}
    assert {parameter.name for parameter in net.parameters()} <= named

"""The memory of a training step: what the plan says, and what a budget does to blocks and gradients."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import cli, memory

IMAGES = np.random.default_rng(0).random((32, 1, 12, 12)).astype(np.float32)
LABELS = np.arange(32) % 5
LOSS = sf.losses.ce_rate_loss()


def make(**options):
    neuron = {"beta": 0.7, "threshold": 0.4, "spike_grad": sf.surrogate.atan(2)}
    return sf.Sequential(
        sf.Conv2d(1, 8, 3),
        sf.Leaky(**neuron),
        sf.MaxPool2d(2),
        sf.Flatten(),
        sf.Linear(200, 5),
        sf.Leaky(**neuron),
        seed=1,
        **options,
    )


def gradients(net):
    loss, spikes = net.loss_and_grad(IMAGES, LABELS, LOSS, num_steps=6)
    assert spikes.any()
    return {parameter.name: parameter.grad.copy() for parameter in net.parameters()}


def test_the_plan_names_every_layer_and_its_block():
    plan = make().plan(32, 6, (1, 12, 12))
    assert [layer.name for layer in plan.layers] == [str(i) for i in range(6)]
    assert plan.block_size * plan.blocks >= 32 and 0 < plan.kept <= plan.total
    assert "in all" in str(plan)


def test_a_budget_makes_blocks_smaller_and_hardly_changes_a_gradient():
    free = make()
    whole = make(max_bytes="1GB").fix_plan(32, 6, (1, 12, 12))
    budget = int(0.85 * whole.bytes(1))
    bounded = make(max_bytes=budget)
    plan = bounded.fix_plan(32, 6, (1, 12, 12))
    assert plan.block_size < whole.block_size and plan.total <= budget
    assert bounded.config()["block_size"] == plan.block_size
    expected, found = gradients(free), gradients(bounded)
    for name, gradient in expected.items():
        assert np.linalg.norm(found[name] - gradient) <= 1e-6 * np.linalg.norm(gradient), name


def test_the_same_plan_gives_the_same_bits_on_any_number_of_threads():
    before, results = sf.get_num_threads(), []
    for threads in (1, 3):
        sf.set_num_threads(threads)
        results.append(gradients(make(block_size=4)))
    sf.set_num_threads(before)
    for name, gradient in results[0].items():
        np.testing.assert_array_equal(gradient, results[1][name])


def test_a_budget_that_cannot_be_met_says_the_least_that_can():
    with pytest.raises(ValueError, match=r"max_bytes=1000 cannot be met.* the least is [0-9]+ bytes"):
        make(max_bytes=1000).fix_plan(32, 6, (1, 12, 12))
    with pytest.raises(ValueError, match="max_bytes must be a number of bytes such as"):
        make(max_bytes="plenty")


def test_a_budget_in_words():
    sizes = {"500MB": 500_000_000, "1.5 GiB": 3 << 29, "2g": 2 * 10**9, "64KiB": 65536, " 7b ": 7, 12: 12, 5e8: 500_000_000}
    assert {text: memory.parse_bytes(text) for text in sizes} == sizes
    for text in ("", "0", "-1", "5i", "MB", "5 TB", "1e9", "nan", True, None):
        with pytest.raises(ValueError, match="max_bytes must be a number of bytes such as 500000000, 500MB or 2GiB, got"):
            memory.parse_bytes(text)


# ------------------------------------------------------------------------------------------------ beside what is allocated

WIDE = np.random.default_rng(1).random((48, 1, 20, 20)).astype(np.float32)
TARGETS = np.arange(48) % 10


def normalised(**options):
    """A network with joints: two batch normalisations."""
    node = {"surrogate_function": sf.surrogate.ATan()}
    return sf.Sequential(
        sf.Conv2d(1, 16, 3, bias=False), sf.BatchNorm2d(16), sf.IFNode(**node), sf.MaxPool2d(2),
        sf.Conv2d(16, 16, 3, bias=False), sf.BatchNorm2d(16), sf.IFNode(**node),
        sf.Flatten(), sf.Linear(16 * 7 * 7, 10), sf.IFNode(**node), **options,
    )  # fmt: skip


def free(**options):
    """The same without joints."""
    neuron = {"beta": 0.9, "spike_grad": sf.surrogate.ATan()}
    return sf.Sequential(
        sf.Conv2d(1, 16, 3), sf.MaxPool2d(2), sf.Leaky(**neuron), sf.Conv2d(16, 16, 3), sf.Leaky(**neuron),
        sf.Flatten(), sf.Linear(16 * 7 * 7, 10), sf.Leaky(**neuron), **options,
    )  # fmt: skip


@pytest.fixture
def one_thread():
    before = sf.get_num_threads()
    sf.set_num_threads(1)
    yield
    sf.set_num_threads(before)


def allocated(net, x=WIDE, num_steps=8):
    """-> peak of what a step allocates, on a thread whose scratch memory is new."""

    def step():
        begin = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        net.loss_and_grad(x, TARGETS, LOSS, num_steps=num_steps)
        return tracemalloc.get_traced_memory()[1] - begin

    net.loss_and_grad(x, TARGETS, LOSS, num_steps=num_steps)  # compiles, and plans
    net._arenas.clear()
    with memory._tracing():
        return memory._on_fresh_thread(step)


@pytest.mark.parametrize(
    "options", [{}, *(pytest.param(o, marks=pytest.mark.slow) for o in ({"amp": True}, {"block_size": 3}))], ids=str
)
@pytest.mark.parametrize("make_net", [free, normalised])
def test_the_plan_is_what_a_step_allocates(one_thread, make_net, options):
    net = make_net(**options)
    plan = net.plan(48, 8, (1, 20, 20))
    assert plan.total == pytest.approx(allocated(net), rel=0.1)
    assert plan.joints == (["1", "5"] if make_net is normalised else [])
    assert ("all blocks wait for layer 1, 5" in str(plan)) == bool(plan.joints)


def test_the_plan_of_a_sequence_of_spikes(one_thread):
    net, x = free(), WIDE < np.linspace(0.1, 0.3, 8)[:, None, None, None, None]
    assert net.plan(48, 8, (1, 20, 20), sequence=bool).total == pytest.approx(allocated(net, x, None), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("make_net", [free, normalised])
def test_a_step_stays_within_its_budget(one_thread, make_net):
    least = min(make_net(max_bytes="1GB", block_size=size).plan(48, 8, (1, 20, 20)).bytes(1) for size in (1, 2, 4))
    most = make_net().plan(48, 8, (1, 20, 20)).total
    sizes = []
    for share in (0.15, 0.9):
        budget = int(least + share * (most - least))
        net = make_net(max_bytes=budget)
        assert allocated(net) <= budget
        sizes.append(net.block_size)
    assert sizes[0] < sizes[1]


def test_what_layers_keep_can_be_counted_by_hand(one_thread):
    kept = {layer.name: layer.bytes for layer in normalised().plan(48, 8, (1, 20, 20)).layers}
    assert kept["0"] == WIDE.nbytes  # a convolution keeps its input
    assert kept["1"] == pytest.approx(48 * 16 * 18 * 18 * 4, rel=1e-3)  # and a normalisation: of a constant input, once
    assert kept["5"] == pytest.approx(8 * 48 * 16 * 7 * 7 * 4, rel=1e-3)  # at every step; arrays begin at multiples of 64 bytes
    assert kept["7"] == 0
    halves = {layer.name: layer.bytes for layer in normalised(amp=True).plan(48, 8, (1, 20, 20)).layers}
    assert halves["5"] == pytest.approx(kept["5"] / 2, rel=1e-3)


def test_planning_changes_nothing_in_the_network():
    net = normalised()
    net.loss_and_grad(WIDE, TARGETS, LOSS, num_steps=4)
    before, gradients, draws = net.state_dict(), [p.grad.copy() for p in net.parameters()], net.draws
    net.plan(48, 8)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        np.testing.assert_array_equal(parameter.grad, gradient)
    assert net.draws == draws and not tracemalloc.is_tracing()


def test_networks_that_no_loss_of_spikes_fits():
    silent = sf.Sequential(sf.Flatten(), sf.Linear(36, 3), sf.LeakyIntegrator(0.5), backend="reference")
    images = sf.Sequential(sf.Conv2d(1, 2, 3), sf.Leaky(0.5), backend="reference")
    for net in (silent, images):
        assert net.plan(4, 3, (1, 6, 6)).total > 0


# ------------------------------------------------------------------------------------------------ budgets


@pytest.mark.slow
def test_a_budget_chooses_the_same_blocks_on_any_number_of_threads():
    before, found = sf.get_num_threads(), []
    budget = int(0.6 * make(max_bytes="1GB", block_size=16).plan(32, 6, (1, 12, 12)).bytes(4))
    for threads in (1, 3, 8):
        sf.set_num_threads(threads)
        net = make(max_bytes=budget)
        found.append((gradients(net), net.block_size))
        plan = net.plan(32, 6)
        assert plan.total <= budget and plan.threads <= threads
    sf.set_num_threads(before)
    assert found[0][1] == found[1][1] == found[2][1] < 16
    for name, gradient in found[0][0].items():
        for others, _ in found[1:]:
            np.testing.assert_array_equal(gradient, others[name])


@pytest.mark.slow
def test_blocks_that_are_fixed_do_not_change_and_may_be_too_large():
    whole = make(block_size=16, max_bytes="1GB").plan(32, 6, (1, 12, 12)).bytes(1)
    net = make(block_size=16, max_bytes=int(0.9 * whole))
    with pytest.raises(
        ValueError, match="cannot be met: with 32 samples and 6 steps the least is .* in blocks of 16 on one thread"
    ):
        gradients(net)
    net.block_size = None
    gradients(net)
    size = net.block_size
    net.loss_and_grad(IMAGES[:16], LABELS[:16], LOSS, num_steps=6)
    assert net.block_size == size < 16


def test_a_checkpoint_carries_budget_and_blocks(tmp_path):
    net = make(max_bytes="1GB", backend="reference")
    net.fix_plan(8, 2, (1, 12, 12))
    net.save(tmp_path / "net.npz")
    again = sf.load(tmp_path / "net.npz", backend="reference")
    assert (again.max_bytes, again.block_size) == (10**9, 4) and again.config() == net.config()


@pytest.mark.slow
def test_the_command_line_keeps_to_a_budget_or_says_the_least(tmp_path, capsys):
    words = "train fcn-mnist --hidden 12 --num-steps 3 --batch-size 16 --max-iterations 2 --subset 300".split()
    assert cli.main([*words, "--max-bytes", "1kB", "--out-dir", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert "max_bytes=1000 cannot be met: with 16 samples and 3 steps the least is" in err and not (tmp_path / "run").exists()
    for encoding in ("direct", "rate"):
        run = tmp_path / encoding
        assert cli.main([*words, "--max-bytes", "100MB", "--encoding", encoding, "--out-dir", str(run)]) == 0
        assert json.loads((run / "config.json").read_text())["max_bytes"] == 10**8
        assert sf.load(run / "checkpoint-latest.npz").block_size == 8

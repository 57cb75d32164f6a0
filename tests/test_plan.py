"""The memory of a training step: what the plan says, and what a budget does to blocks and gradients."""

from __future__ import annotations

import numpy as np
import pytest

import spikeflow as sf

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

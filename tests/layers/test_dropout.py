"""Dropout: one mask for all steps, drawn anew for each pass, and nothing in evaluation."""

from __future__ import annotations

import numpy as np
import pytest
from layer_passes import assert_same_bits

import spikeflow as sf
from spikeflow.layers import Dropout, Flatten, Leaky, Linear

X = np.ones((4, 20, 30), np.float32)  # (T, B, F)


def make(p=0.5, seed=0, **options):
    return sf.Sequential(Dropout(p), Leaky(0.0, threshold=0.5, reset_mechanism="none"), seed=seed, **options)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_one_mask_for_all_steps_scaled_by_what_is_kept(backend):
    _, membrane = make(0.25, backend=backend).forward(X)
    assert set(np.unique(membrane)) == {np.float32(0), np.float32(1 / 0.75)}
    assert (membrane == membrane[0]).all()
    assert abs((membrane[0] == 0).mean() - 0.25) < 0.06
    assert len({row.tobytes() for row in membrane[0]}) == 20  # each sample has its own


def test_each_pass_draws_anew_and_the_count_brings_it_back():
    net, again = make(), make()
    first, second = net.forward(X)[1], net.forward(X)[1]
    assert net.draws == 2 and (first != second).any()
    again.draws = 1
    assert_same_bits([again.forward(X)[1]], [second])
    assert (make(seed=1).forward(X)[1] != first).any()


def test_nothing_happens_in_evaluation():
    net = make().eval()
    assert_same_bits([net.forward(X)[1]], [np.ones_like(X)])
    assert net.draws == 0
    assert_same_bits([make().predict(X)], [np.ones_like(X)])
    assert_same_bits([make(0.0).forward(X)[1]], [np.ones_like(X)])


def test_finite_differences_obey_the_mask():
    net = sf.Sequential(Flatten(), Linear(6, 8), Leaky(0.8), Dropout(0.4), Linear(8, 3), Leaky(0.5), dtype=np.float64)
    images = np.random.default_rng(0).random((9, 1, 2, 3))
    for _ in range(2):  # in training, then in evaluation
        report = sf.gradcheck(net, images, np.arange(9) % 3, sf.losses.ce_rate_loss(), num_steps=4)
        assert report.passed, report
        net.eval()


def test_spikes_pass_as_bits_in_evaluation_to_the_same_numbers():
    net = sf.Sequential(Linear(30, 40), Leaky(0.5), Dropout(0.5), Linear(40, 40), Leaky(0.5)).eval()
    plain = sf.Sequential(Linear(30, 40), Leaky(0.5), Linear(40, 40), Leaky(0.5))
    plain.load_state_dict({name.replace("3.", "2."): value for name, value in net.state_dict().items()})
    assert_same_bits([net.predict(X)], [plain.predict(X)])


@pytest.mark.parametrize("p", [-0.1, 1, 1.5, "half", None, True])
def test_the_probability_is_checked(p):
    with pytest.raises(ValueError, match=r"p must be a number in \[0, 1\)"):
        Dropout(p)

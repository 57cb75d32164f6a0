"""What a network is made of: counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import cli


def make(**options):
    return sf.Sequential(
        sf.Conv2d(1, 2, 3), sf.Leaky(0.0, threshold=0.5, reset_mechanism="none"), sf.MaxPool2d(2), sf.Flatten(),
        sf.Linear(8, 3), sf.RLeaky(0.5, linear_features=3), **options,
    )  # fmt: skip


def test_shapes_parameters_and_multiply_adds():
    summary = make().summary((1, 6, 6), num_steps=5, batch_size=4)
    assert [row.shape for row in summary.layers] == [(2, 4, 4), (2, 4, 4), (2, 2, 2), (8,), (3,), (3,)]
    assert [row.parameters for row in summary.layers] == [20, 0, 0, 0, 27, 12]
    # The convolution runs once, the linear layer and the recurrence (3 x 3) at each of 5 steps.
    assert [row.macs for row in summary.layers] == [32 * 9, 0, 0, 0, 5 * 24, 5 * 9]
    assert summary.driven is None and summary.macs == 288 + 120 + 45
    assert "in all" in str(summary) and "453" in str(summary)


def test_spikes_count_only_where_they_are():
    net = make()
    net.load_state_dict({
        "0.weight": np.zeros((2, 1, 3, 3)), "0.bias": np.array([1.0, 0.0]), "4.weight": np.zeros((3, 8)), "4.bias": np.zeros(3),
        "5.recurrent.weight": np.zeros((3, 3)), "5.recurrent.bias": np.zeros(3),
    })  # fmt: skip
    images = np.zeros((3, 1, 6, 6), np.float32)
    images[:, :, 0] = 1  # a sixth
    summary = net.summary(num_steps=5, images=images)
    assert [row.driven for row in summary.layers] == [48, 0, 0, 0, 60, 0]  # one of two channels always fires, the output never


def test_what_is_kept_is_the_plans():
    net = make()
    plan, summary = net.plan(8, 5, (1, 6, 6)), net.summary((1, 6, 6), 5, batch_size=8)
    assert [row.kept for row in summary.layers] == [layer.bytes for layer in plan.layers]


def test_the_command_line(tmp_path, capsys):
    assert cli.main(["summary", "csnn-mnist", "--batch-size", "8", "--samples", "2"]) == 0
    shown = capsys.readouterr().out
    assert "29,826" in shown and "spike-driven" in shown
    make().save(tmp_path / "net.npz")
    assert cli.main(["summary", str(tmp_path / "net.npz")]) == 0
    assert "2 x 4 x 4" in capsys.readouterr().out  # of images of 6 x 6, the smallest that fit
    assert cli.main(["summary", "no-such"]) == 2
    assert "csnn-mnist" in capsys.readouterr().err


def test_without_an_input_shape_it_is_that_of_the_latest_input_or_the_smallest_that_fits():
    net = make(backend="reference")
    assert net.summary(num_steps=2).layers[0].shape == (2, 4, 4)
    net.predict(np.zeros((1, 1, 7, 6), np.float32), num_steps=1)
    assert net.summary(num_steps=2).layers[0].shape == (2, 5, 4)
    with pytest.raises(ValueError, match="input_shape must be given, such as .* the layers leave it open"):
        sf.Sequential(sf.Conv2d(1, 2, 3), sf.Leaky(0.5)).summary()

"""Networks, checkpoints and run folders that an earlier version wrote (archive format 2) load, run and go on.

``fixtures/format2`` holds two networks with what they answered, a run that was killed, and the metrics of the same run whole.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import cli, logs

FOLDER = Path(__file__).parent / "fixtures" / "format2"


@pytest.mark.parametrize("name", ["csnn", "normalised"])
def test_networks_give_the_same_spikes(backend, name):
    """Their weights and inputs are dyadic, so that no processor rounds another way; a normalised one's spikes are far from it."""
    net = sf.load(FOLDER / f"{name}.npz", backend=backend)
    net.eval()
    with np.load(FOLDER / "expected.npz") as expected:
        static, sequence = net.predict(expected["x"], 6), net.predict(expected["seq"])
        assert static.any()
        np.testing.assert_array_equal(static, expected[f"{name}_static"])
        np.testing.assert_array_equal(sequence, expected[f"{name}_sequence"])


@pytest.mark.filterwarnings("ignore:the output layer did not spike")
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path):
    shutil.copytree(FOLDER / "run", tmp_path / "run")
    before = logs.read_rows(tmp_path / "run" / "metrics.jsonl")
    assert cli.main(["train", "--resume", str(tmp_path / "run")]) == 0
    rows, expected = (logs.read_rows(path) for path in (tmp_path / "run" / "metrics.jsonl", FOLDER / "whole.jsonl"))
    assert len(before) < len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys() and row["iteration"] == other["iteration"]
        for key in row.keys() & {"train_loss", "test_accuracy"}:
            assert row[key] == pytest.approx(other[key], rel=1e-4), row


def test_its_checkpoint_evaluates():
    net = sf.load(FOLDER / "run" / "checkpoint-latest.npz")
    x = np.random.default_rng(0).random((4, 1, 28, 28)).astype(np.float32)
    assert net.predict(x, 3).shape == (3, 4, 10)

"""``spikeflow parity`` with the CUDA backend: small networks of every kind of layer, end to end and layer by layer."""

from __future__ import annotations

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import cli, parity, random

B, T = 2, 4
LABELS = np.arange(B)


def images(*shape):
    return random.uniform(shape, 0, 1, 0, "parity").astype(np.float32)


def spiking():
    """Convolutions, pools on both sides of the neurons, and a linear layer behind a flatten."""
    return (
        sf.Conv2d(1, 2, 3), sf.MaxPool2d(2), sf.Leaky(0.5, 0.25), sf.Conv2d(2, 3, 2), sf.IFNode(0.25), sf.AvgPool2d(2),
        sf.Flatten(), sf.Linear(3, 4), sf.Leaky(0.75, 0.25),
    )  # fmt: skip


def normalised():
    return (
        sf.Conv2d(1, 2, 3, padding=1, bias=False), sf.BatchNorm2d(2), sf.IFNode(0.5), sf.MaxPool2d(2), sf.Flatten(),
        sf.Linear(18, 4, bias=False), sf.LIFNode(2.0, v_threshold=0.25),
    )  # fmt: skip


def test_every_bit_of_a_dyadic_forward_pass():
    net = sf.Sequential(*spiking(), seed=2, backend="reference")
    report = parity.parity(net, images(B, 1, 8, 8), LABELS, sf.losses.ce_rate_loss(), T, ["cuda"], dyadic=True, rescale=True)
    assert report.passed and [row.name for row in report.layers] == ["2", "4", "8"], report
    assert all(row.spikes and not row.whole_spikes and not row.whole_membrane for row in report.layers)


@pytest.mark.parametrize("layers, size", [(spiking, 8), (normalised, 6)], ids=["spiking", "normalised"])
def test_ordinary_numbers(layers, size):
    net = sf.Sequential(*layers(), seed=1, backend="reference")
    report = parity.parity(net, images(B, 1, size, size), LABELS, sf.losses.mse_rate_loss(), T, ["cuda"], rescale=True)
    assert report.passed, report
    assert abs(report.losses["cuda"] - report.losses["reference"]) <= 1e-5 * report.losses["reference"]


def test_the_command_finds_the_backend(tmp_path, capsys):
    net = sf.Sequential(sf.Linear(3, 4), sf.Leaky(0.5), sf.Linear(4, 2), sf.Leaky(0.5))
    net.save(tmp_path / "net.npz")
    assert parity.available()[0][0] == "reference" and "cuda" in parity.available()[0]
    assert cli.main(["parity", str(tmp_path / "net.npz"), "--backend", "cuda", "--T", "3"]) == 0
    assert "\ncuda " in capsys.readouterr().out

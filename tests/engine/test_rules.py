"""Rules on beside rules off: all short chains of layers, and random networks; ``benchmarks`` runs more of both by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import spikeflow as sf

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import enumerate_rules
import fuzz_networks

PARTS = 13  # prime to the number of letters: each part has all of them
EACH = 25


@pytest.fixture(autouse=True)
def one_thread():
    before = sf.get_num_threads()
    sf.set_num_threads(1)
    yield
    sf.set_num_threads(before)


def test_chains_of_up_to_two_layers():
    found = [text for chain in enumerate_rules.wanted(2) for text in enumerate_rules.differences(chain)]
    assert not found, "\n".join(found)


@pytest.mark.ci
@pytest.mark.parametrize("part", range(PARTS))
def test_chains_of_up_to_four_layers(part):
    chains = list(enumerate_rules.wanted(4, part=part, parts=PARTS))
    assert len(chains) > 500
    found = [text for chain in chains for text in enumerate_rules.differences(chain)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("seed", range(6))
def test_a_few_random_networks(seed):
    found, _ = fuzz_networks.check(seed)
    assert not found, "\n".join([str(fuzz_networks.Draw(seed)), *found])


@pytest.mark.ci
@pytest.mark.parametrize("part", range(400 // EACH))
def test_random_networks(part):
    for seed in range(1000 + part * EACH, 1000 + (part + 1) * EACH):
        found, _ = fuzz_networks.check(seed)
        assert not found, "\n".join([str(fuzz_networks.Draw(seed)), *found])

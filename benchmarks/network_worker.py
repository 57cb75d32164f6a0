"""The child process of networks.py: as step_worker.py, with the networks of zoo.py."""

from __future__ import annotations

import candidates
import harness
from step_worker import environment, held, peak_rss, run


def make(network: str, task: str) -> list[str]:
    """Make every way to run a network in PyTorch, for the task in the file ``task`` -> their names."""
    from candidates import pytorch_network

    loaded = candidates.Task.load(task)
    held.clear()
    for variant in pytorch_network.variants(network):
        held[variant] = pytorch_network.Candidate(loaded, network, variant), loaded
    return list(held)


if __name__ == "__main__":
    harness.serve(make, run, environment, peak_rss)

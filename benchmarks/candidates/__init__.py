"""Who takes part in train_step.py and fashion_step.py: one module a candidate, importing its library and defining ``Candidate``.

A candidate is made from a ``Task``, and does three things:

    restore()   put the task's weights back, so that every step does the same work whatever came before
    train()     one training step -> its loss
    infer()     forward alone -> the output's spikes (T, B, 10)

All see the same network, weights and batch, and use the task's number of threads. ``loss_of_spikes(spikes, labels)`` is the loss
of what ``infer`` returns, ``rate_loss`` where a candidate has none.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness  # before numpy
import numpy as np

# Name -> module of this package, options of its ``Candidate``, and whether its loss must agree with spikeflow's.
CANDIDATES = {
    "spikeflow": ("spikeflow_step", {}, True),
    "snntorch": ("snntorch_step", {}, True),
    "pytorch": ("pytorch_step", {}, True),
    "pytorch-batched": ("pytorch_step", {"batched": True}, True),
    "pytorch-compile": ("pytorch_step", {"compiled": True}, True),
    "jax": ("jax_step", {}, True),
    "spikingjelly": ("spikingjelly_step", {}, False),  # another neuron: it resets within the step
}
FASHION = {"spikeflow": ("spikeflow_fashion", {}, True), "spikingjelly": ("spikingjelly_fashion", {}, True)}
NETWORKS = {"tutorial6": CANDIDATES, "fashion": FASHION}


@dataclass
class Task:
    """Weights by spikeflow's names, one batch, and how to run it."""

    weights: dict[str, np.ndarray]
    images: np.ndarray  # (B, 1, 28, 28) float32
    labels: np.ndarray  # (B,) int64
    num_steps: int
    threads: int

    def save(self, path: Path) -> None:
        """Write the task to an npz file."""
        numbers = {"num_steps": self.num_steps, "threads": self.threads}
        np.savez(path, images=self.images, labels=self.labels, **numbers, **_prefixed(self.weights))

    @classmethod
    def load(cls, path: str) -> Task:
        """Read what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as file:
            weights = {key.removeprefix(PREFIX): file[key] for key in file if key.startswith(PREFIX)}
            return cls(weights, file["images"], file["labels"], int(file["num_steps"]), int(file["threads"]))


PREFIX = "weight/"


def _prefixed(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {PREFIX + name: value for name, value in weights.items()}


def make(name: str, task: Task, network: str = "tutorial6", **more) -> Any:
    """-> the candidate of this name for a network, with more options; ImportError if its library is not there."""
    module, options, _ = NETWORKS[network][name]
    return importlib.import_module(f"candidates.{module}").Candidate(task, **options, **more)


def run(candidate: Any, task: Task, inference: bool) -> dict[str, float]:
    """Restore the weights and take one step -> {"seconds": of the step alone, "loss": before it}."""
    candidate.restore()
    seconds, result = harness.timed(candidate.infer if inference else candidate.train)
    loss_of_spikes = getattr(candidate, "loss_of_spikes", rate_loss)
    return {"seconds": seconds, "loss": loss_of_spikes(result, task.labels) if inference else float(result)}


def seconds_of(step: Callable[[], dict]) -> Callable[[], float]:
    """-> the function that takes the step and returns its seconds alone."""
    return lambda: step()["seconds"]


def rate_loss(spikes: np.ndarray, labels: np.ndarray) -> float:
    """spikes (T, B, C), labels (B,) -> cross-entropy of the spikes at each step, averaged over time and batch."""
    logits = spikes.astype(np.float64)
    chosen = logits[:, np.arange(len(labels)), labels]
    return float((np.log(np.exp(logits).sum(-1)) - chosen).mean())


def rate_error(spikes: np.ndarray, labels: np.ndarray) -> float:
    """spikes (T, B, C), labels (B,) -> square error of the firing rates beside the one-hot labels, averaged."""
    return float(((spikes.mean(0, dtype=np.float64) - np.eye(spikes.shape[2])[labels]) ** 2).mean())

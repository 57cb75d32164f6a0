"""The child process of train_step.py and fashion_step.py: makes candidates and runs their steps when told to."""

from __future__ import annotations

import candidates
import harness

held = {}


def make(name: str, task: str, network: str = "tutorial6") -> str | None:
    """Make a candidate for a network and the task in the file ``task`` -> None, or why it cannot be imported."""
    loaded = candidates.Task.load(task)
    try:
        held[name] = candidates.make(name, loaded, network), loaded
    except ImportError as error:
        return str(error)
    return None


def run(name: str, inference: bool) -> dict[str, float]:
    """Take one step of a candidate -> {"seconds": ..., "loss": ...}."""
    return candidates.run(*held[name], inference)


def environment(threads: int) -> dict:
    """-> this interpreter's."""
    return harness.environment(threads)


def peak_rss() -> float:
    """-> this process', in MB."""
    return harness.peak_rss()


if __name__ == "__main__":
    harness.serve(make, run, environment, peak_rss)

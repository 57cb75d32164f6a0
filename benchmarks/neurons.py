"""Neurons against the memory: what forward and backward cost beside copying the arrays that they read and write.

    python benchmarks/neurons.py

Each neuron runs alone, outside a network: 128 samples of 10,000 neurons for 50 steps, float32, one thread, currents that differ
at every step. The samples go through in blocks of 16, as they do in a network. A copy reads and writes as many bytes as an array
has; forward reads the currents and writes spikes and membranes, backward reads dL/dspikes and what forward kept, and writes
dL/dcurrents. What is learned costs sums besides: "learned" is all that the neuron can learn. The copy is timed in turn with the
neuron; the ratio is the median over rounds. Resets and surrogates that are not named are the defaults.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import harness  # before numpy
import numpy as np

from spikeflow import backends, surrogate
from spikeflow.ops.neurons.model import COMMON, Model

OPS = backends.load("cpu")
SAMPLES, NEURONS, NUM_STEPS, BLOCK = 128, 10_000, 50, 16
VALUES = {
    "threshold": 1.0, "graded_spikes_factor": 1.5, "V": 0.3, "alpha": 0.9, "beta": 0.8, "gain": 0.2,
    "tau": np.log(0.9) / (np.log(0.8) - np.log(0.9)) + 1,
}  # fmt: skip
ATAN = surrogate.atan()
RATIONAL = (surrogate.fast_sigmoid, surrogate.straight_through_estimator, surrogate.triangular, surrogate.heaviside)
RATIONAL += (surrogate.LSO, surrogate.SFS)


def models() -> dict[str, Model]:
    """-> what is measured, by name."""
    found = {"Leaky": Model("leaky", "subtract", ATAN)}
    found |= {f"Leaky, {reset}": Model("leaky", reset, ATAN) for reset in ("zero", "none")}
    found |= {f"Leaky, {make.__name__}": Model("leaky", "subtract", make()) for make in RATIONAL}
    found |= {
        "Leaky, at once": Model("leaky", "subtract", ATAN, reset_delay=False),
        "Leaky, at once, zero": Model("leaky", "zero", ATAN, reset_delay=False),
        "Leaky, graded": Model("leaky", "subtract", ATAN, graded=True),
        "Leaky, inhibition": Model("leaky", "subtract", ATAN, inhibition=True),
        "Lapicque": Model("lapicque", "subtract", ATAN),
        "Synaptic": Model("synaptic", "subtract", ATAN),
        "Synaptic, at once": Model("synaptic", "subtract", ATAN, reset_delay=False),
        "Alpha": Model("alpha", "zero", ATAN),
        "Alpha, subtract": Model("alpha", "subtract", ATAN),
        "RLeaky, one to one": Model("rleaky", "subtract", ATAN, feedback=True),
        "RSynaptic, one to one": Model("rsynaptic", "subtract", ATAN, feedback=True),
        "LeakyIntegrator": Model("leaky_integrator", "none", ATAN, fires=False),
    }
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", metavar="TEXT", help="measure those whose name contains it")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all numbers to this file")
    args = parser.parse_args()
    print(harness.describe(harness.environment(1)), "\n")
    rows, results = [], {}
    for name, model in models().items():
        for learned, each in ((False, False), (False, True), (True, False), (True, True)):
            label = name + (", each its own" if each else "") + (", learned" if learned else "")
            if args.only in label and not (learned and "," in name and "one to one" not in name):
                results[label] = measure(model, learned, each, args.rounds)
                rows.append(
                    [label, *(f"{results[label][key]:.2f}" for key in ("forward_ns", "forward", "backward_ns", "backward"))]
                )
    print(harness.table(["neuron", "forward ns", "copies", "backward ns", "copies"], rows))
    worst = {key: max(results, key=lambda label, key=key: results[label][key]) for key in ("forward", "backward")}
    print("\nns: of one neuron and step. Largest: " + ", ".join(f"{k} {results[v][k]:.2f} ({v})" for k, v in worst.items()))
    harness.write_json(args.json, {"environment": harness.environment(1), "results": results})


def measure(model: Model, learned: bool, each: bool, rounds: int) -> dict[str, float]:
    """-> times of a neuron and step in ns, and medians of their ratios to the copies'."""
    M = BLOCK * NEURONS
    x = np.random.default_rng(0).normal(0.2, 0.5, (NUM_STEPS, M)).astype(np.float32)
    wide = each or model.inhibition
    params = np.array([[VALUES[name]] * (NEURONS if wide else 1) for name in model.params], np.float32)
    learns = learnable(model) if learned else ()
    own = any(learns[len(COMMON) :])

    def forward():
        return OPS.neuron_forward(model, x, NUM_STEPS, params, keep_states=own)

    def backward():
        return OPS.neuron_backward(model, *given, trajectory, NUM_STEPS, params, x, learns)

    spikes, trajectory = forward()
    gradient = x.copy()
    given = (gradient, None) if model.fires else (None, gradient)
    kept = [trajectory.membrane, trajectory.before, trajectory.states]
    kept = [array for array in kept if array is not None and array.size]
    forward_arrays = [x, *([spikes] if model.fires else []), *kept]
    backward_arrays = [gradient, x, *kept, *([x] if own and model.scalar.READS_INPUT else [])]
    backward()
    samples = [
        (timed(forward), timed(copies(forward_arrays)), timed(backward), timed(copies(backward_arrays))) for _ in range(rounds)
    ]
    size = x.size * 1e-9
    return {
        "forward_ns": statistics.median(s[0] for s in samples) / size,
        "forward": statistics.median(s[0] / s[1] for s in samples),
        "backward_ns": statistics.median(s[2] for s in samples) / size,
        "backward": statistics.median(s[2] / s[3] for s in samples),
    }


def learnable(model: Model) -> tuple[bool, ...]:
    """-> which of its parameters a neuron can learn, as ``neuron_backward`` takes it."""
    common = model.fires, model.graded, model.feedback
    return common + (True,) * len(model.scalar.PARAMS)


def copies(arrays: list[np.ndarray]) -> Callable[[], None]:
    """-> a function that copies all arrays."""
    targets = [np.empty_like(array) for array in arrays]

    def run():
        for target, array in zip(targets, arrays, strict=True):
            np.copyto(target, array)

    run()
    return run


def timed(function: Callable[[], object]) -> float:
    """-> seconds of one call, for all samples."""
    start = time.perf_counter()
    for _ in range(SAMPLES // BLOCK):
        function()
    return (time.perf_counter() - start) / (SAMPLES // BLOCK)


if __name__ == "__main__":
    main()

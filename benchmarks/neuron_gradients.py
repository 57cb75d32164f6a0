"""Finite differences for every neuron, reset and delay: the error of each parameter's gradient, and of the input's.

    python benchmarks/neuron_gradients.py [--backend cpu]

The network is Linear(6, 8) - neuron - Linear(8, 4) - LeakyIntegrator on five samples and six steps, with membrane cross-entropy
and all that the neuron can learn, each number for each of the eight neurons ("one": one number for the layer). An entry is the
larger of the norm-relative errors over sampled entries and over drawn directions, as ``spikeflow.gradcheck`` reports them in
float64; its limit is 1e-6. "-" is what a neuron does not have. (On ``cpu`` every row compiles kernels of its own, which takes
minutes.)
"""

from __future__ import annotations

import argparse
import itertools
import sys

import harness  # before numpy
import numpy as np

import spikeflow as sf

RESETS = ("subtract", "zero", "none")
EACH = np.linspace(0.35, 0.75, 8)
COMMON = dict(learn_threshold=True, graded_spikes_factor=1.5 * EACH, learn_graded_spikes_factor=True)
COLUMNS = ("beta", "alpha", "threshold", "graded_spikes_factor", "V", "recurrent.weight", "recurrent.bias", "0.weight", "input")
HEADS = ("beta", "alpha", "threshold", "graded", "V", "rec. weight", "rec. bias", "weight before", "input")


def neurons():
    """-> rows: name, reset, reset_delay, layer."""
    for reset, delay in itertools.product(RESETS, (True, False)):
        options = dict(reset_mechanism=reset, threshold=EACH, **COMMON)
        both = dict(reset_delay=delay, **options)
        if reset == "none" and not delay:
            continue  # nothing is reset
        yield "Leaky", reset, delay, sf.Leaky(EACH, learn_beta=True, **both)
        yield (
            "Leaky, one",
            reset,
            delay,
            sf.Leaky(0.6, learn_beta=True, **{**both, "threshold": 0.5, "graded_spikes_factor": 1.5}),
        )
        yield (
            "Leaky, inhibition",
            reset,
            delay,
            sf.Leaky(EACH, inhibition=True, learn_beta=True, **{**both, "threshold": 3 * EACH}),
        )
        if delay:
            yield "Lapicque", reset, delay, sf.Lapicque(EACH, R=1.5, learn_beta=True, **options)
            yield "Alpha", reset, delay, sf.Alpha(EACH + 0.2, EACH, learn_alpha=True, learn_beta=True, **options)
        decays = dict(learn_alpha=True, learn_beta=True)
        yield "Synaptic", reset, delay, sf.Synaptic(EACH, EACH[::-1], **decays, **both)
        yield "RLeaky, V", reset, delay, sf.RLeaky(EACH, V=EACH - 0.5, all_to_all=False, learn_beta=True, **both)
        yield "RLeaky, matrix", reset, delay, sf.RLeaky(EACH, linear_features=8, learn_beta=True, **both)
        yield "RSynaptic, V", reset, delay, sf.RSynaptic(EACH, EACH[::-1], V=EACH - 0.5, all_to_all=False, **decays, **both)
        yield "RSynaptic, matrix", reset, delay, sf.RSynaptic(EACH, EACH[::-1], linear_features=8, **decays, **both)
    yield "LeakyIntegrator", "none", True, None


def main() -> int:
    """Check all, print the table -> exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="reference", choices=("reference", "cpu"))
    backend = parser.parse_args().backend
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(0, 1.5, (6, 5, 6)), rng.integers(0, 4, 5)
    table, passed, judged = [], True, 0
    for name, reset, delay, layer in neurons():
        readout = sf.LeakyIntegrator(np.array([0.5, 0.9, 0.7, 0.8]), learn_beta=True)
        layers = [sf.Linear(6, 8), layer, sf.Linear(8, 4), readout] if layer else [sf.Linear(6, 4), readout]
        report = sf.gradcheck(
            sf.Sequential(*layers, backend=backend), images, labels, sf.losses.ce_membrane_loss(), num_steps=None
        )
        passed, judged = passed and report.passed, judged + len(report.rows)
        rows = {row.name.removeprefix("1."): row for row in report.rows}
        cells = ["-" if key not in rows else f"{max(rows[key].entries, rows[key].directions):.0e}" for key in COLUMNS]
        table.append([name, reset, "delayed" if delay else "at once", *cells])
        if not report.passed:
            print(f"{name}, {reset}, {'delayed' if delay else 'at once'}:\n{report}\n")
    print(harness.table(["neuron", "reset", "", *HEADS], table))
    print(f"\nbackend {backend}: {len(table)} networks, {judged} gradients, {'all within 1e-6' if passed else 'FAILED'}")
    return not passed


if __name__ == "__main__":
    sys.exit(main())

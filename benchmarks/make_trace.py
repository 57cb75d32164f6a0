"""Write down runs of snnTorch that the test suite compares spikeflow with, in tests/traces.

    python benchmarks/make_trace.py     with a Python that can import torch and snntorch; spikeflow is not needed

csnn_snntorch.npz     Conv2d(1, 4, 3) - MaxPool2d(2) - Leaky - Conv2d(4, 6, 3) - MaxPool2d(2) - Leaky - Flatten - Linear(24, 5) -
                      Leaky on three images of 14 x 14, shown for eight steps. The first neurons fire rarely: where they are
                      silent the second convolution gives equal values, of which the first in a pool's window must win. One
                      membrane lies exactly at its threshold, which is no spike.
neurons_snntorch.npz  Each neuron alone: six neurons, three samples, ten steps. A run NAME has ``NAME/case``, JSON of the layer
                      and its losses; ``NAME/x``, ``NAME/number/...`` (beta, threshold, ...) and ``NAME/weight/...`` that went
                      in; ``NAME/spikes`` (T, B, F), ``NAME/states`` (T, S, B, F), ``NAME/loss`` and ``NAME/grad/...`` (of x
                      too) that came out.

Weights and inputs are multiples of 1/256: every sum of a convolution is then exact in float32, so that spikes and membranes of
the first trace must be reproduced bit for bit.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import harness  # before numpy
import numpy as np
import snntorch_record
import torch

TRACES = Path(__file__).parents[1] / "tests" / "traces"
NUM_STEPS, BETA, SLOPE = 8, 0.5, 25
KEPT = ("loss", "grad", "membrane")
T, B, F = 10, 3, 6
LABELS = np.array([0, 2, 5])
MARGIN, RATES, MOST_SEEDS = 1e-4, (0.1, 0.7), 50
BOTH = [{"name": "ce_rate_loss", "options": {}}, {"name": "mse_membrane_loss", "options": {}}]


def main() -> None:
    """Run snnTorch and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=TRACES, metavar="PATH", help="default: tests/traces")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, trace in (("csnn_snntorch.npz", csnn_trace()), ("neurons_snntorch.npz", neurons_trace())):
        path = folder / name
        np.savez_compressed(path, **trace)
        print(f"{path.name}: {path.stat().st_size} bytes")


def versions() -> np.ndarray:
    """-> what made the files."""
    return np.array([f"{name} {harness.package_version(name)}" for name in ("snntorch", "torch", "numpy")])


# ---------------------------------------------------------------------------------------------------- a network


def csnn_trace() -> dict[str, np.ndarray]:
    """-> csnn_snntorch.npz."""
    rng = np.random.default_rng(6)
    weights, images, labels = make_weights(rng), make_images(rng), np.array([0, 2, 4])
    result = snntorch_record.run(snntorch_record.csnn(weights, BETA), images, labels, NUM_STEPS)
    trace = {key: value for key, value in result.items() if key.split("/")[0] in KEPT}
    for layer in (2, 5, 8):
        spikes = result[f"activation/{layer + 1}"]
        print(f"csnn, layer {layer}: {spikes.mean():.3f} spikes a neuron and step")
        if not spikes.any():
            raise SystemExit(f"layer {layer} is silent: the trace would test nothing")
        trace[f"spikes/{layer}"] = spikes.astype(np.uint8)
    if not (result["membrane/8"] == 1).any():
        raise SystemExit("no membrane is at its threshold: the trace would not tell whether that is a spike")
    trace |= {f"weight/{name}": value for name, value in weights.items()}
    options = {"num_steps": NUM_STEPS, "beta": BETA, "slope": SLOPE, "versions": versions()}
    return {"images": images, "labels": labels, **options, **trace}


def make_weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """-> multiples of 1/256, large enough for all layers to fire."""
    shapes = {"0": (4, 1, 3, 3), "3": (6, 4, 3, 3), "7": (5, 24)}
    scales = {"0": 2, "3": 4, "7": 4}
    weights = {}
    for name, shape in shapes.items():
        bound = scales[name] / np.sqrt(np.prod(shape[1:]))
        weights[f"{name}.weight"] = dyadic(rng.uniform(-bound, bound, shape))
        weights[f"{name}.bias"] = dyadic(rng.uniform(-bound, bound, shape[0]) / 4)
    weights["7.bias"][0] = 1  # without spikes before it, this neuron's membrane starts at its threshold
    return weights


def make_images(rng: np.random.Generator) -> np.ndarray:
    """-> (3, 1, 14, 14), multiples of 1/256 in [0, 1]; the last rows are empty."""
    images = dyadic(rng.uniform(0, 1, (3, 1, 14, 14)))
    images[:, :, 9:] = 0
    return images


# ---------------------------------------------------------------------------------------------------- single neurons


def neurons_trace() -> dict[str, np.ndarray]:
    """-> neurons_snntorch.npz."""
    trace = {"labels": LABELS, "versions": versions()}
    for name, (neuron, options, numbers, weights) in neurons().items():
        case = {"neuron": neuron, "options": options, "spike_grad": {"name": "atan", "alpha": 2}, "loss": BOTH}
        if neuron == "LeakyIntegrator":
            case["loss"] = BOTH[1:]
        numbers = {key: np.asarray(value, np.float32) for key, value in numbers.items()}
        x, result = run_until_fit(name, case, numbers, weights)
        trace[f"{name}/case"] = np.array(json.dumps(case))
        trace[f"{name}/x"], trace[f"{name}/spikes"] = x, result.pop("spikes").astype(np.uint8)
        for kind, arrays in (("number", numbers), ("weight", weights)):
            trace |= {f"{name}/{kind}/{key}": value for key, value in arrays.items()}
        trace |= {f"{name}/{key}": value for key, value in result.items()}
    return trace


def neurons() -> dict[str, tuple[str, dict, dict, dict]]:
    """-> {name of the run: spikeflow's class, options, numbers, weights}, all learned."""
    one, two = learning("beta", "threshold"), learning("alpha", "beta", "threshold")
    each = np.arange(1, F + 1) / 8
    linear = {"recurrent.weight": (np.arange(F * F).reshape(F, F) * 29 % 64 - 32) / 64, "recurrent.bias": (each - 0.5) / 4}
    linear = {name: value.astype(np.float32) for name, value in linear.items()}
    synaptic = {"alpha": 0.5, "beta": 0.75, "threshold": 1.0}
    alpha = {"alpha": 0.75 + each / 8, "beta": 0.5, "threshold": 0.5}
    return {
        "leaky": ("Leaky", one, {"beta": each, "threshold": 0.75 + each / 2}, {}),
        "leaky_at_once": ("Leaky", one | {"reset_delay": False}, {"beta": 0.5, "threshold": 1.0}, {}),
        "lapicque": ("Lapicque", learning("threshold"), {"R": 2.0, "C": 1.0, "threshold": 0.5 + each}, {}),
        "synaptic": ("Synaptic", two, synaptic, {}),
        "alpha_zero": ("Alpha", one, alpha, {}),
        "alpha_subtract": ("Alpha", two | {"reset_mechanism": "subtract"}, alpha, {}),
        "rleaky_linear": ("RLeaky", one | {"linear_features": F}, {"beta": 0.5, "threshold": 1.0}, linear),
        "rleaky_one_to_one": ("RLeaky", one | {"all_to_all": False}, {"beta": 0.5, "threshold": 1.0, "V": each - 0.75}, {}),
        "rsynaptic_linear": ("RSynaptic", two | {"linear_features": F}, synaptic, linear),
        "leaky_integrator": ("LeakyIntegrator", learning("beta"), {"beta": each}, {}),
    }


def learning(*names: str) -> dict:
    """-> the options by which these are learned."""
    return {f"learn_{name}": True for name in names}


def run_until_fit(name: str, case: dict, numbers: dict, weights: dict) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """-> currents (T, B, F) at which the neurons fire, but no membrane is near its threshold, and what snnTorch made of them."""
    loss_fn, labels = snntorch_record.make_loss(case["loss"]), torch.from_numpy(LABELS)
    for seed in range(MOST_SEEDS):
        rng = np.random.default_rng([seed, *name.encode()])
        x = dyadic(rng.uniform(-0.5, 1.25, (T, B, F)))
        result, unrolled = snntorch_record.run_neuron(case, x, numbers, weights, lambda s, m: loss_fn(s, m, labels))
        rate = result["spikes"].mean()
        fires = case["neuron"] == "LeakyIntegrator" or RATES[0] <= rate <= RATES[1]
        if fires and unrolled.margin >= MARGIN:
            print(f"{name}: {rate:.3f} spikes a neuron and step, seed {seed}")
            return x, result
    raise SystemExit(f"{name}: no seed is fit; the last has rate {rate:.3f}, margin {unrolled.margin:.1e}")


def dyadic(a: np.ndarray) -> np.ndarray:
    """-> the nearest multiples of 1/256."""
    return np.round(a * 256).astype(np.float32) / np.float32(256)


if __name__ == "__main__":
    main()

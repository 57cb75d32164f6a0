"""Write down one run of snnTorch that the test suite compares spikeflow with: tests/traces/csnn_snntorch.npz.

    python benchmarks/make_trace.py     with a Python that can import torch and snntorch; spikeflow is not needed

Conv2d(1, 4, 3) - MaxPool2d(2) - Leaky - Conv2d(4, 6, 3) - MaxPool2d(2) - Leaky - Flatten - Linear(24, 5) - Leaky on
three images of 14 x 14, shown for eight steps. Weights and images are multiples of 1/256: every sum of a convolution is
then exact in float32, so that spikes and membranes must be reproduced bit for bit. The first neurons fire rarely: where
they are silent the second convolution gives equal values, of which the first in a pool's window must win. One membrane
lies exactly at its threshold, which is no spike.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import harness  # before numpy
import numpy as np
import snntorch_record

TRACE = Path(__file__).parents[1] / "tests" / "traces" / "csnn_snntorch.npz"
NUM_STEPS, BETA, SLOPE = 8, 0.5, 25
KEPT = ("loss", "grad", "membrane")


def main() -> None:
    """Run snnTorch and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=TRACE, metavar="PATH", help="default: the file named above")
    path = parser.parse_args().out
    rng = np.random.default_rng(6)
    weights, images, labels = make_weights(rng), make_images(rng), np.array([0, 2, 4])
    result = snntorch_record.run(snntorch_record.csnn(weights, BETA), images, labels, NUM_STEPS)
    trace = {key: value for key, value in result.items() if key.split("/")[0] in KEPT}
    for layer in (2, 5, 8):
        spikes = result[f"activation/{layer + 1}"]
        print(f"layer {layer}: {spikes.mean():.3f} spikes a neuron and step")
        if not spikes.any():
            raise SystemExit(f"layer {layer} is silent: the trace would test nothing")
        trace[f"spikes/{layer}"] = spikes.astype(np.uint8)
    if not (result["membrane/8"] == 1).any():
        raise SystemExit("no membrane is at its threshold: the trace would not tell whether that is a spike")
    trace |= {f"weight/{name}": value for name, value in weights.items()}
    versions = [f"{name} {harness.package_version(name)}" for name in ("snntorch", "torch", "numpy")]
    options = {"num_steps": NUM_STEPS, "beta": BETA, "slope": SLOPE, "versions": np.array(versions)}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, images=images, labels=labels, **options, **trace)
    print(f"{path.name}: {path.stat().st_size} bytes, loss {result['loss']:.6f}")


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


def dyadic(a: np.ndarray) -> np.ndarray:
    """-> the nearest multiples of 1/256."""
    return np.round(a * 256).astype(np.float32) / np.float32(256)


if __name__ == "__main__":
    main()

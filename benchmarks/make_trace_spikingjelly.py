"""Write down runs of SpikingJelly's neurons that the test suite compares spikeflow with: tests/traces/nodes_spikingjelly.npz.

    python benchmarks/make_trace_spikingjelly.py     with a Python that can import torch and spikingjelly; spikeflow is not needed

Each neuron alone with every reset, detached and not: six neurons, three samples, ten steps. A run NAME has ``NAME/case``, JSON of
the layer; ``NAME/x``, ``NAME/weight/w`` where there is one, and the given gradients ``NAME/dspikes`` and ``NAME/dmembrane`` that
went in; ``NAME/spikes`` and ``NAME/membrane``, SpikingJelly's v_seq, and ``NAME/grad/...`` (of x, and of w) that came out; arrays
are (T, B, F).

Inputs are multiples of 1/16. So membranes of the integrate-and-fire neurons are exact, and some of them lie exactly at the
threshold, which is a spike. No membrane comes near it without.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import harness  # before numpy
import numpy as np
import torch
from spikingjelly.activation_based import neuron, surrogate

TRACE = Path(__file__).parents[1] / "tests" / "traces" / "nodes_spikingjelly.npz"
T, B, F = 10, 3, 6
MARGIN, RATES, MOST_SEEDS = 1e-4, (0.2, 0.7), 50
SHORT = {"if": "IFNode", "lif": "LIFNode", "plif": "ParametricLIFNode"}
TIME_CONSTANT = {"if": {}, "lif": {"tau": 3.0}, "plif": {"init_tau": 2.5}}


def main() -> None:
    """Run SpikingJelly and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, default=TRACE, metavar="PATH", help="default: tests/traces/nodes_spikingjelly.npz")
    path = parser.parse_args().path
    path.parent.mkdir(parents=True, exist_ok=True)
    trace = {"versions": np.array([f"{name} {harness.package_version(name)}" for name in ("spikingjelly", "torch", "numpy")])}
    for name, case in cases().items():
        trace |= {f"{name}/{key}": value for key, value in run_until_fit(name, case).items()}
    np.savez_compressed(path, **trace)
    print(f"{path.name}: {path.stat().st_size} bytes")


def cases() -> dict[str, dict]:
    """-> {name of the run: spikeflow's class, its options, its surrogate}."""
    found = {}
    for short, reset, detach in itertools.product(SHORT, (-0.25, None), (False, True)):
        name = "_".join([short, "soft" if reset is None else "hard", *(["detached"] if detach else [])])
        options = {"v_threshold": 0.75, "v_reset": reset, "detach_reset": detach, **TIME_CONSTANT[short]}
        if short != "if":
            options["decay_input"] = not detach
        pair = {"name": "ATan", "alpha": 2.0} if reset is None else {"name": "Sigmoid", "alpha": 4.0}
        found[name] = {"neuron": SHORT[short], "options": options, "surrogate_function": pair}
    return found


def run_until_fit(name: str, case: dict) -> dict[str, np.ndarray]:
    """-> what goes into a run and comes out, with currents at which the neurons fire, but no membrane is near its threshold."""
    scale = 3 if case["options"].get("decay_input") else 1.25
    for seed in range(MOST_SEEDS):
        rng = np.random.default_rng([seed, *name.encode()])
        x = np.round(16 * scale * rng.uniform(-0.4, 1.1, (T, B, F))).astype(np.float32) / np.float32(16)
        given = (np.round(64 * rng.normal(size=(2, T, B, F))) / 64).astype(np.float32)
        result = run(case, x, *given)
        distance = abs(charged(case, x, result["membrane"]) - case["options"]["v_threshold"])
        exact, rate = (distance == 0).sum(), result["spikes"].mean()
        far = distance[distance > 0].min() >= MARGIN and (exact > 0 or case["neuron"] != "IFNode")
        if far and RATES[0] <= rate <= RATES[1]:
            print(f"{name}: {rate:.3f} spikes a neuron and step, {exact} membranes at the threshold, seed {seed}")
            gradients = {"dspikes": given[0], "dmembrane": given[1]}
            return {"case": np.array(json.dumps(case)), "x": x, **gradients, **result}
    raise SystemExit(f"{name}: no seed is fit; the last has rate {rate:.3f}, {exact} membranes at the threshold")


def run(case: dict, x: np.ndarray, dspikes: np.ndarray, dmembrane: np.ndarray) -> dict[str, np.ndarray]:
    """-> spikes, membrane, and gradients of <dspikes, spikes> + <dmembrane, membrane>."""
    pair = dict(case["surrogate_function"])
    pair = getattr(surrogate, pair.pop("name"))(**pair)
    node = getattr(neuron, case["neuron"])(**case["options"], surrogate_function=pair, step_mode="m", store_v_seq=True)
    current = torch.from_numpy(x).requires_grad_()
    spikes = node(current)
    loss = (torch.from_numpy(dspikes) * spikes).sum() + (torch.from_numpy(dmembrane) * node.v_seq).sum()
    loss.backward()
    result = {"spikes": spikes.detach().numpy().astype(np.uint8), "membrane": node.v_seq.detach().numpy()}
    result |= {f"weight/{key}": value.numpy() for key, value in node.state_dict().items()}
    return result | {"grad/x": current.grad.numpy()} | {f"grad/{key}": p.grad.numpy() for key, p in node.named_parameters()}


def charged(case: dict, x: np.ndarray, membrane: np.ndarray) -> np.ndarray:
    """-> the membranes (T, B, F) before their resets, which SpikingJelly does not give out, from those behind; float64."""
    options = case["options"]
    rest = options["v_reset"] or 0.0
    before = np.concatenate([np.full_like(membrane[:1], rest), membrane[:-1]]).astype(np.float64)
    share = 1 / options.get("tau", options.get("init_tau", np.inf))
    return before - (before - rest) * share + x * (share if options.get("decay_input") else 1)


if __name__ == "__main__":
    main()

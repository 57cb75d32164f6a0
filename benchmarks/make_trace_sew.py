"""Write down what SpikingJelly computes where branches meet: tests/traces/sew_spikingjelly.npz.

    python benchmarks/make_trace_sew.py     with a Python that can import torch and spikingjelly; spikeflow is not needed

A SEW-ResNet block for each of its functions (ADD, AND, IAND), and a network of two branches whose channels are put together;
IFNode everywhere, six steps, four samples. A run NAME has ``NAME/x`` (T, B, C, H, W), ``NAME/dspikes`` that went in,
``NAME/weight/...`` under spikeflow's names, ``NAME/spikes`` (T, B, O), ``NAME/rates`` of the layers of neurons in the order in
which they run, and ``NAME/grad/...`` (of x and of the weights).

Weights and inputs are multiples of 1/16, so that sums are exact in any order: spikes must be equal.
"""

from __future__ import annotations

import argparse
import sys
import types
from pathlib import Path

import harness  # before numpy
import numpy as np
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate

# The file of the function also downloads weights, by torchvision, which need not be there.
downloads = types.ModuleType("torchvision._internally_replaced_utils")
downloads.load_state_dict_from_url = None
sys.modules.setdefault("torchvision", types.ModuleType("torchvision"))
sys.modules.setdefault(downloads.__name__, downloads)
from spikingjelly.activation_based.model.sew_resnet import sew_function  # noqa: E402

TRACE = Path(__file__).parents[1] / "tests" / "traces" / "sew_spikingjelly.npz"
T, B, C, SIDE, CLASSES = 6, 4, 5, 6, 3
LEAST_RATE = 0.05


def main() -> None:
    """Run SpikingJelly and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, default=TRACE, metavar="PATH", help="default: tests/traces/sew_spikingjelly.npz")
    path = parser.parse_args().path
    trace = {"versions": np.array([f"{name} {harness.package_version(name)}" for name in ("spikingjelly", "torch", "numpy")])}
    for name in ("ADD", "AND", "IAND", "branches"):
        trace |= {f"{name.lower()}/{key}": value for key, value in run(name).items()}
    np.savez_compressed(path, **trace)
    print(f"{path.name}: {path.stat().st_size} bytes")


class Network(torch.nn.Module):
    """A spiking convolution, what branches, and a spiking linear layer."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        self.first, self.body, self.other = convolution(2, C, 3), convolution(C, C, 3), convolution(C, C, 1)
        features = C * SIDE * SIDE * (2 if kind == "branches" else 1)
        self.last = layer.Linear(features, CLASSES, bias=False)
        self.neurons = torch.nn.ModuleList(neuron.IFNode(surrogate_function=surrogate.ATan()) for _ in range(4))
        functional.set_step_mode(self, "m")

    def names(self) -> dict[str, torch.Tensor]:
        """-> weights by spikeflow's names."""
        inner = ("2.0.0", "2.1.0") if self.kind == "branches" else ("2.body.0", "2.body.2")
        pairs = zip(("0", *inner, "4"), (self.first, self.body, self.other, self.last), strict=True)
        return {f"{name}.weight": module.weight for name, module in pairs}

    def forward(self, x):
        """x (T, B, 2, H, W) -> spikes (T, B, O), and the spikes of all layers."""
        first = self.neurons[0](self.first(x))
        if self.kind == "branches":
            one, two = self.neurons[1](self.body(first)), self.neurons[2](self.other(first))
            met = torch.cat([one, two], dim=2)
        else:
            one = self.neurons[1](self.body(first))
            two = self.neurons[2](self.other(one))
            met = sew_function(first, two, self.kind)
        last = self.neurons[3](self.last(met.flatten(2)))
        return last, [first, one, two, last]


def convolution(channels: int, outputs: int, size: int):
    return layer.Conv2d(channels, outputs, size, padding=size // 2, bias=False)


def run(kind: str) -> dict[str, np.ndarray]:
    """-> what goes into a run and comes out."""
    for seed in range(100):
        rng, net = np.random.default_rng([seed, *kind.encode()]), Network(kind)
        for weight in net.names().values():
            fan_in = weight[0].numel()
            drawn = np.round(16 * rng.uniform(-2, 3, tuple(weight.shape)) / np.sqrt(fan_in)) / 16
            weight.data = torch.tensor(drawn.astype(np.float32))
        x = torch.tensor((np.round(16 * rng.random((T, B, 2, SIDE, SIDE))) / 16).astype(np.float32), requires_grad=True)
        spikes, layers = net(x)
        rates = [float(found.mean()) for found in layers]
        if min(rates) >= LEAST_RATE and max(rates) <= 1 - LEAST_RATE:
            break
    else:
        raise SystemExit(f"{kind}: no seed is fit; the last has rates {rates}")
    dspikes = torch.tensor((np.round(64 * rng.normal(size=spikes.shape)) / 64).astype(np.float32))
    spikes.backward(dspikes)
    print(f"{kind}: rates {', '.join(f'{rate:.3f}' for rate in rates)}, seed {seed}")
    found = {"x": x, "dspikes": dspikes, "spikes": spikes, "grad/x": x.grad}
    found |= {f"weight/{name}": weight for name, weight in net.names().items()}
    found |= {f"grad/{name}": weight.grad for name, weight in net.names().items()}
    return {"rates": np.array(rates), **{key: value.detach().numpy() for key, value in found.items()}}


if __name__ == "__main__":
    main()

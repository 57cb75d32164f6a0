"""Runs snnTorch and writes down everything it does, for parity.py (as its child process) and for make_trace.py."""

from __future__ import annotations

import harness  # before numpy
import numpy as np
import snntorch as snn
import snntorch.functional as SF
import torch
from snntorch import surrogate
from torch import nn

SURROGATES = {
    "atan": surrogate.atan(alpha=2.0),
    "fast_sigmoid": surrogate.fast_sigmoid(slope=25),
    "sigmoid": surrogate.sigmoid(slope=25),
}


def csnn(weights: dict[str, np.ndarray], beta: float) -> nn.Sequential:
    """-> {Conv2d, MaxPool2d(2), Leaky} twice, Flatten, Linear, Leaky, of the weights' sizes."""
    lif = dict(beta=beta, spike_grad=SURROGATES["fast_sigmoid"])
    (O1, C1, K, _), (O2, _, _, _), (classes, features) = (weights[f"{i}.weight"].shape for i in (0, 3, 7))
    net = nn.Sequential(
        nn.Conv2d(C1, O1, K), nn.MaxPool2d(2), snn.Leaky(**lif),
        nn.Conv2d(O1, O2, K), nn.MaxPool2d(2), snn.Leaky(**lif),
        nn.Flatten(), nn.Linear(features, classes), snn.Leaky(**lif),
    )  # fmt: skip
    state = {name: torch.from_numpy(value) for name, value in weights.items()}
    if set(state) != {name for name, _ in net.named_parameters()}:
        raise ValueError(f"weights {sorted(state)} do not fit the network")
    net.load_state_dict(state, strict=False)  # the neurons' constants are entries of the state dict too
    return net


def run(net: nn.Sequential, images: np.ndarray, labels: np.ndarray, num_steps: int) -> dict[str, np.ndarray]:
    """Show the images at every step, take ce_rate_loss, and go backward.

    Returns
    -------
    dict
        ``loss``; ``grad/NAME`` of every parameter; ``activation/i`` and ``gradient/i`` (T, B, ...), the input of layer
        i and dL/d of it, where i = number of layers is the output; ``membrane/i`` (T, B, ...) of the neurons.
    """
    activations = [[] for _ in range(len(net) + 1)]
    membranes = {i: [layer.reset_mem()] for i, layer in enumerate(net) if isinstance(layer, snn.Leaky)}
    for _ in range(num_steps):
        x = torch.from_numpy(images).clone().requires_grad_()
        activations[0].append(x)
        for i, layer in enumerate(net):
            if i in membranes:
                x, membrane = layer(x, membranes[i][-1])
                membranes[i].append(membrane)
            else:
                x = layer(x)
            x.retain_grad()
            activations[i + 1].append(x)
    loss = SF.ce_rate_loss()(torch.stack(activations[-1]), torch.from_numpy(labels))
    loss.backward()
    result = {"loss": np.float64(loss.item())}
    result |= {f"grad/{name}": parameter.grad.numpy() for name, parameter in net.named_parameters()}
    result |= {f"activation/{i}": _stack(steps) for i, steps in enumerate(activations)}
    result |= {f"gradient/{i}": _stack([x.grad for x in steps]) for i, steps in enumerate(activations)}
    return result | {f"membrane/{i}": _stack(steps[1:]) for i, steps in membranes.items()}


def _stack(steps) -> np.ndarray:
    return torch.stack([step.detach() for step in steps]).numpy()


# ---------------------------------------------------------------------------------------------------- requests


def record(source: str, target: str, num_steps: int, beta: float, only: list[str] | None = None) -> None:
    """Run the network with the weights, images and labels of the file ``source``; write results to the file ``target``.

    ``only`` names the results that are wanted, by the part before the slash.
    """
    with np.load(source, allow_pickle=False) as file:
        arrays = dict(file)
    images, labels = arrays.pop("images"), arrays.pop("labels")
    result = run(csnn(arrays, beta), images, labels, num_steps)
    np.savez(target, **{key: value for key, value in result.items() if only is None or key.split("/")[0] in only})


def leaky(source: str, target: str, cases: list[dict]) -> None:
    """Run one Leaky layer for each case, a dict of its options, on x, dspikes, dmembrane (T, B, F) of ``source``."""
    with np.load(source, allow_pickle=False) as file:
        x, dspikes, dmembrane = (torch.from_numpy(file[key]) for key in ("x", "dspikes", "dmembrane"))
    results = {}
    for number, case in enumerate(cases):
        results |= {f"{number}/{key}": value for key, value in _run_leaky(x, dspikes, dmembrane, case).items()}
    np.savez(target, **results)


def _run_leaky(x, dspikes, dmembrane, case) -> dict[str, np.ndarray]:
    layer = snn.Leaky(**{**case, "spike_grad": SURROGATES[case["spike_grad"]]})
    x, membranes, spikes = x.clone().requires_grad_(), [layer.reset_mem()], []
    for current in x:
        spike, membrane = layer(current, membranes[-1])
        spikes.append(spike)
        membranes.append(membrane)
    spikes, membrane = torch.stack(spikes), torch.stack(membranes[1:])
    ((spikes * dspikes).sum() + (membrane * dmembrane).sum()).backward()
    result = {"spikes": spikes, "membrane": membrane, "dx": x.grad}
    result |= {f"d{name}": parameter.grad for name, parameter in layer.named_parameters()}
    return {key: value.detach().numpy() for key, value in result.items()}


def start(threads: int) -> dict:
    """Use this many threads from now on -> the environment."""
    torch.set_num_threads(threads)
    return harness.environment(threads)


if __name__ == "__main__":
    harness.serve(start, record, leaky)

"""Runs SpikingJelly's Fashion-MNIST network and writes down what it does, for parity_spikingjelly.py (as its child process)."""

from __future__ import annotations

import harness  # before numpy
import numpy as np
import torch
from candidates.spikingjelly_fashion import network
from fashion import CLASSES
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import nn
from torch.nn import functional as F


def csnn(weights: dict[str, np.ndarray], description: dict, eps: float, watched: bool) -> nn.Sequential:
    """-> the network of the weights' sizes and dtype.

    ``description`` of the neurons is their class's ``name`` and its ``options``; ``eps`` is the normalisations'. ``watched``
    neurons keep their membranes.
    """

    def make() -> nn.Module:
        options = description["options"] | {"surrogate_function": surrogate.ATan(), "store_v_seq": watched}
        return getattr(neuron, description["name"])(**options)

    net = network(len(weights["0.weight"]), make)
    for layer in net:
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = eps
    net.to(torch.from_numpy(weights["0.weight"]).dtype)
    net.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    return net


def positions(net: nn.Sequential) -> list[int]:
    """-> the positions of the layers of neurons."""
    return [i for i, layer in enumerate(net) if isinstance(layer, neuron.BaseNode)]


def run(net: nn.Sequential, images: np.ndarray, labels: np.ndarray, num_steps: int, watched: bool) -> tuple[torch.Tensor, dict]:
    """Show the images at every step, take the square error of the firing rates, and go backward; adds to the gradients.

    Returns
    -------
    loss : torch.Tensor
    dict
        ``fired/i`` (T, B, ...), the spikes of the neurons as bool. Of a ``watched`` network besides ``activation/i`` and
        ``gradient/i`` (T, B, ...), the input of layer i and dL/d of it, where i = number of layers is the output; ``membrane/i``
        (T, B, ...) of the neurons, after the reset.
    """
    x = torch.from_numpy(images).unsqueeze(0).expand(num_steps, -1, -1, -1, -1)
    activations = [x.clone().requires_grad_() if watched else x]
    fired = {}
    for i, layer in enumerate(net):
        activations.append(layer(activations[-1]))
        if watched:
            activations[-1].retain_grad()
        else:
            del activations[0]
        if isinstance(layer, neuron.BaseNode):
            fired[f"fired/{i}"] = (activations[-1].detach() != 0).numpy()
    one_hot = F.one_hot(torch.from_numpy(labels).long(), CLASSES).to(x.dtype)
    loss = F.mse_loss(activations[-1].mean(0), one_hot)
    loss.backward()
    result = dict(fired)
    if watched:
        result |= {f"activation/{i}": x.detach().numpy() for i, x in enumerate(activations)}
        result |= {f"gradient/{i}": x.grad.numpy() for i, x in enumerate(activations)}
        result |= {f"membrane/{i}": net[i].v_seq.detach().numpy() for i in positions(net)}
    functional.reset_net(net)
    return loss.detach(), result


# ---------------------------------------------------------------------------------------------------- requests


def record(
    source: str, target: str, neurons: dict, num_steps: int, training: bool, watched: bool = False, eps: float = 1e-5,
    steps: int = 1, lr: float = 0.0, momentum: float = 0.0,
) -> None:  # fmt: skip
    """Train on one batch by SGD, in training or in evaluation mode, with the weights, images and labels of the file ``source``.

    The file ``target`` receives ``losses`` (steps,); of the first step what ``run`` returns; of all steps ``grad/NAME``
    (steps, ...); and ``after/NAME``, the state after the last of them.
    """
    with np.load(source, allow_pickle=False) as file:
        arrays = dict(file)
    images, labels = arrays.pop("images"), arrays.pop("labels")
    net = csnn(arrays, neurons, eps, watched).train(training)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum)
    losses, gradients, result = [], {name: [] for name, _ in net.named_parameters()}, {}
    for step in range(steps):
        optimizer.zero_grad()
        loss, happened = run(net, images, labels, num_steps, watched and step == 0)
        losses.append(loss.item())
        result |= {} if step else happened
        for name, parameter in net.named_parameters():
            gradients[name].append(parameter.grad.numpy().copy())
        optimizer.step()
    result |= {f"grad/{name}": np.stack(steps) for name, steps in gradients.items()}
    result |= {f"after/{name}": value.numpy() for name, value in net.state_dict().items()}
    np.savez(target, losses=np.array(losses), **result)


def start(threads: int) -> dict:
    """Use this many threads from now on -> the environment."""
    torch.set_num_threads(threads)
    return harness.environment(threads)


if __name__ == "__main__":
    harness.serve(start, record)

"""The networks of networks.py, each written down once for spikeflow and for PyTorch, whose layers have the same names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tutorial6


@dataclass(frozen=True)
class Description:
    """A network, its neurons, and how it is trained."""

    layers: Callable[[Any, Callable], list]  # of the module with the layers (spikeflow or torch.nn) and a maker of neurons
    num_steps: int
    beta: float = tutorial6.BETA
    surrogate: str = "fast_sigmoid"  # of slope 25; or "atan", of alpha 2
    loss: str = "ce_rate_loss"  # or "ce_membrane_loss"
    lr: float = tutorial6.LEARNING_RATE
    gain: float = 1  # of the initial weights


def stack(nn, leaky) -> list:
    """Three 3 x 3 convolutions with padding, pooled before the neuron."""
    return [
        nn.Conv2d(1, 16, 3, padding=1), nn.MaxPool2d(2), leaky(),
        nn.Conv2d(16, 32, 3, padding=1), nn.MaxPool2d(2), leaky(),
        nn.Conv2d(32, 64, 3, padding=1), leaky(),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 10), leaky(),
    ]  # fmt: skip


def mlp(nn, leaky) -> list:
    """snnTorch's Tutorial 5: two linear layers."""
    return [nn.Flatten(), nn.Linear(784, 1000), leaky(), nn.Linear(1000, 10), leaky()]


def pool_after(nn, leaky) -> list:
    """Tutorial 6's layers, but pooled after the neuron: its spikes, not its currents."""
    return [
        nn.Conv2d(1, 12, 5), leaky(), nn.MaxPool2d(2),
        nn.Conv2d(12, 64, 5), leaky(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 4 * 4, 10), leaky(),
    ]  # fmt: skip


NETWORKS = {
    # As PyTorch draws them, three such layers leave all but the first silent: gradients of 1e-10, and no training.
    "stack": Description(stack, num_steps=25, gain=3),
    "mlp": Description(mlp, num_steps=25, beta=0.95, surrogate="atan", loss="ce_membrane_loss", lr=5e-4),
    "pool-after": Description(pool_after, num_steps=50),
}


def network(description: Description):
    """-> the spikeflow network."""
    import spikeflow as sf

    surrogate = sf.surrogate.atan(2) if description.surrogate == "atan" else sf.surrogate.fast_sigmoid(tutorial6.SLOPE)
    layers = description.layers(sf, lambda: sf.Leaky(beta=description.beta, spike_grad=surrogate))
    net = sf.Sequential(*layers, seed=0)
    for parameter in net.parameters():
        if parameter.name.endswith("weight"):
            parameter.value *= description.gain
    return net


def loss_fn(description: Description):
    """-> spikeflow's loss."""
    import spikeflow as sf

    return getattr(sf.losses, description.loss)()

"""SpikingJelly's Fashion-MNIST network, as its example ``conv_fashion_mnist`` is written."""

from __future__ import annotations

from collections.abc import Callable

import torch
from fashion import CLASSES, LEARNING_RATE, MOMENTUM
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn
from torch.nn import functional as F

from . import rate_error


def network(channels: int, make_neuron: Callable[[], nn.Module] | None = None) -> nn.Sequential:
    """-> sequences (T, B, 1, 28, 28) to spikes (T, B, 10); ``make_neuron`` makes another neuron than IFNode."""
    make = make_neuron or (lambda: neuron.IFNode(surrogate_function=surrogate.ATan()))
    net = nn.Sequential(
        layer.Conv2d(1, channels, 3, padding=1, bias=False), layer.BatchNorm2d(channels), make(), layer.MaxPool2d(2, 2),
        layer.Conv2d(channels, channels, 3, padding=1, bias=False), layer.BatchNorm2d(channels), make(), layer.MaxPool2d(2, 2),
        layer.Flatten(), layer.Linear(channels * 7 * 7, channels * 4 * 4, bias=False), make(),
        layer.Linear(channels * 4 * 4, CLASSES, bias=False), make(),
    )  # fmt: skip
    functional.set_step_mode(net, "m")
    return net


class Candidate:
    """The example's network in SpikingJelly."""

    loss_of_spikes = staticmethod(rate_error)

    def __init__(self, task):
        torch.set_num_threads(task.threads)
        self.num_steps = task.num_steps
        self.images = torch.from_numpy(task.images)
        self.one_hot = F.one_hot(torch.from_numpy(task.labels), CLASSES).float()
        self.net = network(len(task.weights["0.weight"]))
        self.weights = {name: torch.from_numpy(value) for name, value in task.weights.items()}
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)

    def restore(self):
        self.net.load_state_dict(self.weights)

    def forward(self):
        return self.net(self.images.unsqueeze(0).expand(self.num_steps, -1, -1, -1, -1))

    def train(self):
        self.net.train()
        self.optimizer.zero_grad()
        loss = F.mse_loss(self.forward().mean(0), self.one_hot)
        loss.backward()
        self.optimizer.step()
        functional.reset_net(self.net)
        return loss.item()

    def infer(self):
        self.net.eval()
        with torch.no_grad():
            spikes = self.forward().numpy()
        functional.reset_net(self.net)
        return spikes

"""SpikingJelly in its multi-step mode, with the neuron that comes closest.

Its LIFNode resets within the step that spikes, so that the reset decays with the membrane, and fires at the threshold
itself. The cost is comparable, the loss is not: it is printed, and not judged.
"""

from __future__ import annotations

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn
from torch.nn import functional as F
from tutorial6 import BETA, LEARNING_RATE, SLOPE


def lif():
    """A leaky neuron with decay BETA, soft and detached reset, and the fast sigmoid's shape as surrogate."""
    return neuron.LIFNode(
        tau=1 / (1 - BETA), decay_input=False, v_threshold=1.0, v_reset=None, detach_reset=True, step_mode="m",
        surrogate_function=surrogate.SoftSign(alpha=SLOPE),
    )  # fmt: skip


class Candidate:
    """The Tutorial-6 network in SpikingJelly."""

    def __init__(self, task):
        torch.set_num_threads(task.threads)
        self.num_steps = task.num_steps
        self.images, self.labels = torch.from_numpy(task.images), torch.from_numpy(task.labels)
        self.before_time = nn.Sequential(nn.Conv2d(1, 12, 5), nn.MaxPool2d(2))
        self.over_time = nn.Sequential(
            lif(), layer.SeqToANNContainer(nn.Conv2d(12, 64, 5), nn.MaxPool2d(2)),
            lif(), layer.SeqToANNContainer(nn.Flatten(), nn.Linear(64 * 4 * 4, 10)),
            lif(),
        )  # fmt: skip
        self.parameters = [*self.before_time.parameters(), *self.over_time.parameters()]
        self.weights = [torch.from_numpy(value) for value in task.weights.values()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=LEARNING_RATE)

    def restore(self):
        with torch.no_grad():
            for parameter, value in zip(self.parameters, self.weights, strict=True):
                parameter.copy_(value)

    def forward(self):
        functional.reset_net(self.over_time)
        x = self.before_time(self.images)
        return self.over_time(x.expand(self.num_steps, *x.shape))

    def train(self):
        loss = F.cross_entropy(self.forward().flatten(0, 1), self.labels.repeat(self.num_steps))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def infer(self):
        with torch.no_grad():
            return self.forward().numpy()

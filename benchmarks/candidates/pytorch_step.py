"""PyTorch without an SNN library, written with care.

What lies before the first neuron is computed once, since the input does not change. A membrane's reset flag is the
spike of the step before, not a second comparison. The second convolution runs step by step on images whose channels
come last: measured, that is nearly twice as fast as one large batch of all time steps, which leaves the cache and which
``batched=True`` does instead.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from tutorial6 import BETA, LEARNING_RATE, SLOPE


class Spike(torch.autograd.Function):
    """The step, with the fast sigmoid's derivative."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient / (SLOPE * x.abs() + 1) ** 2


def leaky(currents):
    """T currents (B, ...) -> T spikes (B, ...)."""
    membrane, spike, spikes = torch.zeros_like(currents[0]), torch.zeros_like(currents[0]), []
    for current in currents:
        membrane = BETA * membrane + current - spike.detach()
        spike = Spike.apply(membrane - 1)
        spikes.append(spike)
    return spikes


class Network(nn.Module):
    """images (B, 1, 28, 28) -> spikes (T, B, 10)."""

    def __init__(self, num_steps: int, batched: bool):
        super().__init__()
        self.num_steps, self.batched = num_steps, batched
        self.conv1, self.conv2, self.linear = nn.Conv2d(1, 12, 5), nn.Conv2d(12, 64, 5), nn.Linear(64 * 4 * 4, 10)

    def forward(self, images):
        current = F.max_pool2d(self.conv1(images), 2)
        if not self.batched:
            current = current.contiguous(memory_format=torch.channels_last)
        spikes = leaky([current] * self.num_steps)
        spikes = torch.stack(leaky(self.second_currents(spikes)))
        return torch.stack(leaky(self.linear(spikes.flatten(2)).unbind()))

    def second_currents(self, spikes):
        """T spikes (B, 12, 12, 12) -> T currents (B, 64, 4, 4)."""
        if not self.batched:
            return [F.max_pool2d(self.conv2(step), 2) for step in spikes]
        currents = F.max_pool2d(self.conv2(torch.cat(spikes)), 2)
        return currents.unflatten(0, (self.num_steps, -1)).unbind()


class Candidate:
    """The Tutorial-6 network in PyTorch, optionally compiled."""

    def __init__(self, task, batched: bool = False, compiled: bool = False):
        torch.set_num_threads(task.threads)
        self.task = task
        self.images, self.labels = torch.from_numpy(task.images), torch.from_numpy(task.labels)
        self.net = Network(task.num_steps, batched).to(memory_format=torch.channels_last)
        self.run = torch.compile(self.net) if compiled else self.net
        self.weights = [torch.from_numpy(value) for value in task.weights.values()]
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=LEARNING_RATE)

    def restore(self):
        with torch.no_grad():
            for parameter, value in zip(self.net.parameters(), self.weights, strict=True):
                parameter.copy_(value)

    def train(self):
        spikes = self.run(self.images)
        loss = F.cross_entropy(spikes.flatten(0, 1), self.labels.repeat(self.task.num_steps))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def infer(self):
        with torch.no_grad():
            return self.run(self.images).numpy()

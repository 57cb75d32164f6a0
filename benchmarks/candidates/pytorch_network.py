"""A network of zoo.py in PyTorch without an SNN library, written with care.

What lies before the first neuron is computed once, since the input does not change. Behind it, what lies between two layers
of neurons runs either step by step, so that a step's images stay in the cache, or once on the images of all steps; which of
the two is faster depends on the layers and on the batch. A membrane's reset flag is the spike of the step before.
"""

from __future__ import annotations

import torch
import zoo
from torch import nn
from torch.nn import functional as F

from .pytorch_step import Spike

# Name -> do stages with a convolution, and do those without, take all time steps at once? And the images' memory format.
VARIANTS = {
    "by step": (False, False, torch.channels_last),
    "linear batched": (False, True, torch.channels_last),
    "batched": (True, True, torch.contiguous_format),
    "batched, channels last": (True, True, torch.channels_last),
}


def variants(network: str) -> list[str]:
    """-> the names of the variants that differ for this network."""
    layers = zoo.NETWORKS[network].layers(nn, nn.Identity)
    convolves = any(isinstance(layer, nn.Conv2d) for layer in layers)
    return list(VARIANTS) if convolves else ["by step", "batched"]


class AtanSpike(torch.autograd.Function):
    """The step, with the arctangent's derivative at alpha 2."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient / (1 + (torch.pi * x) ** 2)


SPIKES = {"fast_sigmoid": Spike.apply, "atan": AtanSpike.apply}


class Leaky(nn.Module):
    """currents, T of (B, ...) -> yields T pairs of spike and membrane."""

    def __init__(self, description: zoo.Description):
        super().__init__()
        self.beta, self.spike = description.beta, SPIKES[description.surrogate]

    def forward(self, currents):
        membrane, spike = torch.zeros_like(currents[0]), torch.zeros_like(currents[0])
        for current in currents:
            membrane = self.beta * membrane + current - spike.detach()
            spike = self.spike(membrane - 1)
            yield spike, membrane


class Network(nn.Module):
    """images (B, 1, 28, 28) -> T pairs of the last layer's spike and membrane (B, 10)."""

    def __init__(self, description: zoo.Description, num_steps: int, variant: str):
        super().__init__()
        self.num_steps, self.variant = num_steps, VARIANTS[variant]
        self.stages, stage = nn.ModuleList(), []
        for layer in description.layers(nn, lambda: Leaky(description)):
            if isinstance(layer, Leaky):
                self.stages.append(nn.ModuleList([nn.Sequential(*stage), layer]))
                stage = []
            else:
                stage.append(layer)
        self.to(memory_format=self.variant[2])

    def forward(self, images):
        (before, leaky), *others = self.stages
        current = before(images)
        if current.ndim == 4:
            current = current.contiguous(memory_format=self.variant[2])
        pairs = leaky([current] * self.num_steps)
        for stage, leaky in others:
            pairs = leaky(self.over_time(stage, [spike for spike, _ in pairs]))
        return list(pairs)

    def over_time(self, stage, spikes):
        """T spikes (B, ...) -> T currents."""
        convolves = any(isinstance(layer, nn.Conv2d) for layer in stage)
        at_once = self.variant[0 if convolves else 1]
        if not at_once:
            return [stage(step) for step in spikes]
        return stage(torch.cat(spikes)).unflatten(0, (self.num_steps, -1)).unbind()


class Candidate:
    """A network of zoo.py in PyTorch."""

    def __init__(self, task, network: str, variant: str):
        torch.set_num_threads(task.threads)
        description = zoo.NETWORKS[network]
        self.task, self.loss = task, description.loss
        self.images, self.labels = torch.from_numpy(task.images), torch.from_numpy(task.labels)
        self.net = Network(description, task.num_steps, variant)
        self.weights = [torch.from_numpy(value) for value in task.weights.values()]
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=description.lr)

    def restore(self):
        with torch.no_grad():
            for parameter, value in zip(self.net.parameters(), self.weights, strict=True):
                parameter.copy_(value)

    def train(self):
        spikes, membranes = zip(*self.net(self.images), strict=True)
        labels = self.labels.repeat(self.task.num_steps)
        if self.loss == "ce_rate_loss":
            loss = F.cross_entropy(torch.cat(spikes), labels)
        else:
            loss = F.cross_entropy(torch.cat(membranes), labels, reduction="sum") / len(self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

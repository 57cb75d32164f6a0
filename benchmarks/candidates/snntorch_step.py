"""snnTorch, as its Tutorial 6 is written: the whole network inside the loop over time."""

from __future__ import annotations

import snntorch as snn
import snntorch.functional as SF
import torch
from snntorch import surrogate, utils
from torch import nn
from tutorial6 import BETA, LEARNING_RATE, SLOPE


class Candidate:
    """The Tutorial-6 network in snnTorch."""

    def __init__(self, task):
        torch.set_num_threads(task.threads)
        self.num_steps = task.num_steps
        self.images, self.labels = torch.from_numpy(task.images), torch.from_numpy(task.labels)
        lif = dict(beta=BETA, spike_grad=surrogate.fast_sigmoid(slope=SLOPE), init_hidden=True)
        self.net = nn.Sequential(
            nn.Conv2d(1, 12, 5), nn.MaxPool2d(2), snn.Leaky(**lif),
            nn.Conv2d(12, 64, 5), nn.MaxPool2d(2), snn.Leaky(**lif),
            nn.Flatten(), nn.Linear(64 * 4 * 4, 10), snn.Leaky(**lif, output=True),
        )  # fmt: skip
        self.weights = {name: torch.from_numpy(value) for name, value in task.weights.items()}
        self.loss_fn = SF.ce_rate_loss()
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.999))

    def restore(self):
        # The neurons' constants are entries of the state dict too, hence not strict.
        unknown = self.net.load_state_dict(self.weights, strict=False).unexpected_keys
        if unknown:
            raise ValueError(f"snnTorch's network has no {unknown}")

    def forward(self):
        spikes = []
        utils.reset(self.net)
        for _ in range(self.num_steps):
            spike, _ = self.net(self.images)
            spikes.append(spike)
        return torch.stack(spikes)

    def train(self):
        loss = self.loss_fn(self.forward(), self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def infer(self):
        with torch.no_grad():
            return self.forward().numpy()

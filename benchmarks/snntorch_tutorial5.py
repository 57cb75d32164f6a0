"""snnTorch's Tutorial 5 as written, for tutorial5.py: a worker that trains on given weights and batches."""

from __future__ import annotations

import statistics
import time

import harness  # before numpy
import numpy as np
import snntorch as snn
import torch

NUM_STEPS, BETA = 25, 0.95


class Net(torch.nn.Module):
    """784-1000-10."""

    def __init__(self, weights: dict[str, np.ndarray]):
        super().__init__()
        hidden = len(weights["1.bias"])
        self.fc1, self.lif1 = torch.nn.Linear(784, hidden), snn.Leaky(beta=BETA)
        self.fc2, self.lif2 = torch.nn.Linear(hidden, 10), snn.Leaky(beta=BETA)
        with torch.no_grad():
            for name, layer in (("1", self.fc1), ("3", self.fc2)):
                layer.weight.copy_(torch.from_numpy(weights[f"{name}.weight"]))
                layer.bias.copy_(torch.from_numpy(weights[f"{name}.bias"]))

    def forward(self, x):
        """x (B, 784) -> spikes, membrane (T, B, 10)."""
        first, second, spikes, membranes = self.lif1.reset_mem(), self.lif2.reset_mem(), [], []
        for _ in range(NUM_STEPS):
            hidden, first = self.lif1(self.fc1(x), first)
            spike, second = self.lif2(self.fc2(hidden), second)
            spikes.append(spike)
            membranes.append(second)
        return torch.stack(spikes), torch.stack(membranes)


def train(source: str, target: str, iterations: int, lr: float, threads: int) -> dict:
    """Train with the weights, images (N, 784) uint8, labels and ``order`` (N,) of ``source`` -> losses, accuracy, ms a step."""
    torch.set_num_threads(threads)
    with np.load(source, allow_pickle=False) as file:
        data = dict(file)
    net = Net(data)
    optimizer, criterion = torch.optim.Adam(net.parameters(), lr=lr, betas=(0.9, 0.999)), torch.nn.CrossEntropyLoss()
    losses, seconds = [], []
    for first in range(0, iterations * 128, 128):
        chosen = data["order"][first : first + 128]
        x = torch.from_numpy(data["images"][chosen].astype(np.float32) / np.float32(255))
        y = torch.from_numpy(data["labels"][chosen].astype(np.int64))
        begin = time.perf_counter()
        _, membrane = net(x)
        loss = torch.zeros(1)
        for step in range(NUM_STEPS):
            loss += criterion(membrane[step], y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - begin)
        losses.append(loss.item())
    correct = 0
    with torch.no_grad():
        for first in range(0, len(data["test_images"]), 500):
            part = slice(first, first + 500)
            spikes, _ = net(torch.from_numpy(data["test_images"][part].astype(np.float32) / np.float32(255)))
            correct += int((spikes.sum(0).argmax(1).numpy() == data["test_labels"][part]).sum())
    return {"losses": losses, "accuracy": correct / len(data["test_labels"]), "milliseconds": 1e3 * statistics.median(seconds)}


if __name__ == "__main__":
    harness.serve(train)

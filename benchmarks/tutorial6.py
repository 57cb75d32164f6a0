"""snnTorch's Tutorial 6 in spikeflow: the network, its data, its training; and the constants that its peers need."""

from __future__ import annotations

import itertools

import numpy as np

BETA, SLOPE = 0.5, 25
LEARNING_RATE = 1e-2
BATCH_SIZE, NUM_STEPS = 128, 50


def layers() -> list:
    """-> the spikeflow network's layers, new ones."""
    import spikeflow as sf

    lif = dict(beta=BETA, spike_grad=sf.surrogate.fast_sigmoid(slope=SLOPE))
    return [
        sf.Conv2d(1, 12, 5), sf.MaxPool2d(2), sf.Leaky(**lif),
        sf.Conv2d(12, 64, 5), sf.MaxPool2d(2), sf.Leaky(**lif),
        sf.Flatten(), sf.Linear(64 * 4 * 4, 10), sf.Leaky(**lif),
    ]  # fmt: skip


def network(seed: int = 0, **options):
    """-> the spikeflow network."""
    import spikeflow as sf

    return sf.Sequential(*layers(), seed=seed, **options)


def batches(batch_size: int = BATCH_SIZE):
    """-> MNIST's training set, shuffled: a loader of float32 images (B, 1, 28, 28) and labels (B,)."""
    import spikeflow as sf

    images, labels = sf.datasets.mnist("train")
    return sf.datasets.DataLoader(images, labels, batch_size=batch_size, shuffle=True, drop_last=True, seed=0)


def batch(batch_size: int = BATCH_SIZE) -> tuple[np.ndarray, np.ndarray]:
    """-> the first batch."""
    return next(iter(batches(batch_size)))


def train(
    net, iterations: int, batch_size: int = BATCH_SIZE, num_steps: int = NUM_STEPS, loss_fn=None, lr: float = LEARNING_RATE
) -> float:
    """Train as the tutorial does, unless told otherwise -> the last loss, NaN after no iteration."""
    import spikeflow as sf

    loss_fn, optimizer, loss = loss_fn or sf.losses.ce_rate_loss(), sf.optim.Adam(net.parameters(), lr=lr), float("nan")
    endless = itertools.chain.from_iterable(itertools.repeat(batches(batch_size)))
    for images, labels in itertools.islice(endless, iterations):
        net.zero_grad()
        loss, _ = net.loss_and_grad(images, labels, loss_fn, num_steps=num_steps)
        optimizer.step()
    return loss


def firing_rates(net, images: np.ndarray, num_steps: int) -> dict[str, np.ndarray]:
    """-> {name of a layer of neurons: how often each of them fires, in spikes a step, averaged over the images}."""
    part, totals = 16, {}  # a few images at a time: a record holds every spike and membrane as a number
    for lo in range(0, len(images), part):
        for name, layer in net.record(images[lo : lo + part], num_steps=num_steps).items():
            totals[name] = totals.get(name, 0) + layer["spikes"].sum((0, 1), dtype=np.float64)
    return {name: total / (num_steps * len(images)) for name, total in totals.items()}

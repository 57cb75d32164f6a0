"""SpikingJelly's Fashion-MNIST example in spikeflow: the network, its data, its training; and the constants its peer needs."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

import harness  # noqa: F401  before numpy
import numpy as np

LEARNING_RATE, MOMENTUM = 0.1, 0.9
BATCH_SIZE, NUM_STEPS, CHANNELS, CLASSES = 128, 4, 128, 10


def layers(channels: int = CHANNELS, neuron=None) -> list:
    """-> the spikeflow network's layers, new ones; ``neuron`` makes another neuron than IFNode."""
    import spikeflow as sf

    C, make = channels, neuron or (lambda: sf.IFNode(surrogate_function=sf.surrogate.ATan()))
    return [
        sf.Conv2d(1, C, 3, padding=1, bias=False), sf.BatchNorm2d(C), make(), sf.MaxPool2d(2),
        sf.Conv2d(C, C, 3, padding=1, bias=False), sf.BatchNorm2d(C), make(), sf.MaxPool2d(2),
        sf.Flatten(), sf.Linear(C * 7 * 7, C * 4 * 4, bias=False), make(), sf.Linear(C * 4 * 4, CLASSES, bias=False), make(),
    ]  # fmt: skip


def network(channels: int = CHANNELS, neuron=None, seed: int = 0, **options):
    """-> the spikeflow network."""
    import spikeflow as sf

    return sf.Sequential(*layers(channels, neuron), seed=seed, **options)


def optimizer(net):
    """-> the example's optimizer for a spikeflow network."""
    import spikeflow as sf

    return sf.optim.SGD(net.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)


def training_set(data_dir: Path | None = None) -> tuple[str, np.ndarray, np.ndarray]:
    """-> name, images, labels of Fashion-MNIST's training set, or of MNIST's where there is no Fashion-MNIST.

    Fashion-MNIST is looked for in ``data_dir`` or, without one, in the folder that SPIKEFLOW_DATA names and where Debian's
    package puts it. Nothing is downloaded.
    """
    import spikeflow as sf
    from spikeflow.datasets.fashion_mnist import DEBIAN

    if data_dir is not None:
        return "Fashion-MNIST", *sf.datasets.fashion_mnist("train", data_dir)
    for folder in filter(None, (os.environ.get("SPIKEFLOW_DATA"), DEBIAN)):
        with contextlib.suppress(FileNotFoundError):
            return "Fashion-MNIST", *sf.datasets.fashion_mnist("train", folder)
    return "MNIST", *sf.datasets.mnist("train")


def batches(data_dir: Path | None = None, batch_size: int = BATCH_SIZE):
    """-> name of the data set; its training set, shuffled: a loader of float32 images (B, 1, 28, 28) and labels (B,)."""
    import spikeflow as sf

    name, images, labels = training_set(data_dir)
    return name, sf.datasets.DataLoader(images, labels, batch_size=batch_size, shuffle=True, drop_last=True, seed=0)


def train(net, loader, iterations: int, num_steps: int = NUM_STEPS) -> float:
    """Train as the example does -> the last loss, NaN after no iteration."""
    import spikeflow as sf

    loss_fn, sgd, loss = sf.losses.mse_rate_loss(), optimizer(net), float("nan")
    endless = itertools.chain.from_iterable(itertools.repeat(loader))
    for images, labels in itertools.islice(endless, iterations):
        net.zero_grad()
        loss, _ = net.loss_and_grad(images, labels, loss_fn, num_steps=num_steps)
        sgd.step()
    return loss

"""A threshold far too high: no neuron of the hidden layer fires, and only the surrogate's tails can bring it back.

    python examples/surrogates_and_dead_neurons.py [--out FOLDER]

Draws all surrogates and the two used here (surrogates.png), and trains the same network with a wide and with a narrow one.
"""

import argparse
from pathlib import Path

import numpy as np

import spikeflow as sf
from spikeflow import plotting, surrogate

T, BATCH, ITERATIONS, THRESHOLD = 20, 128, 40, 4.0
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path(), help="folder of the picture")
out = parser.parse_args().out
out.mkdir(parents=True, exist_ok=True)

images, labels = sf.datasets.mnist("train")
images = images[:2048].reshape(-1, 784).astype(np.float32) / 255
labels = labels[:2048].astype(np.int64)
loss_fn = sf.losses.ce_rate_loss()


def network(spike_grad):
    return sf.Sequential(
        sf.Linear(784, 100), sf.Leaky(0.5, threshold=THRESHOLD, spike_grad=spike_grad),
        sf.Linear(100, 10), sf.Leaky(0.5, spike_grad=spike_grad),
        seed=0,
    )  # fmt: skip


def train(net):
    """-> the mean loss of the last five batches."""
    # No Adam, which would make large steps of small gradients.
    optimizer = sf.optim.SGD(net.parameters(), lr=1.0, momentum=0.9)
    losses = []
    for iteration in range(ITERATIONS):
        batch = slice(iteration * BATCH % len(images), iteration * BATCH % len(images) + BATCH)
        net.zero_grad()
        losses.append(net.loss_and_grad(images[batch], labels[batch], loss_fn, num_steps=T)[0])
        optimizer.step()
    return np.mean(losses[-5:])


pairs = {"wide": surrogate.fast_sigmoid(slope=1), "narrow": surrogate.fast_sigmoid(slope=25)}
for name, spike_grad in pairs.items():
    net = network(spike_grad)
    health = net.health(images[:BATCH], num_steps=T)
    print(f"{name} surrogate, {spike_grad.name}({spike_grad.params['slope']:g})")
    print(f"before training: dead layers {health.dead}\n{health}")
    loss = train(net)
    health = net.health(images[:BATCH], num_steps=T)
    print(f"after {ITERATIONS} iterations: loss {loss:.3f}, dead layers {health.dead}\n{health}\n")

figure = plotting.surrogates([surrogate.atan(), surrogate.sigmoid(), surrogate.triangular(), *pairs.values()])
figure.savefig(out / "surrogates.png", dpi=110)
print(out / "surrogates.png")

"""A network decides by counting spikes: the output neuron that fires most often names the digit.

    python examples/spike_counter.py [--out FOLDER]

Trains 784-100-10 for 60 iterations and animates the output spikes of one test digit (spike_counter.gif).
"""

import argparse
from pathlib import Path

import numpy as np

import spikeflow as sf
from spikeflow import plotting, surrogate

T, ITERATIONS, DIGIT = 25, 60, 289
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path(), help="folder of the animation")
out = parser.parse_args().out
out.mkdir(parents=True, exist_ok=True)

lif = dict(beta=0.9, spike_grad=surrogate.fast_sigmoid(slope=25))
net = sf.Sequential(sf.Flatten(), sf.Linear(784, 100), sf.Leaky(**lif), sf.Linear(100, 10), sf.Leaky(**lif), seed=0)
loader = sf.datasets.DataLoader(*sf.datasets.mnist("train"), batch_size=128, seed=0)
optimizer = sf.optim.Adam(net.parameters(), lr=2e-3)
loss_fn = sf.losses.ce_rate_loss()
for iteration, (images, labels) in zip(range(1, ITERATIONS + 1), loader):  # noqa: B905 - stops at the shorter
    net.zero_grad()
    loss, _ = net.loss_and_grad(images, labels, loss_fn, num_steps=T)
    optimizer.step()
    if iteration % 20 == 0:
        print(f"iteration {iteration:3d}  loss {loss:.4f}")

images, labels = sf.datasets.mnist("test")
images = images[:, None].astype(np.float32) / 255
counts = net.predict(images, num_steps=T, counts=True)
print(f"test accuracy {100 * sf.metrics.accuracy_rate(counts, labels):.2f} %")

spikes = net.predict(images[DIGIT : DIGIT + 1], num_steps=T)[:, 0]  # (T, 10)
leaders = spikes.cumsum(0).argmax(1)
settled = T - np.argmax(np.append(leaders[::-1] != leaders[-1], True))
print(f"test digit {DIGIT} is a {labels[DIGIT]}; spikes of the classes 0 to 9: {spikes.sum(0).astype(int)}")
print(f"class {leaders[-1]} leads from step {settled} of {T} on")
movie = plotting.spike_count(spikes, interpolate=1)
plotting.save_animation(movie, out / "spike_counter.gif", fps=5, dpi=70)
print(out / "spike_counter.gif")

"""Backpropagation through time made visible: how large the gradients are, at every layer and step, and what truncation loses.

    python examples/backward_pass.py [--out FOLDER]

Draws the gradient's way back through a trained network (gradient_flow.png), and compares truncated with full gradients.
"""

import argparse
from pathlib import Path

import numpy as np

import spikeflow as sf
from spikeflow import plotting, surrogate

T, BATCH, ITERATIONS = 25, 128, 40
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path(), help="folder of the picture")
out = parser.parse_args().out
out.mkdir(parents=True, exist_ok=True)

lif = dict(beta=0.9, spike_grad=surrogate.fast_sigmoid(slope=10))
net = sf.Sequential(
    sf.Linear(784, 64), sf.Leaky(**lif), sf.Linear(64, 32), sf.Leaky(**lif), sf.Linear(32, 10), sf.Leaky(**lif), seed=0
)  # fmt: skip
images, labels = sf.datasets.mnist("train")
images = images.reshape(-1, 784).astype(np.float32) / 255
labels = labels.astype(np.int64)
loss_fn = sf.losses.ce_rate_loss()
optimizer = sf.optim.Adam(net.parameters(), lr=2e-3)
for iteration in range(ITERATIONS):
    batch = slice(iteration * BATCH, iteration * BATCH + BATCH)
    net.zero_grad()
    loss, _ = net.loss_and_grad(images[batch], labels[batch], loss_fn, num_steps=T)
    optimizer.step()
print(f"784-64-32-10, {T} steps, after {ITERATIONS} iterations: loss {loss:.3f}\n")

images, labels = images[-BATCH:], labels[-BATCH:]
record = net.record(images, num_steps=T, backward=True, labels=labels, loss_fn=loss_fn)
print("norm of dL/dmembrane at the first, middle and last step")
for name, layer in record.items():
    norms = np.linalg.norm(layer["dmembrane"].reshape(T, -1), axis=1)
    print(f"  layer {name} " + "".join(f"{norm:12.2e}" for norm in norms[[0, T // 2, T - 1]]))
figure = plotting.gradient_flow(record)
figure.savefig(out / "gradient_flow.png", dpi=110)


def gradients(truncate=None):
    """-> {name: gradient} of the weights, flat."""
    net.zero_grad()
    net.loss_and_grad(images, labels, loss_fn, num_steps=T, truncate=truncate)
    return {parameter.name: parameter.grad.ravel().copy() for parameter in net.parameters() if parameter.name.endswith("weight")}


full = gradients()
print("\ntruncated every K steps: cosine with the full gradient, and length as a share of its length")
print("   K" + "".join(f"{name:>18}" for name in full))
for steps in (1, 2, 5, 10, T):
    row = f"{steps:4d}"
    for name, part in gradients(steps).items():
        length, whole = np.linalg.norm(part), np.linalg.norm(full[name])
        row += f"{part @ full[name] / (length * whole):9.3f} {100 * length / whole:6.1f} %"
    print(row)
print(f"\n{out / 'gradient_flow.png'}")

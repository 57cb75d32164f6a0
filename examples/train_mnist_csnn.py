"""Train snnTorch's Tutorial-6 CSNN on MNIST through the API: what ``spikeflow train csnn-mnist`` does, without its reports.

python examples/train_mnist_csnn.py [iterations]
"""

import sys

import numpy as np

import spikeflow as sf
from spikeflow import surrogate

NUM_STEPS = 50
iterations = int(sys.argv[1]) if len(sys.argv) > 1 else 468  # 468 batches of 128 images: one epoch

lif = dict(beta=0.5, spike_grad=surrogate.fast_sigmoid(slope=25))
net = sf.Sequential(
    sf.Conv2d(1, 12, 5), sf.MaxPool2d(2), sf.Leaky(**lif),
    sf.Conv2d(12, 64, 5), sf.MaxPool2d(2), sf.Leaky(**lif),
    sf.Flatten(), sf.Linear(64 * 4 * 4, 10), sf.Leaky(**lif),
    seed=0,
)  # fmt: skip
loader = sf.datasets.DataLoader(*sf.datasets.mnist("train"), batch_size=128, seed=0)
optimizer = sf.optim.Adam(net.parameters(), lr=1e-2, betas=(0.9, 0.999))
loss_fn = sf.losses.ce_rate_loss()

for iteration, (images, labels) in zip(range(1, iterations + 1), loader):  # noqa: B905 - stops at the shorter
    net.zero_grad()
    loss, spikes = net.loss_and_grad(images, labels, loss_fn, num_steps=NUM_STEPS)
    optimizer.step()
    if iteration % 10 == 0 or iteration == iterations:
        print(f"iteration {iteration:4d}  loss {loss:.4f}  batch accuracy {sf.metrics.accuracy_rate(spikes, labels):.3f}")

images, labels = sf.datasets.mnist("test")
counts = net.predict(images[:, None].astype(np.float32) / 255, num_steps=NUM_STEPS, counts=True)
print(f"test accuracy {100 * sf.metrics.accuracy_rate(counts, labels):.2f} %")

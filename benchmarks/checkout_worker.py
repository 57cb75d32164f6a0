"""The child process of checkouts.py: one checkout of spikeflow, found by PYTHONPATH, makes networks and takes steps."""

from __future__ import annotations

import time

import fashion
import harness  # before numpy
import numpy as np
import tutorial6
import zoo

import spikeflow as sf

held = {}


def tiny():
    """-> Tutorial 6's layers, so small that kernels cost nothing."""
    lif = dict(beta=tutorial6.BETA, spike_grad=sf.surrogate.fast_sigmoid(slope=tutorial6.SLOPE))
    return sf.Sequential(
        sf.Conv2d(1, 1, 2), sf.MaxPool2d(2), sf.Leaky(**lif), sf.Conv2d(1, 1, 2), sf.MaxPool2d(2), sf.Leaky(**lif),
        sf.Flatten(), sf.Linear(4, 2), sf.Leaky(**lif), seed=0,
    )  # fmt: skip


def make(network: str, batch_size: int, warmup: int, threads: int) -> None:
    """Make a network, and train it for some iterations: both checkouts see the same batches."""
    sf.set_num_threads(threads)
    images, labels = tutorial6.batch(batch_size)
    loss_fn, steps = sf.losses.ce_rate_loss(), tutorial6.NUM_STEPS
    if network == "tiny":
        net, steps, images, labels = tiny(), 1, np.ascontiguousarray(images[:, :, 8:19, 8:19]), labels % 2
    elif network == "csnn-fashion":
        net, steps, loss_fn = fashion.network(), fashion.NUM_STEPS, sf.losses.mse_rate_loss()
    elif network == "tutorial6":
        net = tutorial6.network()
    else:
        net, loss_fn, steps = (
            zoo.network(zoo.NETWORKS[network]),
            zoo.loss_fn(zoo.NETWORKS[network]),
            zoo.NETWORKS[network].num_steps,
        )
    if warmup and network not in ("tiny", "csnn-fashion"):
        lr = zoo.NETWORKS[network].lr if network in zoo.NETWORKS else tutorial6.LEARNING_RATE
        tutorial6.train(net, warmup, batch_size, steps, loss_fn, lr)
    held[network] = net, images, labels, loss_fn, steps


def run(network: str, repeats: int) -> dict[str, float]:
    """Take steps without changing the weights -> {"seconds": of one, "loss": ...}."""
    net, images, labels, loss_fn, steps = held[network]
    start = time.perf_counter()
    for _ in range(repeats):
        net.zero_grad()
        loss, _ = net.loss_and_grad(images, labels, loss_fn, num_steps=steps)
    return {"seconds": (time.perf_counter() - start) / repeats, "loss": loss}


def peak_rss() -> float:
    """-> this process', in MB."""
    return harness.peak_rss()


if __name__ == "__main__":
    harness.serve(make, run, peak_rss)

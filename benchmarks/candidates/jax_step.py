"""JAX: the whole training step under one ``jit``, neurons as scans, what lies before the first one computed once."""

from __future__ import annotations

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from tutorial6 import BETA, LEARNING_RATE, SLOPE

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


@jax.custom_vjp
def spike(x):
    """The step, with the fast sigmoid's derivative."""
    return (x > 0).astype(x.dtype)


spike.defvjp(lambda x: (spike(x), x), lambda x, gradient: (gradient / (SLOPE * jnp.abs(x) + 1) ** 2,))


def leaky(currents):
    """currents (T, B, ...) -> spikes (T, B, ...)."""

    def step(membrane, current):
        reset = lax.stop_gradient((membrane > 1).astype(current.dtype))
        membrane = BETA * membrane + current - reset
        return membrane, spike(membrane - 1)

    return lax.scan(step, jnp.zeros_like(currents[0]), currents)[1]


def conv_pool(x, weight, bias):
    """x (N, H, W, C), weight (O, C, 5, 5) -> 5 x 5 convolution, then 2 x 2 max-pool; channels last is faster here."""
    y = lax.conv_general_dilated(x, weight, (1, 1), "VALID", dimension_numbers=("NHWC", "OIHW", "NHWC")) + bias
    return lax.reduce_window(y, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


@functools.partial(jax.jit, static_argnums=2)
def forward(weights, images, num_steps):
    """images (B, 1, 28, 28) -> spikes (T, B, 10)."""
    B = len(images)
    x = conv_pool(images.transpose(0, 2, 3, 1), weights["0.weight"], weights["0.bias"])
    x = leaky(jnp.broadcast_to(x, (num_steps, *x.shape)))
    x = conv_pool(x.reshape(num_steps * B, *x.shape[2:]), weights["3.weight"], weights["3.bias"])
    x = leaky(x.reshape(num_steps, B, *x.shape[1:]))
    rows = x.transpose(0, 1, 4, 2, 3).reshape(num_steps, B, -1)  # features in PyTorch's order
    return leaky(rows @ weights["7.weight"].T + weights["7.bias"])


def rate_loss(weights, images, labels, num_steps):
    """-> cross-entropy of the spikes at each step, averaged."""
    log_p = jax.nn.log_softmax(forward(weights, images, num_steps))
    return -log_p[:, jnp.arange(len(labels)), labels].mean()


@functools.partial(jax.jit, static_argnums=4)
def train_step(weights, state, images, labels, num_steps):
    """One step of Adam -> weights, state, loss."""
    loss, gradients = jax.value_and_grad(rate_loss)(weights, images, labels, num_steps)
    k = state["k"] + 1
    mean = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, state["mean"], gradients)
    square = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, state["square"], gradients)
    scale, size = 1 / jnp.sqrt(1 - BETA2**k), LEARNING_RATE / (1 - BETA1**k)
    weights = jax.tree.map(lambda p, m, v: p - size * m / (jnp.sqrt(v) * scale + EPS), weights, mean, square)
    return weights, {"k": k, "mean": mean, "square": square}, loss


class Candidate:
    """The Tutorial-6 network in JAX."""

    def __init__(self, task):
        os.environ["NPROC"] = str(task.threads)  # the size of XLA's thread pool, read when the first array is made
        jax.config.update("jax_platforms", "cpu")
        self.task = task
        self.images, self.labels = jnp.asarray(task.images), jnp.asarray(task.labels)
        zeros = {name: jnp.zeros_like(value) for name, value in task.weights.items()}
        self.state = {"k": 0, "mean": zeros, "square": zeros}

    def restore(self):
        self.weights = {name: jnp.asarray(value) for name, value in self.task.weights.items()}

    def train(self):
        batch = self.images, self.labels
        self.weights, self.state, loss = train_step(self.weights, self.state, *batch, self.task.num_steps)
        jax.block_until_ready(self.weights)
        return float(loss)

    def infer(self):
        return np.asarray(forward(self.weights, self.images, self.task.num_steps))

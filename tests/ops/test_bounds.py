from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import numpy as np

from spikeflow import backends, surrogate
from spikeflow.ops.events import SpikeWords
from spikeflow.ops.neurons.model import Model

ops, one = backends.load("cpu"), np.float32(1)
images = lambda *shape: np.ones(shape, np.float32)

for N, H, W, C, O, K, stride, padding in (
    (1, 1, 1, 1, 1, 1, 1, 0), (3, 7, 5, 3, 5, 3, 2, 1), (2, 6, 9, 1, 13, 5, 3, 2), (1, 3, 14, 2, 79, 3, 1, 0),
):
    x, weight = images(N, H, W, C), images(O, C, K, K)
    packed = ops.conv2d_pack(weight)
    y = ops.conv2d_forward(x, packed, images(O), stride, padding)
    ops.conv2d_backward(y, x, packed, stride, padding, np.zeros_like(weight), images(O), True)

for N, F, O in ((1, 1, 1), (13, 7, 3), (25, 15, 79)):
    x, weight = images(N, F), images(O, F)
    packed = ops.linear_pack(weight)
    ops.linear_backward(ops.linear_forward(x, packed, None), x, packed, np.zeros_like(weight), None, True)

for shape in ((1, 3, 3, 1), (2, 5, 8, 17)):
    y, winner = ops.max_pool2d_forward(images(*shape), 3, 2)
    ops.max_pool2d_backward(y, winner, shape, 3, 2)

atan = surrogate.atan()
models = [
    Model("leaky", "subtract", atan), Model("synaptic", "zero", atan, reset_delay=False, inhibition=True, graded=True),
    Model("alpha", "zero", atan), Model("rsynaptic", "subtract", atan, feedback=True),
]
for model in models:
    P = len(model.params)
    for steps, M, F in ((1, 1, 1), (5, 511, 1), (1, 1025, 1), (5, 1030, 515)):
        x, params, learns = images(steps, M), images(P, F) / 2, (True,) * P
        state, carry = (np.zeros((len(model.states), M), np.float32) for _ in range(2))
        spikes, kept = ops.neuron_forward(model, x, 5, params, state, keep_states=True)
        ops.neuron_backward(model, spikes, spikes, kept, steps, params, x, learns, 2, carry)
words, _ = ops.neuron_forward(Model("leaky", "subtract", atan), images(1, 1025), 70, images(4, 1) / 2, words=True, keep=False)

from spikeflow.kernels.cpu.half import halved

node = Model("if_node", "hard", atan, reset_delay=False)
params = np.array([[1], [1], [1], [0]], np.float32)
for B, H, W, C, K in ((1, 1, 1, 1, 1), (2, 5, 7, 3, 2), (1, 4, 4, 300, 2)):
    scale = images(C)
    for steps, bits in ((1, None), (3, ops.spike_bits(3, B, H, W, C))):
        x = images(steps, B, H, W, C)
        words = ops.neuron_pool_forward(node, x, scale, scale, 3, params, K, bits)
        dy = images(3, B, H // K, W // K, C)
        ops.neuron_pool_backward(node, dy, x, scale, scale, scale, 3, params, K, bits)
    rows = x.reshape(-1, C)
    ops.batch_norm_sums(rows, scale), ops.batch_norm_backward_sums(rows, rows, scale)
    ops.batch_norm_backward(ops.batch_norm_forward(rows, scale, scale), rows, scale, scale, scale)
    ops.avg_pool2d_backward(ops.avg_pool2d_forward(x[0], K, 1), x[0].shape, K, 1)
    halved(x, 1.0).array()

for B, H, W, C, O, K, T in ((1, 1, 1, 1, 1, 1, 1), (3, 5, 4, 9, 70, 3, 5)):
    spikes, weight = SpikeWords.pack(images(T, B, H, W, C)), images(O, C, K, K)
    out = ops.conv2d_forward_tables(spikes, ops.conv2d_pack(weight), None, 1, K // 2)
    ops.conv2d_dweight_tables(out, spikes, ops.conv2d_pack(weight), 1, K // 2, np.zeros_like(weight))
    rows, weight = ops.spike_rows(spikes), images(O, H * W * C)
    out, dx = ops.linear_forward_tables(rows, weight, None), images(T, B, H, W, C)
    ops.linear_dweight_tables(out, rows, np.zeros_like(weight))
    ops.linear_dx_wide(ops.dx_panels(out), weight, slice(0, C), dx)

print("all inside")
try:  # and a kernel that leaves its array is noticed
    ops.max_pool2d_backward(y, winner, (2, 4, 7, 17), 3, 2)
except IndexError:
    print("noticed")
"""


@pytest.mark.slow
def test_kernels_stay_inside_their_arrays(tmp_path):
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "SPIKEFLOW_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["all inside", "noticed"], done.stderr

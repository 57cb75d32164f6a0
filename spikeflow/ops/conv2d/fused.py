"""The backward pass of spikes -> convolution -> max-pool, taken together with that of the neuron before them.

The input gradient of the convolution is its largest array, and the neuron adds all its time steps up. Under a constant current
the neuron needs nothing else (equation (8) of neurons/leaky), so image after image goes through the kernels of the two layers
while its arrays are in the second-level cache, and the input gradient of no more than one image ever exists.
"""

from __future__ import annotations

import functools

import numpy as np

from ...kernels.cpu.simd import Layout, taken, tile_shape
from ...kernels.jit import UNKNOWN, kernel
from ..events import WORD, Awaited
from ..neurons.cpu import make_backward_static, numbers
from .cpu import PLANS, make_unpack
from .events import dweight_memory, dx_geometry, make_dweight, make_dx_routed, make_masks, mask_shape, window_memory


def conv2d_leaky_backward(awaited: Awaited, current, beta, threshold, reset, surrogate):
    """``awaited`` of a convolution without padding, current (1, M) -> dcurrent (1, M); adds into the convolution's dweight."""
    dy, spikes, packed, stride, dweight = awaited
    dtype, patches = packed.weight.dtype, packed.patches
    V = tile_shape(dtype, len(packed.weight))[1]
    index, most = spikes.index_and_most(0)
    form = packed.weight.shape, dtype, V, *patches.shape[3:]
    code = reset, surrogate.cache_key or UNKNOWN, surrogate.derivative
    kernel, places, geometries, layout = _plan(dy.dy.shape, spikes.shape, form, dy.kernel_size, dy.stride, stride, code)
    memory = taken(window_memory(-(-most // WORD), V, dtype))
    gradients, part, totals = taken(dweight_memory(spikes.num_steps, packed.weight.shape, V, dtype))
    totals.fill(0)
    *arrays, dx, dcurrent, row = taken(layout)
    kernel(
        dy.dy, dy.winner, dy.stride, index, geometries[0], (memory, gradients, part, totals), *arrays,
        packed.flat_patches, places, geometries[1], dx,
        current.reshape(dcurrent.shape), *numbers(dtype, beta, threshold), surrogate.numbers(dtype), dcurrent,
    )  # fmt: skip
    make_unpack()(totals, dweight)
    return row


@functools.lru_cache(maxsize=PLANS)
def _plan(pooled, shape, form, kernel_size, pool_stride, stride, code):
    """What depends on shapes and options alone -> kernel, places of patches, (its two geometries), layout of its arrays."""
    (T, B, H, W, _), (weight_shape, dtype, V, R, width) = shape, form
    _, C, _, columns = weight_shape
    fused = make_leaky_backward(dtype, V, kernel_size, R, width, *code)
    places, dx_of_image = dx_geometry(pooled, kernel_size, pool_stride, stride, H, W, weight_shape)
    image, masks = (T, 1, *pooled[2:]), mask_shape(pooled, kernel_size, T)
    layout = Layout(
        (image, dtype), (image, np.uint8), (masks, np.uint64), ((T * H * W * C + width,), dtype), ((B, H * W * C), dtype),
        finish=lambda *arrays: (*arrays, arrays[-1].reshape(1, -1)),
    )  # fmt: skip
    return fused, places, ((columns, C, stride), dx_of_image), layout


@functools.cache
def make_leaky_backward(dtype, V, K, R, width, reset, surrogate, derivative):
    """-> the kernel that calls those of the weight gradient, the input gradient and the neuron for one image after the other."""
    add_dweight, make_image_masks = make_dweight(dtype, V, True), make_masks(K * K)
    make_image_dx, neuron = make_dx_routed(dtype, R, width), make_backward_static(reset, surrogate, derivative)

    @kernel(dtype, V, K, R, width, reset, surrogate)
    def conv2d_leaky_backward_kernel(
        dy, winners, pool_stride, index, geometry, room, gradient, winner, masks, patches, places, dx_geometry, dx,
        current, beta, threshold, constants, dcurrent,
    ):  # fmt: skip
        """dy, winners (T, B, H'', W'', O), index SpikeIndex, current (B, M) -> dcurrent (B, M); adds into room's dweight."""
        memory, gradients, part, dweight = room
        T, B, height, across, O = dy.shape
        M = current.shape[1]
        for n in range(B):
            one = slice(n, n + 1)
            for t in range(T):
                for i in range(height):
                    for j in range(across):
                        for o in range(O):
                            gradient[t, 0, i, j, o], winner[t, 0, i, j, o] = dy[t, n, i, j, o], winners[t, n, i, j, o]
            places_n, trains, starts, patterns, counts = index
            index_n = places_n[one], trains[one], starts[one], patterns[one], counts[one]
            add_dweight(gradient, winner, K, pool_stride, index_n, geometry, memory, gradients, part, dweight)
            make_image_masks(winner.reshape(-1), O, masks)
            make_image_dx(gradient.reshape(T, height * across, O), masks, patches, places, *dx_geometry, dx)
            neuron(dx[: T * M].reshape(T, M), current[one], beta, threshold, constants, dcurrent[one])

    return conv2d_leaky_backward_kernel

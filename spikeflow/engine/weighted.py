"""Steps of layers with a weight of shape (O, ...), all of them convolutions in the end.

A linear layer is a convolution of images of one pixel; behind a Flatten, one whose kernel covers the image, so that Flatten need
not move a number. Spikes that come as bits are summed from one to the next (``ops.conv2d.events``), or, where they crowd, by
tables of partial sums (``ops.conv2d.tables``), to the same bits.

Each lane of blocks adds up gradients of its own. For a wide weight that would be more memory traffic than arithmetic: as many
sums as lanes, and a pass over one of them for each block. Instead, ``backward`` leaves dy and x behind, and when all blocks have
passed, tasks of OUTPUTS outputs each go through the whole batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..kernels.cpu import parallel
from ..kernels.cpu.simd import scratch
from ..layers import Conv2d, Linear
from ..layers.base import merged, split_like
from ..layers.spatial import bias_of
from ..ops.events import Routed, SpikeWords
from .forms import BITS, NUMBERS, concatenated, copied
from .steps import Step

__all__ = ["NARROW", "OUTPUTS", "Packed", "Weighted", "is_wide", "unrouted"]

WIDE = 2**20  # bytes of a weight; from here on its gradient is computed once a batch, not block by block
OUTPUTS = 64  # of a wide weight, in one task: as many as the widest register tile has
NARROW = 16  # outputs of a linear layer that spikes had better reach as numbers: to look up who fires costs more than zeros do
FEW, CROWDED = 8, 0.1  # steps at most, and spikes per neuron and step at least, for which tables of partial sums pay


def is_wide(layer: Conv2d | Linear, ops) -> bool:
    """Is the weight so large that its gradient is put off?"""
    return hasattr(ops, "linear_dweight") and layer.params["weight"].value.nbytes > WIDE


class Packed(NamedTuple):
    """A weighted layer's part in one call."""

    weight: object  # as the backend's ``conv2d_pack`` gives it
    bias: np.ndarray | None
    y: np.ndarray | None = None  # (1, B, O) of the whole batch, where that was worked out at once


class Weighted(Step):
    """A convolution or a linear layer, perhaps with neighbours, that reads numbers or bits."""

    def __init__(self, layers, shapes, kind, ops, takes: str):
        super().__init__(layers, shapes, kind)
        self.takes = takes
        self.layer = next(layer for layer in layers if isinstance(layer, (Conv2d, Linear)))
        at = layers.index(self.layer)
        weight = self.layer.params["weight"].value.shape
        if isinstance(self.layer, Conv2d):
            self.weight_shape, self.stride, self.padding = weight, self.layer.stride, self.layer.padding
        else:
            image = shapes[0] if len(shapes[0]) == 3 else (*shapes[0], 1, 1)
            self.weight_shape, self.stride, self.padding = (weight[0], *image), 1, 0
        self.wide = is_wide(self.layer, ops)
        self.at_once = at == len(layers) - 1 and kind.static and self.wide and isinstance(self.layer, Linear)
        C, H, W = shapes[0] if len(shapes[0]) == 3 else self.weight_shape[1:]
        self.image = H, W, C
        self.keeps = "spikes" if takes == BITS else "input"

    def pack(self, ops, batch):
        weight = self.layer.params["weight"].array.reshape(self.weight_shape)
        packed = Packed(ops.conv2d_pack(weight), bias_of(self.layer))
        if batch is None or not self.at_once:
            return packed
        return packed._replace(y=self._whole(ops, packed.bias, self.as_images(batch)))

    def _whole(self, ops, bias, images) -> np.ndarray:
        """images (1, B, H, W, C) of a whole batch -> y (1, B, O), to the same bits: a wide weight goes through the cache once."""
        O, weight = self.weight_shape[0], self.layer.params["weight"].value.reshape(self.weight_shape)
        y = np.empty((*images.shape[:2], O), images.dtype)

        def task(i):
            some = slice(i * OUTPUTS, (i + 1) * OUTPUTS)
            with scratch():
                packed = Packed(ops.conv2d_pack(weight[some]), None if bias is None else bias[some])
                y[..., some] = self.convolve(ops, packed, images)[:, :, 0, 0]

        parallel.run(task, -(-O // OUTPUTS))
        return y

    def as_images(self, x):
        """x (T, b, ...), numbers or SpikeWords -> the same as images (T, b, H, W, C)."""
        if isinstance(x, SpikeWords):
            return x if x.words.ndim == 5 else SpikeWords(x.words.reshape(*x.words.shape[:2], *self.image), x.num_steps)
        return x.reshape(*x.shape[:2], *self.image)

    def forward(self, ops, packed, x, run):
        """x (T, b, ...), numbers or SpikeWords -> y (T, b, H', W', O) or (T, b, O)."""
        images = self.as_images(x)
        if packed.y is not None:
            y = np.ascontiguousarray(packed.y[:, run.first : run.first + x.shape[1]])
        else:
            y = self.convolve(ops, packed, images)
        y = y.reshape(*x.shape[:2], self.weight_shape[0]) if isinstance(self.layer, Linear) else y
        return y, self.per_layer(images)

    def per_layer(self, images):
        """-> what is kept, an entry for each layer where there are several: a Flatten keeps nothing."""
        return images if len(self.layers) == 1 else (None, images)

    def backward(self, ops, packed, dy, kept, grads, input_grad):
        images = kept if len(self.layers) == 1 else kept[1]
        if isinstance(self.layer, Linear):
            dy = dy.reshape(*dy.shape[:2], 1, 1, self.weight_shape[0])
        dx = self.convolve_backward(ops, packed, dy, images, grads[self.layer.name], input_grad)
        if not input_grad:
            return None
        return dx.reshape(*dx.shape[:2], *self.shapes[0]) if len(self.shapes[0]) == 1 else dx

    # ---------------------------------------------------------------------------------------------- as a convolution

    def convolve(self, ops, packed: Packed, images):
        """images (T, b, H, W, C), numbers or SpikeWords -> y (T, b, H', W', O)."""
        geometry = self.stride, self.padding
        if self.takes == NUMBERS:
            return split_like(ops.conv2d_forward(merged(images), packed.weight, packed.bias, *geometry), images)
        if self._crowded(ops, images):
            return ops.conv2d_forward_tables(images, packed.weight, packed.bias, *geometry)
        return ops.conv2d_forward_events(images, packed.weight, packed.bias, *geometry)

    def convolve_backward(self, ops, packed: Packed, dy, images, grads, input_grad: bool):
        """dy (T, b, H', W', O) or Routed -> dx (T, b, H, W, C) or None; adds into ``grads``, or puts the weight's off."""
        dweight, dbias = grads["weight"], grads.get("bias")
        if isinstance(dweight, list):
            whole = unrouted(ops, dy) if isinstance(dy, Routed) else dy
            dweight.append((whole.copy(), copied(images)))
            return self.convolve_backward_into(ops, packed, dy, images, None, dbias, input_grad)
        return self.convolve_backward_into(ops, packed, dy, images, dweight.reshape(self.weight_shape), dbias, input_grad)

    def convolve_backward_into(self, ops, packed, dy, images, dweight, dbias, input_grad):
        """The same into two arrays, either of which may be None."""
        routed, geometry = isinstance(dy, Routed), (self.stride, self.padding)
        if self.takes == BITS or (routed and ops.device):
            if dweight is not None and not routed and self._crowded(ops, images):
                ops.conv2d_dweight_tables(dy, images, packed.weight, *geometry, dweight)
                dweight = None
            return ops.conv2d_backward_events(dy, images, packed.weight, *geometry, dweight, dbias, input_grad)
        whole = merged(unrouted(ops, dy) if routed else dy)
        dense = input_grad and not routed
        dx = ops.conv2d_backward(whole, merged(images), packed.weight, *geometry, dweight, dbias, dense)
        if not input_grad:
            return None
        return ops.conv2d_dx_routed(dy, images.shape, packed.weight, *geometry) if routed else split_like(dx, images)

    def _crowded(self, ops, spikes) -> bool:
        """Are there so many spikes in so few steps that walking from one to the next is slower than looking up four at a time?"""
        few = not ops.device and spikes.num_steps <= FEW and self.weight_shape[0] >= OUTPUTS
        return few and spikes.density >= CROWDED

    # ---------------------------------------------------------------------------------------------- a wide weight's gradient

    def gradients(self):
        grads = super().gradients()
        if self.wide:
            grads[self.layer.name]["weight"] = []
        return grads

    def settle(self, ops, packed, key, parts):
        weight = self.layer.params["weight"].value
        _, C, H, W = self.weight_shape
        if self.takes == NUMBERS and isinstance(self.layer, Linear) and (C == 1 or H * W == 1):
            return self._settle_rows(ops, parts)  # features are in the order of the weight's
        dy, x = np.concatenate([dy for dy, _ in parts], axis=1), concatenated([x for _, x in parts])
        packs, gradient = weight.reshape(self.weight_shape), np.zeros(self.weight_shape, weight.dtype)
        if isinstance(x, SpikeWords):
            x.index(self.padding)  # once, before the tasks share it

        def task(i):
            some = slice(i * OUTPUTS, (i + 1) * OUTPUTS)
            with scratch():
                part = packed._replace(weight=ops.conv2d_pack(packs[some]))
                self.convolve_backward_into(ops, part, np.ascontiguousarray(dy[..., some]), x, gradient[some], None, False)

        parallel.run(task, -(-len(weight) // OUTPUTS))
        return gradient.reshape(weight.shape)

    def _settle_rows(self, ops, parts):
        dy, x = (np.concatenate([array.reshape(-1, array.shape[-1]) for array in arrays]) for arrays in (
            [dy for dy, _ in parts], [x.reshape(*x.shape[:2], -1) for _, x in parts],
        ))  # fmt: skip
        x = np.pad(x, ((0, 0), (0, -x.shape[1] % OUTPUTS)))
        gradient = np.zeros_like(self.layer.params["weight"].value)

        def task(i):
            some = slice(i * OUTPUTS, (i + 1) * OUTPUTS)
            with scratch():
                ops.linear_dweight(dy[:, some], x, gradient[some])

        parallel.run(task, -(-len(gradient) // OUTPUTS))
        return gradient


def unrouted(ops, dy: Routed) -> np.ndarray:
    """-> the gradient (T, B, H', W', O) that it stands for."""
    T, B, *image = dy.unpooled
    dx = ops.max_pool2d_backward(merged(dy.dy), merged(dy.winner), (T * B, *image), dy.kernel_size, dy.stride)
    return dx.reshape(dy.unpooled)

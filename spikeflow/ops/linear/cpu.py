"""Linear layer on the CPU: a convolution of 1 x 1 images with a 1 x 1 kernel, so the kernels are those of conv2d/cpu.py."""

from __future__ import annotations

import numpy as np

from ...kernels.cpu.simd import tile_shape, zeros
from ..conv2d.cpu import conv2d_backward, conv2d_forward, conv2d_pack, make_dweight

__all__ = ["linear_backward", "linear_dweight", "linear_forward", "linear_pack"]


def linear_pack(weight):
    """weight (O, F) -> conv2d.cpu.Packed."""
    return conv2d_pack(weight[:, :, None, None])


def linear_forward(x, packed, bias):
    """x (N, F), bias (O) or None -> y (N, O)."""
    return conv2d_forward(x[:, None, None, :], packed, bias, 1, 0)[:, 0, 0]


def linear_backward(dy, x, packed, dweight, dbias, input_grad):
    """dy (N, O), x (N, F) -> dx (N, F) or None; adds into dweight and dbias, where given."""
    images = dy[:, None, None, :], x[:, None, None, :]
    dweight = None if dweight is None else dweight[:, :, None, None]
    dx = conv2d_backward(*images, packed, 1, 0, dweight, dbias, input_grad)
    return dx[:, 0, 0] if input_grad else None


def linear_dweight(dy, x, dweight):
    """(3): dy (N, O), x (N, F') with zeros behind the F features up to whole tiles -> adds into dweight (O, F).

    The convolution's kernel with its operands exchanged: vectors lie along the features, as they do in the weight, so that its
    sums need no transposition. For a wide weight that costs more than the sums.
    """
    (O, F), (N, wide) = dweight.shape, x.shape
    rows, columns = tile_shape(x.dtype, wide)
    rows = rows if O >= rows else 4 if O >= 4 else 1
    sums = zeros((1, O, wide), x.dtype)
    offsets = np.arange(N, dtype=np.uintp) * np.uintp(O)
    make_dweight(x.dtype, rows, columns)(x.reshape(-1), np.ascontiguousarray(dy).reshape(-1), offsets, O, sums)
    dweight += sums[0, :, :F]

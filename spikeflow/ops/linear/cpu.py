"""Linear layer on the CPU: a convolution of 1 x 1 images with a 1 x 1 kernel, so the kernels are those of conv2d/cpu.py."""

from __future__ import annotations

from ..conv2d.cpu import conv2d_backward, conv2d_forward, conv2d_pack


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

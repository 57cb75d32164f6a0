"""Linear layer on a GPU: the products of conv2d/cuda.py, of images of one pixel.

Its weight (O, F) has the terms of a column of (1) beside each other, and those of (4) below each other: the product's two ways to
read its factor. Nothing is packed, and the weight gradient needs no transposition either: in (3) dy takes the place of the
windows, and x that of dy.
"""

from __future__ import annotations

from ...kernels.cuda import sums
from ..conv2d.cuda import Windows, dweight_parts, product

__all__ = ["linear_backward", "linear_forward", "linear_pack"]


def linear_pack(weight):
    """weight (O, F) -> the same array."""
    return weight


def linear_forward(x, packed, bias):
    """x (N, F), bias (O) or None -> y (N, O)."""
    (N, F), O = x.shape, packed.shape[0]
    return product(_images(x), pixels(F), 1, N, packed, O, True, bias)[0].reshape(N, O)


def linear_backward(dy, x, packed, dweight, dbias, input_grad):
    """dy (N, O), x (N, F) -> dx (N, F) or None; adds into dweight and dbias, where given."""
    (N, F), O = x.shape, packed.shape[0]
    if dbias is not None:
        sums.column_sums(dy, dbias)  # (2)
    if dweight is not None:
        sums.add_partials(dweight_parts(_images(x), _images(dy), pixels(O)), dweight)
    return product(_images(dy), pixels(O), 1, N, packed, F, False)[0].reshape(N, F) if input_grad else None


def pixels(C: int) -> Windows:
    """-> windows that are images of one pixel, of C channels."""
    return Windows((1, 1, C), (1, 1), 1, (0, 0), 1, (1, 1), "numbers", 1)


def _images(x):
    """x (N, F) -> (1, N, 1, 1, F)."""
    return x.reshape(1, x.shape[0], 1, 1, x.shape[1])

"""Convolution in NumPy: one matrix product for each of the K x K taps."""

from __future__ import annotations

import numpy as np


def conv2d_pack(weight):
    """weight (O, C, K, K) -> a copy: the reference computes with PyTorch's layout."""
    return weight.copy()


def conv2d_forward(x, packed, bias, stride, padding):
    """x (N, H, W, C), packed (O, C, K, K), bias (O) or None -> y (N, H', W', O)."""
    x, weight = _pad(x, padding), packed
    O, C, K, _ = weight.shape
    height, width = (x.shape[1] - K) // stride + 1, (x.shape[2] - K) // stride + 1
    y = np.zeros((len(x), height, width, O), x.dtype)
    for k in range(K):
        for l in range(K):
            y += x[_tap(k, l, height, width, stride)] @ weight[:, :, k, l].T  # (1)
    return y if bias is None else y + bias


def conv2d_backward(dy, x, packed, stride, padding, dweight, dbias, input_grad):
    """dy (N, H', W', O), x (N, H, W, C) -> dx (N, H, W, C) or None; adds into dweight and dbias, where given."""
    N, H, W, C = x.shape
    x, weight = _pad(x, padding), packed
    O, C, K, _ = weight.shape
    long_dy = dy.reshape(-1, O).astype(np.float64)  # sums over this axis are long, and may cancel
    if dbias is not None:
        dbias += long_dy.sum(0).astype(dy.dtype)  # (2)
    dx = np.zeros_like(x) if input_grad else None
    for k in range(K):
        for l in range(K):
            tap = _tap(k, l, dy.shape[1], dy.shape[2], stride)
            if dweight is not None:
                dweight[:, :, k, l] += long_dy.T @ x[tap].reshape(-1, C)  # (3)
            if input_grad:
                dx[tap] += dy @ weight[:, :, k, l]  # (4)
    return dx[:, padding : padding + H, padding : padding + W] if input_grad else None


def _pad(x, padding):
    return np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))


def _tap(k, l, height, width, stride):
    """The index of x[i s + k, j s + l] for all i < height, j < width."""
    return (
        slice(None),
        slice(k, k + (height - 1) * stride + 1, stride),
        slice(l, l + (width - 1) * stride + 1, stride),
    )

"""Max-pooling and average pooling in NumPy."""

from __future__ import annotations

import numpy as np


def max_pool2d_forward(x, K, stride, winner=None):
    """x (N, H, W, C) -> y (N, H', W', C), winner (N, H', W', C) uint8.

    A given ``winner`` is obeyed instead of found: the pooling is then linear in x, as finite differences need it.
    """
    windows = _windows(x, K, stride)
    if winner is None:
        last_nan = K * K - 1 - np.isnan(windows)[..., ::-1].argmax(-1)
        winner = np.where(np.isnan(windows).any(-1), last_nan, windows.argmax(-1)).astype(np.uint8)
    y = np.take_along_axis(windows, winner[..., None].astype(np.intp), -1)[..., 0]  # (1)
    return y, winner


def max_pool2d_backward(dy, winner, shape, K, stride):
    """dy, winner (N, H', W', C) -> dx of ``shape`` (N, H, W, C)."""
    dx = np.zeros(shape, dy.dtype)
    n, i, j, c = np.indices(dy.shape)
    np.add.at(dx, (n, i * stride + winner // K, j * stride + winner % K, c), dy)  # (2)
    return dx


def avg_pool2d_forward(x, K, stride):
    """x (N, H, W, C) -> y (N, H', W', C)."""
    return (_windows(x, K, stride).sum(-1) / (K * K)).astype(x.dtype)  # (3)


def avg_pool2d_backward(dy, shape, K, stride):
    """dy (N, H', W', C) -> dx of ``shape`` (N, H, W, C)."""
    dx, share = np.zeros(shape, dy.dtype), dy / (K * K)
    height, width = dy.shape[1:3]
    for k in range(K):
        for l in range(K):
            dx[:, k : k + (height - 1) * stride + 1 : stride, l : l + (width - 1) * stride + 1 : stride] += share  # (4)
    return dx


def _windows(x, K, stride):
    """x (N, H, W, C) -> (N, H', W', C, K K), a copy."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (K, K), axis=(1, 2))[:, ::stride, ::stride]
    return windows.reshape(*windows.shape[:4], K * K)

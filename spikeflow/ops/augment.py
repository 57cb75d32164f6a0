"""Moved images: flip, rotation and shift in one resampling, then a square cut out.

With c = (H - 1) / 2 and d = (W - 1) / 2 the centre, and the angle a counter-clockwise (rows go down), a pixel (y, x) of the
result shows the place (Y, X) of the source:

    u = y - shift_y - c,     v = x - shift_x - d                          (1)
    Y = cos a u + sin a v + c,     X = cos a v - sin a u + d              (2)
    X = W - 1 - X, if flipped                                             (3)

by bilinear interpolation, with zeros around the source. So an image is flipped first, rotated next and shifted last, and what a
rotation moves out of the frame a shift can bring back. Without a rotation, pixels are copied.
"""

from __future__ import annotations

import functools

import numpy as np

from ..kernels.jit import kernel

__all__ = ["moved_images"]

ONE = np.float32(1)


def moved_images(images, shifts, flips, angles, corners, side) -> np.ndarray:
    """-> float32 (B, C, H, W), of images of the same shape and type.

    shifts, corners (B, 2) int64, y before x; flips (B) bool; angles (B), in degrees. A square of ``side`` pixels is cut out below
    and to the right of each corner, which may lie outside of the image.
    """
    out = np.empty_like(images, order="C")
    make_augment()(np.ascontiguousarray(images), shifts, flips, np.deg2rad(angles), corners, side, out)
    return out


@functools.cache
def make_augment():
    @kernel()
    def augment_kernel(images, shifts, flips, angles, corners, side, out):
        """images, out (B, C, H, W); angles in radians."""
        B, C, H, W = images.shape
        c, d = 0.5 * (H - 1), 0.5 * (W - 1)
        # One row and column of zeros before the image and two behind it: any place outside is as good as the nearest there.
        framed = np.zeros((H + 3, W + 3), images.dtype)
        for b in range(B):
            cosine, sine, flip = np.cos(angles[b]), np.sin(angles[b]), flips[b]
            for k in range(C):
                framed[1 : H + 1, 1 : W + 1] = images[b, k]
                for y in range(H):
                    u = y - shifts[b, 0] - c  # (1)
                    for x in range(W):
                        v = x - shifts[b, 1] - d  # (1)
                        Y, X = cosine * u + sine * v + c, cosine * v - sine * u + d  # (2)
                        X = W - 1 - X if flip else X  # (3)
                        Y, X = min(max(Y + 1, 0.0), H + 1.0), min(max(X + 1, 0.0), W + 1.0)
                        i, j = np.int64(Y), np.int64(X)
                        p, q = np.float32(Y - i), np.float32(X - j)
                        above = (ONE - q) * framed[i, j] + q * framed[i, j + 1]
                        below = (ONE - q) * framed[i + 1, j] + q * framed[i + 1, j + 1]
                        out[b, k, y, x] = (ONE - p) * above + p * below
                top, left = corners[b, 0], corners[b, 1]
                out[b, k, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0

    return augment_kernel

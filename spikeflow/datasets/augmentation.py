"""Random changes of training images that leave their labels true.

    loader = DataLoader(images, labels, augment=Augment(shift=2, flip=True, rotate=10, cutout=8), seed=0)

What happens to an image depends on the seed, the epoch, the number of its batch and its place there, and on nothing else: a run
that is resumed in the middle of an epoch sees what it would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from spikeflow.random import uniform

__all__ = ["Augment", "Moves", "move"]

COLUMNS = 6  # numbers drawn for each image, whatever is to be done: leaving one change out leaves the others as they are


class Moves(NamedTuple):
    """What is done to each of B images.

    Attributes
    ----------
    shifts : (B, 2) int64
        Pixels down and to the right; zeros follow behind.
    flips : (B,) bool
        Mirror left and right first?
    angles : (B,) float64
        Degrees counter-clockwise, about the centre.
    corners : (B, 2) int64
        Row and column of the upper left pixel of the square that is cut out; it may lie outside of the image.
    side : int
        Pixels of the square's side.
    """

    shifts: np.ndarray
    flips: np.ndarray
    angles: np.ndarray
    corners: np.ndarray
    side: int


@dataclass(frozen=True)
class Augment:
    """Random shift, flip, rotation and cutout; each is off by default.

    Parameters
    ----------
    shift : int
        Each image moves by a whole number of pixels from -shift to shift, in both directions; zeros follow.
    flip : bool
        Mirror every second image, at random, left and right.
    rotate : float
        Degrees, from 0 to 180: each image turns about its centre by an angle uniform in [-rotate, rotate], bilinear, with zeros
        from outside.
    cutout : int
        Side in pixels of a square of zeros (DeVries and Taylor 2017). Its centre is a pixel of the image, so that parts of the
        square can lie outside.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as above.
    """

    shift: int = 0
    flip: bool = False
    rotate: float = 0.0
    cutout: int = 0

    def __post_init__(self):
        for name in ("shift", "cutout"):
            object.__setattr__(self, name, _checked_pixels(name, getattr(self, name)))
        if not isinstance(self.flip, (bool, np.bool_)):
            raise TypeError(f"flip must be true or false, got {self.flip!r}")
        object.__setattr__(self, "flip", bool(self.flip))
        object.__setattr__(self, "rotate", _checked_degrees(self.rotate))

    def __call__(self, images: np.ndarray, seed: int, epoch: int = 0, batch: int = 0) -> np.ndarray:
        """Change a batch of images.

        Parameters
        ----------
        images : (B, C, H, W) float32
            Stay as they are.
        seed, epoch, batch : int
            What the draws are a function of.

        Returns
        -------
        (B, C, H, W) float32

        Raises
        ------
        TypeError
            The images are not float32.
        ValueError
            They are not (B, C, H, W), or no larger than ``shift`` or than half of ``cutout``.
        """
        _check_images(images)
        height, width = images.shape[2:]
        for name, least in (("shift", self.shift), ("cutout", self.cutout // 2)):
            if min(height, width) <= least:
                raise ValueError(f"{name} {getattr(self, name)} is too large for images of {height} x {width} pixels")
        return move(images, self.draw(len(images), height, width, seed, epoch, batch))

    def draw(self, count: int, height: int, width: int, seed: int, epoch: int = 0, batch: int = 0) -> Moves:
        """-> what is done to ``count`` images of ``height`` by ``width`` pixels."""
        draws = uniform((count, COLUMNS), 0, 1, seed, "augment", epoch=epoch, step=batch)
        return Moves(
            shifts=_integers(draws[:, 0:2], 2 * self.shift + 1) - self.shift,
            flips=(draws[:, 2] < 0.5) & self.flip,
            angles=self.rotate * (2 * draws[:, 3] - 1),
            corners=_integers(draws[:, 4:6], (height, width)) - self.cutout // 2,
            side=self.cutout,
        )


def move(images: np.ndarray, moves: Moves) -> np.ndarray:
    """Flip, rotate, shift and cut, in this order; the first three in one interpolation.

    Parameters
    ----------
    images : (B, C, H, W) float32
        Stay as they are.
    moves : Moves
        Of B images.

    Returns
    -------
    (B, C, H, W) float32
    """
    from spikeflow.ops.augment import moved_images  # Numba is not needed to look at a data set

    _check_images(images)
    B = len(images)
    shapes = {"shifts": (B, 2), "flips": (B,), "angles": (B,), "corners": (B, 2)}
    for name, shape in shapes.items():
        if np.shape(getattr(moves, name)) != shape:
            raise ValueError(f"moves.{name} must have shape {shape}, got {np.shape(getattr(moves, name))}")
    shifts, corners = (np.asarray(pixels, np.int64) for pixels in (moves.shifts, moves.corners))
    flips, angles = np.asarray(moves.flips, bool), np.asarray(moves.angles, np.float64)
    if not np.isfinite(angles).all():
        raise ValueError(f"moves.angles must be finite, got {angles[~np.isfinite(angles)][0]}")
    return moved_images(images, shifts, flips, angles, corners, int(moves.side))


def _integers(fractions: np.ndarray, below) -> np.ndarray:
    """Numbers in [0, 1) -> int64 in [0, below)."""
    return np.floor(fractions * below).astype(np.int64)


def _check_images(images) -> None:
    if not isinstance(images, np.ndarray) or images.dtype != np.float32:
        raise TypeError(f"images must be a float32 array, got {getattr(images, 'dtype', type(images).__name__)}")
    if images.ndim != 4:
        raise ValueError(f"images must be (B, C, H, W), got shape {images.shape}")


def _checked_pixels(name: str, value) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be a whole number of pixels, got {value!r}")
    if value < 0:
        raise ValueError(f"{name} must be at least 0, got {value}")
    return int(value)


def _checked_degrees(value) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"rotate must be a number of degrees, got {value!r}")
    if not 0 <= value <= 180:
        raise ValueError(f"rotate must be from 0 to 180 degrees, got {value}")
    return float(value)

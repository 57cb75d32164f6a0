"""Batches of a data set held in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from spikeflow.random import permutation

__all__ = ["DataLoader", "data_subset"]


class DataLoader:
    """Iterate over a data set in float32 batches, in an order that depends on ``(seed, epoch)`` alone.

    Each ``iter()`` takes the order of the attribute `epoch` and adds one to `epoch` at once, so that a loop over the
    loader is one epoch, and a run resumed with `set_epoch` and `batches` sees the batches that it would have seen uninterrupted.

    Parameters
    ----------
    images : (N, H, W) or (N, C, H, W) uint8, float32 or float64
        uint8 stays uint8 in memory and is scaled to [0, 1] batch by batch; float values are taken as they are.
    labels : (N,) of any integer type
    batch_size : int
        Samples a batch.
    shuffle : bool
        If False, every epoch has the order of the data set.
    drop_last : bool
        Leave out a last batch of fewer than `batch_size` samples.
    seed : int
        Of the shuffles and the augmentation, in [0, 2**64).
    augment : callable, optional
        ``augment(images, seed, epoch, batch) -> images`` changes each batch of a training set, such as an ``Augment``; `batch`
        counts from 0 in each epoch. So long as it is a function of its arguments, a resumed run sees the same images.

    Yields
    ------
    images : (B, C, H, W) float32, C-contiguous, C = 1 for images without a channel axis
    labels : (B,) int64

    Attributes
    ----------
    epoch : int
        The epoch that the next ``iter()`` will give, 0 at first.
    num_samples : int
        N, whether or not `drop_last` leaves some out.

    Raises
    ------
    TypeError
        If the type of an argument or of the elements of an array is not as above.
    ValueError
        If a number is out of range, a shape is not as above, the lengths differ, there are no samples, or `drop_last`
        would leave no batch.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        batch_size: int = 128,
        shuffle: bool = True,
        drop_last: bool = True,
        seed: int = 0,
        augment: Callable[[np.ndarray, int, int, int], np.ndarray] | None = None,
    ) -> None:
        self._images = _checked_images(images)
        self._labels = _checked_labels(labels)
        _check_lengths(self._images, self._labels)
        self.num_samples = len(self._images)
        if self.num_samples == 0:
            raise ValueError("images must have at least one sample, got none")
        self.batch_size = _checked_integer("batch_size", batch_size, 1)
        if drop_last and self.batch_size > self.num_samples:
            raise ValueError(
                f"batch_size must be at most the number of samples, {self.num_samples}, when drop_last is true, "
                f"got {self.batch_size}"
            )
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = _checked_integer("seed", seed, 0, 2**64 - 1)
        if augment is not None and not callable(augment):
            raise TypeError(f"augment must be a function of images, seed, epoch and batch, or None, got {augment!r}")
        self.augment = augment
        self.epoch = 0

    def __len__(self) -> int:
        """-> number of batches in an epoch."""
        full, rest = divmod(self.num_samples, self.batch_size)
        return full if self.drop_last or rest == 0 else full + 1

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return self.batches()

    def batches(self, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """As ``iter()``, but from the batch `start` of the epoch on, counted from 0.

        Parameters
        ----------
        start : int
            From 0 (the whole epoch) to ``len(loader)`` (nothing of it).
        """
        start, epoch = _checked_integer("start", start, 0, len(self)), self.epoch
        self.epoch += 1
        return self._batches(epoch, start)

    def set_epoch(self, epoch: int) -> None:
        """Make `epoch` (an integer, 0 or more) the epoch that the next ``iter()`` gives."""
        self.epoch = _checked_integer("epoch", epoch, 0, 2**64 - 1)

    def order(self, epoch: int) -> np.ndarray:
        """-> (N,) int64: the indices of the samples in the order of `epoch`, those that `drop_last` leaves out last."""
        epoch = _checked_integer("epoch", epoch, 0, 2**64 - 1)
        if not self.shuffle:
            return np.arange(self.num_samples, dtype=np.int64)
        return permutation(self.num_samples, self.seed, stream="shuffle", epoch=epoch)

    def _batches(self, epoch: int, start: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        order = self.order(epoch)
        for batch in range(start, len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            images = _as_float32(self._images[chosen])
            if self.augment is not None:
                images = self.augment(images, self.seed, epoch, batch)
            yield images, self._labels[chosen]


def data_subset(images: np.ndarray, labels: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Keep the first ``N // factor`` samples, in their order.

    Parameters
    ----------
    images : (N, ...) array
    labels : (N,) array
    factor : int
        From 1 (all samples) to N (one sample).

    Returns
    -------
    images, labels : views of the first ``N // factor`` samples

    Raises
    ------
    TypeError
        If `factor` is not an integer.
    ValueError
        If `factor` is out of range or the lengths differ.
    """
    _check_lengths(images, labels)
    count = len(images) // _checked_integer("factor", factor, 1, len(images))
    return images[:count], labels[:count]


def _as_float32(images: np.ndarray) -> np.ndarray:
    converted = images.astype(np.float32, copy=False)
    return converted / np.float32(255) if images.dtype == np.uint8 else converted


def _checked_images(images: np.ndarray) -> np.ndarray:
    """-> images as a C-contiguous (N, C, H, W) array of their own type."""
    images = np.asarray(images)
    if images.dtype not in (np.uint8, np.float32, np.float64):
        raise TypeError(f"images must be uint8, float32 or float64, got {images.dtype}")
    if images.ndim not in (3, 4):
        raise ValueError(f"images must be (N, H, W) or (N, C, H, W), got shape {images.shape}")
    # Batches are C-contiguous only if what they are taken from is.
    images = np.ascontiguousarray(images)
    return images[:, np.newaxis] if images.ndim == 3 else images


def _checked_labels(labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"labels must be of an integer type, got {labels.dtype}")
    if labels.ndim != 1:
        raise ValueError(f"labels must be (N,), got shape {labels.shape}")
    return labels.astype(np.int64, copy=False)


def _check_lengths(images: np.ndarray, labels: np.ndarray) -> None:
    if len(images) != len(labels):
        raise ValueError(f"labels must be as many as images, {len(images)}, got {len(labels)}")


def _checked_integer(name: str, value: int, low: int, high: int | None = None) -> int:
    # A bool is an int to Python, but here it is an argument in the wrong place.
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < low or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be {bounds}, got {value}")
    return int(value)

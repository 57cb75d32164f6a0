"""Data sets and how they reach a network.

- ``mnist``: the MNIST digits, complete and embedded in the package
- ``fashion_mnist``: articles of clothing in the same form, from the user's folders, Debian's package or a download
- ``load``, ``CLASSES``: a data set by its name, and what its labels mean
- ``DataLoader``: shuffled float32 batches whose order is a function of ``(seed, epoch)``
- ``Augment``: random shift, flip, rotation and cutout of training images, a function of ``(seed, epoch, batch)``
- ``data_subset``: the first part of a data set
- ``read_idx``: reader of IDX files, plain, gzip or xz
- ``DatasetError``: what a malformed data file raises
"""

from __future__ import annotations

import os

import numpy as np

from spikeflow.datasets.augmentation import Augment
from spikeflow.datasets.fashion_mnist import fashion_mnist
from spikeflow.datasets.idx import DatasetError, read_idx
from spikeflow.datasets.loader import DataLoader, data_subset
from spikeflow.datasets.mnist import mnist

__all__ = ["CLASSES", "Augment", "DataLoader", "DatasetError", "data_subset", "fashion_mnist", "load", "mnist", "read_idx"]

# By the name of the data set, what its labels mean.
CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion-mnist": (
        "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
    ),
}  # fmt: skip


def load(name: str, split: str = "train", data_dir: str | os.PathLike | None = None) -> tuple[np.ndarray, np.ndarray]:
    """``mnist`` or ``fashion_mnist`` by its name, ``"mnist"`` or ``"fashion-mnist"``; ValueError if there is none such."""
    if name not in tuple(CLASSES):
        raise ValueError(f"dataset must be one of {', '.join(CLASSES)}, got {name!r}")
    return (mnist if name == "mnist" else fashion_mnist)(split, data_dir=data_dir)

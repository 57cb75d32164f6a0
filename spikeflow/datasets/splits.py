"""Splits of a data set in MNIST's form: a file of images and a file of labels, 28 x 28 pixels and ten classes."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np

from spikeflow.datasets.idx import MAX_BYTES, DatasetError, read_idx

__all__ = ["SUFFIXES", "check_split", "file_names", "find_file", "read_file"]

SUFFIXES = ("", ".gz", ".xz")

_PREFIXES = {"train": "train", "test": "t10k"}


def file_names(split: str) -> list[str]:
    """ "train" or "test" -> the names of its images and its labels, without the suffix of a compressed file."""
    if split not in tuple(_PREFIXES):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    return [f"{_PREFIXES[split]}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]


def find_file(folder: Path, name: str) -> Path | None:
    """-> the file of that name, plain or else compressed; None if there is none."""
    return next((path for suffix in SUFFIXES if (path := folder / (name + suffix)).is_file()), None)


def read_file(path: Path, max_bytes: int = MAX_BYTES) -> tuple[np.ndarray, str]:
    """-> the array of an IDX file, plain or compressed, and the SHA-256 of its decompressed bytes if these are uint8."""
    array = read_idx(path, max_bytes)
    digest = hashlib.sha256(struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape))
    digest.update(array)
    return array, digest.hexdigest()


def check_split(images: np.ndarray, labels: np.ndarray, source: str) -> None:
    """DatasetError, naming the ``source``, if they are not uint8 (N, 28, 28), and uint8 (N,) from 0 to 9."""
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (28, 28):
        raise DatasetError(f"{source}: images are {images.dtype} {images.shape}, they should be uint8 (N, 28, 28)")
    if labels.dtype != np.uint8 or labels.ndim != 1:
        raise DatasetError(f"{source}: labels are {labels.dtype} {labels.shape}, they should be uint8 (N,)")
    if len(images) != len(labels):
        raise DatasetError(f"{source}: {len(images)} images but {len(labels)} labels")
    if (labels > 9).any():
        raise DatasetError(f"{source}: the largest label is {labels.max()}, labels should be 0 to 9")

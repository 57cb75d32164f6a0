"""The MNIST database of handwritten digits, embedded in the package (origin and licence: ``data/README.md``)."""

from __future__ import annotations

import hashlib
import os
from importlib.resources import files
from pathlib import Path

import numpy as np

from spikeflow.datasets.idx import DatasetError, parse_idx, read_bounded, read_idx
from spikeflow.datasets.splits import SUFFIXES, check_split, file_names, find_file

__all__ = ["mnist"]

# Of the decompressed IDX bytes.
_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def mnist(split: str = "train", data_dir: str | os.PathLike | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Load one split of MNIST, or of a data set of the same form.

    Parameters
    ----------
    split : str
        "train" (60000 digits) or "test" (10000 digits).
    data_dir : str or path-like, optional
        Folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
        ``t10k-labels-idx1-ubyte``, each plain or with ``.gz`` or ``.xz`` appended (the first that exists, in this
        order), to read instead of the embedded files. Any number of samples is accepted then.

    Returns
    -------
    images : (N, 28, 28) uint8, grey levels 0 to 255, ink high
    labels : (N,) uint8, digits 0 to 9

    Raises
    ------
    ValueError
        If `split` is unknown.
    DatasetError
        If a file is malformed, has another shape or type, or images and labels do not belong together; for the
        embedded files also if a checksum differs.
    FileNotFoundError
        If `data_dir` lacks a file.
    """
    names = file_names(split)
    if data_dir is None:
        images, labels = (_read_embedded(name) for name in names)
        source = "embedded MNIST"
    else:
        images, labels = (read_idx(_find(Path(data_dir), name)) for name in names)
        source = os.fspath(data_dir)
    check_split(images, labels, f"{source}, split {split!r}")
    return images, labels


def _read_embedded(name: str) -> np.ndarray:
    file = files("spikeflow.datasets") / "data" / f"{name}.xz"
    with file.open("rb") as stream:
        data = read_bounded(stream, str(file))
    digest = hashlib.sha256(data).hexdigest()
    if digest != _SHA256[name]:
        raise DatasetError(f"{file}: the SHA-256 of the content is {digest}, it should be {_SHA256[name]}")
    return parse_idx(data, str(file))


def _find(folder: Path, name: str) -> Path:
    path = find_file(folder, name)
    if path is None:
        raise FileNotFoundError(f"data_dir {folder} has none of " + ", ".join(name + suffix for suffix in SUFFIXES))
    return path

"""Data sets and how they reach a network.

- ``mnist``: the MNIST digits, complete and embedded in the package
- ``DataLoader``: shuffled float32 batches whose order is a function of ``(seed, epoch)``
- ``data_subset``: the first part of a data set
- ``read_idx``: reader of IDX files, plain, gzip or xz
- ``DatasetError``: what a malformed data file raises
"""

from __future__ import annotations

from spikeflow.datasets.idx import DatasetError, read_idx
from spikeflow.datasets.loader import DataLoader, data_subset
from spikeflow.datasets.mnist import mnist

__all__ = ["DataLoader", "DatasetError", "data_subset", "mnist", "read_idx"]

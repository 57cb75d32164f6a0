"""Networks on disk: one npz file without pickle, that carries the network's description and its weights."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from .files import atomic_write
from .network import Sequential

__all__ = ["CheckpointError", "load", "load_with_info", "save"]

FORMAT = 1
HEADER = "spikeflow"  # the entry with the JSON description, as bytes
WEIGHTS = "weights/"


class CheckpointError(ValueError):
    """A file that is not a sound checkpoint."""


def save(path: str | os.PathLike, net: Sequential, info: dict[str, Any] | None = None) -> None:
    """Write a network, and any JSON-able ``info`` about how it was trained, to ``path``, atomically."""
    header = {"format": FORMAT, "network": net.config(), "info": info or {}}
    entries = {HEADER: np.frombuffer(json.dumps(header).encode(), np.uint8)}
    entries |= {WEIGHTS + name: value for name, value in net.state_dict().items()}
    with atomic_write(path) as file:
        np.savez(file, **entries)


def load(path: str | os.PathLike, backend: str = "cpu") -> Sequential:
    """Build the network that ``Sequential.save`` (or training) wrote.

    Raises
    ------
    FileNotFoundError
        No such file.
    CheckpointError
        The file is damaged, or is no checkpoint, or its weights do not fit its description.
    """
    return load_with_info(path, backend)[0]


def load_with_info(path: str | os.PathLike, backend: str = "cpu") -> tuple[Sequential, dict[str, Any]]:
    """As ``load``, and the ``info`` that was saved with it."""
    try:
        entries = _read(path)
        header = json.loads(entries.pop(HEADER).tobytes())
        if header["format"] != FORMAT:
            raise CheckpointError(f"{path} has checkpoint format {header['format']!r}, this version reads {FORMAT}")
        net = Sequential.from_config(header["network"], backend=backend)
        net.load_state_dict({name.removeprefix(WEIGHTS): value for name, value in entries.items()})
        return net, header["info"]
    except (OSError, MemoryError, CheckpointError):
        raise
    except Exception as error:  # zip, NumPy and JSON each fail in ways of their own on damaged bytes
        raise CheckpointError(f"{path} is not a sound spikeflow checkpoint: {error}") from error


def _read(path) -> dict[str, np.ndarray]:
    # Opened here and not by np.load, which leaves the file open when it fails.
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}

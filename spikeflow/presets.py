"""The networks that the command line can train by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import surrogate
from .layers import Conv2d, Flatten, Layer, Leaky, Linear, MaxPool2d

__all__ = ["PRESETS", "Preset", "find"]


@dataclass(frozen=True)
class Preset:
    """A network and the settings it is trained with."""

    layers: Callable[[], list[Layer]]
    loss: str
    num_steps: int
    batch_size: int
    lr: float
    epochs: int


def csnn_mnist() -> list[Layer]:
    """12C5-MP2-64C5-MP2-1024FC10 of snnTorch's Tutorial 6: pooling before the neuron, beta 0.5, fast sigmoid."""
    lif = {"beta": 0.5, "spike_grad": surrogate.fast_sigmoid(slope=25)}
    return [
        Conv2d(1, 12, 5), MaxPool2d(2), Leaky(**lif),
        Conv2d(12, 64, 5), MaxPool2d(2), Leaky(**lif),
        Flatten(), Linear(64 * 4 * 4, 10), Leaky(**lif),
    ]  # fmt: skip


PRESETS = {
    "csnn-mnist": Preset(csnn_mnist, "ce_rate_loss", num_steps=50, batch_size=128, lr=1e-2, epochs=1),
}


def find(name: str) -> Preset:
    """The preset of that name; ValueError, with the known names, if there is none such."""
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]

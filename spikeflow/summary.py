"""What a network is made of, and what a sample costs it: ``net.summary`` and ``spikeflow summary``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .engine.forms import dense
from .layers import Layer, Neuron
from .layers.containers import Container, leaves
from .memory import MemoryPlan, format_bytes

__all__ = ["LayerSummary", "Summary", "summarize"]


@dataclass(frozen=True)
class LayerSummary:
    """One layer's row.

    Attributes
    ----------
    name, layer : str
        Its place, and its type.
    shape : tuple of int
        Of an output sample: (C, H, W) or (F,).
    parameters : int
        Numbers that are trained.
    kept : int
        Bytes that wait for the backward pass, of a whole batch.
    macs : int
        Multiply-adds of the forward pass of one sample, all time steps, if zeros are multiplied too.
    driven : int or None
        The same for inputs that are not zero only; None without images to count them on.
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    parameters: int
    kept: int
    macs: int
    driven: int | None


@dataclass(frozen=True)
class Summary:
    """The rows of all layers; prints as a table."""

    layers: list[LayerSummary]
    plan: MemoryPlan

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.layers)

    @property
    def macs(self) -> int:
        return sum(row.macs for row in self.layers)

    @property
    def driven(self) -> int | None:
        return None if self.layers[0].driven is None else sum(row.driven for row in self.layers)

    def __str__(self) -> str:
        head = f"{'layer':<22}{'output':>16}{'parameters':>13}{'kept':>11}{'MACs':>14}"
        head += f"{'spike-driven':>14}" if self.driven is not None else ""
        lines = [head]
        for row in self.layers:
            shape = " x ".join(map(str, row.shape))
            lines.append(_line(f"{row.name} {row.layer}", shape, row.parameters, format_bytes(row.kept), row.macs, row.driven))
        lines.append(_line("in all", "", self.parameters, format_bytes(self.plan.kept), self.macs, self.driven))
        plan = self.plan
        lines.append(
            f"kept: for the backward pass of {plan.batch_size} samples, in all what is kept at a time; "
            f"MACs: of a sample's forward pass, {plan.num_steps} time steps"
        )
        return "\n".join(lines)


def _line(name, shape, parameters, kept, macs, driven) -> str:
    return f"{name:<22}{shape:>16}{parameters:>13,}{kept:>11}{macs:>14,}" + ("" if driven is None else f"{driven:>14,}")


def summarize(net, input_shape, num_steps: int, batch_size: int, images=None) -> Summary:
    """-> the summary of a network; arguments as of ``Sequential.summary``, checked."""
    plan = net.plan(batch_size, num_steps, input_shape)
    densities = None if images is None else _densities(net, images, num_steps)
    kept = {layer.name: layer.bytes for layer in plan.layers}
    rows = []
    for layer, shape, constant in _walk(net.layers, tuple(input_shape), True):
        output = layer.output_shape(shape)
        macs = (1 if constant else num_steps) * layer.macs(output)  # what lies before the first neuron runs once
        driven = None if densities is None else round(macs * densities[layer.name][0])
        parameters = sum(parameter.value.size for parameter in layer.params.values() if parameter.trainable)
        recurrent = num_steps * layer.recurrent_macs(output)
        driven = None if driven is None else driven + round(recurrent * densities[layer.name][1])
        rows.append(
            LayerSummary(layer.name, type(layer).__name__, output, parameters, kept.get(layer.name, 0), macs + recurrent, driven)
        )
    return Summary(rows, plan)


def _walk(layers, shape: tuple[int, ...], constant: bool) -> Iterator[tuple[Layer, tuple[int, ...], bool]]:
    """-> (layer, shape of its input, is that constant in time?) of all layers that hold no others, nested ones too."""
    for layer in layers:
        if isinstance(layer, Container):
            for branch in layer.branches():
                yield from _walk(branch, shape, constant)
        else:
            yield layer, shape, constant
        shape = layer.output_shape(shape)
        constant = constant and not any(isinstance(part, Neuron) for part in leaves([layer]))


def _densities(net, images, num_steps) -> dict[str, tuple[float, float]]:
    """-> of each layer the share of numbers that are not zero: of its input, and of its output."""
    call = net._call(images, num_steps, plain=True, records=True)
    found: list[dict[str, list[float]]] = [{} for _ in call.blocks]
    inputs: list[Any] = list(call.blocks)
    for i, block in enumerate(call.blocks):
        inputs[i] = call.x[:, block]

    def watch(i, step, y, kept):
        for layer in step.layers:
            found[i][layer.name] = [_nonzero(call, inputs[i]), _nonzero(call, y)]
        inputs[i] = y

    call.each_block(lambda *_: None, forgets=True, watch=watch)
    weights = [(block.stop - block.start) / call.batch for block in call.blocks]
    return {name: tuple(np.dot(weights, [part[name] for part in found])) for name in found[0]}


def _nonzero(call, x) -> float:
    numbers = dense(x, call.ops, call.dtype)
    return float(np.count_nonzero(numbers)) / numbers.size

"""What a network is made of, and what a sample costs it: ``net.summary`` and ``spikeflow summary``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .engine.forms import dense
from .layers import Neuron
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
    rows, shape, steps = [], tuple(input_shape), 1
    for position, layer in enumerate(net.layers):
        output = layer.output_shape(shape)
        macs = steps * layer.macs(output)
        driven = None if densities is None else round(macs * densities[position])
        if isinstance(layer, Neuron):
            steps = num_steps  # what lies before the first neuron runs once
        parameters = sum(parameter.value.size for parameter in layer.params.values() if parameter.trainable)
        recurrent = num_steps * layer.recurrent_macs(output)
        driven = None if driven is None else driven + round(recurrent * densities[position + 1])
        rows.append(
            LayerSummary(layer.name, type(layer).__name__, output, parameters, kept.get(layer.name, 0), macs + recurrent, driven)
        )
        shape = output
    return Summary(rows, plan)


def _densities(net, images, num_steps) -> list[float]:
    """-> the share of numbers that are not zero: of the input, and of each layer's output."""
    call = net._call(images, num_steps, plain=True, records=True)

    def see(step, y, kept):
        return {layer.name: float(np.count_nonzero(dense(y, call.ops, call.dtype))) / y.shape[0] for layer in step.layers}

    parts = call.observe(see)
    sizes = [int(np.prod(shape)) for shape in call.program.shapes[1:]]
    counts = [sum(part[layer.name] for part in parts) for layer in net.layers]
    outputs = [count / (call.batch * size) for count, size in zip(counts, sizes, strict=True)]
    return [float(np.count_nonzero(call.x)) / call.x.size, *outputs]

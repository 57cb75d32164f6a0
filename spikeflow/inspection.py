"""What a network's neurons do, forward and backward: ``net.record`` and ``net.health`` are made here.

A recorded backward pass runs through the plain layers, and through the NumPy reference of the neurons, which shows the gradient
of every membrane on its way; the gradients are those of the fast path to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from .engine.executor import channel_first
from .engine.forms import dense
from .engine.host import HostCall, joined
from .engine.steps import Given, membrane_of
from .layers import Neuron
from .ops.neurons import reference

__all__ = ["Health", "LayerHealth", "health", "passed", "record_backward"]


class Passed(NamedTuple):
    """What comes to a layer, channel first."""

    x: np.ndarray  # (T or 1, B, ...)
    dy: np.ndarray | None  # (T or 1, B, ...): of its output
    dmembrane: np.ndarray | None = None  # of its membrane, at the end of the network


def record_backward(call: HostCall, losses: list, targets: list, normalisers: list) -> dict[str, dict[str, np.ndarray]]:
    """A call without rules -> {layer name: {"spikes", "membrane", "dspikes", "dmembrane": (T, B, ...)}}, channel first.

    A loss, ``targets`` (B, ...) of the batch, checked, and a normaliser for each head; dL/dmembrane is that of the membrane
    compared with the threshold.
    """
    results: list[dict] = [{} for _ in call.blocks]

    def collect(i, block, spikes, kept):
        _record_block(call, kept, _given(call, block, spikes, kept, losses, targets, normalisers), results[i])

    def watch(i, step, y, kept):
        if (neuron := step.neuron_kept(kept)) is not None:
            results[i][step.layers[0].name] = {"spikes": y, "membrane": membrane_of(neuron)}

    call.each_block(collect, watch=watch)
    return joined(results)


def passed(call: HostCall, losses: list, targets: list, normalisers: list) -> dict[str, Passed]:
    """A call without rules, and what ``record_backward`` takes -> by layer, nested ones too, what comes to it both ways."""
    found: list[dict] = [{} for _ in call.blocks]
    latest = [call.x[:, block] for block in call.blocks]

    def watch(i, step, y, kept):
        for layer in step.layers:
            found[i][layer.name] = latest[i]
        latest[i] = y

    def collect(i, block, y, kept):
        dy = call.program.gradient(_given(call, block, y, kept, losses, targets, normalisers))
        for step, packed, keep in reversed(list(zip(call.steps, call.packed, kept, strict=True))):
            for layer in step.layers:
                given = dy if isinstance(dy, Given) else (dy,)
                found[i][layer.name] = (found[i][layer.name], *given)
            dy = step.backward(call.ops, packed, dy, keep, step.gradients(), True)

    call.each_block(collect, watch=watch)
    return {name: Passed(*(_batch([part[name][k] for part in found]) for k in range(len(found[0][name])))) for name in found[0]}


def _batch(parts: list) -> np.ndarray | None:
    return None if parts[0] is None else channel_first(np.concatenate(parts, axis=1))


def _given(call: HostCall, block, y, kept, losses, targets, normalisers) -> list[Given]:
    """-> the gradients of each head's output of one block."""
    outputs = (call.shown(head, y, kept) for head, _ in enumerate(losses))
    parts = zip(losses, outputs, targets, normalisers, strict=True)
    return [Given(*loss.gradients(*output, target[block], normaliser)[1:]) for loss, output, target, normaliser in parts]


def _record_block(call: HostCall, kept: list, given, found: dict[str, dict[str, np.ndarray]]) -> None:
    """Take one block back, from dL/dspikes and dL/dmembrane of the output, and add each neuron's to what was ``found``."""
    steps: list[tuple[np.ndarray | None, np.ndarray]] = []  # of one layer: at once, or step by step from the last one on

    def neuron_backward(model, dspikes, dmembrane, trajectory, *arguments, **options):
        trace = np.empty((len(trajectory.membrane) - 1, trajectory.membrane.shape[1]), call.dtype)
        steps.append((dspikes, trace))
        return reference.neuron_backward(model, dspikes, dmembrane, trajectory, *arguments, **options, trace=trace)

    ops = SimpleNamespace(**{**vars(call.ops), "neuron_backward": neuron_backward})
    dy = call.program.gradient(given)
    for step, packed, keep in reversed(list(zip(call.steps, call.packed, kept, strict=True))):
        dy = step.backward(ops, packed, dy, keep, step.gradients(), True)
        if step.neuron_kept(keep) is not None:
            rows = found[step.layers[0].name]
            shape = rows["membrane"].shape
            dspikes = [np.zeros_like(trace) if given is None else given for given, trace in reversed(steps)]
            rows["dspikes"] = np.concatenate(dspikes).reshape(shape)
            rows["dmembrane"] = np.concatenate([trace for _, trace in reversed(steps)]).reshape(shape)
            steps.clear()


@dataclass(frozen=True)
class LayerHealth:
    """How one layer of neurons is doing."""

    name: str
    layer: str  # its type
    rate: float  # spikes a neuron and step
    silent: float  # the share of neurons that never fire
    saturated: float  # the share of neurons that always fire
    lowest: float  # membrane
    highest: float
    gradient: float  # the surrogate's derivative, mean over neurons and steps, as a share of its largest value

    @property
    def dead(self) -> bool:
        """Does no neuron fire? (One that is not meant to fire is not dead.)"""
        return self.silent == 1


@dataclass(frozen=True)
class Health:
    """The health of every neuron layer; prints as a table."""

    layers: list[LayerHealth]

    @property
    def dead(self) -> list[str]:
        """Names of the layers in which no neuron fires."""
        return [layer.name for layer in self.layers if layer.dead]

    def __str__(self) -> str:
        lines = ["layer                 rate   never   always   membrane            gradient"]
        for row in self.layers:
            membrane = f"{row.lowest:8.3g} to {row.highest:<8.3g}"
            rates = f"{100 * row.rate:6.2f}% {100 * row.silent:6.1f}% {100 * row.saturated:7.1f}%"
            lines.append(f"{row.name + ' ' + row.layer:<19}{rates}   {membrane} {100 * row.gradient:6.1f}%")
        return "\n".join(lines)


def health(call: HostCall) -> Health:
    """-> the health of the neurons over the call's batch."""

    def see(step, y, kept):
        neuron = step.neuron_kept(kept)
        return {} if neuron is None else {step.layers[0].name: _numbers(step.layers[0], dense(y, call.ops, call.dtype), neuron)}

    parts = call.observe(see)
    rows = []
    for layer in (layer for step in call.steps for layer in step.layers if isinstance(layer, Neuron)):
        counts, lowest, highest, slopes = zip(*(part[layer.name] for part in parts), strict=True)
        share, chances = sum(counts), call.run.num_steps * call.batch
        silent, saturated = (share == 0).mean(), (share == chances).mean()
        if not layer.model.fires:  # nothing to fire, and nothing in the gradient's way
            silent = saturated = 0.0
            slopes = [chances * share.size]
        gradient = sum(slopes) / (chances * share.size)
        rate = share.mean() / chances
        numbers = (rate, silent, saturated, min(lowest), max(highest), gradient)
        rows.append(LayerHealth(layer.name, type(layer).__name__, *(float(number) for number in numbers)))
    return Health(rows)


def _numbers(layer: Neuron, spikes: np.ndarray, kept) -> tuple:
    """-> spikes of each neuron, lowest and highest membrane, sum of the surrogate's relative derivative."""
    counts = (spikes != 0).sum((0, 1))
    trajectory, m = kept.trajectory, kept.membrane[1:]
    u = m if trajectory.before is None or not len(trajectory.before) else trajectory.before
    slopes = 0.0
    if layer.model.fires:
        pair, threshold = layer.spike_grad, np.tile(kept.params[0], u.shape[1] // kept.params.shape[1])
        largest = pair.of_array(pair.derivative, np.linspace(-2, 2, 4001, dtype=u.dtype)).max()
        slopes = float(pair.of_array(pair.derivative, u - threshold).sum(dtype=np.float64) / largest)
    return counts, m.min(), m.max(), slopes

"""What a network's neurons do, forward and backward: ``net.record`` and ``net.health`` are made here.

A recorded backward pass runs through the plain layers, and through the NumPy reference of the neurons, which shows the gradient
of every membrane on its way; the gradients are those of the fast path to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from . import parallel
from .layers import Neuron
from .ops.events import SpikeWords
from .ops.neurons import reference
from .pipeline import Call, channel_first, membrane_of

__all__ = ["Health", "LayerHealth", "health", "record"]


def record(call: Call, loss_fn=None, targets=None) -> dict[str, dict[str, np.ndarray]]:
    """-> {layer name: {"spikes", "membrane", and with a loss "dspikes", "dmembrane": (T, B, ...)}}, channel first.

    ``loss_fn`` and checked ``targets`` (B, ...) of the batch; dL/dmembrane is that of the membrane compared with the threshold.
    """
    results: list[dict] = [{} for _ in call.blocks]
    normaliser = None if loss_fn is None else loss_fn.normaliser(targets)

    def task(i):
        block, found = call.blocks[i], results[i]

        def watch(layer, x, keep):
            if isinstance(layer, Neuron):
                found[layer.name] = {"spikes": _dense(x, call.dtype), "membrane": membrane_of(keep)}

        spikes, kept = call.forward_block(i, watch)
        if loss_fn is not None:
            given = loss_fn.gradients(spikes, membrane_of(kept[-1]), targets[block], normaliser)[1:]
            _record_backward(call, kept, given, found)

    parallel.run(task, len(call.blocks))
    return {
        name: {key: channel_first(np.concatenate([found[name][key] for found in results], axis=1)) for key in arrays}
        for name, arrays in results[0].items()
    }


def _record_backward(call: Call, kept: list, given, found: dict[str, dict[str, np.ndarray]]) -> None:
    """Take one block back, from dL/dspikes and dL/dmembrane of the output, and add each neuron's to what was ``found``."""
    steps: list[tuple[np.ndarray | None, np.ndarray]] = []  # of one layer: at once, or step by step from the last one on

    def neuron_backward(model, dspikes, dmembrane, trajectory, *arguments, **options):
        trace = np.empty((len(trajectory.membrane) - 1, trajectory.membrane.shape[1]), call.dtype)
        steps.append((dspikes, trace))
        return reference.neuron_backward(model, dspikes, dmembrane, trajectory, *arguments, **options, trace=trace)

    ops = SimpleNamespace(**{**vars(call.ops), "neuron_backward": neuron_backward})
    dy, extra = given[0], {"dmembrane": given[1]}
    for layer, prepared, keep in reversed(list(zip(call.layers, call.prepared, kept, strict=True))):
        dy = layer.backward(ops, prepared, dy, keep, layer.gradients(ops), True, **extra)
        extra = {}
        if isinstance(layer, Neuron):
            rows = found[layer.name]
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


def health(call: Call) -> Health:
    """-> the health of the neurons over the call's batch."""
    parts = parallel.run(lambda i: _block_health(call, i), len(call.blocks))
    rows = []
    for layer in (layer for layer in call.layers if isinstance(layer, Neuron)):
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


def _block_health(call: Call, i: int) -> dict[str, tuple]:
    """-> {layer: (spikes of each neuron, lowest and highest membrane, sum of the surrogate's relative derivative)}."""
    found = {}

    def watch(layer, x, keep):
        if not isinstance(layer, Neuron):
            return
        counts = (_dense(x, call.dtype) != 0).sum((0, 1))
        trajectory, m = keep.trajectory, keep.membrane[1:]
        u = m if trajectory.before is None or not len(trajectory.before) else trajectory.before
        slopes = 0.0
        if layer.model.fires:
            pair, threshold = layer.spike_grad, np.tile(keep.params[0], u.shape[1] // keep.params.shape[1])
            largest = pair.of_array(pair.derivative, np.linspace(-2, 2, 4001, dtype=u.dtype)).max()
            slopes = float(pair.of_array(pair.derivative, u - threshold).sum(dtype=np.float64) / largest)
        found[layer.name] = counts, m.min(), m.max(), slopes

    call.forward_block(i, watch)
    return found


def _dense(x, dtype) -> np.ndarray:
    """Spikes, as words or numbers -> numbers."""
    return x.dense(dtype) if isinstance(x, SpikeWords) else x

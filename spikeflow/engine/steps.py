"""What a step is, and the plain steps: one layer each, run as it is written in ``spikeflow.layers``.

A step covers one or more layers. For each call of the network it packs what all blocks share; then it takes block after block
forward and back. A *joint* takes all blocks of a batch at once, since its layer couples the samples, or since its weight is too
large to go through the cache for each of them. Nothing of a call is kept in the step itself: calls may run side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..kernels.cpu.half import halved
from ..kernels.lazy import lazy
from ..layers import Layer, Neuron
from ..layers.normalization import BatchNorm
from ..ops.neurons.model import Trajectory
from .forms import CENTRED, NORMALISED, NUMBERS, Centred, concatenated, cut, widened

__all__ = [
    "CONVERSIONS",
    "Applied",
    "Gathered",
    "Given",
    "Joint",
    "Kind",
    "NeuronStep",
    "Plain",
    "Step",
    "membrane_of",
    "plain_step",
]

Grads = dict[str, dict[str, Any]]  # of a step: {layer's name: {parameter's name within it: array, or list}}


@dataclass(frozen=True)
class Kind:
    """All that decides how a network runs, besides its layers: what comes in, and what is wanted of the call."""

    backend: str
    shape: tuple[int, ...]  # of a sample, channel first
    dtype: np.dtype
    static: bool  # is the input shown at every step?
    binary: bool  # is it a sequence of bool?
    training: bool = False
    smooth: bool = False
    truncated: bool = False
    streams: bool = False
    records: bool = False  # must every neuron show its spikes and its membrane?
    amp: bool = False  # what waits for the backward pass waits in half precision
    rules: bool = True
    checked: bool = False  # do the layers that a rule replaces run beside its step?

    @property
    def whole(self) -> bool:
        """Do all time steps run in one go, with no state from outside and none that is detached on the way?"""
        return not (self.truncated or self.streams)

    def __str__(self) -> str:
        given = "images shown at every step" if self.static else f"a sequence of {'spikes' if self.binary else 'numbers'}"
        marks = [name for name in ("training", "smooth", "truncated", "streams", "records", "amp") if getattr(self, name)]
        return ", ".join([f"{self.backend}: {given}", " x ".join(map(str, self.shape)), str(self.dtype), *marks])


class Given(NamedTuple):
    """The gradients (T, b, ...) of what the network's last neurons give, either None where nobody asks for it."""

    dspikes: np.ndarray | None
    dmembrane: np.ndarray | None


class Step:
    """Base of the steps.

    Attributes
    ----------
    layers : tuple of Layer
        Those that it covers, in order; none for a conversion.
    shapes : list of tuple
        (C, H, W) or (F,): of each layer's input, and of the output.
    rule : str
        The name of the rule that made it, or "".
    takes, gives : str
        The forms of its input and of its output; see ``forms``.
    joint : bool
        Does it take all blocks at once, by ``forward_batch`` and ``backward_batch``?
    lasts : bool
        Does a joint lie in a container around it, so that what its branches put aside must outlive the memory of a segment?
    keeps : str
        What waits for its backward pass, in words.
    """

    rule = ""
    takes = gives = NUMBERS
    joint = False
    lasts = False
    keeps = "nothing"

    def __init__(self, layers: tuple[Layer, ...], shapes: list[tuple[int, ...]], kind: Kind):
        self.layers, self.shapes, self.kind = tuple(layers), list(shapes), kind

    @property
    def name(self) -> str:
        """The layers' places: ``"3"``, ``"3 to 5"``."""
        ends = [layer.name for layer in self.layers]
        return ends[0] if len(ends) == 1 else f"{ends[0]} to {ends[-1]}" if ends else ""

    @property
    def trains(self) -> bool:
        """Has a layer parameters to train?"""
        return any(parameter.trainable for layer in self.layers for parameter in layer.params.values())

    def pack(self, ops, batch: np.ndarray | None) -> Any:
        """What one call works out for all blocks; ``batch`` is the input of the network's first step if there are several."""
        return None

    def forward(self, ops, packed, x, run) -> tuple[Any, Any]:
        """x (T, b, ...) of a block -> y, and what is kept: with several layers a tuple, an entry for each."""
        raise NotImplementedError("a step must define forward")

    def backward(self, ops, packed, dy, kept, grads: Grads, input_grad: bool) -> Any:
        """dy (T, b, ...) of a block -> dx, or None unless ``input_grad``; adds into ``grads``."""
        raise NotImplementedError("a step must define backward")

    def forward_batch(self, ops, packed, xs: list, run) -> tuple[list, Any]:
        """Blocks of a whole batch -> blocks of the output, and what is kept."""
        raise NotImplementedError("a joint must define forward_batch")

    def backward_batch(self, ops, packed, dys: list, kept, grads: Grads, input_grad: bool) -> list:
        """Gradients of the output's blocks -> those of the input's, or None each; adds into ``grads``."""
        raise NotImplementedError("a joint must define backward_batch")

    @property
    def title(self) -> str:
        """What it is, in a program's table."""
        return ", ".join(type(layer).__name__ for layer in self.layers) or "conversion"

    def gradients(self) -> Grads:
        """-> what ``backward`` adds to: zeros, or a list where a gradient is put off until all blocks have passed."""
        grads: Grads = {}
        for name, key, shape, dtype in self._gradients:
            grads.setdefault(name, {})[key] = np.zeros(shape, dtype)
        return grads

    @lazy
    def _gradients(self) -> list[tuple[str, str, tuple[int, ...], np.dtype]]:
        """-> (layer's name, parameter's name within it, shape, dtype) of all parameters."""
        parameters = [(layer.name, key, p.value) for layer in self.layers for key, p in layer.params.items()]
        return [(name, key, value.shape, value.dtype) for name, key, value in parameters]

    def settle(self, ops, packed, key: str, parts: list) -> np.ndarray:
        """-> the gradient that was put off, from what ``backward`` left in the lists of ``gradients``."""
        raise NotImplementedError("a step that puts gradients off must define settle")

    def neuron_kept(self, kept):
        """-> what the layer of neurons kept that this step shows, None if it is none."""
        return None

    def winners(self, kept) -> np.ndarray | None:
        """-> the winners of the max-pool that this step does, None if it does none by looking at numbers."""
        return None

    def kept_by_layer(self, kept) -> list:
        """-> what is kept for each of the layers."""
        return list(kept) if len(self.layers) > 1 else [kept][: len(self.layers)]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(repr(layer) for layer in self.layers)})"


class Plain(Step):
    """One layer as it is written."""

    def __init__(self, layers, shapes, kind):
        super().__init__(layers, shapes, kind)
        (self.layer,) = self.layers
        self.keeps = self.layer.keeps

    def pack(self, ops, batch):
        return self.layer.prepare(ops, self.shapes[0], self.kind.dtype)

    def forward(self, ops, packed, x, run):
        return self.layer.forward(ops, packed, x, run)

    def backward(self, ops, packed, dy, kept, grads, input_grad):
        return self.layer.backward(ops, packed, dy, kept, grads.get(self.layer.name, {}), input_grad)


class Joint(Plain):
    """One layer that couples the samples, as it is written: the blocks become one array."""

    joint = True

    def forward_batch(self, ops, packed, xs, run):
        y, kept = self.layer.forward(ops, packed, concatenated(xs), run)
        return cut(y, xs), kept

    def backward_batch(self, ops, packed, dys, kept, grads, input_grad):
        dx = self.backward(ops, packed, concatenated(dys), kept, grads, input_grad)
        return cut(dx, dys) if input_grad else [None] * len(dys)


class NeuronStep(Plain):
    """A layer of neurons, the only one whose membrane can be asked for."""

    def __init__(self, layers, shapes, kind, last: bool = False):
        super().__init__(layers, shapes, kind)
        self.halves = kind.amp and not last  # the last one's membrane is given out
        self._packed = None

    def pack(self, ops, batch):
        if self.layer.learned and ops.device:
            return _learned_on_device().prepare(self.layer, ops, self.shapes[0], self.kind.dtype)
        if self.layer.params:
            return super().pack(ops, batch)
        if self._packed is None:  # numbers that are not learned are those of the options, and options make programs anew
            self._packed = super().pack(ops, batch)
        return self._packed

    def forward(self, ops, packed, x, run):
        y, kept = self.layer.forward(ops, packed, x, run)
        return y, self.narrowed(kept)

    def narrowed(self, kept):
        """-> what is kept, in half precision if it is to be."""
        if self.halves and kept.params.shape[1] == 1:
            kept.trajectory = halved_trajectory(kept.trajectory, float(kept.params[0, 0]), self.layer.model.key.node)
        return kept

    def backward(self, ops, packed, dy, kept, grads, input_grad):
        """As in ``Step``; at the end of the network ``dy`` is ``Given``."""
        dy, dmembrane = dy if isinstance(dy, Given) else (dy, None)
        if self.halves:
            kept = replace(kept, trajectory=Trajectory(*(widened(array) for array in kept.trajectory)))
        grads = grads.get(self.layer.name, {})
        if not (self.layer.learned and ops.device):
            return self.layer.backward(ops, packed, dy, kept, grads, input_grad, dmembrane)
        dx, dparams = self.layer.backward_numbers(ops, packed, dy, kept, grads, dmembrane)
        _learned_on_device().add_gradients(self.layer, packed, dparams, grads)
        return dx

    def neuron_kept(self, kept):
        return kept


def _learned_on_device():
    """-> what is learned, on the device; its imports are not for every machine."""
    from . import learned_on_device

    return learned_on_device


def membrane_of(kept) -> np.ndarray:
    """What a neuron kept -> its membrane (T, b, ...)."""
    rows = kept.membrane[1:]
    return rows.reshape(len(rows), *kept.shape[1:])


def halved_trajectory(trajectory: Trajectory, threshold: float, node: bool) -> Trajectory:
    """-> the same in half precision; what is compared with the threshold stays on its side of it."""
    membrane = halved(trajectory.membrane) if node else halved(trajectory.membrane, threshold)
    before = trajectory.before if trajectory.before is None else halved(trajectory.before, threshold, inclusive=node)
    states = trajectory.states if trajectory.states is None else halved(trajectory.states)
    return trajectory._replace(membrane=membrane, before=before, states=states)


def plain_step(layer: Layer, shapes: list[tuple[int, ...]], kind: Kind, last: bool) -> Step:
    """-> the step of a layer that no rule covers; ``last``: it is the network's last one."""
    if isinstance(layer, Neuron):
        return NeuronStep((layer,), shapes, kind, last)
    if isinstance(layer, BatchNorm) and kind.backend == "cuda":
        from .batch_norm_on_device import batch_norm

        return batch_norm((layer,), shapes, kind)
    return (Joint if layer.couples(kind) else Plain)((layer,), shapes, kind)


class Applied(Step):
    """``NORMALISED`` -> ``NUMBERS``: the map of a batch normalisation is computed."""

    takes, gives = NORMALISED, NUMBERS

    def forward(self, ops, packed, x, run):
        y = x.array(ops)
        if self.kind.amp:
            x.halved()
        return y, None

    def backward(self, ops, packed, dy, kept, grads, input_grad):
        return dy


class Gathered(Step):
    """``NUMBERS`` -> ``CENTRED``: backward, what a batch normalisation left undone is computed."""

    takes, gives = NUMBERS, CENTRED

    def forward(self, ops, packed, x, run):
        return x, None

    def backward(self, ops, packed, dy, kept, grads, input_grad):
        return dy.array(ops) if isinstance(dy, Centred) else dy


CONVERSIONS = {(NORMALISED, NUMBERS): Applied, (NUMBERS, CENTRED): Gathered}

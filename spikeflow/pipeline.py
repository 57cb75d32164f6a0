"""One pass of a batch through a chain of layers, block by block, on all threads.

A batch is cut into blocks of samples, the same for any number of threads. A block goes through all layers while its data is in
cache: ``loss_and_grad`` takes it forward, through the loss, and back, and then forgets it. Block i adds its gradients to lane
i mod LANES, a lane takes its blocks in order, and lanes are summed in order. So the same seed gives the same bits on any number
of threads. The price is memory: while a batch runs, each lane holds gradients of its own for all parameters.

Static prefix.  An input without a time axis enters as T = 1 and stays so until the first neuron: what lies before it is computed
once a batch, forward and backward, not T times. The neuron sums its input gradient over time, which is all it takes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import parallel
from .layers import Conv2d, Flatten, Layer, Linear, MaxPool2d, Neuron
from .layers.base import Plan
from .ops.events import SpikeWords

__all__ = ["Call", "Run", "block_size", "channel_first", "channel_last", "membrane_of"]

BLOCKS = 2  # of a batch, at least, unless they would be smaller than LEAST
LEAST, MOST = 4, 16  # samples of a block: fewer, and Python takes its toll between kernels; more, and its arrays leave the cache
NARROW = 16  # outputs of a linear layer that spikes reach as numbers
LANES = 16  # partial sums of the gradients, and tasks in flight: as many threads find work


def block_size(batch: int) -> int:
    """-> samples of a block."""
    return min(max(batch // BLOCKS, LEAST), MOST)


@dataclass
class Run:
    """One pass through the network, as its layers see it."""

    num_steps: int
    smooth: bool = False  # the surrogate's primitive in place of the step: the smooth twin
    truncate: int | None = None  # backward, the neurons' state is detached every so many steps
    streams: bool = False  # the neurons' state comes from outside and is handed on
    states: dict[str, np.ndarray] = field(default_factory=dict)  # that state, of a block: (S, M) by layer, changed in place
    choices: dict[str, dict] = field(default_factory=dict)  # discrete choices to obey, by layer: only `reference` can
    records: bool = False  # every neuron keeps its membrane, even where backward does not need it

    def frozen(self, layer: Layer) -> dict:
        return self.choices.get(layer.name, {})


@dataclass
class Call:
    """One public call of a network: what it works out before its blocks start, and its passes over them."""

    layers: tuple[Layer, ...]
    ops: SimpleNamespace
    dtype: np.dtype
    x: np.ndarray  # (T or 1, B, H, W, C) or (T or 1, B, F); of bool, spikes
    static: bool
    run: Run
    events: bool
    shapes: list[tuple[int, ...]]  # (C, H, W) or (F,): of each layer's input, and of the output
    spikes: SpikeWords | None = field(init=False)  # x, where it is spikes and the first layer reads bits
    prepared: list[Any] = field(init=False)  # what each layer works out once for all blocks
    whole: dict[int, np.ndarray] = field(init=False)  # outputs of layers that were worked out for the whole batch at once
    kept: list[Any] | None = None  # of each block, of each layer: what forward kept for backward

    def __post_init__(self):
        plans, reads_spikes = make_plans(self)
        self.spikes = SpikeWords.pack(self.x) if reads_spikes else None
        self.prepared = [layer.prepare(self.ops, plan) for layer, plan in zip(self.layers, plans, strict=True)]
        self.whole = self._wide_prefix(plans)

    def _wide_prefix(self, plans: list[Plan]) -> dict[int, np.ndarray]:
        """A wide linear layer at a static input would stream its weight through the cache for each block: once is enough."""
        first = 1 if plans and plans[0].relabels else 0
        layer = self.layers[first] if first < len(self.layers) else None
        if not (self.static and isinstance(layer, Linear) and layer.is_wide(self.ops)) or len(self.blocks) < 2:
            return {}
        return {first: layer.forward_whole(self.ops, self.prepared[first], self.x)}

    @property
    def batch(self) -> int:
        return self.x.shape[1]

    @functools.cached_property
    def blocks(self) -> list[slice]:
        size = block_size(self.batch)
        return [slice(lo, min(lo + size, self.batch)) for lo in range(0, self.batch, size)]

    @functools.cached_property
    def trains(self) -> list[bool]:
        """Has a layer parameters to train?"""
        return [any(parameter.trainable for parameter in layer.params.values()) for layer in self.layers]

    def outputs(self) -> np.ndarray:
        """-> room for the spikes or membranes of the last layer, (T, B, ...)."""
        features = self.shapes[-1]
        features = (*features[1:], features[0]) if len(features) == 3 else features
        return np.empty((self.run.num_steps, self.batch, *features), self.dtype)

    def forward(self) -> tuple[np.ndarray, np.ndarray]:
        """-> spikes, membrane (T, B, ...) of the last layer; keeps what ``backward`` needs."""
        spikes, membrane = self.outputs(), self.outputs()
        self.kept = [None] * len(self.blocks)

        def task(i):
            block = self.blocks[i]
            spikes[:, block], self.kept[i] = self.forward_block(block)
            membrane[:, block] = membrane_of(self.kept[i][-1])

        parallel.run(task, len(self.blocks))
        return channel_first(spikes), channel_first(membrane)

    def backward(self, dspikes, dmembrane, input_grad: bool) -> np.ndarray | None:
        """dspikes, dmembrane (T, B, ...) or None -> dL/dinput or None; adds into every parameter's gradient."""
        if dspikes is None and dmembrane is None:
            raise ValueError("backward needs dspikes, dmembrane, or both")
        gradients = [self._output_gradient(*pair) for pair in (("dspikes", dspikes), ("dmembrane", dmembrane))]
        dx = np.empty(self.x.shape, self.dtype) if input_grad else None

        def block_backward(i, grads):
            block = self.blocks[i]
            parts = [None if g is None else np.ascontiguousarray(g[:, block]) for g in gradients]
            part = self.backward_block(self.kept[i], *parts, grads, input_grad)
            if input_grad:
                dx[:, block] = part

        self.over_lanes(block_backward)
        if not input_grad:
            return None
        return channel_first(dx[0], leading=1) if self.static else channel_first(dx)

    def _output_gradient(self, name: str, gradient) -> np.ndarray | None:
        """A gradient given from outside, checked, channel last."""
        if gradient is None:
            return None
        gradient = np.asarray(gradient)
        shape = (self.run.num_steps, self.batch, *self.shapes[-1])
        if gradient.shape != shape:
            raise ValueError(f"{name} must have the shape {shape} of what forward returned, got {gradient.shape}")
        return channel_last(gradient.astype(self.dtype, copy=False))

    def forward_block(
        self, block: slice, watch: Callable | None = None, states: dict[str, np.ndarray] | None = None
    ) -> tuple[np.ndarray, list]:
        """-> the last layer's spikes (T, b, ...), and what each layer keeps.

        ``watch(layer, output, kept)`` sees them all; ``states`` are the neurons' own for these samples, changed in place.
        """
        x = np.ascontiguousarray(self.x[:, block], self.dtype) if self.spikes is None else self.spikes.samples(block)
        kept = []
        run = self.run if states is None else replace(self.run, states=states)
        for i, (layer, prepared) in enumerate(zip(self.layers, self.prepared, strict=True)):
            extra = {"y": np.ascontiguousarray(self.whole[i][:, block])} if i in self.whole else {}
            x, keep = layer.forward(self.ops, prepared, x, run, **extra)
            kept.append(keep)
            if watch:
                watch(layer, x, keep)
        return x, kept

    def backward_block(self, kept, dspikes, dmembrane, grads, input_grad: bool) -> np.ndarray | None:
        """dspikes, dmembrane (T, b, ...) or None -> dL/dinput (T or 1, b, ...) or None; adds into ``grads``."""
        dy, extra = dspikes, {"dmembrane": dmembrane}
        for i in reversed(range(len(self.layers))):
            wanted = input_grad or any(self.trains[:i])
            if not wanted and not self.trains[i]:
                return None
            dy = self.layers[i].backward(self.ops, self.prepared[i], dy, kept[i], grads[i], wanted, **extra)
            extra = {}
        return dy

    def over_lanes(self, block_task: Callable) -> None:
        """Run ``block_task(i, grads)`` for every block i, and add the lanes' sums to the parameters' gradients in order."""
        count = min(LANES, len(self.blocks))

        def lane(g):
            grads = [layer.gradients(self.ops) for layer in self.layers]
            for i in range(g, len(self.blocks), LANES):
                block_task(i, grads)
            return grads

        lanes = parallel.run(lane, count)
        for position, layer in enumerate(self.layers):
            for key, parameter in layer.params.items():
                sums = [grads[position][key] for grads in lanes]
                if isinstance(sums[0], list):
                    parts = [part for lane_parts in sums for part in lane_parts]
                    sums = [layer.deferred_gradient(self.ops, self.prepared[position], key, parts)]
                for gradient in sums:
                    parameter.grad += gradient


def make_plans(call: Call) -> tuple[list[Plan], bool]:
    """What each layer may leave out because of its neighbours; and whether the input enters as bits.

    Nothing in plain backends. Spikes, those of a given sequence of bool too, travel as bits unless the twin replaces them by
    smooth numbers. What is fused or computed again knows neither a state from outside nor one that is detached on the way.
    """
    layers, shapes, run = call.layers, call.shapes, call.run
    plans = [Plan(shape, call.dtype) for shape in shapes[:-1]]
    if not hasattr(call.ops, "conv2d_forward_events"):
        return plans, False
    for i, (layer, after) in enumerate(zip(layers, layers[1:], strict=False)):
        if isinstance(layer, Flatten) and isinstance(after, Linear) and len(shapes[i]) == 3:
            plans[i].relabels, plans[i + 1].image = True, shapes[i]
    if not call.events or run.smooth:
        return plans, False
    binary = call.x.dtype == bool and not call.static and _reads_words(layers, 0, plans)
    whole = run.truncate is None and not run.streams
    for i, (layer, after) in enumerate(zip(layers, layers[1:], strict=False)):
        if isinstance(layer, Neuron):
            plans[i].packs = layer.emits_bits and _reads_words(layers, i + 1, plans)
            constant = call.static and not any(isinstance(earlier, Neuron) for earlier in layers[:i])
            plans[i].recomputes = constant and whole and layer.plain() is not None
        elif isinstance(layer, Conv2d) and isinstance(after, MaxPool2d) and after.stride >= after.kernel_size:
            plans[i + 1].routes = True
            if plans[i - 1].packs if i else binary:
                plans[i].pool = after.kernel_size, after.stride
                plans[i].awaits = i > 0 and layer.padding == 0 and plans[i - 1].recomputes
                if whole and isinstance(layers[i + 2], Neuron) and _reads_words(layers, i + 3, plans):
                    plans[i].fires = layers[i + 2].plain()
    return plans, binary


def _reads_words(layers, i: int, plans) -> bool:
    """Can layer i take spikes as words: a convolution or linear layer, perhaps behind a max-pool and a Flatten?

    A linear layer of few outputs had better not: to look up who fires costs more than to multiply by zero.
    """
    if i == len(layers):
        return False
    if isinstance(layers[i], MaxPool2d):
        i += 1
    if plans[i].relabels:
        i += 1
    if isinstance(layers[i], Linear) and plans[i].image is None and layers[i].out_features <= NARROW:
        return False
    return isinstance(layers[i], (Conv2d, Linear))


def membrane_of(kept) -> np.ndarray:
    """What a neuron kept -> its membrane (T, b, ...)."""
    rows = kept.membrane[1:]
    return rows.reshape(len(rows), *kept.shape[1:])


def channel_last(x: np.ndarray) -> np.ndarray:
    """(T, B, C, H, W) -> (T, B, H, W, C); samples that are no images stay as they are."""
    return np.ascontiguousarray(np.moveaxis(x, 2, -1)) if x.ndim == 5 else x


def channel_first(x: np.ndarray, leading: int = 2) -> np.ndarray:
    """(T, B, H, W, C) -> (T, B, C, H, W); samples that are no images stay as they are."""
    return np.ascontiguousarray(np.moveaxis(x, -1, -3)) if x.ndim == leading + 3 else x

"""One pass of a batch through a chain of layers, block by block, on all threads.

A batch is cut into blocks of samples, the same for any number of threads. A block goes through all layers while its data is in
cache: ``loss_and_grad`` takes it forward, through the loss, and back, and then forgets it. Block i adds its gradients to lane
i mod LANES, a lane takes its blocks in order, and lanes are summed in order. So the same seed gives the same bits on any number
of threads. The price is memory: while a batch runs, each lane holds gradients of its own for all parameters.

Static prefix.  An input without a time axis enters as T = 1 and stays so until the first neuron: what lies before it is computed
once a batch, forward and backward, not T times. The neuron sums its input gradient over time, which is all it takes.

Joints.  A layer that couples the samples (batch normalisation in training), or whose weight is too large to go through the cache
for each block, takes all blocks at once. What the blocks keep meanwhile lives in arenas that the next call uses again.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import parallel
from .layers import Conv2d, Dropout, Flatten, Layer, Linear, MaxPool2d, Neuron
from .layers.base import Plan
from .layers.normalization import BatchNorm, Centred, Normalised, Summed
from .ops.events import SpikeWords
from .ops.simd import Arena, empty, scratch

__all__ = [
    "Call",
    "Run",
    "block_size",
    "channel_first",
    "channel_last",
    "make_plans",
    "membrane_of",
    "output_gradient",
    "settled",
]

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
    training: bool = False  # batch statistics and dropout
    updates: bool = False  # running estimates follow the batch
    draw: int = 0  # number of the dropout masks
    first: int = 0  # number of the block's first sample

    def frozen(self, layer: Layer) -> dict:
        return self.choices.get(layer.name, {})


@dataclass
class Call:
    """One public call of a network: what it works out before its blocks start, and its passes over them.

    Blocks run through the layers between two joints side by side; at a joint they wait for each other. ``enter`` takes all of
    them up to the last joint, ``forward_block`` takes one on to the end; ``backward_block`` takes one back to the last joint, and
    ``leave`` all of them from there to the beginning. Without joints there is nothing to enter or leave.
    """

    layers: tuple[Layer, ...]
    ops: SimpleNamespace
    dtype: np.dtype
    x: np.ndarray  # (T or 1, B, H, W, C) or (T or 1, B, F); of bool, spikes
    static: bool
    run: Run
    events: bool
    shapes: list[tuple[int, ...]]  # (C, H, W) or (F,): of each layer's input, and of the output
    amp: bool = False  # what waits for the backward pass waits in half precision
    arenas: list[Arena] | None = None  # where blocks that pass a joint keep their arrays, if these need not outlive the call
    size: int | None = None  # samples of a block; None: as many as ``block_size`` says
    spikes: SpikeWords | None = field(init=False)  # x, where it is spikes and the first layer reads bits
    prepared: list[Any] = field(init=False)  # what each layer works out once for all blocks
    whole: dict[int, np.ndarray] = field(init=False)  # outputs of layers that were worked out for the whole batch at once
    kept: list[Any] | None = None  # of each block, of each layer: what forward kept for backward

    def __post_init__(self):
        plans, reads_spikes = make_plans(self)
        self.spikes = SpikeWords.pack(self.x) if reads_spikes else None
        self.prepared = [layer.prepare(self.ops, plan) for layer, plan in zip(self.layers, plans, strict=True)]
        self.whole = self._wide_prefix(plans)
        self.joints = [i for i, layer in enumerate(self.layers) if layer.couples(self.run) or plans[i].whole]
        self._inputs: list[Any] = [None] * len(self.blocks)  # of the segment to come, once the first joint has been passed
        self._heads: list[list] = [[None] * len(self.layers) for _ in self.blocks]  # what the layers before the last joint kept
        self.joint_kept: dict[int, Any] = {}
        self._dys: list[Any] = [None] * len(self.blocks)  # gradients of ``_inputs``
        self._places: dict[tuple[int, int], tuple[int, int]] = {}  # of block and joint: where the segment's memory begins
        if self.joints and self.arenas is not None:
            self.arenas += [Arena() for _ in range(len(self.blocks) + 1 - len(self.arenas))]
            for arena in self.arenas:
                arena.clear()

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
        size = self.size or block_size(self.batch)
        return [slice(lo, min(lo + size, self.batch)) for lo in range(0, self.batch, size)]

    @functools.cached_property
    def trains(self) -> list[bool]:
        """Has a layer parameters to train?"""
        return [any(parameter.trainable for parameter in layer.params.values()) for layer in self.layers]

    def _segments(self) -> list[tuple[int, int]]:
        """-> (first layer, joint) of what lies before each joint."""
        return [(before + 1, joint) for before, joint in zip([-1, *self.joints], self.joints, strict=False)]

    def memory(self, i: int | None):
        """A context in which block i, or with None all blocks together, take their memory."""
        if self.arenas is None:
            return contextlib.nullcontext()
        return scratch(self.arenas[-1 if i is None else i] if self.joints else None)

    def outputs(self) -> np.ndarray:
        """-> room for the spikes or membranes of the last layer, (T, B, ...)."""
        features = self.shapes[-1]
        features = (*features[1:], features[0]) if len(features) == 3 else features
        return np.empty((self.run.num_steps, self.batch, *features), self.dtype)

    def forward(self) -> tuple[np.ndarray, np.ndarray]:
        """-> spikes, membrane (T, B, ...) of the last layer; keeps what ``backward`` needs."""
        spikes, membrane = self.outputs(), self.outputs()
        self.kept = [None] * len(self.blocks)
        self.enter()

        def task(i):
            block = self.blocks[i]
            spikes[:, block], self.kept[i] = self.forward_block(i)
            membrane[:, block] = membrane_of(self.kept[i][-1])

        parallel.run(task, len(self.blocks))
        return channel_first(spikes), channel_first(membrane)

    def backward(self, dspikes, dmembrane, input_grad: bool) -> np.ndarray | None:
        """dspikes, dmembrane (T, B, ...) or None -> dL/dinput or None; adds into every parameter's gradient."""
        if dspikes is None and dmembrane is None:
            raise ValueError("backward needs dspikes, dmembrane, or both")
        gradients = [output_gradient(self, *pair) for pair in (("dspikes", dspikes), ("dmembrane", dmembrane))]

        def block_backward(i, grads):
            block = self.blocks[i]
            parts = [None if g is None else np.ascontiguousarray(g[:, block]) for g in gradients]
            self.backward_block(i, self.kept[i], *parts, grads, input_grad)

        self.over_lanes(block_backward)
        self.leave(input_grad)
        if not input_grad:
            return None
        dx = np.empty(self.x.shape, self.dtype)
        for block, part in zip(self.blocks, self._dys, strict=True):
            dx[:, block] = settled(part, self.ops)
        return channel_first(dx[0], leading=1) if self.static else channel_first(dx)

    # ---------------------------------------------------------------------------------------------- forward

    def enter(self, forgets: bool = False) -> None:
        """Take all blocks to where the last joint's output lies; ``forgets``: there will be no way back."""
        for lo, joint in self._segments():

            def task(i, lo=lo, joint=joint):
                with scratch() if forgets else self.memory(i):
                    self._mark(i, joint)
                    x, kept = self._through(i, lo, joint)
                    self._inputs[i] = _copied(settled(x, self.ops)) if forgets else x
                    if not forgets:
                        self._heads[i][lo:joint] = kept

            parallel.run(task, len(self.blocks))
            layer, prepared = self.layers[joint], self.prepared[joint]
            with self.memory(None):
                ys, kept = layer.forward_batch(self.ops, prepared, self._inputs, self.run)
            self._inputs = list(ys)
            self.joint_kept[joint] = None if forgets else kept

    def forward_block(
        self, i: int, watch: Callable | None = None, states: dict[str, np.ndarray] | None = None
    ) -> tuple[np.ndarray, list]:
        """Behind the last joint -> the last layer's spikes (T, b, ...) of block i, and what each layer keeps.

        ``watch(layer, output, kept)`` sees them all; ``states`` are the neurons' own for these samples, changed in place.
        """
        lo = self.joints[-1] + 1 if self.joints else 0
        spikes, kept = self._through(i, lo, len(self.layers), watch, states)
        return spikes, [*self._heads[i][:lo], *kept]

    def _through(self, i, lo, hi, watch=None, states=None) -> tuple[Any, list]:
        """Block i through layers lo ... hi - 1 -> the last one's output, and what each of them keeps."""
        if lo == 0:
            x = self._input(i)
        else:
            x, self._inputs[i] = self._inputs[i], None
        kept = []
        run = replace(self.run, first=self.blocks[i].start, states=self.run.states if states is None else states)
        for k in range(lo, hi):
            layer, prepared = self.layers[k], self.prepared[k]
            extra = {"y": np.ascontiguousarray(self.whole[k][:, self.blocks[i]])} if k in self.whole else {}
            if isinstance(x, Normalised) and not getattr(prepared, "fused", 0):
                y = x.array(self.ops)
                if self.amp:
                    x.halved()
                x = y
            x, keep = layer.forward(self.ops, prepared, x, run, **extra)
            kept.append(keep)
            if watch:
                watch(layer, x, keep)
        return x, kept

    def _input(self, i):
        if self.spikes is not None:
            return self.spikes.samples(self.blocks[i])
        return np.ascontiguousarray(self.x[:, self.blocks[i]], self.dtype)

    # ---------------------------------------------------------------------------------------------- backward

    def backward_block(self, i: int, kept, dspikes, dmembrane, grads, input_grad: bool) -> None:
        """dspikes, dmembrane (T, b, ...) or None of block i: back to the last joint, or to the input; adds into ``grads``."""
        lo = self.joints[-1] + 1 if self.joints else 0
        self._dys[i] = self._back(dspikes, kept, lo, len(self.layers), grads, input_grad, dmembrane=dmembrane)

    def leave(self, input_grad: bool) -> None:
        """All blocks from the last joint back to the input, whose gradients are then in ``_dys``; adds to all gradients."""
        for lo, joint in reversed(self._segments()):
            if not (input_grad or any(self.trains[: joint + 1])):
                return
            wanted = input_grad or any(self.trains[:joint])
            layer, prepared = self.layers[joint], self.prepared[joint]
            with self.memory(None):
                self._dys = layer.backward_batch(self.ops, prepared, self._dys, self.joint_kept[joint], wanted)
            if not wanted:
                return

            def block_backward(i, grads, lo=lo, joint=joint):
                with contextlib.nullcontext() if self.arenas is None else scratch():
                    dy = self._back(self._dys[i], self._heads[i], lo, joint, grads, input_grad)
                    with self.memory(i):
                        self._dys[i] = dy if self.arenas is None else self._moved(i, joint, dy)

            self.over_lanes(block_backward, lo, joint)

    def _mark(self, i, joint) -> None:
        """Remember where the memory of block i's segment before a joint begins."""
        if self.arenas is not None:
            self._places[i, joint] = self.arenas[i].place

    def _moved(self, i, joint, dy):
        """-> a gradient's copy in block i's memory, from which all that the segment before ``joint`` kept is taken back."""
        self.arenas[i].clear(self._places[i, joint])
        if dy is None:
            return None
        array = dy.dy if isinstance(dy, Summed) else dy
        copy = empty(array.shape, array.dtype)
        copy[...] = array
        return Summed(copy, dy.sums) if isinstance(dy, Summed) else copy

    def _back(self, dy, kept, lo, hi, grads, input_grad, **extra):
        """The gradient of layer hi - 1's output -> that of layer lo's input, or None where nobody wants it."""
        for k in reversed(range(lo, hi)):
            wanted = input_grad or any(self.trains[:k])
            if not wanted and not self.trains[k]:
                return None
            dy = self.layers[k].backward(self.ops, self.prepared[k], settled(dy, self.ops), kept[k], grads[k], wanted, **extra)
            extra = {}
        return dy

    def over_lanes(self, block_task: Callable, lo: int | None = None, hi: int | None = None) -> None:
        """Run ``block_task(i, grads)`` for every block i, and add the lanes' sums to the parameters' gradients in order.

        The gradients are those of layers lo ... hi - 1: by default, of all behind the last joint.
        """
        lo = (self.joints[-1] + 1 if self.joints else 0) if lo is None else lo
        hi = len(self.layers) if hi is None else hi
        count = min(LANES, len(self.blocks))

        def lane(g):
            grads = [layer.gradients(self.ops) if lo <= k < hi else {} for k, layer in enumerate(self.layers)]
            for i in range(g, len(self.blocks), LANES):
                block_task(i, grads)
            return grads

        lanes = parallel.run(lane, count)
        for position in range(lo, hi):
            layer = self.layers[position]
            for key, parameter in layer.params.items():
                sums = [grads[position][key] for grads in lanes]
                if isinstance(sums[0], list):
                    parts = [part for lane_parts in sums for part in lane_parts]
                    sums = [layer.deferred_gradient(self.ops, self.prepared[position], key, parts)]
                for gradient in sums:
                    parameter.grad += gradient


def output_gradient(call, name: str, gradient) -> np.ndarray | None:
    """A gradient given from outside of the outputs of a Call or DeviceCall, checked, channel last."""
    if gradient is None:
        return None
    gradient = np.asarray(gradient)
    shape = (call.run.num_steps, call.batch, *call.shapes[-1])
    if gradient.shape != shape:
        raise ValueError(f"{name} must have the shape {shape} of what forward returned, got {gradient.shape}")
    return channel_last(gradient.astype(call.dtype, copy=False))


def settled(x, ops):
    """A record of a batch normalisation -> the numbers it stands for; anything else as it is."""
    return x.array(ops) if isinstance(x, (Normalised, Centred)) else x


def _copied(x):
    """-> a copy that outlives the block's memory."""
    return SpikeWords(x.words.copy(), x.num_steps) if isinstance(x, SpikeWords) else x.copy()


def make_plans(call) -> tuple[list[Plan], bool]:
    """What each layer may leave out because of its neighbours; and whether the input enters as bits.

    ``call`` is a Call, or a DeviceCall, whose convolutions pool whatever they read, windows that tile the image only.
    Nothing in plain backends. Spikes, those of a given sequence of bool too, travel as bits unless the twin replaces them by
    smooth numbers. What is fused or computed again knows neither a state from outside nor one that is detached on the way.
    """
    layers, shapes, run = call.layers, call.shapes, call.run
    plans = [Plan(shape, call.dtype, amp=call.amp) for shape in shapes[:-1]]
    if plans:
        plans[-1].amp = False  # its membrane is given out
    if not hasattr(call.ops, "conv2d_forward_events"):
        return plans, False
    device = call.ops.device
    for i, (layer, after) in enumerate(zip(layers, layers[1:], strict=False)):
        if isinstance(layer, Flatten) and isinstance(after, Linear) and len(shapes[i]) == 3:
            plans[i].relabels, plans[i + 1].image = True, shapes[i]
    if not call.events or run.smooth:
        return plans, False
    binary = call.x.dtype == bool and not call.static and _reads_words(layers, 0, plans, run)
    whole = run.truncate is None and not run.streams
    for i, (layer, after) in enumerate(zip(layers, layers[1:], strict=False)):
        if isinstance(layer, Neuron):
            plans[i].packs = layer.emits_bits and _reads_words(layers, i + 1, plans, run)
            taken = i > 1 and plans[i - 2].fires is not None  # by the convolution two before it: nobody else may run it
            if plans[i].packs and whole and not run.records and layer.fuses and not taken:
                _fuse(layers, i, plans)
            if plans[i].packs and not run.streams and not run.records:
                k = _reader(layers, i + 1, plans, run)
                plans[k].whole = isinstance(layers[k], Linear) and layers[k].is_whole(call.ops)
            constant = call.static and not any(isinstance(earlier, Neuron) for earlier in layers[:i])
            plans[i].recomputes = constant and whole and layer.plain() is not None and not plans[i].fused
        elif isinstance(layer, Conv2d) and isinstance(after, MaxPool2d) and after.stride >= after.kernel_size:
            bits = plans[i - 1].packs if i else binary
            plans[i + 1].routes = not device or after.stride == after.kernel_size
            if plans[i + 1].routes and (bits or device):
                plans[i].pool = after.kernel_size, after.stride
                fused = hasattr(call.ops, "conv2d_leaky_backward")
                plans[i].awaits = fused and bits and i > 0 and layer.padding == 0 and plans[i - 1].recomputes
                if not device and whole and isinstance(layers[i + 2], Neuron) and _reads_words(layers, i + 3, plans, run):
                    plans[i].fires = layers[i + 2].plain()
    return plans, binary


def _fuse(layers, i: int, plans) -> None:
    """Let neuron i take a batch normalisation before it, and pool its spikes for a max-pool behind it, if they are there."""
    normalised = i > 0 and isinstance(layers[i - 1], BatchNorm)
    after = layers[i + 1]
    pooled = isinstance(after, MaxPool2d) and after.stride == after.kernel_size
    if normalised or pooled:
        plans[i].fused = after.kernel_size if pooled else 1
        if normalised:
            plans[i - 1].lazy = True
        plans[i + 1].passes = pooled


def _reads_words(layers, i: int, plans, run) -> bool:
    """Can layer i take spikes as words: a convolution or linear layer, perhaps behind a max-pool and a Flatten?

    A linear layer of few outputs had better not: to look up who fires costs more than to multiply by zero.
    """
    if i == len(layers):
        return False
    i = _reader(layers, i, plans, run)
    if isinstance(layers[i], Linear) and plans[i].image is None and layers[i].out_features <= NARROW:
        return False
    return isinstance(layers[i], (Conv2d, Linear))


def _reader(layers, i: int, plans, run) -> int:
    """-> the layer that reads spikes which go into layer i, behind layers that hand them on."""
    if isinstance(layers[i], MaxPool2d):
        i += 1
    while isinstance(layers[i], Dropout) and not layers[i].drops(run):
        i += 1
    return i + 1 if plans[i].relabels else i


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

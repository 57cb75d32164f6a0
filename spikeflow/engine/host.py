"""The executor on the processor: one pass of a batch through a program, block by block, on all threads.

A batch is cut into blocks of samples, the same for any number of threads. A block goes through all steps while its data is in
cache: ``step`` takes it forward, through the loss, and back, and then forgets it. Block i adds its gradients to lane i mod LANES,
a lane takes its blocks in order, and lanes are summed in order. So the same seed gives the same bits on any number of threads.
The price is memory: while a batch runs, each lane holds gradients of its own for all parameters.

Static prefix.  An input without a time axis enters as T = 1 and stays so until the first neuron: what lies before it is computed
once a batch, forward and backward, not T times. The neuron sums its input gradient over time, which is all it takes.

Joints.  A step that couples the samples (batch normalisation in training), or whose weight is too large to go through the cache
for each block, takes all blocks at once. What the blocks keep meanwhile lives in arenas that the next call uses again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..kernels.cpu import parallel
from ..kernels.cpu.simd import Arena, empty, scratch
from ..kernels.lazy import lazy
from ..layers.base import Run
from ..ops.events import SpikeWords
from .executor import channel_first, last_axis, output_gradients
from .forms import BITS, Summed, copied, dense
from .lower import Program
from .steps import Given, Step, membrane_of

__all__ = ["HostCall", "block_size"]

BLOCKS = 2  # of a batch, at least, unless they would be smaller than LEAST
LEAST, MOST = 4, 16  # samples of a block: fewer, and Python takes its toll between kernels; more, and its arrays leave the cache
LANES = 16  # partial sums of the gradients, and tasks in flight: as many threads find work


def block_size(batch: int) -> int:
    """-> samples of a block."""
    return min(max(batch // BLOCKS, LEAST), MOST)


class HostCall:
    """One public call of a network; see ``executor.Executor``.

    Blocks run through the steps between two joints side by side; at a joint they wait for each other. ``enter`` takes all of them
    up to the last joint, ``forward_block`` takes one on to the end; ``backward_block`` takes one back to the last joint, and
    ``leave`` all of them from there to the beginning. Without joints there is nothing to enter or leave.

    Parameters
    ----------
    program : Program
    ops : SimpleNamespace
        The backend's table.
    x : (T or 1, B, H, W, C) or (T or 1, B, F)
        Channel last; of bool, spikes.
    run : Run
    arenas : list of Arena, optional
        Where blocks that pass a joint keep their arrays, if these need not outlive the call.
    size : int, optional
        Samples of a block; as many as ``block_size`` says by default.
    """

    def __init__(
        self, program: Program, ops: SimpleNamespace, x: np.ndarray, run: Run, arenas: list[Arena] | None = None,
        size: int | None = None,
    ):  # fmt: skip
        self.program, self.ops, self.x, self.run, self.arenas = program, ops, x, run, arenas
        self.steps, self.joints, self.dtype = program.steps, program.joints, program.kind.dtype
        self.batch = x.shape[1]
        size = size or block_size(self.batch)
        self.blocks = [slice(lo, min(lo + size, self.batch)) for lo in range(0, self.batch, size)]
        self.spikes = SpikeWords.pack(x) if program.entry == BITS else None
        first = x if len(self.blocks) > 1 and program.kind.static else None
        self.packed = [step.pack(ops, None if k else first) for k, step in enumerate(self.steps)]
        self.kept: list[Any] | None = None  # of each block, of each step: what ``forward`` kept for ``backward``
        self.joint_kept: dict[int, Any] = {}
        self._inputs: list[Any] = [None] * len(self.blocks)  # of the segment to come, once the first joint has been passed
        self._heads: list[list] = [[None] * len(self.steps) for _ in self.blocks]  # what the steps before the last joint kept
        self._dys: list[Any] = [None] * len(self.blocks)  # gradients of ``_inputs``
        self._runs: list[Run | None] = [None] * len(self.blocks)  # as each block sees the call's
        self._places: dict[tuple[int, int], tuple[int, int]] = {}  # of block and joint: where the segment's memory begins
        if self.joints and self.arenas is not None:
            self.arenas += [Arena() for _ in range(len(self.blocks) + 1 - len(self.arenas))]
            for arena in self.arenas:
                arena.clear()

    @lazy
    def first_trained(self) -> int:
        """The place of the first step that has parameters to train: no gradient need go further back."""
        return next((k for k, step in enumerate(self.steps) if step.trains), len(self.steps))

    @property
    def tail(self) -> int:
        """The place of the first step behind the last joint."""
        return self.joints[-1] + 1 if self.joints else 0

    # ---------------------------------------------------------------------------------------------- public calls

    def forward(self):
        """As in ``Executor``."""
        spikes, membranes = self.outputs(), self.outputs()
        self.kept = [None] * len(self.blocks)

        def collect(i, block, y, kept):
            self._collect(block, y, kept, spikes, membranes)
            self.kept[i] = kept

        self.each_block(collect)
        return self.program.public(self._pairs(spikes, membranes))

    def predict(self):
        """As in ``Executor``."""
        outputs = self.outputs()

        def collect(i, block, y, kept):
            for output, part in zip(outputs, self.program.each_head(y), strict=True):
                output[:, block] = part

        self.each_block(collect, forgets=True)
        return self.program.public([channel_first(output) for output in outputs])

    def stream(self, states):
        """As in ``Executor``."""
        spikes, membranes = self.outputs(), self.outputs()
        new = {name: np.empty_like(array) for name, array in states.items()}
        parts = [{name: np.array(array[:, block], order="C") for name, array in states.items()} for block in self.blocks]

        def collect(i, block, y, kept):
            self._collect(block, y, kept, spikes, membranes)
            for name, array in parts[i].items():
                new[name][:, block] = array

        flat = [{name: array.reshape(len(array), -1) for name, array in part.items()} for part in parts]
        self.each_block(collect, forgets=True, states=flat)
        return self.program.public(self._pairs(spikes, membranes)), {name: channel_first(array) for name, array in new.items()}

    def record(self) -> dict[str, dict[str, np.ndarray]]:
        """As in ``Executor``."""

        def see(step, y, kept):
            found = step.neuron_kept(kept)
            if found is None:
                return {}
            numbers = dense(y, self.ops, self.dtype), membrane_of(found)
            return {step.layers[0].name: {key: array.copy() for key, array in zip(("spikes", "membrane"), numbers, strict=True)}}

        return joined(self.observe(see))

    def observe(self, see: Callable[[Step, Any, Any], dict]) -> list[dict]:
        """Run forward and keep nothing -> of each block, all that ``see(step, output, kept)`` gave of its steps."""
        found: list[dict] = [{} for _ in self.blocks]
        self.each_block(lambda *_: None, forgets=True, watch=lambda i, *seen: found[i].update(see(*seen)))
        return found

    def backward(self, dspikes, dmembrane, input_grad: bool) -> np.ndarray | None:
        """As in ``Executor``."""
        given = output_gradients(self, dspikes, dmembrane)

        def block_backward(i, grads):
            parts = [Given(*(None if g is None else np.ascontiguousarray(g[:, self.blocks[i]]) for g in pair)) for pair in given]
            self.backward_block(i, self.kept[i], parts, grads, input_grad)

        self.over_lanes(block_backward)
        self.leave(input_grad)
        if not input_grad:
            return None
        dx = np.empty(self.x.shape, self.dtype)
        for block, part in zip(self.blocks, self._dys, strict=True):
            dx[:, block] = part
        return channel_first(dx[0], leading=1) if self.program.kind.static else channel_first(dx)

    def step(self, losses, targets, normalisers):
        """As in ``Executor``."""
        outputs, totals = self.outputs(), [0.0] * len(self.blocks)

        def block_loss_and_grad(i, grads):
            block = self.blocks[i]
            with self.memory(i):
                y, kept = self.forward_block(i)
                given = []
                for head, loss in enumerate(losses):
                    output = self.shown(head, y, kept)
                    outputs[head][:, block] = output[0] if output[0] is not None else output[1]
                    share, *gradients = loss.gradients(*output, targets[head][block], normalisers[head])
                    totals[i] += share
                    given.append(Given(*(None if g is None else np.asarray(g, self.dtype) for g in gradients)))
                self.backward_block(i, kept, given, grads, False)

        self.enter()
        self.over_lanes(block_loss_and_grad)
        self.leave(False)
        return sum(totals), self.program.public([channel_first(output) for output in outputs])

    # ---------------------------------------------------------------------------------------------- what they share

    def outputs(self) -> list[np.ndarray]:
        """-> of each head, room for its spikes or its membrane, (T, B, ...)."""
        return [np.empty((self.run.num_steps, self.batch, *last_axis(head.shape)), self.dtype) for head in self.program.heads]

    def shown(self, head: int, y, kept: list) -> tuple[np.ndarray | None, np.ndarray]:
        """The output of a block, and what it kept -> spikes and membrane (T, b, ...) of a head; without a neuron None and y."""
        end, y = self.program.heads[head], self.program.each_head(y)[head]
        return (y, membrane_of(self.steps[end.step].neuron_kept(kept[end.step]))) if end.neuron else (None, y)

    def _collect(self, block, y, kept, spikes: list[np.ndarray], membranes: list[np.ndarray]) -> None:
        """Put a block's outputs in their place."""
        for head, _ in enumerate(self.program.heads):
            pair = self.shown(head, y, kept)
            for array, part in zip((spikes[head], membranes[head]), pair, strict=True):
                if part is not None:
                    array[:, block] = part

    def _pairs(self, spikes, membranes) -> list[tuple[np.ndarray | None, np.ndarray]]:
        """-> (spikes, membrane) of each head, channel first."""
        pairs = zip(self.program.heads, spikes, membranes, strict=True)
        return [(channel_first(y) if head.neuron else None, channel_first(m)) for head, y, m in pairs]

    def each_block(self, collect: Callable, forgets: bool = False, states: list[dict] | None = None, watch=None) -> None:
        """Take all blocks forward, and ``collect(i, block, output, kept)`` of each; ``forgets``: there is no way back.

        ``states`` are the neurons' own for each block's samples, changed in place; ``watch(i, step, output, kept)`` sees what
        every step gives.
        """
        self.enter(forgets, watch)

        def task(i):
            with scratch() if forgets else contextlib.nullcontext():
                collect(i, self.blocks[i], *self.forward_block(i, watch, None if states is None else states[i]))

        parallel.run(task, len(self.blocks))

    def memory(self, i: int | None):
        """A context in which block i, or with None all blocks together, take their memory."""
        if self.arenas is None:
            return contextlib.nullcontext()
        return scratch(self.arenas[-1 if i is None else i] if self.joints else None)

    # ---------------------------------------------------------------------------------------------- forward

    def enter(self, forgets: bool = False, watch: Callable | None = None) -> None:
        """Take all blocks to where the last joint's output lies; ``forgets``: there will be no way back."""
        for lo, joint in self._segments():

            def task(i, lo=lo, joint=joint):
                with scratch() if forgets else self.memory(i):
                    self._mark(i, joint)
                    x, kept = self._through(i, lo, joint, watch)
                    self._inputs[i] = copied(x) if forgets else x
                    if forgets:
                        self._runs[i].crossings = [crossing.copy() for crossing in self._runs[i].crossings]
                    else:
                        self._heads[i][lo:joint] = kept

            parallel.run(task, len(self.blocks))
            with self.memory(None):
                ys, kept = self.steps[joint].forward_batch(self.ops, self.packed[joint], self._inputs, self.run)
            self._inputs = list(ys)
            self.joint_kept[joint] = None if forgets else kept

    def _segments(self) -> list[tuple[int, int]]:
        """-> (first step, joint) of what lies before each joint."""
        return [(before + 1, joint) for before, joint in zip([-1, *self.joints], self.joints, strict=False)]

    def forward_block(self, i: int, watch=None, states=None) -> tuple[np.ndarray, list]:
        """Behind the last joint -> the output of block i, and what each step keeps."""
        lo = self.tail
        y, kept = self._through(i, lo, len(self.steps), watch, states)
        return y, [*self._heads[i][:lo], *kept]

    def _through(self, i, lo, hi, watch=None, states=None) -> tuple[Any, list]:
        """Block i through steps lo ... hi - 1 -> the last one's output, and what each of them keeps."""
        if lo == 0:
            x = self._input(i)
        else:
            x, self._inputs[i] = self._inputs[i], None
        kept = []
        if lo == 0:
            self._runs[i] = self.run.of_block(self.blocks[i].start, states)
        ops, run = self.ops, self._runs[i]
        for k in range(lo, hi):
            x, keep = self.steps[k].forward(ops, self.packed[k], x, run)
            kept.append(keep)
            if watch:
                watch(i, self.steps[k], x, keep)
        return x, kept

    def _input(self, i):
        if self.spikes is not None:
            return self.spikes.samples(self.blocks[i])
        return np.ascontiguousarray(self.x[:, self.blocks[i]], self.dtype)

    # ---------------------------------------------------------------------------------------------- backward

    def backward_block(self, i: int, kept, given: list[Given], grads, input_grad: bool) -> None:
        """Gradients of each head's output of block i: back to the last joint, or to the input; adds into ``grads``."""
        dy = self.program.gradient(given)
        self._dys[i] = self._back(dy, kept, self.tail, len(self.steps), grads, input_grad)

    def leave(self, input_grad: bool) -> None:
        """All blocks from the last joint back to the input, whose gradients are then in ``_dys``; adds to all gradients."""
        for lo, joint in reversed(self._segments()):
            if not input_grad and joint < self.first_trained:
                return
            wanted, step = input_grad or joint > self.first_trained, self.steps[joint]
            with self.memory(None):
                kept = self.joint_kept[joint]
                self._dys = step.backward_batch(self.ops, self.packed[joint], self._dys, kept, in_place(step), wanted)
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

    def _back(self, dy, kept, lo, hi, grads, input_grad):
        """The gradient of step hi - 1's output -> that of step lo's input, or None where nobody wants it."""
        first = 0 if input_grad else self.first_trained
        for k in range(hi - 1, lo - 1, -1):
            if k < first:
                return None
            dy = self.steps[k].backward(self.ops, self.packed[k], dy, kept[k], grads[k], input_grad or k > first)
        return dy

    def over_lanes(self, block_task: Callable, lo: int | None = None, hi: int | None = None) -> None:
        """Run ``block_task(i, grads)`` for every block i, and add the lanes' sums to the parameters' gradients in order.

        The gradients are those of steps lo ... hi - 1: by default, of all behind the last joint.
        """
        lo, hi = self.tail if lo is None else lo, len(self.steps) if hi is None else hi

        def lane(g):
            grads = [step.gradients() if lo <= k < hi else {} for k, step in enumerate(self.steps)]
            for i in range(g, len(self.blocks), LANES):
                block_task(i, grads)
            return grads

        lanes = parallel.run(lane, min(LANES, len(self.blocks)))
        for k in range(lo, hi):
            self._add(k, [grads[k] for grads in lanes])

    def _add(self, k: int, lanes: list[dict]) -> None:
        """Add the lanes' sums, in order, to the gradients of step k's parameters that are to be trained."""
        for layer in self.steps[k].layers:
            for key, parameter in layer.params.items():
                if not parameter.trainable:
                    continue
                sums = [grads[layer.name][key] for grads in lanes]
                if isinstance(sums[0], list):
                    parts = [part for lane_parts in sums for part in lane_parts]
                    sums = [self.steps[k].settle(self.ops, self.packed[k], key, parts)]
                total = parameter.grad
                for gradient in sums:
                    total += gradient


def in_place(step: Step) -> dict[str, dict[str, np.ndarray]]:
    """-> the gradients of a step's parameters themselves, and zeros for those that are not to be trained."""
    return {
        layer.name: {key: p.grad if p.trainable else np.zeros_like(p.value) for key, p in layer.params.items()}
        for layer in step.layers
    }


def joined(parts: list[dict[str, dict[str, np.ndarray]]]) -> dict[str, dict[str, np.ndarray]]:
    """{name: {key: (T, b, ...)}} of each block -> the same of the batch, channel first."""
    return {
        name: {key: channel_first(np.concatenate([part[name][key] for part in parts], axis=1)) for key in arrays}
        for name, arrays in parts[0].items()
    }

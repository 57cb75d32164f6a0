"""What a training step keeps in memory, and how small its blocks must be for a budget.

``loss_and_grad`` takes a batch block by block. Without a joint (see ``engine.host``) only the blocks that are under way keep
what their backward pass needs, so that smaller blocks keep less; what comes before the last joint is kept of all blocks until the
last of them has passed it, whatever their size. Partial gradients of the lanes, weight gradients that are put off, and arrays on
the way come on top.

Nothing is guessed. What layers keep is read off the arrays that they kept of a few blocks of random samples; what a step
allocates is measured by ``tracemalloc`` in steps of two blocks and of some more, on one thread; it is linear in their number:

    bytes(N blocks, k threads) = max over the phases of (p(N) + (k - 1) t) + k s(N)

A phase is a ``parallel.run``: p is its peak on one thread, of which t is given back when a task ends, and k no more than it has
tasks. Each thread has scratch memory s for itself. From 16 blocks on, the partial gradients of the lanes no longer grow with N.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import math
import re
import threading
import tracemalloc
import weakref
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .engine.host import LANES, LEAST, HostCall, block_size
from .kernels.cpu import parallel
from .kernels.cpu.simd import scratch_size
from .layers import AvgPool2d, BatchNorm2d, Conv2d, Linear, MaxPool2d
from .layers.containers import leaves
from .layers.normalization import BatchNorm
from .losses import Loss

__all__ = [
    "LayerMemory",
    "MemoryPlan",
    "Request",
    "check",
    "choose",
    "format_bytes",
    "measure",
    "on_present_threads",
    "parse_bytes",
    "smallest_input",
]

# Blocks that are to fit at a time, and their samples at least: one block at a time is slower than small ones on two threads.
PREFERENCES = (4, LEAST), (2, LEAST), (2, 1), (1, LEAST), (1, 1)
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
SLACK = 1.01  # of a budget, for blocks that are fixed: a measurement of the same blocks may differ by Python's own objects
SPREAD = 8  # samples, at least, by which the measured steps differ: Python's own objects must not count for much
SIDES = range(1, 513)  # of images, in the search for one that fits


class Phase(NamedTuple):
    """One ``parallel.run`` of a step, or what lies before it, in bytes."""

    peak: int  # scratch memory aside
    transient: int  # of the peak, given back when a task ends
    tasks: int
    lanes: bool  # are the tasks lanes?
    partial: int  # of the peak, partial gradients of each lane
    scratch: int  # of the scratch memory, what its tasks used


class Line(NamedTuple):
    """A phase of 2 and of ``number`` blocks, and what it is with others."""

    two: Phase
    more: Phase
    number: int

    def at(self, name: str, number: float) -> int:
        """-> an entry with so many blocks."""
        two, more = getattr(self.two, name), getattr(self.more, name)
        return math.ceil(two + (more - two) * (number - 2) / (self.number - 2))

    def tasks(self, number: float) -> int:
        tasks = max(1, self.at("tasks", number))
        return min(tasks, LANES) if self.more.lanes else tasks

    def peak(self, number: float, threads: int) -> int:
        """-> the peak with so many blocks, scratch memory aside."""
        peak = self.at("peak", number) - math.floor(max(0, number - LANES) * self.more.partial)
        return peak + (min(threads, self.tasks(number)) - 1) * max(self.two.transient, self.more.transient)


@dataclass(frozen=True)
class LayerMemory:
    """What one layer keeps for the backward pass."""

    name: str
    layer: str  # its type
    bytes: int  # of the whole batch
    waits: bool  # does all of it wait for a joint?


@dataclass(frozen=True)
class MemoryPlan:
    """What a training step keeps, and by which blocks; prints as a table.

    Attributes
    ----------
    batch_size, num_steps, block_size : int
        Samples of a batch, its time steps, samples of a block.
    layers : list of LayerMemory
    joints : list of str
        Layers that take all blocks at once.
    max_bytes : int or None
        The budget.
    threads : int
        As many as may work at a time: those in use, or fewer where the budget has no room for their blocks.
    """

    batch_size: int
    num_steps: int
    block_size: int
    layers: list[LayerMemory]
    joints: list[str]
    phases: list[Line]
    scratch: int  # bytes of the scratch memory that the thread had after the more blocks
    max_bytes: int | None
    threads: int

    @property
    def blocks(self) -> int:
        """Blocks of a batch."""
        return -(-self.batch_size // self.block_size)

    @property
    def kept(self) -> int:
        """Bytes that the layers keep at a time."""
        together = min(self.threads, self.blocks, LANES)
        share = min(1.0, together * self.block_size / self.batch_size)
        return sum(layer.bytes if layer.waits else round(share * layer.bytes) for layer in self.layers)

    @property
    def total(self) -> int:
        """Bytes that a step takes besides parameters, their gradients, and the batch itself."""
        return self.bytes(self.threads)

    def bytes(self, threads: int) -> int:
        """Bytes that a step takes on so many threads."""
        number = self.batch_size / self.block_size
        busy = min(threads, max(phase.tasks(number) for phase in self.phases))
        growth = max(phase.at("scratch", number) for phase in self.phases) - max(phase.more.scratch for phase in self.phases)
        return max(phase.peak(number, threads) for phase in self.phases) + busy * (self.scratch + max(0, growth))

    def within(self, threads: int) -> int:
        """-> as many of the threads as the budget has room for, but one at least."""
        if self.max_bytes is None:
            return threads
        return max((k for k in range(2, threads + 1) if self.bytes(k) <= self.max_bytes), default=1)

    def __str__(self) -> str:
        lines = [
            f"a training step of {self.batch_size} samples, {self.num_steps} steps, in {self.blocks} blocks of {self.block_size},"
            f" on {self.threads} thread{'s' if self.threads > 1 else ''}",
            f"{'layer':<20}{'kept for backward':>20}",
        ]
        for layer in self.layers:
            note = "  of all blocks" if layer.waits and layer.bytes else ""
            lines.append(f"{layer.name + ' ' + layer.layer:<20}{format_bytes(layer.bytes):>20}{note}")
        lines.append(f"{'at a time':<20}{format_bytes(self.kept):>20}")
        budget = "" if self.max_bytes is None else f", of {format_bytes(self.max_bytes)}"
        lines.append(f"{'in all':<20}{format_bytes(self.total):>20}  besides parameters and gradients{budget}")
        if self.joints:
            lines.append(f"all blocks wait for layer {', '.join(self.joints)}: smaller ones save little before it")
        return "\n".join(lines)


# ------------------------------------------------------------------------------------------------ plans


class Request(NamedTuple):
    """A step that is to be planned."""

    batch_size: int
    num_steps: int
    shape: tuple[int, ...]  # of a sample
    dtype: np.dtype | None  # of a sequence (T, B, ...); None for images shown at every step
    training: bool  # are batches normalised by their own statistics, and does dropout drop?


def measure(net, request: Request, size: int, max_bytes: int | None) -> MemoryPlan:
    """-> the plan with blocks of ``size`` samples."""
    found = _measured(net, request, size, bounded=max_bytes is not None)
    return on_present_threads(MemoryPlan(request.batch_size, request.num_steps, size, *found, max_bytes, 1))


def on_present_threads(plan: MemoryPlan) -> MemoryPlan:
    """-> the same on the threads there are or, of them, those that the budget has room for."""
    return dataclasses.replace(plan, threads=plan.within(parallel.get_num_threads()))


def check(plan: MemoryPlan) -> None:
    """ValueError if the budget has no room for the plan on one thread."""
    if plan.max_bytes is not None and plan.bytes(1) > SLACK * plan.max_bytes:
        raise ValueError(_refusal(plan, plan.max_bytes))


def choose(net, request: Request, max_bytes: int) -> MemoryPlan:
    """-> the plan with the largest blocks that the budget has room for; ValueError, with the least that can, if there is none.

    Blocks do not depend on how many threads there are.
    """
    plans, size = [], block_size(request.batch_size)
    sizes = [size]
    while sizes[-1] > 1:
        sizes.append(sizes[-1] // 2)
    for size in reversed(sizes):  # small ones first, which measure in little memory
        plans.append(measure(net, request, size, max_bytes))
        if plans[-1].bytes(1) > max_bytes and plans[-1].bytes(1) >= plans[0].bytes(1):
            break
    for together, least in PREFERENCES:
        for plan in reversed(plans):
            if plan.block_size >= least and plan.bytes(together) <= max_bytes:
                return plan
    raise ValueError(_refusal(min(plans, key=lambda plan: plan.bytes(1)), max_bytes))


def _refusal(least: MemoryPlan, max_bytes: int) -> str:
    waiting = sum(layer.bytes for layer in least.layers if layer.waits)
    reason = f": all samples wait for layer {', '.join(least.joints)} and keep {format_bytes(waiting)}" if waiting else ""
    return (
        f"max_bytes={max_bytes} cannot be met: with {least.batch_size} samples and {least.num_steps} steps the least is "
        f"{least.bytes(1)} bytes ({format_bytes(least.bytes(1))}), in blocks of {least.block_size} on one thread{reason}; a "
        "smaller batch, fewer steps or mixed precision (amp) take less"
    )


# ------------------------------------------------------------------------------------------------ measuring


class _Anything(Loss):
    """A loss that sends back a gradient of every spike, or of the membrane where the end is no neuron that fires."""

    inputs = "membrane"

    def check(self, targets, num_steps, batch, features):
        return np.zeros(batch)

    def gradients(self, spikes, membrane, targets, normaliser):
        gradient = np.full(membrane.shape, 1e-3, membrane.dtype)
        return (0.0, None, gradient) if spikes is None or not spikes.any() else (0.0, gradient, None)


def _measured(net, request: Request, size: int, bounded: bool):
    """-> what the layers keep of the batch, the joints, the phases, and the size of a thread's scratch memory."""
    counts = 2, 2 + max(1, SPREAD // size)
    with _gradients_aside(net):
        for n in counts:  # compiles what there is to compile, which would be counted, and slow to trace
            _step(net, request, *_samples(net, request, n * size), size, bounded, _one_by_one)
        two, more = (_on_fresh_thread(lambda n=n: _traced(net, request, n * size, size, bounded)) for n in counts)
    phases = [Line(*pair, counts[1]) for pair in zip(two[0], more[0], strict=True)]
    scratch = more[1] * (2 if bounded else 1)  # a whole batch's arrays may not fit into the same chunks; a bound must hold
    kept, call = _kept(net, request, size)
    last = call.joints[-1] if call.joints else -1
    waits = {layer.name: k <= last for k, step in enumerate(call.steps) for layer in step.layers}
    layers = [
        LayerMemory(layer.name, type(layer).__name__, round(request.batch_size * kept[layer.name]), waits[layer.name])
        for layer in leaves(net.layers)
    ]
    return layers, [call.steps[k].layers[-1].name for k in call.joints], phases, scratch


def _traced(net, request: Request, batch: int, size: int, bounded: bool) -> tuple[list[Phase], int]:
    """-> the phases of one step on this thread alone, and the size of its scratch memory."""
    x, num_steps = _samples(net, request, batch)
    with _tracing():
        meter = _Meter()
        _step(net, request, x, num_steps, size, bounded, meter.execute)
        meter.between()
    return meter.phases, scratch_size()[0]


def _one_by_one(task, count: int) -> list:
    return [task(i) for i in range(count)]


def _step(net, request: Request, x, num_steps: int | None, size: int, bounded: bool, execute) -> None:
    """One step on this thread alone; it changes gradients, but no running estimates."""
    options = {"arenas": None if bounded or net.amp else [], "size": size, "training": request.training}
    with parallel.executed_by(execute):
        net._step(x, None, _Anything(), num_steps, **options)


class _Meter:
    """Takes the place of ``parallel.run`` and sees what its tasks allocate."""

    def __init__(self):
        self.phases: list[Phase] = []
        self.nested = False
        self.lanes, self.sums = 1, []  # of the latest lanes: how many, and weak references to their gradients
        self.partial = 0
        self.base = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()

    def between(self) -> None:
        """What came since the phase before."""
        peak = tracemalloc.get_traced_memory()[1] - self.base - scratch_size()[0]
        self.phases.append(Phase(peak, 0, 1, False, self.partial, 0))
        self.partial = self._alive()

    def _alive(self) -> int:
        """-> bytes of the gradients of a lane that are still there."""
        arrays = [reference() for reference in self.sums]
        return sum(array.nbytes for array in arrays if array is not None) // self.lanes

    def execute(self, task, count: int) -> list:
        if self.nested:
            return _one_by_one(task, count)
        self.between()
        self.nested = True
        results, highest, transient, most = [], 0, 0, 0
        for i in range(count):
            tracemalloc.reset_peak()
            results.append(task(i))
            now, peak = tracemalloc.get_traced_memory()
            size, used = scratch_size()
            highest, transient = max(highest, peak - self.base - size), max(transient, peak - now)
            most = max(most, used)
        if sums := _partial_gradients(results):
            self.lanes, self.sums = count, [weakref.ref(array) for array in sums]
        self.partial = self._alive()
        self.phases.append(Phase(highest, transient, count, bool(sums), self.partial, most))
        tracemalloc.reset_peak()
        self.nested = False
        return results


def _partial_gradients(results: list) -> list[np.ndarray]:
    """-> the partial gradients that lanes return; none for other tasks."""
    if not all(isinstance(lane, list) and all(isinstance(grads, dict) for grads in lane) for lane in results):
        return []
    layers = [layer for lane in results for grads in lane for layer in grads.values()]
    return [array for layer in layers for array in layer.values() if isinstance(array, np.ndarray)]


def _samples(net, request: Request, batch: int) -> tuple[np.ndarray, int | None]:
    """-> random images and num_steps, or a random sequence and None."""
    rng = np.random.Generator(np.random.Philox(key=0))
    if request.dtype is None:
        return rng.random((batch, *request.shape), net.dtype), request.num_steps
    sequence = rng.random((request.num_steps, batch, *request.shape), net.dtype)
    return (sequence < 0.2 if request.dtype == bool else sequence), None


@contextlib.contextmanager
def _gradients_aside(net):
    """Afterwards, the parameters' gradients are what they were before."""
    parameters = [parameter for layer in leaves(net.layers) for parameter in layer.params.values()]
    gradients = [parameter.grad.copy() for parameter in parameters]
    try:
        yield
    finally:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient


@contextlib.contextmanager
def _tracing():
    """Within, allocations are traced, and cycles of garbage are not collected at moments of their own."""
    started, collects = not tracemalloc.is_tracing(), gc.isenabled()
    gc.collect()
    gc.disable()
    if started:
        tracemalloc.start()
    try:
        yield
    finally:
        if started:
            tracemalloc.stop()
        if collects:
            gc.enable()


def _on_fresh_thread(task):
    """-> the result of a task on a thread of its own, whose scratch memory is new."""
    found = []

    def run():
        try:
            found.append((task(), None))
        except BaseException as error:
            found.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    result, error = found[0]
    if error is not None:
        raise error
    return result


# ------------------------------------------------------------------------------------------------ what layers keep


def _kept(net, request: Request, size: int) -> tuple[dict[str, float], HostCall]:
    """-> bytes that each layer keeps of a sample, in blocks of ``size``, and a call with such blocks.

    An array that several layers keep counts for the first of them.
    """
    (two, _), (three, call) = (_kept_of(net, request, n * size, size) for n in (2, 3))
    return {name: (three[name] - two[name]) / size for name in two}, call


def _kept_of(net, request: Request, batch: int, size: int) -> tuple[dict[str, int], HostCall]:
    x, num_steps = _samples(net, request, batch)
    call = net._call(x, num_steps, amp=net.amp, size=size, training=request.training)
    call.enter()
    kept = [call.forward_block(i)[1] for i in range(len(call.blocks))]
    found, seen = {}, set()
    _count([call.packed, [(p.value, p.grad) for layer in leaves(net.layers) for p in layer.params.values()]], seen)
    for k, step in enumerate(call.steps):
        parts = [[call.joint_kept[k]]] if step.joint else [step.kept_by_layer(block[k]) for block in kept]
        for place, layer in enumerate(step.layers):
            found[layer.name] = _count([part[place] for part in parts if place < len(part)], seen)
    return found, call


def _count(x, seen: set[int]) -> int:
    """-> bytes of all arrays in x, whatever holds them, but for those seen before."""
    if isinstance(x, np.ndarray):
        while isinstance(x.base, np.ndarray):
            x = x.base
        place = x.__array_interface__["data"][0]
        new = place not in seen
        seen.add(place)
        return x.nbytes if new else 0
    if isinstance(x, dict):
        x = x.values()
    elif dataclasses.is_dataclass(x):
        x = vars(x).values()
    elif not isinstance(x, (list, tuple)):
        return 0
    return sum(_count(part, seen) for part in list(x))


# ------------------------------------------------------------------------------------------------ inputs and units


def smallest_input(layers) -> tuple[int, ...]:
    """-> the smallest sample, of images a square one, that fits all layers; ValueError if the layers leave that open."""
    flat = list(leaves(layers))
    for layer in flat:
        if isinstance(layer, (Conv2d, MaxPool2d, AvgPool2d, BatchNorm2d)):
            break
        if isinstance(layer, Linear):
            return (layer.in_features,)
        if isinstance(layer, BatchNorm):
            return (layer.num_features,)
    channels = next((_channels(layer) for layer in flat if _channels(layer)), None)
    if channels is not None and any(isinstance(layer, Linear) for layer in flat):
        for side in SIDES:
            if _fits(layers, (channels, side, side)):
                return channels, side, side
    raise ValueError("input_shape must be given, such as (1, 28, 28): the layers leave it open")


def _channels(layer) -> int | None:
    return getattr(layer, "in_channels", None) or (layer.num_features if isinstance(layer, BatchNorm2d) else None)


def _fits(layers, shape: tuple[int, ...]) -> bool:
    with contextlib.suppress(ValueError):
        for layer in layers:
            shape = layer.output_shape(shape)
        return True
    return False


def parse_bytes(text: str | int) -> int:
    """``"500MB"``, ``"1.5 GiB"``, ``"2g"`` or a number of bytes -> bytes; ValueError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]?i?)b?\s*", str(text).lower())
    if isinstance(text, bool) or not match or match[2] not in UNITS or not float(match[1]) > 0:
        raise ValueError(f"max_bytes must be a number of bytes such as 500000000, 500MB or 2GiB, got {text!r}")
    return int(float(match[1]) * UNITS[match[2]])


def format_bytes(number: float) -> str:
    """-> ``"12.3 MB"``, ``"640 B"``."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f} B"

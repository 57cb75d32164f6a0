"""Finite differences against the hand-derived gradients of a whole network.

What is checked: every parameter of every layer, at sampled entries and along drawn directions. Kernels that skip the zeros of
real spikes cannot run on smooth numbers; the tests compare them with the dense kernels that run here.

Spikes have no derivative, so the check runs the network's smooth twin: the same layers in float64 with the surrogate's primitive
in place of the step. The twin is differentiable where every discrete choice is held fixed, and the hand-derived backward is then
its exact gradient. The analytic side is the network's own backend. The numeric side is the NumPy reference, which obeys the
choices that the analytic run made: reset flags (detached) and pooling winners.

A parameter's row compares gradient entries (half the largest, half drawn) and derivatives along drawn directions with central
differences of fourth order,

    f'(x) = (8 [f(x + h) - f(x - h)] - [f(x + 2h) - f(x - 2h)]) / (12 h) + O(h^4),

and reports  |numeric - analytic| / m,  m = max(|numeric|, |analytic|),  in the Euclidean norm. Beside it stands the round-off
floor, the relative error that the subtraction alone may cause, about  eps |L| sqrt(n) / (h m)  for n compared numbers. Where the
floor is above the tolerance the row is undecidable: it never counts as passed.

Differences are taken with the steps h, h / 4 and h / 16, until one agrees. The fast sigmoid's derivative has a kink at the
threshold, and a whole area of equal membranes may lie within h of it, where differences are off by O(h); a wrong gradient is
wrong with every step.

Far below the threshold all gradients drown in round-off, so the twin's weights are scaled, layer by layer, until its membranes
reach the threshold (``rescale=False`` keeps them).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from . import backends, random
from .engine.branches import Crossing
from .engine.executor import channel_first, channel_last
from .engine.host import HostCall
from .engine.lower import lower
from .engine.steps import membrane_of
from .layers import Layer, Neuron
from .layers.containers import leaves
from .losses import Loss
from .network import Sequential

__all__ = ["Report", "Row", "gradcheck"]

TOLERANCE = 1e-6


@dataclass(frozen=True)
class Row:
    """One parameter's comparison."""

    name: str
    compared: int  # entries and directions
    norm: float  # of the whole analytic gradient
    entries: float  # norm-relative error over the entries
    directions: float  # the same over the directions
    floor: float  # the larger of the two round-off floors
    tolerance: float

    @property
    def verdict(self) -> str:
        """ "ok", "FAILED", or "undecidable" where round-off hides the answer."""
        if not self.floor <= self.tolerance:
            return "undecidable"
        return "ok" if self.entries <= self.tolerance and self.directions <= self.tolerance else "FAILED"


@dataclass(frozen=True)
class Report:
    """The rows of all parameters; ``passed`` only if every row is "ok"."""

    rows: list[Row]
    loss: float
    scales: dict[str, float]  # factor put on the weights in front of each neuron layer, where it was not 1

    @property
    def passed(self) -> bool:
        return all(row.verdict == "ok" for row in self.rows)

    def __str__(self) -> str:
        lines = [f"loss of the smooth twin {self.loss:.6f}"]
        lines += [f"weights in front of layer {name} scaled by {factor:.4g}" for name, factor in self.scales.items()]
        lines.append(f"{'parameter':<14}{'compared':>9}{'|gradient|':>12}{'entries':>11}{'directions':>12}{'floor':>11}  verdict")
        for row in self.rows:
            numbers = f"{row.norm:>12.3e}{row.entries:>11.1e}{row.directions:>12.1e}{row.floor:>11.1e}"
            lines.append(f"{row.name:<14}{row.compared:>9}{numbers}  {row.verdict}")
        return "\n".join(lines)


def gradcheck(
    net: Sequential,
    images: np.ndarray,
    labels: np.ndarray,
    loss_fn: Loss | Callable,
    num_steps: int | None = 5,
    entries: int = 12,
    directions: int = 3,
    h: float = 1e-5,
    tolerance: float = TOLERANCE,
    rescale: bool = True,
    seed: int = 0,
) -> Report:
    """Compare the network's gradients, the input's included, with central differences.

    Parameters
    ----------
    net : Sequential
        Its own parameters and gradients stay as they are; the check runs on a float64 copy with the same backend.
    images, labels, num_steps
        As for ``net.loss_and_grad``; images of any float dtype.
    loss_fn : Loss, or callable ``f(spikes, membrane, labels) -> loss, dspikes, dmembrane``
    entries, directions : int
        How many numbers to compare for each parameter.
    h : float
        Step of the differences. Near 1e-5 both truncation and round-off stay below the tolerance.
    tolerance : float
        Largest norm-relative error of a row that is "ok".
    rescale : bool
        Scale the copy's weights until its membranes reach the threshold.
    seed : int
        Of the drawn entries and directions.

    Returns
    -------
    Report
    """
    backend = "cpu" if net.backend == "cuda" else net.backend  # whose float64 is slow, where there is any
    twin = Sequential(*(layer.unused_copy() for layer in net.layers), backend=backend, dtype=np.float64)
    twin.load_state_dict({name: value.astype(np.float64) for name, value in net.state_dict().items()})
    for layer in leaves(twin.layers):
        for key in set(layer.params) & set(
            getattr(layer, "decays", ())
        ):  # the clamp is flat outside [0, 1]: no difference may step over an end
            layer.params[key].value = np.clip(layer.params[key].value, 1e-3, 1 - 1e-3)
        if isinstance(layer, Neuron) and layer.model.fires:
            layer.spike_grad.require_primitive()
    twin.train(net.training)
    images = np.asarray(images).astype(np.float64)
    scales = _reach_threshold(twin, images, num_steps) if rescale else {}

    call = twin._call(images, num_steps, smooth=True, training=net.training)
    loss, dspikes, dmembrane = _evaluate(twin, call, loss_fn, call.forward(), labels)
    twin.zero_grad()
    dimages = call.backward(dspikes, dmembrane, input_grad=True)
    numeric = _Reference(twin, call, loss_fn, labels)

    rows = []
    for layer in leaves(twin.layers):
        for parameter in (parameter for parameter in layer.params.values() if parameter.trainable):
            rows.append((parameter.name, parameter.value, parameter.grad, numeric.place_of(layer)))
    gradient = channel_last(dimages[None] if call.program.kind.static else dimages)
    rows.append(("input", call.x, gradient, 0))  # the array that the reference reads, changed in place
    compare = _Comparison(numeric, loss, entries, directions, h, tolerance, seed)
    return Report([compare(*row) for row in rows], loss, scales)


class _Reference:
    """The twin's loss as a function of its parameters, by the NumPy reference with the discrete choices held fixed."""

    def __init__(self, twin: Sequential, call: HostCall, loss_fn, labels):
        self.twin, self.call, self.loss_fn, self.labels = twin, call, loss_fn, labels
        self.ops = backends.load("reference")
        self.runs = [
            replace(call.run, first=block.start, choices=_choices(call, kept))
            for block, kept in zip(call.blocks, call.kept, strict=True)
        ]
        kind = replace(call.program.kind, backend="reference", rules=False)
        self.program = lower(twin.layers, kind.shape, kind, self.ops)
        self.inputs: list[tuple] = []  # of each step at the base point: of each block x, and what branches have put aside
        self.kept: dict[int, tuple] = {}  # of the last step of each head at the base point, by block
        self.loss_from(0, remember=True)

    def place_of(self, layer: Layer) -> int:
        """-> the step of a layer."""
        return next(k for k, step in enumerate(self.program.steps) if layer in step.layers)

    def loss_from(self, place: int, remember: bool = False) -> float:
        """The loss when only layers of steps from ``place`` on have changed."""
        call, steps, kept = self.call, self.program.steps, dict(self.kept)
        xs, aside = self.inputs[place] if place else ([call.x[:, block] for block in call.blocks], [[] for _ in call.blocks])
        for run, crossings in zip(self.runs, aside, strict=True):
            run.crossings = _set_aside(crossings)
        for k in range(place, len(steps)):
            if remember:
                self.inputs.append((xs, [_set_aside(run.crossings) for run in self.runs]))
            packed = steps[k].pack(self.ops, None)
            if steps[k].joint:
                xs, _ = steps[k].forward_batch(self.ops, packed, xs, call.run)
                continue
            found = [steps[k].forward(self.ops, packed, x, run) for x, run in zip(xs, self.runs, strict=True)]
            xs, kept[k] = zip(*found, strict=True)
        if remember:
            self.kept = {head.step: kept[head.step] for head in self.program.heads if head.neuron}
        return _evaluate(self.twin, call, self.loss_fn, self._outputs(xs, kept), self.labels)[0]

    def _outputs(self, xs, kept):
        """Outputs of all blocks, and what each step kept of them -> what ``forward`` returns."""
        pairs = []
        for number, head in enumerate(self.program.heads):
            y = channel_first(np.concatenate([self.program.each_head(x)[number] for x in xs], axis=1))
            if head.neuron:
                membrane = np.concatenate([membrane_of(keep) for keep in kept[head.step]], axis=1)
                pairs.append((y, channel_first(membrane)))
            else:
                pairs.append((None, y))
        return self.program.public(pairs)


def _set_aside(crossings: list[Crossing]) -> list[Crossing]:
    """-> what branches have put aside, in new records, since a pass changes these."""
    return [Crossing(crossing.x, list(crossing.outputs)) for crossing in crossings]


def _choices(call: HostCall, kept: list) -> dict[str, dict[str, np.ndarray]]:
    """-> the discrete choices of one block's forward pass, by layer."""
    parts = [step.kept_by_layer(keep) for step, keep in zip(call.steps, kept, strict=True)]
    pairs = (pair for step, part in zip(call.steps, parts, strict=True) for pair in zip(step.layers, part, strict=False))
    return {layer.name: layer.choices(keep) for layer, keep in pairs}


@dataclass(frozen=True)
class _Comparison:
    numeric: _Reference
    loss: float
    entries: int
    directions: int
    h: float
    tolerance: float
    seed: int

    def __call__(self, name: str, value: np.ndarray, gradient: np.ndarray, position: int) -> Row:
        """Compare ``gradient`` with differences of the loss around ``value``, which belongs to the step at ``position``."""
        flat = np.ascontiguousarray(gradient).reshape(-1)
        chosen = self._choose(name, flat)
        units = [np.bincount([index], minlength=flat.size).astype(np.float64) for index in chosen]
        drawn = self._directions(name, flat.size)

        def row(h):
            (entries, floor), (directions, other) = (self._error(value, flat, along, position, h) for along in (units, drawn))
            compared, norm = len(units) + len(drawn), float(np.linalg.norm(flat))
            return Row(name, compared, norm, entries, directions, max(floor, other), self.tolerance)

        rows = []
        for h in (self.h, self.h / 4, self.h / 16):
            rows.append(row(h))
            if rows[-1].verdict == "ok":
                return rows[-1]
        decided = [r for r in rows if r.verdict == "FAILED"]
        return min(decided, key=lambda r: max(r.entries, r.directions), default=rows[0])

    def _error(self, value, flat, along, position, h) -> tuple[float, float]:
        """-> norm-relative error of the derivatives along the given unit vectors, and its round-off floor."""
        analytic = np.array([u @ flat for u in along])
        numeric = np.array([self._derivative(value, u.reshape(value.shape), position, h) for u in along])
        norm = max(np.linalg.norm(analytic), np.linalg.norm(numeric))
        if norm == 0:
            return 0.0, np.inf
        floor = np.finfo(float).eps * abs(self.loss) * np.sqrt(len(along)) / (h * norm)
        return float(np.linalg.norm(numeric - analytic) / norm), float(floor)

    def _choose(self, name, flat) -> list[int]:
        """Indices of half the largest entries and half drawn ones."""
        largest = np.argsort(-abs(flat), kind="stable")[: (self.entries + 1) // 2]
        drawn = random.permutation(flat.size, self.seed, f"gradcheck/{name}")
        return list(dict.fromkeys([*largest.tolist(), *drawn.tolist()]))[: self.entries]

    def _directions(self, name, size) -> list[np.ndarray]:
        """Unit vectors with entries drawn uniformly from [-1, 1), then normalised."""
        drawn = random.uniform((self.directions, size), -1, 1, self.seed, f"gradcheck/{name}/directions")
        return list(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))

    def _derivative(self, value, direction, position, h) -> float:
        base = value.copy()

        def loss_at(steps):
            value[...] = base + steps * h * direction
            return self.numeric.loss_from(position)

        try:
            near, far = loss_at(1) - loss_at(-1), loss_at(2) - loss_at(-2)
        finally:
            value[...] = base
        return (8 * near - far) / (12 * h)


def _evaluate(twin, call, loss_fn, outputs, labels) -> tuple:
    """What ``forward`` returned -> loss, dspikes, dmembrane of either kind of loss; of several heads these are tuples."""
    several = len(call.program.heads) > 1
    if not isinstance(loss_fn, (Loss, tuple, list)):
        return loss_fn(*(zip(*outputs, strict=True) if several else outputs), labels)
    losses, targets, normalisers = twin._losses(call, loss_fn, labels)
    pairs = outputs if several else [outputs]
    found = [loss.gradients(*pair, *given) for loss, pair, *given in zip(losses, pairs, targets, normalisers, strict=True)]
    shares, dspikes, dmembrane = zip(*found, strict=True)
    return sum(shares), call.program.public(dspikes), call.program.public(dmembrane)


def _reach_threshold(twin: Sequential, images, num_steps) -> dict[str, float]:
    """Scale the weights in front of each neuron layer, first layer first, until its largest membranes pass the threshold."""
    scales, before = {}, []
    for layer in leaves(twin.layers):
        if not isinstance(layer, Neuron):
            before += [layer.params[key] for key in ("weight", "bias") if key in layer.params]
            continue
        call = twin._call(images, num_steps, smooth=True, training=twin.training)
        call.forward()
        at = next(k for k, step in enumerate(call.steps) if layer in step.layers)
        membranes = np.concatenate([call.steps[at].neuron_kept(kept[at]).membrane.reshape(-1) for kept in call.kept])
        reached = float(np.quantile(membranes, 0.95))
        threshold = float(layer.current("threshold").mean())
        if before and 0 < reached < threshold:
            scales[layer.name] = threshold / reached
            for parameter in before:
                parameter.value *= scales[layer.name]
        before = []
    return scales

"""``SPIKEFLOW_CHECK=1``: beside every step that a rule made run the layers that it covers, on the step's own inputs.

The layers run plain, forward on the numbers that the step was given, backward on the gradient that it was given. On dyadic
numbers, whose sums are exact in any order, outputs must be equal to the bit. Elsewhere numbers and gradients must be within BOUND
of their size, and no spike may differ but where a membrane of the same sample came that close to its threshold, at that step or
before. Where a spike or the winner of a window differs for that reason,
the gradient is another function's and is not judged.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

from ..layers import Neuron
from ..layers.normalization import BatchNorm
from .forms import BITS, concatenated, dense
from .steps import Step

__all__ = ["CheckError", "Checked", "wanted"]

BOUND = 1e-5
HALF = 1e-2  # of gradients whose forward pass waited in half precision, 5e-4 of each number, and that may cancel
SMALL = 1e-2  # of the step's largest gradient, or of all that is added up: smaller ones may be nothing but rounding
GRAIN, MOST = 64, 2.0**11  # dyadic numbers are multiples of 1 / GRAIN, and their sums stay below MOST: float32 holds them all
TIES = 1e-4  # share of the windows whose winner may differ, since sums that are equal round differently


class CheckError(RuntimeError):
    """A step does not compute what the layers that it covers compute."""


def wanted() -> bool:
    """Is ``SPIKEFLOW_CHECK`` set?"""
    return os.environ.get("SPIKEFLOW_CHECK", "0") not in ("", "0")


class Checked(Step):
    """A step, and beside it the plain layers that it covers."""

    def __init__(self, step: Step):
        super().__init__(step.layers, step.shapes, step.kind)
        self.step, self.rule, self.joint, self.keeps = step, step.rule, step.joint, step.keeps
        self.takes, self.gives = step.takes, step.gives

    def pack(self, ops, batch):
        dtype = self.kind.dtype
        plain = [layer.prepare(ops, shape, dtype) for layer, shape in zip(self.layers, self.shapes, strict=False)]
        return self.step.pack(ops, batch), plain

    def neuron_kept(self, kept):
        return self.step.neuron_kept(kept[0])

    def kept_by_layer(self, kept):
        return self.step.kept_by_layer(kept[0])

    # ---------------------------------------------------------------------------------------------- forward

    def forward(self, ops, packed, x, run):
        numbers, states = dense(x, ops, self.kind.dtype), {name: state.copy() for name, state in run.states.items()}
        y, kept = self.step.forward(ops, packed[0], x, run)
        same, plain = self._forward_plain(ops, packed[1], numbers, replace(run, states=states), y)
        return y, (kept, plain, same and self._same_winners(kept, plain))

    def forward_batch(self, ops, packed, xs, run):
        numbers = concatenated([dense(x, ops, self.kind.dtype) for x in xs])
        ys, kept = self.step.forward_batch(ops, packed[0], xs, run)
        y = concatenated([dense(y, ops, self.kind.dtype) for y in ys])
        same, plain = self._forward_plain(ops, packed[1], numbers, replace(run, updates=False), y)
        return ys, (kept, plain, same)

    def _forward_plain(self, ops, prepared, x, run, y) -> tuple[bool, list]:
        """Run the layers on x and compare -> does no spike differ from y, and what they keep."""
        exact, kept, size = self._is_exact(x), [], 0.0
        for layer, part in zip(self.layers, prepared, strict=True):
            before = x
            x, keep = layer.forward(ops, part, x, run)
            kept.append(keep)
            if isinstance(layer, BatchNorm):  # scale x and shift may cancel, and leave what was rounded
                size = max(size, abs(keep[1]).max() * abs(before).max())
        return self._compare_outputs(dense(y, ops, self.kind.dtype), x, kept, exact, size), kept

    def _is_exact(self, x) -> bool:
        """Must the output be equal to the bit, since all sums are exact?"""
        if self.kind.dtype != np.float32 or any(isinstance(layer, BatchNorm) for layer in self.layers) or not _dyadic(x):
            return False
        most = abs(x).max(initial=0)
        for layer in (layer for layer in self.layers if "weight" in layer.params):
            weight = layer.params["weight"].value
            if not all(_dyadic(parameter.value) for parameter in layer.params.values()):
                return False
            most = max(most, 1) * abs(weight).reshape(len(weight), -1).sum(1).max() + abs(weight).max()
            if most > MOST:
                return False
            most = 1  # a neuron comes next, or a pool that changes no number
        return True

    def _compare_outputs(self, found, expected, kept, exact: bool, size: float) -> bool:
        if found.shape != expected.shape:
            raise self._error("forward", f"gives {found.shape} where they give {expected.shape}")
        differs = found != expected
        if not differs.any():
            return True
        if exact:
            raise self._error("forward", f"{differs.sum()} of {differs.size} numbers differ, on dyadic numbers, which are exact")
        if self.gives == BITS:
            self._excuse(differs, kept)
            return False
        size = max(size, abs(expected).max())
        if not abs(found - expected).max() <= BOUND * size:
            raise self._error("forward", f"numbers differ by {abs(found - expected).max():.3g}, the largest is {size:.3g}")
        return True

    def _excuse(self, differs, kept) -> None:
        """Raise unless spikes differ only in samples that have come close to a threshold by then."""
        T, B = differs.shape[:2]
        wrong = differs.reshape(T, B, -1).any(2)
        close = np.zeros((T, B), bool)
        for layer, keep in zip(self.layers, kept, strict=True):
            if isinstance(layer, Neuron):
                u = keep.trajectory.before
                u = keep.membrane[1:] if u is None or not len(u) else u
                above = abs(u - np.tile(keep.params[0], u.shape[1] // keep.params.shape[1]))
                close |= (above <= BOUND * np.maximum(abs(u), abs(keep.params[0]).max())).reshape(T, B, -1).any(2)
        if (wrong & ~np.logical_or.accumulate(close)).any():
            raise self._error("forward", f"{differs.sum()} of {differs.size} spikes differ, not all beside their threshold")

    def _same_winners(self, kept, plain) -> bool:
        found = self.step.winners(kept)
        if found is None:
            return True
        expected = next(keep for layer, keep in zip(self.layers, plain, strict=True) if type(layer).__name__ == "MaxPool2d")[0]
        differ = np.count_nonzero(found.reshape(-1) != expected.reshape(-1))
        if differ > max(1, TIES * found.size):
            raise self._error("forward", f"the winners of {differ} of {found.size} windows differ")
        return differ == 0

    # ---------------------------------------------------------------------------------------------- backward

    def backward(self, ops, packed, dy, kept, grads, input_grad):
        own = self.step.gradients()
        dx = self.step.backward(ops, packed[0], dy, kept[0], own, input_grad)
        for name, found in own.items():
            own[name] = {key: self._settled(ops, packed[0], key, gradient) for key, gradient in found.items()}
        shown = dense(dx, ops, self.kind.dtype) if input_grad else None
        self._compare_gradients(ops, packed[1], dense(dy, ops, self.kind.dtype), kept, own, shown)
        _add(own, grads)
        return dx

    def _settled(self, ops, packed, key, gradient):
        return self.step.settle(ops, packed, key, gradient) if isinstance(gradient, list) else gradient

    def backward_batch(self, ops, packed, dys, kept, grads, input_grad):
        own = super().gradients()
        numbers = concatenated([dense(dy, ops, self.kind.dtype) for dy in dys])
        dxs = self.step.backward_batch(ops, packed[0], dys, kept[0], own, input_grad)
        shown = concatenated([dense(dx, ops, self.kind.dtype) for dx in dxs]) if input_grad else None
        self._compare_gradients(ops, packed[1], numbers, kept, own, shown)
        _add(own, grads)
        return dxs

    def _compare_gradients(self, ops, prepared, dy, kept, found, dx) -> None:
        """Take dy back through the layers and compare."""
        _, plain, same = kept
        if not same:
            return
        added = np.abs(dy).sum(dtype=np.float64)  # what a bias adds up: between normalisations it cancels, but for rounding
        expected = super().gradients()
        for layer, part, keep in reversed(list(zip(self.layers, prepared, plain, strict=True))):
            added = max(added, np.abs(dy).sum(dtype=np.float64))
            if isinstance(layer, BatchNorm):  # which multiplies what was rounded, too: dy by its scale, x by 1 / sqrt(var + eps)
                x, scale, _, inverse, _ = keep
                added *= max(1, abs(scale).max()) * max(1, abs(x).max() * inverse.max())
            dy = layer.backward(ops, part, dy, keep, expected.get(layer.name, {}), True)
        trained = [(layer.name, key) for layer in self.layers for key in layer.params if layer.trains(key)]
        pairs = {f"{name}.{key}": (found[name][key], expected[name][key]) for name, key in trained}
        size = max(added, *(np.linalg.norm(gradient) for gradient in (dy, *(theirs for _, theirs in pairs.values()))))
        pairs |= {} if dx is None else {"input": (dx, dy)}
        for name, (ours, theirs) in pairs.items():
            norm, error = np.linalg.norm(theirs), np.linalg.norm(np.asarray(ours, np.float64) - theirs)
            if not error <= (HALF if self.kind.amp else BOUND) * max(norm, SMALL * size):
                raise self._error("backward", f"the gradient of {name} differs by {error / max(norm, 1e-300):.2g} of its norm")

    def _error(self, way: str, what: str) -> CheckError:
        names = ", ".join(f"{layer.name} {layer!r}" for layer in self.layers)
        return CheckError(f"step {self.name}, made by rule {self.rule}, {way}: {what}; it covers {names}")


def _add(own, grads) -> None:
    for name, found in own.items():
        for key, gradient in found.items():
            grads[name][key] += gradient


def _dyadic(x: np.ndarray) -> bool:
    scaled = x * GRAIN
    return bool((scaled == np.rint(scaled)).all())

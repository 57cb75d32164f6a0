"""The executor on a device: where a network's parameters live, and one pass of a batch through a program.

Layers and most steps are those of the other backends; their operations are CUDA kernels. The whole batch is one block. Between
the copy of the images to the device and the copy of the loss and of the output spikes back, nothing is copied and nobody waits.
All that a step needs comes from an arena: from the second step on nothing is allocated, and the same kernels are launched on the
same addresses, as a captured graph needs it. (Losses of one's own are the exception, and the decays of ``Alpha`` where they are
learned: the host works out what they give.)

As on the host, what lies before the first neuron runs once where the input is constant, spikes travel as bits, and neighbours are
fused by the rules whose operations this backend has.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..kernels.cuda import gpu
from ..layers import Layer
from ..layers.base import Home, Parameter, Run
from ..losses import cuda as device_losses
from ..ops.events import SpikeWords
from ..ops.finite_cuda import count_not_finite
from .executor import channel_first, output_gradients
from .forms import BITS
from .lower import Program
from .steps import Given, membrane_of

__all__ = ["DeviceCall", "Store"]


class DeviceHome(Home):
    """An array on the device, and its copy on the host; whoever asks for one gets it up to date."""

    def __init__(self, array: np.ndarray, device):
        super().__init__(array)
        self._device = device
        self.newer = "host"  # or "device", or "neither"

    def host(self):
        if self.newer == "device":
            gpu.to_host(self._device, self._array)
        self.newer = "host"  # the caller may write to it
        return self._array

    def here(self, written):
        if self.newer == "host":
            gpu.to_device(self._array, self._device)
            self.newer = "neither"
        if written:
            self.newer = "device"
        return self._device

    def clear(self):
        self._array.fill(0)
        self.newer = "host"


class Store:
    """The trainable parameters of a network on the device, one behind the other in one array, and their gradients in another.

    Attributes
    ----------
    parameters : list of Parameter
        In the layers' order.
    values, grads : device array (N,)
    """

    def __init__(self, parameters: list[Parameter]):
        self.parameters = [parameter for parameter in parameters if parameter.trainable]
        total = sum(parameter.value.size for parameter in self.parameters)
        self._arena = gpu.Arena()
        with gpu.memory(None):
            self.values, self.grads = gpu.empty(total), gpu.empty(total)
            offset = 0
            for parameter in self.parameters:
                offset += self._adopt(parameter, offset)
            for parameter in parameters:
                if not parameter.trainable:
                    self._adopt_constant(parameter)

    def _adopt(self, parameter: Parameter, offset: int) -> int:
        """Move a parameter to its place -> how many numbers it has."""
        value, grad = parameter.value, parameter.grad
        some = slice(offset, offset + value.size)
        homes = (DeviceHome(a, flat[some].reshape(a.shape)) for a, flat in ((value, self.values), (grad, self.grads)))
        parameter.move(*homes, (self, offset, value.size))
        return value.size

    @staticmethod
    def _adopt_constant(parameter: Parameter) -> None:
        """What a layer keeps and does not train has a place of its own, and no gradient."""
        value = parameter.value
        parameter.move(DeviceHome(value, gpu.empty(value.shape or (1,), value.dtype)), Home(parameter.grad), None)

    def bring(self) -> None:
        """Make both arrays hold what the parameters hold, before something reads them as a whole."""
        for parameter in self.parameters:
            parameter._value.here(False)
            parameter._grad.here(False)

    def touched(self) -> None:
        """The values on the device have been changed."""
        for parameter in self.parameters:
            parameter._value.newer = "device"

    def all_finite(self) -> bool:
        """Is there no NaN and no infinity among the values and the gradients? Waits for the device."""
        self.bring()
        with gpu.memory(self._arena):
            self._arena.clear()
            return not gpu.to_host(count_not_finite(self.values, self.grads))[0]

    def zero_grads(self) -> None:
        """Set all gradients to zero, in one launch."""
        gpu.fill(self.grads, 0)
        for parameter in self.parameters:
            parameter._grad.newer = "device"


class DeviceCall:
    """One public call of a network, on the device; see ``executor.Executor``.

    Parameters
    ----------
    program, ops, x, run
        As of ``host.HostCall``; x is on the host.
    arena : Arena
        Of this kind of call: another one frees what it kept.
    """

    def __init__(self, program: Program, ops: SimpleNamespace, x: np.ndarray, run: Run, arena: gpu.Arena):
        self.program, self.ops, self.x, self.run, self.arena = program, ops, x, run, arena
        self.steps, self.batch = program.steps, x.shape[1]
        self.trains = [step.trains for step in self.steps]
        self.kept: list[Any] = [None] * len(self.steps)
        arena.clear()
        with gpu.memory(arena):
            self.input = self._input()
            self.packed = [step.pack(ops, None) for step in self.steps]

    def _input(self):
        if self.program.entry == BITS:
            words = SpikeWords.pack(self.x)
            return SpikeWords(gpu.to_device(words.words), words.num_steps)
        return gpu.to_device(self.x.astype(np.float32, copy=False))

    # ---------------------------------------------------------------------------------------------- passes

    def _forward(self, watch: Callable | None = None):
        """-> spikes and membrane (T, B, ...) of each head, on the device; ``kept`` is what ``_backward`` needs."""
        x, self.run.crossings = self.input, []
        for k, (step, packed) in enumerate(zip(self.steps, self.packed, strict=True)):
            if step.joint:
                (x,), self.kept[k] = step.forward_batch(self.ops, packed, [x], self.run)
            else:
                x, self.kept[k] = step.forward(self.ops, packed, x, self.run)
            if watch:
                watch(step, x, self.kept[k])
        ends = zip(self.program.heads, self.program.each_head(x), strict=True)
        return [
            (y, membrane_of(self.steps[head.step].neuron_kept(self.kept[head.step]))) if head.neuron else (None, y)
            for head, y in ends
        ]

    def _backward(self, given: list[Given], input_grad: bool):
        """Gradients of each head, on the device -> dx on the device or None; adds to the gradients there."""
        dy = self.program.gradient(given)
        for k in reversed(range(len(self.steps))):
            wanted = input_grad or any(self.trains[:k])
            if not wanted and not self.trains[k]:
                return None
            step, packed, kept = self.steps[k], self.packed[k], self.kept[k]
            grads = {layer.name: self._grads(layer) for layer in step.layers}
            if step.joint:
                (dy,) = step.backward_batch(self.ops, packed, [dy], kept, grads, wanted)
            else:
                dy = step.backward(self.ops, packed, dy, kept, grads, wanted)
        return dy

    @staticmethod
    def _grads(layer: Layer) -> dict[str, Any]:
        """-> what the layer's backward pass adds to."""
        return {key: parameter.darray for key, parameter in layer.params.items() if parameter.trainable}

    # ---------------------------------------------------------------------------------------------- public calls

    def forward(self):
        """As in ``Executor``."""
        with gpu.memory(self.arena):
            return self.program.public([tuple(map(_on_host, pair)) for pair in self._forward()])

    def backward(self, dspikes, dmembrane, input_grad: bool) -> np.ndarray | None:
        """As in ``Executor``."""
        with gpu.memory(self.arena):
            place = self.arena.place
            given = output_gradients(self, dspikes, dmembrane)
            dx = self._backward([Given(*(None if g is None else gpu.to_device(g) for g in pair)) for pair in given], input_grad)
            self.arena.place = place  # another backward of this forward may come
        if not input_grad:
            return None
        dx = gpu.to_host(dx)
        return channel_first(dx[0], leading=1) if self.program.kind.static else channel_first(dx)

    def step(self, losses, targets, normalisers):
        """As in ``Executor``."""
        with gpu.memory(self.arena):
            outputs, shares, given = self._forward(), [], []
            for loss_fn, pair, target, normaliser in zip(losses, outputs, targets, normalisers, strict=True):
                share, *gradients = self._gradients(loss_fn, *pair, target, normaliser)
                shares.append(share)
                given.append(Given(*gradients))
            self._backward(given, False)
        loss = sum(share if isinstance(share, float) else float(gpu.to_host(share)[0]) for share in shares)
        return loss, self.program.public([_on_host(membrane if y is None else y) for y, membrane in outputs])

    @staticmethod
    def _gradients(loss_fn, spikes, membrane, targets, normaliser):
        """-> loss, dspikes, dmembrane, on the device; by the host for a loss that the device does not know."""
        reads = [loss_fn.inputs in (name, "both") for name in ("spikes", "membrane")]
        records = [array if read else None for read, array in zip(reads, (spikes, membrane), strict=True)]
        found = device_losses.gradients(loss_fn, *records, device_losses.device_targets(loss_fn, targets), normaliser)
        if found is not NotImplemented:
            return found
        host = [None if record is None else gpu.to_host(record) for record in records]
        loss, *given = loss_fn.gradients(*host, targets, normaliser)
        return float(loss), *(None if g is None else gpu.to_device(np.asarray(g, np.float32)) for g in given)

    def predict(self):
        """As in ``Executor``."""
        with gpu.memory(self.arena):
            return self.program.public([_on_host(membrane if y is None else y) for y, membrane in self._forward()])

    def stream(self, states):
        """As in ``Executor``."""
        with gpu.memory(self.arena):
            on_device = {name: gpu.to_device(state.reshape(len(state), -1)) for name, state in states.items()}
            self.run.states.update(on_device)
            outputs = self.program.public([tuple(map(_on_host, pair)) for pair in self._forward()])
        new = {name: gpu.to_host(on_device[name]).reshape(state.shape) for name, state in states.items()}
        return outputs, {name: channel_first(state) for name, state in new.items()}

    def record(self) -> dict[str, dict[str, np.ndarray]]:
        """As in ``Executor``."""
        found = {}

        def watch(step, x, kept):
            kept = step.neuron_kept(kept)
            if kept is None:
                return
            bits = isinstance(x, SpikeWords)
            spikes = SpikeWords(gpu.to_host(x.words), x.num_steps).dense(np.float32) if bits else gpu.to_host(x)
            found[step.layers[0].name] = {"spikes": spikes, "membrane": gpu.to_host(membrane_of(kept))}

        with gpu.memory(self.arena):
            self._forward(watch)
        return {name: {key: channel_first(array) for key, array in arrays.items()} for name, arrays in found.items()}


def _on_host(array) -> np.ndarray | None:
    """An output on the device -> on the host, channel first; None stays None."""
    return None if array is None else channel_first(gpu.to_host(array))

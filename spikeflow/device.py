"""A network on the device: where its parameters live, and one pass of a batch through its layers.

The layers are those of the other backends; their operations are CUDA kernels. The whole batch is one block. Between the copy of
the images to the device and the copy of the loss and of the output spikes back, nothing is copied and nobody waits. All that a
step needs comes from an arena: from the second step on nothing is allocated, and the same kernels are launched on the same
addresses, as a captured graph needs it. (Losses of one's own are the exception, and the decays of ``Alpha`` where they are
learned: the host works out what they give.)

As on the host, what lies before the first neuron runs once where the input is constant, spikes travel as bits, and neighbours are
fused as ``pipeline.make_plans`` says.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from .layers import Layer, Neuron
from .layers.base import Home, Parameter
from .layers.normalization import Normalised
from .losses import Loss
from .losses import cuda as device_losses
from .ops import gpu
from .ops.events import SpikeWords
from .ops.finite_cuda import count_not_finite
from .pipeline import Run, channel_first, make_plans, membrane_of, output_gradient, settled

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
    """One public call of a network, on the device; the methods are those of the network that make it.

    Parameters
    ----------
    layers, ops, run, shapes
        As in ``pipeline.Call``.
    x : (T or 1, B, H, W, C) or (T or 1, B, F)
        On the host, channel last; of bool, spikes.
    static : bool
        Is x shown at every step?
    events : bool
        May spikes travel as bits?
    arena : Arena
        Of this kind of call: another one frees what it kept.
    """

    amp, dtype = False, np.dtype(np.float32)

    def __init__(
        self, layers: tuple[Layer, ...], ops: SimpleNamespace, x: np.ndarray, static: bool, run: Run, events: bool,
        shapes: list[tuple[int, ...]], arena: gpu.Arena,
    ):  # fmt: skip
        self.layers, self.ops, self.x, self.static, self.run, self.events = layers, ops, x, static, run, events
        self.shapes, self.arena = shapes, arena
        self.trains = [any(parameter.trainable for parameter in layer.params.values()) for layer in layers]
        self.kept: list[Any] = [None] * len(layers)
        arena.clear()
        with gpu.memory(arena):
            plans, reads_spikes = make_plans(self)
            self.input = self._input(reads_spikes)
            self.prepared = [layer.prepare(ops, plan) for layer, plan in zip(layers, plans, strict=True)]

    def _input(self, reads_spikes: bool):
        if reads_spikes:
            words = SpikeWords.pack(self.x)
            return SpikeWords(gpu.to_device(words.words), words.num_steps)
        return gpu.to_device(self.x.astype(np.float32, copy=False))

    @property
    def batch(self) -> int:
        return self.x.shape[1]

    # ---------------------------------------------------------------------------------------------- passes

    def _forward(self, watch=None):
        """-> the last layer's spikes and membrane (T, B, ...), on the device; ``kept`` is what ``_backward`` needs."""
        x = self.input
        for k, (layer, prepared) in enumerate(zip(self.layers, self.prepared, strict=True)):
            if isinstance(x, Normalised) and not getattr(prepared, "fused", 0):
                x = x.array(self.ops)
            if layer.couples(self.run):
                (x,), self.kept[k] = layer.forward_batch(self.ops, prepared, [x], self.run)
            else:
                x, self.kept[k] = layer.forward(self.ops, prepared, x, self.run)
            if watch:
                watch(layer, x, self.kept[k])
        return x, membrane_of(self.kept[-1])

    def _backward(self, dspikes, dmembrane, input_grad: bool):
        """dspikes, dmembrane (T, B, ...) on the device or None -> dx on the device or None; adds to the gradients there."""
        dy, extra = dspikes, {"dmembrane": dmembrane}
        for k in reversed(range(len(self.layers))):
            wanted = input_grad or any(self.trains[:k])
            if not wanted and not self.trains[k]:
                return None
            layer, prepared, kept = self.layers[k], self.prepared[k], self.kept[k]
            if layer.couples(self.run):
                (dy,) = layer.backward_batch(self.ops, prepared, [dy], kept, wanted)
            else:
                dy = layer.backward(self.ops, prepared, settled(dy, self.ops), kept, self._grads(layer), wanted, **extra)
            extra = {}
        return settled(dy, self.ops)

    @staticmethod
    def _grads(layer: Layer) -> dict[str, Any]:
        """-> what the layer's ``backward`` adds to."""
        return {key: parameter.darray for key, parameter in layer.params.items() if parameter.trainable}

    # ---------------------------------------------------------------------------------------------- public calls

    def forward(self) -> tuple[np.ndarray, np.ndarray]:
        """-> spikes, membrane (T, B, ...) of the last layer; keeps what ``backward`` needs."""
        with gpu.memory(self.arena):
            return tuple(channel_first(gpu.to_host(array)) for array in self._forward())

    def backward(self, dspikes, dmembrane, input_grad: bool) -> np.ndarray | None:
        """dspikes, dmembrane (T, B, ...) or None -> dL/dinput or None; adds into every parameter's gradient."""
        if dspikes is None and dmembrane is None:
            raise ValueError("backward needs dspikes, dmembrane, or both")
        with gpu.memory(self.arena):
            place = self.arena.place
            given = [output_gradient(self, *pair) for pair in (("dspikes", dspikes), ("dmembrane", dmembrane))]
            given = [None if gradient is None else gpu.to_device(gradient) for gradient in given]
            dx = self._backward(*given, input_grad)
            self.arena.place = place  # another backward of this forward may come
        if not input_grad:
            return None
        dx = gpu.to_host(dx)
        return channel_first(dx[0], leading=1) if self.static else channel_first(dx)

    def step(self, loss_fn: Loss, targets: np.ndarray, normaliser) -> tuple[float, np.ndarray]:
        """Checked targets -> loss, spikes (T, B, ...); adds into every parameter's gradient."""
        with gpu.memory(self.arena):
            spikes, membrane = self._forward()
            loss, dspikes, dmembrane = self._gradients(loss_fn, spikes, membrane, targets, normaliser)
            self._backward(dspikes, dmembrane, False)
        loss = loss if isinstance(loss, float) else float(gpu.to_host(loss)[0])
        return loss, channel_first(gpu.to_host(spikes))

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

    def predict(self) -> np.ndarray:
        """-> spikes (T, B, ...)."""
        with gpu.memory(self.arena):
            return channel_first(gpu.to_host(self._forward()[0]))

    def stream(self, states: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """-> spikes, membrane (T, B, ...); ``states`` (S, B, ...) by layer are changed in place."""
        with gpu.memory(self.arena):
            on_device = {name: gpu.to_device(state.reshape(len(state), -1)) for name, state in states.items()}
            self.run.states.update(on_device)
            outputs = tuple(channel_first(gpu.to_host(array)) for array in self._forward())
        for name, state in states.items():
            state[...] = gpu.to_host(on_device[name]).reshape(state.shape)
        return outputs

    def record(self) -> dict[str, dict[str, np.ndarray]]:
        """-> {layer name: {"spikes", "membrane": (T, B, ...)}} of every neuron."""
        found = {}

        def watch(layer, x, kept):
            if isinstance(layer, Neuron):
                bits = isinstance(x, SpikeWords)
                spikes = SpikeWords(gpu.to_host(x.words), x.num_steps).dense(self.dtype) if bits else gpu.to_host(x)
                found[layer.name] = {"spikes": spikes, "membrane": gpu.to_host(membrane_of(kept))}

        with gpu.memory(self.arena):
            self._forward(watch)
        return {name: {key: channel_first(array) for key, array in arrays.items()} for name, arrays in found.items()}

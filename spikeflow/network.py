"""Sequential: a network and its public methods. They check their arguments; how a batch runs is up to ``spikeflow.engine``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from . import backends, inspection, memory, random
from . import summary as summaries
from .engine import check
from .engine.executor import Executor, channel_last
from .engine.host import HostCall, block_size
from .engine.lower import Program, lower
from .engine.steps import Kind
from .kernels.cpu import parallel
from .kernels.cpu.simd import Arena
from .layers import CONTAINERS, Flatten, Layer, Neuron, Parameter, check_chain, from_config
from .layers.base import Run, positive_int, zero_grads
from .layers.containers import Chain, Container, check_free, description, every, leaves
from .losses import Loss
from .ops.finite import all_finite

if TYPE_CHECKING:
    from .engine.device import Store

__all__ = ["Sequential"]

PROGRAMS = 64  # of a network, kept at most: there is one for each size of image, too


class Sequential(Chain):
    """A network: layers one behind the other, which may hold others.

    A Sequential may itself be a layer: inside another one, a ``Residual`` or a ``Parallel``. It then takes their names, and the
    outer network's dtype, backend and options. Weights that were trained, loaded or copied stay; those that are as its seed drew
    them are drawn again, from the outer network's seed.

    Where the network does not end with a neuron, its output is called its membrane and there are no spikes: ``forward`` returns
    None in their place, and losses of spikes refuse it. Where it ends with branches that do not meet
    (``Parallel(..., merge=None)``), each is a head: spikes, membranes, their gradients and labels are tuples.

    Parameters
    ----------
    *layers : Layer
    seed : int
        Key of the initial weights: the same seed gives the same bits everywhere.
    backend : {"cpu", "cuda", "reference"}
        ``cpu`` runs Numba kernels on all threads, ``cuda`` on an NVIDIA GPU, ``reference`` plain NumPy. On the GPU numbers are
        float32; ``amp``, ``max_bytes`` and ``block_size`` are the processor's; ``health``, ``summary`` of images and
        ``record(backward=True)`` run on the processor, with the same parameters.
    dtype : numpy.float32 or numpy.float64
    events : bool
        False runs each layer as it is written, without the engine's rules, and so computes with the zeros of spikes and pooled
        gradients too: an oracle, and a baseline for benchmarks.
    amp : bool
        Of what the neurons and batch normalisations keep for the backward pass, keep float32 in two bytes a number (the
        processor computes in float32 all the same). Outputs and losses do not change, and no spike does: those that the backward
        pass sees are kept as bits, or by membranes that are never rounded across their threshold.
    max_bytes : int or str, optional
        What ``loss_and_grad`` may take at a time, besides parameters, their gradients and the batch: a number of bytes, or a text
        such as ``"500MB"``. Its first call, or ``fix_plan``, chooses blocks that are small enough; ``plan`` says what that takes.
        (``forward`` keeps the whole batch all the same, and so does a plain callable as the loss.)
    block_size : int, optional
        Samples that go through the network together. Gradients depend on it by rounding alone. By default the batch decides, or
        ``max_bytes``.

    Examples
    --------
    >>> import numpy as np, spikeflow as sf
    >>> net = sf.Sequential(sf.Linear(4, 3), sf.Leaky(beta=0.5), seed=0)
    >>> spikes, membrane = net.forward(np.ones((2, 4), np.float32), num_steps=5)
    >>> spikes.shape
    (5, 2, 3)
    """

    def __init__(
        self, *layers: Layer, seed: int = 0, backend: str = "cpu", dtype=np.float32, events: bool = True,
        amp: bool = False, max_bytes: int | str | None = None, block_size: int | None = None,
    ):  # fmt: skip
        check_chain(layers)
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise ValueError(f"dtype must be float32 or float64, got {self.dtype}")
        self.seed = positive_int("seed", seed, least=0)
        random.raw_bits(0, self.seed, "")  # too large a seed must fail before a layer belongs to this network
        self.backend = backend
        self.events, self.amp = bool(events), bool(amp)
        self.max_bytes = None if max_bytes is None else memory.parse_bytes(max_bytes)
        self.block_size = None if block_size is None else positive_int("block_size", block_size)
        self._ops = backends.load(backend)
        if self._ops.device:
            self._check_device_options()
        check_free(layers)
        super().__init__(*layers)
        for key, layer in self.held():
            layer.initialize(key, self.dtype, self.seed)
        self._store = self._move() if self._ops.device else None
        for layer in every(layers):
            if isinstance(layer, Sequential):
                layer._join(self)
        self._begin()
        self._given = False  # have values been given to the parameters, by ``copy`` or ``load_state_dict``?
        self.training = True
        self.draws = 0  # training passes so far: the number under which dropout draws its masks

    def _begin(self) -> None:
        """Remember nothing of any call."""
        self._last: Executor | None = None
        self._programs: dict[Kind, tuple[tuple, Program]] = {}  # with the layers and their versions when they were made
        self._arenas: list[Arena] = []
        self._plans: dict[tuple, memory.MemoryPlan] = {}  # by request, budget and size of blocks
        self._shown: tuple | None = None  # of the latest input: the shape of a sample; its dtype, or None for images

    def initialize(self, name, dtype, seed):
        """Become a layer of another network."""
        own = {} if self._as_drawn() and not self._given else {id(layer): layer.params for layer in leaves(self.layers)}
        super().initialize(name, dtype, seed)
        for layer in leaves(self.layers):
            for key, parameter in own.get(id(layer), {}).items():
                layer.params[key].value = parameter.value

    def _join(self, outer: Sequential) -> None:
        """Run, where it is asked by itself, as the network that it is now a part of."""
        for key in ("dtype", "seed", "backend", "events", "amp", "max_bytes", "block_size", "_ops", "_store"):
            setattr(self, key, getattr(outer, key))
        if self._ops.device:
            self._device_arenas = outer._device_arenas
        self._begin()

    def _as_drawn(self) -> bool:
        """Are all parameters still those that the seed gave?"""
        for layer in leaves(self.layers):
            drawn = layer.initial_values(self.dtype, self.seed)
            if not all(np.array_equal(layer.params[key].value, value) for key, value in drawn.items()):
                return False
        return True

    def __setattr__(self, name, value):
        object.__setattr__(self, name, value)  # settings of a network are not those of a layer: programs stay as they are

    def __getstate__(self) -> dict:
        """What a pickle carries: nothing that the next call makes anew."""
        return {**self.__dict__, "_last": None, "_programs": {}, "_arenas": [], "_plans": {}}

    def _check_device_options(self) -> None:
        given = {"amp": self.amp, "max_bytes": self.max_bytes, "block_size": self.block_size}
        if self.dtype != np.float32:
            raise ValueError(f"dtype must be float32 with backend='cuda', got {self.dtype}")
        if unknown := [name for name, value in given.items() if value]:
            raise ValueError(f"{unknown[0]} is an option of backend='cpu', got {given[unknown[0]]!r} with backend='cuda'")

    def _move(self) -> Store:
        """Move the parameters to the device."""
        from .engine.device import Store
        from .kernels.cuda import gpu

        self._device_arenas = {use: gpu.Arena() for use in ("forward", "step", "other")}
        return Store(self._all_parameters())

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __getitem__(self, place: int | slice) -> Layer | Sequential:
        """A layer; or some layers one behind the other as a network that shares them, with all their parameters.

        Examples
        --------
        >>> import spikeflow as sf
        >>> net = sf.Sequential(sf.Linear(4, 3), sf.Leaky(beta=0.5), sf.Linear(3, 2), sf.Leaky(beta=0.5))
        >>> features = net[:2]  # trains with net; net[:2].copy() has parameters of its own
        >>> features.layers[0] is net[0]
        True
        """
        if not isinstance(place, slice):
            return self.layers[place]
        if not self.layers[place]:
            raise ValueError(f"a slice must hold at least one layer of {len(self.layers)}, got [{place.start}:{place.stop}]")
        return self._sharing(self.layers[place])

    def _sharing(self, layers: Sequence[Layer]) -> Sequential:
        """-> a network in this one's mode of some of its layers, which stay its own."""
        part = object.__new__(Sequential)
        part.__dict__.update(self.__dict__)
        part.layers, part.name, part.shares = tuple(layers), "", True
        part._begin()
        return part

    def copy(self) -> Sequential:
        """A network with the same layers, options and mode, and parameters of its own, which have the same values now."""
        options = {key: getattr(self, key) for key in ("seed", "backend", "dtype", "events", "amp", "max_bytes", "block_size")}
        twin = Sequential(*(layer.unused_copy() for layer in self.layers), **options)
        for own, other in zip(self._all_parameters(), twin._all_parameters(), strict=True):
            other.value = own.value
        twin.training, twin.draws, twin._given = self.training, self.draws, True
        return twin

    def _host_twin(self) -> Sequential:
        """-> a network on the processor with the same layers and copies of the parameters."""
        twin = Sequential(*(layer.unused_copy() for layer in self.layers), seed=self.seed, events=self.events)
        for own, other in zip(self._all_parameters(), twin._all_parameters(), strict=True):
            other.value = own.value
        return twin.train(self.training)

    def train(self, mode: bool = True) -> Sequential:
        """From now on batch normalisation takes the statistics of each batch, and dropout drops: where a network starts."""
        self.training = bool(mode)
        return self

    def eval(self) -> Sequential:
        """From now on batch normalisation uses its running estimates, and dropout does nothing. (``predict``, ``stream``,
        ``record`` and ``health`` always work so.)"""
        return self.train(False)

    # ---------------------------------------------------------------------------------------------- parameters

    def parameters(self) -> list[Parameter]:
        """The parameters to train, in the layers' order; names as PyTorch would give them: ``"0.weight"``, ``"0.bias"``, ..."""
        return [parameter for parameter in self._all_parameters() if parameter.trainable]

    def _all_parameters(self) -> list[Parameter]:
        return [parameter for layer in leaves(self.layers) for parameter in layer.params.values()]

    def _neurons(self) -> list[Neuron]:
        """All layers of neurons, nested ones too."""
        return [layer for layer in leaves(self.layers) if isinstance(layer, Neuron)]

    def zero_grad(self) -> None:
        """Set all gradients to zero; ``backward`` and ``loss_and_grad`` add to them."""
        zero_grads(self.parameters())

    @property
    def on_host(self) -> bool:
        """Do the parameters live in the host's memory?"""
        return self._store is None

    def all_finite(self) -> bool:
        """Is there no NaN and no infinity among the parameters to train and their gradients?"""
        if self._store is not None:
            return self._store.all_finite()
        return all(all_finite(array) for parameter in self.parameters() for array in (parameter.value, parameter.grad))

    def state_dict(self) -> dict[str, np.ndarray]:
        """-> {name: copy of the value}, with PyTorch's names and layouts."""
        return {parameter.name: parameter.value.copy() for parameter in self._all_parameters()}

    def load_state_dict(self, state: dict[str, np.ndarray], strict: bool = True) -> None:
        """Set the parameters from {name: array}; nothing is changed unless everything fits.

        Entries that snnTorch stores for a neuron (``beta``, ``threshold``, ``graded_spikes_factor``, ``reset_mechanism_val``)
        are compared with the neuron's own options. ``strict=False`` lets names be missing or left over.

        Raises
        ------
        ValueError
            A missing or unknown name, another shape, a non-finite value, or a neuron with other constants.
        """
        known = {parameter.name: parameter for parameter in self._all_parameters()}
        values = self._without_aliases({name: _real(name, value) for name, value in state.items()})
        missing = sorted(set(known) - set(values))
        unknown = [name for name in values if name not in known and not self._check_constant(name, values[name])]
        if strict and (missing or unknown):
            raise ValueError(f"state does not fit this network: missing {missing}, unknown {unknown}")
        fitting = {name: value for name, value in values.items() if name in known}
        for name, value in fitting.items():
            if value.shape != known[name].value.shape:
                raise ValueError(f"{name} must have shape {known[name].value.shape}, got {value.shape}")
            if not (abs(value) <= np.finfo(self.dtype).max).all():
                raise ValueError(f"{name} holds NaN, infinity, or numbers too large for {self.dtype}")
        for name, value in fitting.items():
            known[name].value[...] = value
        self._given = True

    def _check_constant(self, name: str, value: np.ndarray) -> bool:
        """Is it an entry that snnTorch keeps for one of our neurons? ValueError if its value is another than ours."""
        position, _, key = name.rpartition(".")
        neuron = next((layer for layer in self._neurons() if layer.name == position), None)
        ours = neuron.snntorch_constants() if neuron else {}
        if key not in ours:
            return False
        fits = value.size == 1 or value.shape == np.shape(ours[key])
        if not fits or not np.allclose(value, ours[key], rtol=1e-6, atol=0):
            raise ValueError(f"{name} is {value}, but layer {position} ({neuron!r}) has {ours[key]}")
        return True

    def _without_aliases(self, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A state without what snnTorch stores a second time; ValueError where the two differ."""
        kept = dict(values)
        for layer in self._neurons():
            for alias, key in layer.snntorch_aliases.items():
                name, twin = f"{layer.name}.{alias}", f"{layer.name}.{key}"
                if name in kept and twin in kept and not np.array_equal(kept.pop(name), kept[twin]):
                    raise ValueError(f"{name} must equal {twin}, got {values[name]} and {values[twin]}")
        return kept

    # ---------------------------------------------------------------------------------------------- running

    def forward(self, images: np.ndarray, num_steps: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Run the network and keep what ``backward`` needs.

        Parameters
        ----------
        images : (B, C, H, W) or (B, F) with ``num_steps``, shown at every step; (T, B, ...) without: the first axis is time
            Of the network's dtype; or of bool, which are spikes and travel as bits.
        num_steps : int, optional

        Returns
        -------
        spikes, membrane : (T, B, ...)
            Of the last layer. Spikes are None, and the membrane is the layer's output, where that is no neuron; of several heads
            a tuple of such pairs.

        Raises
        ------
        TypeError
            Images of another dtype.
        ValueError
            A shape that does not fit (the layer is named), NaN or infinity in images or parameters, ``num_steps`` below 1.
        """
        self._last = None  # free the caches of an earlier forward, and leave none if this one fails
        call = self._call(images, num_steps, amp=self.amp, use="forward", **self._mode())
        outputs = call.forward()
        self._last = call
        return outputs

    def backward(
        self, dspikes: np.ndarray | None = None, dmembrane: np.ndarray | None = None, input_grad: bool = False
    ) -> np.ndarray | None:
        """Backpropagation through time of the latest ``forward``: adds dL/dparameter into every ``grad``.

        Parameters
        ----------
        dspikes, dmembrane : (T, B, ...), at least one of them
            dL/dspikes and dL/dmembrane of what ``forward`` returned; of several heads a tuple each.
        input_grad : bool
            Also return dL/dinput, of the input's shape.

        Raises
        ------
        RuntimeError
            No ``forward`` came before.
        """
        if self._last is None:
            raise RuntimeError("backward needs a forward before it: call net.forward(...) first")
        return self._last.backward(dspikes, dmembrane, input_grad)

    def loss_and_grad(
        self, images: np.ndarray, labels: np.ndarray, loss_fn: Loss | Callable, num_steps: int | None = None,
        truncate: int | None = None,
    ) -> tuple[float, np.ndarray]:  # fmt: skip
        """Forward, loss and backward in one go, block by block: adds the gradients that the three would, in less memory.

        Parameters
        ----------
        images, num_steps
            As for ``forward``.
        labels : (B,) integers, or what the loss calls its targets
            Of several heads a tuple, or one for all of them.
        loss_fn : Loss, or callable
            A loss of ``spikeflow.losses``, or any ``f(spikes, membrane, labels) -> loss, dspikes, dmembrane`` (either gradient
            may be None). A plain callable sees the whole batch, so that all blocks wait for it and are kept meanwhile. Of several
            heads a tuple of losses, whose sum counts, or one for all of them; a plain callable gets and gives tuples.
        truncate : int, optional
            Truncated backpropagation through time: before steps K, 2 K, ... the neurons' states are detached, that is, gradients
            do not flow back through them. All steps by default.

        Returns
        -------
        loss : float
        spikes : (T, B, ...)
            Of several heads a tuple. Where no neuron ends the network, its output.
        """
        truncate = None if truncate is None else positive_int("truncate", truncate)
        size, threads = self._bounds(images, num_steps)
        saves = self.amp or self.max_bytes is not None  # memory that is kept saves none
        arenas = self._arenas if isinstance(loss_fn, Loss) and not saves else None
        with parallel.at_most(threads):
            return self._step(images, labels, loss_fn, num_steps, arenas=arenas, size=size, truncate=truncate, **self._mode())

    def _step(self, images, labels, loss_fn, num_steps, **options) -> tuple[float, np.ndarray]:
        """``loss_and_grad`` with options of ``_call``."""
        call = self._call(images, num_steps, amp=self.amp, use="step", **options)
        if callable(loss_fn) and not isinstance(loss_fn, Loss):
            heads, public = call.program.each_head(call.forward()), call.program.public
            loss, dspikes, dmembrane = loss_fn(*map(public, zip(*heads, strict=True)), labels)
            call.backward(dspikes, dmembrane, False)
            return float(loss), public([membrane if spikes is None else spikes for spikes, membrane in heads])
        return call.step(*self._losses(call, loss_fn, labels))

    def _losses(self, call, loss_fn, labels) -> tuple[list[Loss], list, list]:
        """-> of each head a loss, checked targets and a normaliser."""
        heads = call.program.heads
        losses, targets = (_for_each(len(heads), given) for given in (loss_fn, labels))
        checked = []
        for head, loss, target in zip(heads, losses, targets, strict=True):
            if not isinstance(loss, Loss):
                raise TypeError(
                    f"loss_fn must be a loss of spikeflow.losses, or one for each of {len(heads)} heads, got {loss_fn!r}"
                )
            end = call.steps[head.step]
            if loss.inputs != "membrane" and not (head.neuron and end.layers[-1].model.fires):
                raise ValueError(f"{loss!r} reads spikes, but the last layer ({(end.layers or [end])[-1]!r}) never fires")
            checked.append(loss.check(target, call.run.num_steps, call.batch, head.shape))
        return losses, checked, [loss.normaliser(target) for loss, target in zip(losses, checked, strict=True)]

    def stream(
        self, part: np.ndarray, state: dict[str, np.ndarray] | None = None, num_steps: int | None = None
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Run the network on the next part of a sequence: the parts give the same bits as the whole would in one go.

        Parameters
        ----------
        part : (T, B, ...); or (B, ...) with ``num_steps``, shown at every step
        state : dict, optional
            What the call on the part before returned; none at the beginning.

        Returns
        -------
        spikes, membrane : (T, B, ...)
            Of the last layer.
        state : dict of str to ndarray
            Of each neuron layer, by name: (S, B, ...), its S states, of which the membrane is the last but for spikes that a
            recurrent neuron feeds back. ``state`` itself is not changed.

        Raises
        ------
        ValueError
            A state of another network or of another number of samples.
        """
        call = self._call(part, num_steps, streams=True)
        outputs, state = call.stream(self._checked_state(call, state))
        return (*outputs, state) if len(call.program.heads) == 1 else (*zip(*outputs, strict=True), state)

    def _checked_state(self, call: Executor, state) -> dict[str, np.ndarray]:
        """-> the states of all neurons (S, B, ...), channel last, the initial ones for None; ValueError if they do not fit."""
        expected = {layer.name: (layer.state_rows, call.batch, *call.program.shapes[layer.name]) for layer in self._neurons()}
        if state is None:
            start = {layer.name: layer.initial_state for layer in self._neurons()}
            state = {name: np.full(shape, start[name], self.dtype) for name, shape in expected.items()}
        found = {name: np.shape(array) for name, array in state.items()} if isinstance(state, dict) else type(state).__name__
        if found != expected:
            raise ValueError(f"state must be what stream returned for the part before: {expected}, got {found}")
        return {name: channel_last(_real(f"state[{name!r}]", array).astype(self.dtype)) for name, array in state.items()}

    def predict(
        self, images: np.ndarray, num_steps: int | None = None, batch_size: int = 256, counts: bool = False
    ) -> np.ndarray:
        """Run the network in evaluation mode and keep nothing.

        Parameters
        ----------
        images, num_steps
            As for ``forward``.
        batch_size : int
            Samples in flight at a time, which bounds memory; results do not depend on it.
        counts : bool
            Return the number of spikes over time instead of the spikes.

        Returns
        -------
        (T, B, ...) spikes, or (B, ...) counts, of the network's dtype
            Of several heads a tuple. Where no neuron ends the network, its output, or the sum of it.
        """
        batch_size = positive_int("batch_size", batch_size)
        images = self._check_images(images, static=num_steps is not None)
        axis = 1 if num_steps is None else 0
        parts = []
        for lo in range(0, images.shape[axis], batch_size):
            part = images[lo : lo + batch_size] if axis == 0 else images[:, lo : lo + batch_size]
            spikes = self._call(part, num_steps).predict()
            heads = spikes if isinstance(spikes, tuple) else (spikes,)
            parts.append([head.sum(0) if counts else head for head in heads])
        joined = [np.concatenate(head, axis=0 if counts else 1) for head in zip(*parts, strict=True)]
        return tuple(joined) if len(joined) > 1 else joined[0]

    def record(
        self, images: np.ndarray, num_steps: int | None = None, backward: bool = False, labels=None, loss_fn: Loss | None = None
    ) -> dict[str, dict[str, np.ndarray]]:
        """Run the network in evaluation mode and return what every neuron did.

        Parameters
        ----------
        images, num_steps
            As for ``forward``.
        backward : bool
            Take ``loss_fn`` of ``labels`` back through the network, too; no parameter's gradient changes.
        labels : (B,) integers, or what the loss calls its targets
        loss_fn : Loss

        Returns
        -------
        {layer name: {"spikes", "membrane": (T, B, ...)}}
            With ``backward`` also ``"dspikes"``, dL/dspikes as it comes from the layers behind, and ``"dmembrane"``, the whole
            dL/dmembrane: of the membrane that was compared with the threshold.

        Raises
        ------
        ValueError
            ``backward`` without labels and loss.
        """
        if not backward:
            return self._call(images, num_steps, records=True).record()
        if self._ops.device:
            return self._host_twin().record(images, num_steps, backward, labels, loss_fn)
        if not isinstance(loss_fn, (Loss, tuple, list)):
            raise ValueError(f"backward=True needs a loss of spikeflow.losses as loss_fn, got {loss_fn!r}")
        call = self._call(images, num_steps, plain=True, records=True)
        return inspection.record_backward(call, *self._losses(call, loss_fn, labels))

    def health(self, images: np.ndarray, num_steps: int | None = None) -> inspection.Health:
        """How the neurons are doing: who never fires, who always does, and how much of the gradient passes.

        Arguments as for ``forward``. Returns a ``Health``: its ``layers`` hold the numbers, ``print`` shows a table.
        """
        if self._ops.device:
            return self._host_twin().health(images, num_steps)
        return inspection.health(self._call(images, num_steps, records=True))

    def summary(
        self, input_shape: tuple[int, ...] | None = None, num_steps: int = 1, batch_size: int = 128, images=None
    ) -> summaries.Summary:  # fmt: skip
        """What the network is made of: shapes, parameters, bytes kept for the backward pass, multiply-adds of a sample.

        Parameters
        ----------
        input_shape : tuple of int
            Of a sample, (C, H, W) or (F,); by default that of ``images``, or as for ``plan``.
        num_steps, batch_size : int
            What lies before the first neuron runs once, all else at each step.
        images : (B, ...), optional
            Shown at every step, to count how many multiply-adds meet an input that is not zero.

        Returns
        -------
        Summary
            Prints as a table.
        """
        if input_shape is None and images is not None:
            input_shape = np.shape(images)[1:]
        elif input_shape is None:
            input_shape = memory.smallest_input(self.layers) if self._shown is None else self._shown[0]
        net = self._host_twin() if self._ops.device else self
        return summaries.summarize(net, input_shape, positive_int("num_steps", num_steps), batch_size, images)

    def program(self, images, num_steps: int | None = None, training: bool | None = None) -> Program:
        """What runs in place of the layers, for inputs like these: the engine's steps and what travels between them.

        Parameters
        ----------
        images, num_steps
            As for ``forward``; only their shape and type count.
        training : bool, optional
            As ``loss_and_grad`` in training would run; by default in the network's mode.

        Returns
        -------
        Program
            Prints as a table: which layers each step covers, which rule made it, in which form numbers come and go, and what
            waits for the backward pass.

        Examples
        --------
        >>> import numpy as np, spikeflow as sf
        >>> net = sf.Sequential(sf.Linear(4, 3), sf.Leaky(beta=0.5))
        >>> print(net.program(np.ones((2, 4), np.float32), num_steps=5))
        cpu: images shown at every step, 4, float32, training
        enters as numbers
        step  layers  made by  takes -> gives      keeps
        0     Linear  plain    numbers -> numbers  input
        1     Leaky   plain    numbers -> numbers  membrane
        """
        x = self._check_images(images, num_steps is not None)
        steps = x.shape[0] if num_steps is None else positive_int("num_steps", num_steps)
        run = Run(steps, training=self.training if training is None else bool(training))
        return self._lowered(x, num_steps is not None, run, self.amp, self.events)

    # ---------------------------------------------------------------------------------------------- memory

    def plan(
        self, batch_size: int, num_steps: int, input_shape: tuple[int, ...] | None = None, sequence=None,
        max_bytes: int | str | None = None,
    ) -> memory.MemoryPlan:  # fmt: skip
        """What ``loss_and_grad`` will keep, before it does: found by steps of a few random samples.

        Parameters
        ----------
        batch_size, num_steps : int
        input_shape : tuple of int, optional
            Of a sample: (C, H, W) or (F,). By default that of the latest input; before any, the smallest that fits the layers.
        sequence : dtype, optional
            Of inputs that are sequences (T, B, ...): bool for spikes, else the network's. By default, or with None, images are
            shown at every step.
        max_bytes : int or str, optional
            A budget; by default the network's own.

        Returns
        -------
        MemoryPlan
            Prints as a table: what each layer keeps, and the size of the blocks.

        Raises
        ------
        ValueError
            A budget that cannot be met: the message says the least that can. Or a network on the GPU, which knows no blocks.
        """
        request = self._request(batch_size, num_steps, input_shape, sequence)
        if max_bytes is not None:
            return memory.choose(self, request, memory.parse_bytes(max_bytes))
        return self._plan(request)

    def fix_plan(self, batch_size: int, num_steps: int, input_shape: tuple[int, ...] | None = None, sequence=None):
        """``plan``, whose size of blocks the network keeps from now on, in its ``config`` and in checkpoints too."""
        plan = self.plan(batch_size, num_steps, input_shape, sequence)
        self.block_size = plan.block_size
        return plan

    def _request(self, batch_size, num_steps, input_shape=None, sequence=None) -> memory.Request:
        if input_shape is None:
            input_shape, shown = self._shown or (memory.smallest_input(self.layers), None)
            sequence = shown if sequence is None else sequence
        input_shape = tuple(positive_int("input_shape", size) for size in input_shape)
        sizes = positive_int("batch_size", batch_size), positive_int("num_steps", num_steps)
        return memory.Request(*sizes, input_shape, None if sequence is None else np.dtype(sequence), self.training)

    def _plan(self, request: memory.Request) -> memory.MemoryPlan:
        """-> the plan of a step with the network's budget and size of blocks, where it has them."""
        if self._ops.device:
            raise ValueError("memory is planned for backend='cpu'; with backend='cuda' the whole batch is one block")
        key = request, self.max_bytes, self.block_size
        if key not in self._plans:
            if self.max_bytes is not None and self.block_size is None:
                plan = memory.choose(self, request, self.max_bytes)
            else:
                plan = memory.measure(self, request, self.block_size or block_size(request.batch_size), self.max_bytes)
                memory.check(plan)
            self._plans[key] = self._plans[request, self.max_bytes, plan.block_size] = plan
        return memory.on_present_threads(self._plans[key])

    def _bounds(self, images, num_steps) -> tuple[int | None, int | None]:
        """-> samples of a block and threads at most, of a batch; None where there is no bound."""
        if self.max_bytes is None or self._ops.device:
            return self.block_size, None
        x = self._check_images(images, static=num_steps is not None)
        static = len(x), num_steps, x.shape[1:], None
        plan = self._plan(self._request(*static if num_steps is not None else (x.shape[1], len(x), x.shape[2:], x.dtype)))
        self.block_size = plan.block_size
        return plan.block_size, plan.threads

    # ---------------------------------------------------------------------------------------------- description

    def config(self) -> dict:
        """The description from which ``from_config`` builds an equal network, weights aside."""
        return {
            "layers": [description(layer) for layer in self.layers],
            "seed": self.seed,
            "dtype": self.dtype.name,
            "events": self.events,
            "amp": self.amp,
            "max_bytes": self.max_bytes,
            "block_size": self.block_size,
        }

    @classmethod
    def from_config(cls, config: dict, backend: str = "cpu") -> Sequential:
        """Build the network that ``config`` described, with the initial weights of its seed."""
        layers = [from_config(layer) for layer in config["layers"]]
        known = ("seed", "dtype", "events", "amp", "max_bytes", "block_size")
        options = {key: config[key] for key in known if key in config}
        return cls(*layers, backend=backend, **options)

    def save(self, path: str | os.PathLike) -> None:
        """Write description and weights to an npz file, atomically; ``spikeflow.load`` reads it."""
        from .checkpoint import save

        save(path, self)

    def __repr__(self) -> str:
        if self.name:  # a layer of another network
            return super().__repr__()
        lines = "".join(f"  ({layer.name}): {layer!r}\n" for layer in self.layers)
        return f"Sequential(\n{lines})"

    # ---------------------------------------------------------------------------------------------- one call

    def _mode(self) -> dict[str, bool | int]:
        """-> options of a ``Run`` in the network's mode, and count it."""
        if not self.training:
            return {}
        self.draws += 1
        return {"training": True, "updates": True, "draw": self.draws - 1}

    def _call(
        self, images, num_steps, plain: bool = False, arenas: list[Arena] | None = None, amp: bool = False,
        size: int | None = None, use: str = "other", **options,
    ) -> Executor:  # fmt: skip
        """Check the arguments of a public call -> its executor; ``options`` of its ``Run``.

        ``plain``: no rules. ``arenas``: where what is kept may live until the next call. ``amp``: keep it in half precision.
        ``size``: samples of a block. ``use``: of the device's arenas.
        """
        static = num_steps is not None
        x = self._check_images(images, static)
        run = Run(positive_int("num_steps", num_steps) if static else x.shape[0], **options)
        program = self._lowered(x, static, run, amp, self.events and not plain)
        for parameter in self._all_parameters() if self._store is None else ():  # on the device it would mean to wait
            if not all_finite(parameter.value):
                raise ValueError(f"parameter {parameter.name} holds NaN or infinity")
        self._shown = program.kind.shape, None if static else x.dtype
        # A copy: the caller may change the images before backward reads them.
        x = np.array(channel_last(x[None] if static else x), order="C")
        if self._ops.device:
            from .engine.device import DeviceCall

            return DeviceCall(program, self._ops, x, run, self._device_arenas[use])
        return HostCall(program, self._ops, x, run, arenas, size or self.block_size)

    def _lowered(self, x: np.ndarray, static: bool, run: Run, amp: bool, events: bool) -> Program:
        """-> the program for inputs like x: the one that was made before, unless layers or options have changed since."""
        kind = Kind(
            self.backend, x.shape[1 if static else 2 :], self.dtype, static, x.dtype == bool and not static, run.training,
            run.smooth, run.truncate is not None, run.streams, run.records, amp, events, check.wanted(),
        )  # fmt: skip
        version = tuple((layer, layer.version) for layer in every(self.layers))
        known = self._programs.get(kind)
        if known is None or known[0] != version:
            if len(self._programs) > PROGRAMS:
                self._programs.clear()
            known = self._programs[kind] = version, lower(self.layers, kind.shape, kind, self._ops)
        return known[1]

    def _check_images(self, images, static: bool) -> np.ndarray:
        images = np.asarray(images)
        if images.dtype not in (self.dtype, np.bool_):
            raise TypeError(
                f"images are {images.dtype}, the network computes in {self.dtype}: "
                f"pass images.astype(np.{self.dtype})" + (" / 255" if images.dtype == np.uint8 else "")
            )
        rank = self.input_rank
        least, axes = (1, "(B, ...)") if static else (2, "(T, B, ...)")
        if rank is not None and images.ndim != least + rank:
            sample = "(C, H, W)" if rank == 3 else "(F,)"
            other = " (a sequence comes without num_steps)" if static and images.ndim == least + rank + 1 else ""
            other = " (images shown at every step need num_steps)" if not static and images.ndim == least + rank - 1 else other
            raise ValueError(
                f"images must have {least + rank} axes, {axes} with samples of shape {sample}; got {images.shape}{other}"
            )
        if images.ndim <= least or 0 in images.shape:
            raise ValueError(f"images must be {axes} and hold at least one sample, got shape {images.shape}")
        if not np.isfinite(images).all():
            raise ValueError("images hold NaN or infinity")
        return images


def _for_each(heads: int, given) -> list:
    """Losses or labels, a tuple for several heads or the same for all -> a list; a list of numbers is the labels of a batch."""
    apart = heads > 1 and isinstance(given, (tuple, list)) and len(given) == heads
    apart = apart and all(part is None or isinstance(part, Loss) or np.ndim(part) > 0 for part in given)
    return list(given) if apart else [given] * heads


def _real(name: str, value) -> np.ndarray:
    """-> value as an array of real numbers; ValueError if it is none."""
    array = np.asarray(value)
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise ValueError(f"{name} must be an array of real numbers, got {array.dtype}")
    return array


def _alone(layer: Layer, x: np.ndarray, state=None):
    """How a layer runs by itself: ``Layer.__call__``."""
    if not layer.name:
        raise RuntimeError(f"{layer!r} belongs to no network, which would make its parameters: call net.layers[k](x)")
    host = not any(parameter.place for part in leaves([layer]) for parameter in part.params.values())
    x = np.asarray(x)
    kinds = [parameter.value.dtype for part in leaves([layer]) for parameter in part.params.values()]
    dtype = next((kind for kind in kinds if kind.kind == "f"), np.float64 if x.dtype == np.float64 else np.float32)
    alone = Sequential(Flatten(), backend="cpu" if host else "cuda", dtype=dtype)._sharing([layer])
    neuron = isinstance(layer, Neuron)
    if isinstance(layer, Container) and ((x == 0) | (x == 1)).all():
        x = x.astype(bool)  # spikes, which some branches insist on
    if state is not None and neuron:
        state = {layer.name: state}
    spikes, membrane, state = alone.stream(x, state)
    if not state:
        return membrane
    return spikes, membrane, state[layer.name] if neuron else state


CONTAINERS["Sequential"] = Sequential
Layer.alone = staticmethod(_alone)

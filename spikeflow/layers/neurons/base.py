"""Spiking neurons as layers: the only layers that know about time.

Each is a folder of ``spikeflow.ops.neurons``, where its recurrences are derived, forward and backward. A number that describes
neurons (a decay, a threshold, ...) is one for the whole layer, or an array that fits the layer's samples: one for each feature of
``(F,)``, or for each channel of ``(C, H, W)`` given as ``(C, 1, 1)``. Where it is learned it is a parameter of that shape.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...ops.neurons.model import COMMON, RESETS, Model, Trajectory
from ...ops.surrogate import Surrogate, atan, from_config
from ..base import Layer

__all__ = ["Kept", "Neuron", "Prepared", "a_surrogate", "finite"]


@dataclass
class Kept:
    """What a neuron keeps of its forward pass."""

    trajectory: Trajectory
    shape: tuple[int, ...]  # of the input: (T or 1, B, ...)
    params: np.ndarray
    x: np.ndarray | None = None  # (T or 1, M), where backward needs it
    smooth: bool = False
    truncate: int | None = None

    @property
    def membrane(self) -> np.ndarray:
        """(T + 1, M): row t + 1 is m[t], row 0 the initial state."""
        return self.trajectory.membrane


@dataclass(frozen=True)
class Prepared:
    """A neuron layer's part in one call of the network."""

    model: Model
    params: np.ndarray  # (P, 1), or (P, F) where neurons have numbers of their own
    values: dict[str, np.ndarray]  # options by name, each (1,) or (F,)
    shape: tuple[int, ...]  # of a sample, channel first
    recurrence: tuple | None = None  # what a matrix or a convolution of the spikes needs: packed weight, bias


class Neuron(Layer):
    """Base of the neurons: turns an input current ``(T, B, ...)``, or one that is constant in time, into spikes.

    Parameters
    ----------
    threshold : float or array
        A neuron fires when its membrane is strictly greater.
    spike_grad : Surrogate, optional
        From ``spikeflow.surrogate``; ``atan(alpha=2)`` by default.
    reset_mechanism : {"subtract", "zero", "none"}
        What a spike does to the membrane.
    learn_threshold : bool
    inhibition : bool
        At each step only the neuron furthest above its threshold may fire, of each sample; for samples of shape ``(F,)``.
    graded_spikes_factor : float or array
        Spikes are 0 or this number. Other than 1 it keeps them from travelling as bits.
    learn_graded_spikes_factor : bool
    """

    neuron = ""  # its folder in spikeflow.ops.neurons
    own_names: tuple[str, ...] = ()  # options that are numbers of this neuron alone
    decays: tuple[str, ...] = ()  # of them, those that are clamped to [0, 1] in forward
    snntorch_aliases: dict[str, str] = {}  # names under which snnTorch's state dict holds a parameter once more
    reset_delay = True
    keeps = "membrane"

    def __init__(
        self, threshold=1.0, spike_grad: Surrogate | None = None, reset_mechanism: str = "subtract",
        learn_threshold: bool = False, inhibition: bool = False, graded_spikes_factor=1.0,
        learn_graded_spikes_factor: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.learned: list[str] = []  # options that are parameters
        self._numbers("threshold", threshold, learn_threshold)
        self._numbers("graded_spikes_factor", graded_spikes_factor, learn_graded_spikes_factor)
        spike_grad = a_surrogate("spike_grad", spike_grad, atan)
        if reset_mechanism not in RESETS:
            raise ValueError(f"reset_mechanism must be one of {', '.join(RESETS)}, got {reset_mechanism!r}")
        self.spike_grad, self.reset_mechanism = spike_grad, reset_mechanism
        self.inhibition = bool(inhibition)

    def __init_subclass__(cls):
        # Options that a subclass hands on by ``**common`` are options of its own, for help() and for descriptions.
        own = inspect.signature(cls.__init__).parameters
        inherited = inspect.signature(cls.__mro__[1]).parameters
        options = [p for p in list(own.values())[1:] if p.kind is not p.VAR_KEYWORD]
        if len(options) < len(own) - 1:
            options += [p.replace(kind=p.KEYWORD_ONLY) for p in inherited.values() if p.name not in own]
        cls.__signature__ = inspect.Signature(options)
        if cls.neuron:  # help() shows the derivation too
            derivation = importlib.import_module(f"spikeflow.ops.neurons.{cls.neuron}").__doc__
            cls.__doc__ = f"{inspect.cleandoc(cls.__doc__)}\n\nDerivation\n----------\n{derivation}"

    def _numbers(self, name: str, value, learns: bool, least: float = -np.inf, most: float = np.inf) -> None:
        """Set an option that is a number, or an array of them, and perhaps a parameter."""
        numbers = finite(name, value)
        if np.any(numbers < least) or np.any(numbers > most):
            raise ValueError(f"{name} must be in [{least:g}, {most:g}], got {value}")
        setattr(self, name, numbers)
        setattr(self, f"learn_{name}", bool(learns))
        if learns:
            self.learned.append(name)

    def initial_values(self, dtype, seed):
        names = (*self.own_names, "threshold", "graded_spikes_factor", "V")
        return {name: np.array(getattr(self, name), dtype) for name in names if name in self.learned}

    def current(self, name: str) -> np.ndarray:
        """The value of an option that is a number, now: learned, or as given; float64."""
        value = self.params[name].value if name in self.params else getattr(self, name)
        return np.asarray(value, np.float64)

    def output_shape(self, shape):
        for name in self.number_names():
            found = np.shape(getattr(self, name))
            if not _fits(found, shape):
                raise ValueError(f"layer {self.name} ({self!r}): {name} of shape {found} does not fit samples of shape {shape}")
        if self.inhibition and len(shape) != 1:
            raise self.refuse("samples of shape (F,), since it has inhibition", shape)
        return shape

    def number_names(self) -> list[str]:
        """Options that are numbers and may be arrays or parameters."""
        return ["threshold", "graded_spikes_factor", *self.own_names]

    def snntorch_constants(self) -> dict[str, np.ndarray | float]:
        """What snnTorch's state dict holds for such a neuron, parameters aside."""
        constants = {name: getattr(self, name) for name in self.number_names()}
        constants["reset_mechanism_val"] = float(RESETS.index(self.reset_mechanism))
        return {key: value for key, value in constants.items() if key not in self.params}

    @property
    def initial_state(self) -> float | np.ndarray:
        """What all states are before the first step: a number, or an array that fits a sample."""
        return 0.0

    # ---------------------------------------------------------------------------------------------- what the loops take

    def common(self, values: dict[str, np.ndarray]) -> list:
        """-> the rows of ``params`` that all neurons have, from the options."""
        return [values["threshold"], values["graded_spikes_factor"], values.get("V", 1.0)]

    def own(self, values: dict[str, np.ndarray]) -> list[np.ndarray]:
        """-> the neuron's own rows of ``params``, from its options; equal to its options unless it says otherwise."""
        return [np.clip(values[name], 0, 1) if name in self.decays else values[name] for name in self.own_names]

    def own_backward(self, values: dict[str, np.ndarray], down: list[np.ndarray]) -> dict[str, np.ndarray]:
        """Gradients of the own rows of ``params`` -> gradients of the options; a clamp passes them inside, bounds included."""
        return {name: gradient * self._inside(values, name) for name, gradient in zip(self.own_names, down, strict=True)}

    def learned_rows(self) -> dict[str, tuple[str, str]] | None:
        """-> {row of ``params`` that follows from a learned option: (how, the option)}: ``own`` as data, for kernels.

        How is one of ``ops.neurons.learned_cuda.MAPS``; None where ``own`` itself must be asked.
        """
        return {name: ("clamped" if name in self.decays else "itself", name) for name in self.learned}

    def _inside(self, values, name):
        return (values[name] >= 0) & (values[name] <= 1) if name in self.decays else 1.0

    @property
    def graded(self) -> bool:
        return "graded_spikes_factor" in self.learned or bool(np.any(self.current("graded_spikes_factor") != 1))

    @property
    def model(self) -> Model:
        return Model(self.neuron, self.reset_mechanism, self.spike_grad, self.reset_delay, self.inhibition, graded=self.graded)

    @property
    def state_rows(self) -> int:
        """Numbers that each neuron carries from step to step."""
        return len(self.model.states)

    def plain(self) -> tuple[float, float, str, Surrogate] | None:
        """-> (beta, threshold, reset, surrogate) of a Leaky with nothing learned and no further option, else None."""
        return None

    @property
    def binary(self) -> bool:
        """Are its spikes 0 or 1?"""
        return not self.graded

    @property
    def simple(self) -> bool:
        """Has it one state, one number of each kind for all neurons, nothing learned and no further option?"""
        model = self.model
        plain = not (self.learned or model.inhibition or model.graded)
        plain = plain and all(self.current(name).ndim == 0 for name in self.number_names())
        return plain and model.fires and len(model.states) == 1

    def prepare(self, ops, shape, dtype, numbers: dict[str, np.ndarray] | None = None) -> Prepared:
        """As in ``Layer``; ``numbers`` are values of the options that are numbers, by default those of now."""
        numbers = {name: self.current(name) for name in self.number_names()} if numbers is None else numbers
        wide = self.inhibition or any(value.ndim for value in numbers.values())
        values = {
            name: _flat(np.broadcast_to(value, shape)) if wide else value.reshape(1) for name, value in numbers.items()
        }  # fmt: skip
        one = np.ones(int(np.prod(shape)) if wide else 1)
        rows = np.array([row * one for row in (*self.common(values), *self.own(values))]).astype(dtype)
        return Prepared(self.model, rows, values, shape)

    # ---------------------------------------------------------------------------------------------- running

    def forward(self, ops, prepared, x, run):
        T, rows = run.num_steps, x.reshape(len(x), -1)
        state = run.states.get(self.name)
        spikes, trajectory = ops.neuron_forward(
            prepared.model, rows, T, prepared.params, state, run.smooth, keep_states=self.learns_own, **run.frozen(self)
        )  # fmt: skip
        return spikes.reshape(T, *x.shape[1:]), self.keep(prepared, x.shape, rows, trajectory, run)

    def keep(self, prepared: Prepared, shape, rows, trajectory, run) -> Kept:
        """What is kept of a pass over ``rows`` (T or 1, M), an input of ``shape``."""
        return Kept(trajectory, shape, prepared.params, rows if self.reads_input else None, run.smooth, run.truncate)

    def backward(self, ops, prepared, dy, kept, grads, input_grad, dmembrane=None):
        """As in ``Layer``; ``dmembrane`` (T, B, ...) or None is dL/dmembrane from outside, and ``dy`` may be None then."""
        dx, dparams = self.backward_numbers(ops, prepared, dy, kept, grads, dmembrane)
        self.add_gradients(prepared, dparams, grads)
        return dx

    def backward_numbers(self, ops, prepared, dy, kept, grads, dmembrane=None) -> tuple[np.ndarray, np.ndarray | None]:
        """-> dx (T or 1, B, ...), and the gradients (P, 1 or F) of ``params``, or None where nothing is learned.

        What is learned besides numbers adds into ``grads``.
        """
        rows = [None if d is None else d.reshape(len(d), -1) for d in (dy, dmembrane)]
        dx, dparams = ops.neuron_backward(
            prepared.model, *rows, kept.trajectory, kept.shape[0], prepared.params, kept.x, self.wanted(prepared.model),
            kept.truncate, smooth=kept.smooth,
        )  # fmt: skip
        return dx.reshape(kept.shape), dparams

    def add_gradients(self, prepared: Prepared, dparams, grads) -> None:
        """dparams (P, 1 or F) -> added to the gradients of the options that are learned."""
        if dparams is None:
            return
        down = dict(zip(COMMON, dparams, strict=False)) | self.own_backward(prepared.values, list(dparams[len(COMMON) :]))
        for name in self.learned:
            grads[name] += _fold(down[name], prepared.shape, grads[name].shape).astype(grads[name].dtype)

    @property
    def learns_own(self) -> bool:
        """Is a number of this neuron alone learned?"""
        return any(name in self.own_names for name in self.learned)

    @property
    def reads_input(self) -> bool:
        """Do the gradients of its numbers need the input current?"""
        return self.learns_own and self.model.scalar.READS_INPUT

    def wanted(self, model: Model) -> tuple[bool, ...]:
        """Which rows of dparams are wanted: none without anything learned."""
        if not self.learned:
            return ()
        own = tuple(self.learns_own and name not in model.fixed for name in model.scalar.PARAMS)
        return tuple(name in self.learned for name in COMMON) + own

    def choices(self, kept):
        m, threshold = kept.membrane, np.tile(kept.params[0], kept.membrane.shape[1] // kept.params.shape[1])
        chosen = {"flags": m[:-1] > threshold}
        if self.inhibition:
            u = kept.trajectory.before if len(kept.trajectory.before) else m[1:]
            above = (u - threshold).reshape(len(u), -1, kept.params.shape[1])
            winners = np.arange(above.shape[2]) == above.argmax(2)[..., None]
            chosen["winners"] = winners.reshape(u.shape).astype(m.dtype)
        return chosen


def finite(name: str, value) -> float | np.ndarray:
    """-> value as a float or an array of float64; ValueError, naming the option, if it holds anything but finite numbers."""
    try:
        array = np.asarray(value)
        real = array.dtype.kind in "fiu" and np.isfinite(array).all()
    except ValueError:  # lists of unequal lengths
        real = False
    if not real or array.size == 0:
        raise ValueError(f"{name} must be a finite number or an array of them, got {value!r}")
    if array.ndim == 0:
        return float(array)
    numbers = array.astype(np.float64)
    numbers.flags.writeable = False  # an option changes by being set anew, which programs take notice of
    return numbers


def a_surrogate(name: str, value, default: Callable[[], Surrogate]) -> Surrogate:
    """-> value, which may be its description, or the default for None; TypeError, naming the option, for anything else."""
    if value is None:
        return default()
    if isinstance(value, dict):
        return from_config(value)
    if not isinstance(value, Surrogate):
        raise TypeError(f"{name} must come from spikeflow.surrogate, such as {default.__name__}(), got {value!r}")
    return value


def _fits(numbers: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Can an option of the shape ``numbers`` be broadcast to samples of ``shape``?"""
    try:
        return np.broadcast_shapes(numbers, shape) == tuple(shape)
    except ValueError:
        return False


def _flat(values: np.ndarray) -> np.ndarray:
    """Numbers over a sample, channel first -> (F,) in the order of the engine, channel last."""
    return (np.moveaxis(values, 0, -1) if values.ndim == 3 else values).reshape(-1)


def _fold(gradient: np.ndarray, shape: tuple[int, ...], wanted: tuple[int, ...]) -> np.ndarray:
    """(1,) or (F,) over samples of ``shape`` -> summed to the ``wanted`` shape, which broadcasts to ``shape``."""
    if gradient.shape == (1,):
        return gradient.reshape(wanted)
    full = np.moveaxis(gradient.reshape(*shape[1:], shape[0]), -1, 0) if len(shape) == 3 else gradient.reshape(shape)
    lead = full.ndim - len(wanted)
    summed = full.sum(tuple(range(lead)))
    return summed.sum(tuple(i for i, n in enumerate(wanted) if n == 1), keepdims=True).reshape(wanted)

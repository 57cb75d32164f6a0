"""What all layers share: parameters, descriptions, shapes, and a plain pass forward and backward.

A layer says what it is. It holds its options and its parameters, nothing else; how one call of a network runs it, in blocks,
fused with its neighbours or on a device, is up to ``spikeflow.engine``. Whatever a pass needs lives in the arguments: ``prepare``
returns what is worked out once a call (packed weights), ``forward`` returns what its ``backward`` will need.

Inside the engine an activation is ``(T, B, H, W, C)`` or ``(T, B, F)``; T = 1 while the input is static and no neuron has been
reached. ``output_shape`` speaks the public order ``(C, H, W)``.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

__all__ = [
    "Home", "Layer", "Parameter", "Run", "check_option_names", "check_options", "merged", "nearest", "positive_int", "split_like",
    "zero_grads",
]  # fmt: skip


class Parameter:
    """A trainable array.

    Attributes
    ----------
    name : str
        As PyTorch would name it in a Sequential: ``"0.weight"``.
    value, grad : numpy.ndarray
        Same shape and dtype; ``grad`` accumulates until ``zero_grad``. Both are written in place, by ``p.value[...] = new`` or
        by ``p.value = new``, which refuses another shape. With ``backend="cuda"`` they are the host's copies, brought up to date
        whenever they are asked for: ask again after a step.
    trainable : bool
        False for what a layer keeps as it is: no gradient, and no part of ``net.parameters()``.
    array, darray
        ``value`` and ``grad`` where the kernels of the network's backend have them.
    place : tuple or None
        (store, offset, size): where a trainable parameter lies in its network's memory on the device; None on the host.
    """

    def __init__(self, name: str, value: np.ndarray, trainable: bool = True):
        self.name = name
        self.trainable = trainable
        self.place: tuple[Any, int, int] | None = None
        self._value, self._grad = Home(value), Home(np.zeros_like(value))

    def move(self, value: Home, grad: Home, place: tuple[Any, int, int] | None) -> None:
        """Live elsewhere from now on."""
        self._value, self._grad, self.place = value, grad, place

    @property
    def value(self) -> np.ndarray:
        return self._value.host()

    @value.setter
    def value(self, new) -> None:
        self._write(self._value, "value", new)

    @property
    def grad(self) -> np.ndarray:
        return self._grad.host()

    @grad.setter
    def grad(self, new) -> None:
        self._write(self._grad, "grad", new)

    @property
    def array(self):
        return self._value.here(written=not self.trainable)

    @property
    def darray(self):
        return self._grad.here(written=True)

    def _write(self, target: Home, what: str, new) -> None:
        if np.shape(new) != target.shape:
            raise ValueError(f"{self.name}.{what} must have shape {target.shape}, got {np.shape(new)}")
        target.host()[...] = new

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, shape={self._value.shape}, dtype={self._value.dtype})"


class Home:
    """Where an array lives: on the host. ``spikeflow.device`` has others."""

    def __init__(self, array: np.ndarray):
        self._array = array

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    @property
    def dtype(self) -> np.dtype:
        return self._array.dtype

    def host(self) -> np.ndarray:
        """-> the array as NumPy sees it, up to date; the caller may write to it."""
        return self._array

    def here(self, written: bool):
        """-> the array as kernels see it, up to date; ``written``: they will write to it."""
        return self._array

    def clear(self) -> None:
        """Fill it with zeros."""
        self._array.fill(0)


@dataclass
class Run:
    """One pass through the network, as its layers see it."""

    num_steps: int
    smooth: bool = False  # the surrogate's primitive in place of the step: the smooth twin
    truncate: int | None = None  # backward, the neurons' state is detached every so many steps
    streams: bool = False  # the neurons' state comes from outside and is handed on
    states: dict[str, np.ndarray] = field(default_factory=dict)  # that state, of a block: (S, M) by layer, changed in place
    choices: dict[str, dict] = field(default_factory=dict)  # discrete choices to obey, by layer: only `reference` can
    records: bool = False  # every neuron shows its spikes and its membrane
    training: bool = False  # batch statistics and dropout
    updates: bool = False  # running estimates follow the batch
    draw: int = 0  # number of the dropout masks
    first: int = 0  # number of the block's first sample
    crossings: list = field(default_factory=list)  # what branches of this block have put aside, the innermost last

    def of_block(self, first: int, states: dict[str, np.ndarray] | None = None) -> Run:
        """-> the same pass, as a block sees it; without ``states`` the neurons have those of the whole."""
        run = object.__new__(Run)  # a dataclass's own ways to be copied take ten times as long
        run.__dict__.update(self.__dict__)
        run.first, run.crossings = first, []
        if states is not None:
            run.states = states
        return run

    def frozen(self, layer: Layer) -> dict:
        return self.choices.get(layer.name, {})


class Layer:
    """Base of all layers. A layer joins one network, which names it by its position and makes its parameters."""

    input_rank: int | None = None  # axes of one input sample, where the layer insists on it
    alone: Callable  # how one runs by itself, which ``spikeflow.network`` knows
    keeps = "nothing"  # what waits for the backward pass, in words
    version = 0  # grows with every option that is set: what was derived from the options is known to be old

    def __init__(self) -> None:
        self.name = ""
        self.params: dict[str, Parameter] = {}

    def __setattr__(self, name: str, value) -> None:
        object.__setattr__(self, name, value)
        object.__setattr__(self, "version", self.version + 1)

    def initialize(self, name: str, dtype: np.dtype, seed: int) -> None:
        """Join a network as its layer ``name``: make the parameters."""
        self.name = name
        values = self.initial_values(dtype, seed)
        self.params = {key: Parameter(f"{name}.{key}", value, self.trains(key)) for key, value in values.items()}

    def initial_values(self, dtype: np.dtype, seed: int) -> dict[str, np.ndarray]:
        """-> {parameter's name within the layer: initial value}."""
        return {}

    def trains(self, key: str) -> bool:
        """Is the parameter of this name to be trained?"""
        return True

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one input sample -> shape of one output sample; ValueError if the layer cannot take it."""
        raise NotImplementedError("a layer must define output_shape")

    def macs(self, shape: tuple[int, ...]) -> int:
        """Shape of one output sample -> multiply-adds of one time step, taps in the padding included."""
        return 0

    def recurrent_macs(self, shape: tuple[int, ...]) -> int:
        """The same for what the layer's own output of the step before is multiplied by."""
        return 0

    def couples(self, run: Run) -> bool:
        """Does this pass need all samples of a batch at once?"""
        return False

    def prepare(self, ops: SimpleNamespace, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """What one call of the network works out once for all blocks of samples, which are of ``shape``."""
        return None

    def forward(self, ops, prepared, x, run: Run) -> tuple[np.ndarray, Any]:
        """x (T, B, ...) -> y (T, B, ...), and what ``backward`` needs."""
        raise NotImplementedError("a layer must define forward")

    def backward(self, ops, prepared, dy, kept, grads: dict[str, np.ndarray], input_grad: bool) -> np.ndarray | None:
        """dy (T, B, ...) -> dx (T, B, ...), or None unless ``input_grad``; adds into ``grads``, {parameter's name: array}."""
        raise NotImplementedError("a layer must define backward")

    def __call__(self, x: np.ndarray, state=None):
        """Run this layer of a network by itself, in evaluation mode.

        Parameters
        ----------
        x : (T, B, ...)
            What comes into it at each step, channel first; of the network's dtype, or of bool.
        state : optional
            What the call on the part of the sequence before returned; none at the beginning.

        Returns
        -------
        (T, B, ...) output; of a layer of neurons spikes, membrane (T, B, ...), and state (S, B, ...)
            A layer that holds neurons returns what ``net.stream`` does.

        Raises
        ------
        RuntimeError
            The layer belongs to no network.
        TypeError, ValueError
            As of ``net.stream``.

        Examples
        --------
        >>> import numpy as np, spikeflow as sf
        >>> net = sf.Sequential(sf.Linear(4, 3), sf.Leaky(beta=0.5))
        >>> current = net.layers[0](np.ones((5, 2, 4), np.float32))
        >>> spikes, membrane, state = net.layers[1](current)
        >>> current.shape, spikes.shape, state.shape
        ((5, 2, 3), (5, 2, 3), (1, 2, 3))
        """
        return self.alone(self, x, state)

    def choices(self, kept) -> dict[str, np.ndarray]:
        """The discrete choices of a forward pass, from what it kept: arguments with which `reference` makes them again."""
        return {}

    def config(self) -> dict:
        """The description from which ``layers.from_config`` makes an equal layer: its type and its options."""
        options = {key: _plain(getattr(self, key)) for key in inspect.signature(type(self)).parameters}
        return {"type": type(self).__name__, **options}

    def unused_copy(self) -> Layer:
        """-> a layer with the same options that belongs to no network."""
        return type(self)(**{key: getattr(self, key) for key in inspect.signature(type(self)).parameters})

    def refuse(self, expected: str, shape: tuple[int, ...]):
        """-> the ValueError for an input that does not fit, naming this layer."""
        return ValueError(f"layer {self.name} ({self!r}) expects {expected}, got an input of shape {shape} per sample")

    def __repr__(self) -> str:
        options = inspect.signature(type(self)).parameters.values()
        shown = []
        for option in options:
            value = getattr(self, option.name)
            try:
                value = _plain(value)
            except ValueError:  # a surrogate of the user's own
                value = value.name
            text = f"array{np.shape(value)}" if isinstance(value, list) else f"{value}"
            if option.default is option.empty:
                shown.append(text)
            elif value != _plain(option.default):
                shown.append(f"{option.name}={text}")
        return f"{type(self).__name__}({', '.join(shown)})"


def merged(x):
    """x (T, B, ...) -> (T B, ...)."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def split_like(y, like):
    """y (T B, ...) -> (T, B, ...), with T and B of ``like``."""
    return y.reshape(*like.shape[:2], *y.shape[1:])


def zero_grads(parameters: Iterable[Parameter]) -> None:
    """Set all gradients to zero; of parameters on the device, those of a whole network at once."""
    parameters = list(parameters)
    chosen = {id(parameter) for parameter in parameters}
    stores = {id(parameter.place[0]): parameter.place[0] for parameter in parameters if parameter.place}
    whole = {key for key, store in stores.items() if chosen.issuperset(map(id, store.parameters))}
    for key in whole:
        stores[key].zero_grads()
    for parameter in parameters:
        if not parameter.place or id(parameter.place[0]) not in whole:
            parameter._grad.clear()


def _plain(value):
    """An option as JSON can hold it."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.config() if hasattr(value, "config") else value


def positive_int(name: str, value, least: int = 1) -> int:
    """-> value as an int; TypeError or ValueError, naming the argument, if it is not an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def check_option_names(make: Callable, names: Iterable[str]) -> None:
    """ValueError, with the nearest known name, unless ``names`` are keyword arguments of ``make``."""
    known = inspect.signature(make).parameters
    for name in names:
        if name not in known:
            listed = f"its options are {', '.join(known)}" if known else "it has none"
            raise ValueError(f"there is no option {name!r}{nearest(name, known)}; {listed}")


def check_options(make: Callable, options: dict[str, Any]) -> None:
    """ValueError unless ``options`` are all that ``make`` needs, none that it does not know, and booleans where it has them."""
    check_option_names(make, options)
    known = inspect.signature(make).parameters
    if missing := [name for name, option in known.items() if option.default is option.empty and name not in options]:
        raise ValueError(f"{' and '.join(missing)} must be given")
    for name, value in options.items():
        if isinstance(known[name].default, bool) and not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, got {value!r}")


def nearest(name: Any, known: Iterable[str]) -> str:
    """-> ``" (did you mean 'Conv2d'?)"`` for a name that is nearly one of those known, else nothing."""
    lowered = {other.lower(): other for other in known}
    found = difflib.get_close_matches(str(name).lower(), lowered, n=1)
    return f" (did you mean {lowered[found[0]]!r}?)" if found else ""

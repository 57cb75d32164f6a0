"""Do the backends agree? A network on each of them, beside ``reference``: ``spikeflow parity``.

A comparison from end to end alone would say little. One membrane that rounding puts on the other side of its threshold is a spike
more or less, and all layers behind compute something else; their differences then measure the network, not the backend. So two
things are shown:

* *whole*: the network from end to end, as it is used;
* *alone*: each neuron layer with what lies before it, up to the neuron layer before, fed with what ``reference`` fed it there,
  forward and backward. What differs, differs here. Membranes are compared up to the step at which a spike of the same sample
  differs.

With weights and inputs rounded to multiples of 1 / 64 (``dyadic=True``) the sums of convolutions and linear layers are exact on
every backend, and the neurons round the same operations in the same order: forward passes must be equal to the bit, end to end.
Batch normalisation divides, and what is behind it is judged as with any weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from . import backends as tables
from . import inspection
from .engine.lower import unnested
from .layers import Layer, Neuron, Parameter
from .layers.containers import Container, leaves
from .layers.normalization import BatchNorm
from .losses import Loss
from .network import Sequential

__all__ = ["GradientRow", "LayerRow", "Report", "available", "parity"]

GRAIN = 64  # dyadic numbers are multiples of 1 / GRAIN
SPIKES = 1e-4  # share of a layer's spikes that may differ alone; one may always
MEMBRANE = 1e-5  # of the layer's largest, alone
GRADIENT = 1e-4  # norm-relative, alone where no spike differs
SMALL = 1e-2  # of the largest gradient of the layer and what lies before it: smaller ones are measured by this
INPUT = "input"  # its gradient stands among those of a layer's parameters


@dataclass(frozen=True)
class LayerRow:
    """What one layer of neurons did on a backend, beside ``reference``.

    Attributes
    ----------
    backend, name, layer : str
        Of the layer its place and its type.
    spikes, places : int
        Those of ``reference``, and how many there could be: steps, samples and neurons.
    whole_spikes, alone_spikes : int
        How many differ.
    whole_membrane, alone_membrane : float
        The largest difference, as a share of the largest membrane.
    exact : bool
        Must it be equal to the bit?
    """

    backend: str
    name: str
    layer: str
    spikes: int
    places: int
    whole_spikes: int
    whole_membrane: float
    alone_spikes: int
    alone_membrane: float
    exact: bool

    @property
    def problem(self) -> str | None:
        """What is beyond its bound; None if nothing is."""
        if self.exact:
            found = {"whole": (self.whole_spikes, self.whole_membrane), "alone": (self.alone_spikes, self.alone_membrane)}
            wrong = [how for how, differences in found.items() if any(differences)]
            return f"differs ({' and '.join(wrong)}), but must be equal to the bit" if wrong else None
        if self.alone_spikes > max(1, SPIKES * self.places):
            return f"{self.alone_spikes} spikes of {self.places} places differ alone, more than a share of {SPIKES:g}"
        if not self.alone_membrane <= MEMBRANE:
            return f"membranes differ alone by {self.alone_membrane:.1e} of the largest, more than {MEMBRANE:g}"
        return None


@dataclass(frozen=True)
class GradientRow:
    """A gradient on a backend, of a parameter or of what a piece is fed with: norm-relative differences from ``reference``.

    A gradient may be nothing but rounding, as a bias' is in front of a batch normalisation, so that a norm far below the largest
    of its piece counts as a hundredth of that.

    Attributes
    ----------
    backend, name : str
    norm : float
        Of the gradient of ``reference``, alone.
    whole, alone : float
        End to end there is none of a piece's input: None.
    flips : int
        Spikes of its layer that differed alone: where there are any, the gradient is another function's, and not judged.
    exact : bool
        Must the whole forward pass be equal to the bit, so that the whole gradient must agree, too?
    """

    backend: str
    name: str
    norm: float
    whole: float | None
    alone: float
    flips: int
    exact: bool

    @property
    def problem(self) -> str | None:
        """What is beyond its bound; None if nothing is."""
        if not self.flips and not self.alone <= GRADIENT:
            return f"gradients differ alone by {self.alone:.1e}, more than {GRADIENT:g}"
        if self.exact and self.whole is not None and not self.whole <= GRADIENT:
            return f"gradients differ by {self.whole:.1e}, more than {GRADIENT:g}"
        return None


@dataclass(frozen=True)
class Report:
    """All rows; prints as a table. ``passed`` if nothing is beyond its bound.

    Attributes
    ----------
    layers, gradients : list
    losses : dict
        Of each backend.
    left_out : dict
        Backends that cannot run here, and why.
    """

    layers: list[LayerRow]
    gradients: list[GradientRow]
    losses: dict[str, float]
    left_out: dict[str, str]

    @property
    def problems(self) -> list[str]:
        rows = [*self.layers, *self.gradients]
        return [f"{row.backend}, {row.name}: {row.problem}" for row in rows if row.problem]

    @property
    def passed(self) -> bool:
        return not self.problems

    def facts(self) -> dict[str, Any]:
        """-> all of it, as JSON can hold it."""
        rows = {"layers": self.layers, "gradients": self.gradients}
        tables = {name: [{**asdict(row), "problem": row.problem} for row in table] for name, table in rows.items()}
        bounds = {"spikes": SPIKES, "membrane": MEMBRANE, "gradient": GRADIENT}
        return {"passed": self.passed, "losses": self.losses, "left_out": self.left_out, "bounds": bounds, **tables}

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.gradients) if self.gradients else 0
        width = max([width, *(len(f"{row.name} {row.layer}") for row in self.layers)]) + 2
        lines = [f"loss: {', '.join(f'{name} {loss:.7g}' for name, loss in self.losses.items())}"]
        lines += [f"{name} is left out: {reason}" for name, reason in self.left_out.items()]
        for backend in (name for name in self.losses if name != "reference"):
            lines += ["", f"{backend:<{width}}{'spikes':>9}{'of':>10}{'differ':>9}{'alone':>7}{'membrane':>11}{'alone':>10}"]
            lines += [_layer_line(row, width) for row in self.layers if row.backend == backend]
            lines.append(f"{'':<{width}}{'|gradient|':>35}{'differs':>11}{'alone':>10}")
            lines += [_gradient_line(row, width) for row in self.gradients if row.backend == backend]
        return "\n".join([*lines, "", *self._verdict()])

    def _verdict(self) -> list[str]:
        if self.problems:
            return [f"BEYOND ITS BOUND: {problem}" for problem in self.problems]
        exact = "equal to the bit where it must be; " if any(row.exact for row in self.layers) else ""
        bounds = f"alone at most {SPIKES:g} of spikes, {MEMBRANE:g} of membranes, {GRADIENT:g} of gradients differ"
        flips = sum(1 for row in self.gradients if row.flips)
        unjudged = f"; {flips} gradients behind spikes that differ are not judged" if flips else ""
        return [f"within bounds: {exact}{bounds}{unjudged}"]


def _layer_line(row: LayerRow, width: int) -> str:
    numbers = f"{row.spikes:>9}{row.places:>10}{row.whole_spikes:>9}{row.alone_spikes:>7}"
    return f"{row.name + ' ' + row.layer:<{width}}{numbers}{row.whole_membrane:>11.1e}{row.alone_membrane:>10.1e}"


def _gradient_line(row: GradientRow, width: int) -> str:
    whole = "" if row.whole is None else f"{row.whole:.1e}"
    return f"{row.name:<{width}}{row.norm:>35.3e}{whole:>11}{row.alone:>10.1e}" + (" (flips)" if row.flips else "")


def available(dtype=np.float32) -> tuple[list[str], dict[str, str]]:
    """-> the backends that can run here, ``reference`` first, and {another: why not}."""
    found, left_out = [], {}
    for name in sorted(tables.BACKENDS, key=lambda name: name != "reference"):
        try:
            if name == "cuda" and np.dtype(dtype) != np.float32:
                raise ValueError("it computes in float32 only")
            tables.load(name)
            found.append(name)
        except (RuntimeError, ValueError) as error:
            left_out[name] = str(error)
    return found, left_out


def parity(
    net: Sequential | Sequence[Layer], images: np.ndarray, labels: np.ndarray, loss_fn: Loss, num_steps: int | None = None,
    backends: Sequence[str] | None = None, dyadic: bool = False, rescale: bool = False,
) -> Report:  # fmt: skip
    """Run a network on several backends and compare each with ``reference``: spikes, membranes, gradients.

    Parameters
    ----------
    net : Sequential, or sequence of Layer
        It stays as it is: copies run.
    images, labels, num_steps
        As for ``net.loss_and_grad``.
    loss_fn : Loss
    backends : sequence of str, optional
        Besides ``reference``; by default all that can run here.
    dyadic : bool
        Round parameters and images to multiples of 1 / 64, so that forward passes must be equal to the bit.
    rescale : bool
        Scale the weights in front of each layer of neurons until a twentieth of its membranes reaches the threshold: initial
        weights let the last layers of a deep network be silent, and what never fires agrees with everything.

    Returns
    -------
    Report

    Raises
    ------
    TypeError
        ``loss_fn`` is no loss of ``spikeflow.losses``.
    ValueError, RuntimeError
        An unknown backend, or one that cannot run here.
    """
    if not isinstance(loss_fn, (Loss, tuple, list)):
        raise TypeError(f"loss_fn must be a loss of spikeflow.losses, got {loss_fn!r}")
    net = net if isinstance(net, Sequential) else Sequential(*(layer.unused_copy() for layer in net), backend="reference")
    found, left_out = available(net.dtype) if backends is None else (list(backends), {})
    names = ["reference", *(name for name in found if name != "reference")]
    state = _rescaled(net, images, num_steps) if rescale else net.state_dict()
    if dyadic:
        state, images = {name: _rounded(value) for name, value in state.items()}, _rounded(images)
    whole = {name: _Whole(net, state, images, labels, loss_fn, num_steps, name) for name in names}
    pieces = _pieces(net, state, images, labels, loss_fn, num_steps)
    layers, gradients = [], []
    divides = [any(isinstance(layer, BatchNorm) for layer in piece.layers) for piece in pieces]
    for name in names[1:]:
        for place, piece in enumerate(pieces):
            exact = dyadic and not any(divides[: place + 1]), dyadic and not any(divides)
            compared = _compare(piece, name, whole["reference"], whole[name], *exact)
            layers += compared[0]
            gradients += compared[1]
    return Report(layers, gradients, {name: run.loss for name, run in whole.items()}, left_out)


def _rescaled(net: Sequential, images, num_steps) -> dict[str, np.ndarray]:
    """-> the parameters, those in front of each layer of neurons scaled until it fires."""
    copy = _copy(net, net.layers, net.state_dict(), "reference")
    scaled: list[Parameter] = []
    for layer in leaves(copy.layers):
        own = [layer.params[key] for key in ("weight", "bias") if key in layer.params]
        scaled = own or scaled
        if not isinstance(layer, Neuron):
            continue
        if scaled and layer.model.fires:
            reached = float(np.quantile(copy.record(images, num_steps)[layer.name]["membrane"], 0.95))
            threshold = float(np.mean(layer.current("threshold")))
            for parameter in scaled if 0 < reached < threshold else ():
                parameter.value *= threshold / reached
        scaled = []
    return copy.state_dict()


def _rounded(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    return array if array.dtype == np.bool_ else (np.round(array * GRAIN) / GRAIN).astype(array.dtype)


def _copy(net: Sequential, layers: Sequence[Layer], state: dict[str, np.ndarray], backend: str) -> Sequential:
    """-> a network of copies of ``layers``, with their parameters of ``state``, which has their names."""
    options = {"seed": net.seed, "dtype": net.dtype, "events": net.events, "backend": backend}
    copy = Sequential(*(layer.unused_copy() for layer in layers), **options)
    for own, other in _pairs(layers, copy):
        for key, parameter in other.params.items():
            parameter.value = state[f"{own.name}.{key}"]
    return copy.train(net.training)


def _pairs(layers: Sequence[Layer], copy: Sequential) -> list[tuple[Layer, Layer]]:
    """-> (layer, its copy) of all that hold no others."""
    return list(zip(leaves(layers), leaves(copy.layers), strict=True))


def _gradients(layers: Sequence[Layer], copy: Sequential) -> dict[str, np.ndarray]:
    """-> the copy's gradients under the names of the layers that were copied."""
    return {
        f"{own.name}.{key}": np.array(parameter.grad)
        for own, other in _pairs(layers, copy)
        for key, parameter in other.params.items()
        if parameter.trainable
    }


class _Whole:
    """The network on one backend, from end to end."""

    def __init__(self, net, state, images, labels, loss_fn, num_steps, backend: str):
        copy = _copy(net, net.layers, state, backend)
        trace, self.trace = copy.record(images, num_steps), {}
        for own, other in _pairs(net.layers, copy):
            if other.name in trace:
                self.trace[own.name] = trace[other.name]
        self.loss, _ = copy.loss_and_grad(images, labels, loss_fn, num_steps)
        self.gradients = _gradients(net.layers, copy)


@dataclass(frozen=True)
class _Piece:
    """Layers of one branch that end with a neuron, or with the branch; what ``reference`` fed them with, both ways."""

    net: Sequential
    state: dict[str, np.ndarray]
    layers: Sequence[Layer]
    images: np.ndarray
    num_steps: int | None
    dspikes: np.ndarray | None
    dmembrane: np.ndarray | None

    @property
    def neuron(self) -> Neuron | None:
        """The layer of neurons at its end, if there is one."""
        return self.layers[-1] if isinstance(self.layers[-1], Neuron) else None

    def run(self, backend: str) -> tuple[dict[str, np.ndarray], np.ndarray | None, dict[str, np.ndarray]]:
        """-> the record of its neurons, the training pass's spikes, and gradients by the parameters' names in the network."""
        copy = _copy(self.net, self.layers, self.state, backend)
        trace = copy.record(self.images, self.num_steps)
        spikes, _ = copy.forward(self.images, self.num_steps)
        dinput = copy.backward(self.dspikes, self.dmembrane, input_grad=True)
        gradients = {f"{self.layers[0].name}.{INPUT}": dinput, **_gradients(self.layers, copy)}
        return next(iter(trace.values()), {}), spikes, gradients


def _pieces(net, state, images, labels, loss_fn, num_steps) -> list[_Piece]:
    """-> the network, cut behind every layer of neurons and where branches part and meet; each piece as it was met in it."""
    copy = _copy(net, net.layers, state, "reference")
    call = copy._call(images, num_steps, plain=True, records=True)
    found = inspection.passed(call, *copy._losses(call, loss_fn, labels))
    others = {own.name: other.name for own, other in _pairs(net.layers, copy)}
    pieces = []
    for layers in _cut(net.layers):
        x, last = found[others[layers[0].name]].x, found[others[layers[-1].name]]
        given = (last.dy, last.dmembrane) if isinstance(layers[-1], Neuron) else (None, last.dy)
        constant = num_steps is not None and len(x) == 1 and last.dy is not None
        if constant and not isinstance(layers[-1], Neuron):  # it is shown at one step, as it ran
            pieces.append(_Piece(net, state, layers, x[0], 1, *given))
        else:
            pieces.append(_Piece(net, state, layers, x[0] if constant else _as_bits(x), num_steps if constant else None, *given))
    return pieces


def _cut(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    """Layers -> runs of those that hold no others, one behind the other, each up to a layer of neurons or as far as it goes.

    Runs in which nothing is to be compared, neither neurons nor parameters, are left out.
    """
    run: list[Layer] = []
    for layer in (*unnested(layers), None):
        if layer is not None and not isinstance(layer, Container):
            run.append(layer)
        if (layer is None or isinstance(layer, (Container, Neuron))) and run:
            if isinstance(run[-1], Neuron) or any(part.params for part in run):
                yield run
            run = []
        for branch in layer.branches() if isinstance(layer, Container) else ():
            yield from _cut(branch)


def _as_bits(spikes: np.ndarray) -> np.ndarray:
    """Spikes as the network would hand them on: as bits, unless they are graded."""
    bits = spikes != 0
    return bits if (spikes == bits).all() else spikes


def _compare(
    piece: _Piece, backend: str, reference: _Whole, whole: _Whole, exact: bool, all_exact: bool
) -> tuple[list[LayerRow], list[GradientRow]]:
    """-> the rows of a piece; must it, and must all pieces, be equal to the bit?"""
    (expected, spikes, gradients), (found, own_spikes, own_gradients) = piece.run("reference"), piece.run(backend)
    neuron, flips, rows_of_neurons = piece.neuron, 0, []
    if neuron is not None:
        flips = max(_differing(expected["spikes"], found["spikes"]), _differing(spikes, own_spikes))
        ours, theirs = whole.trace[neuron.name], reference.trace[neuron.name]
        row = LayerRow(
            backend, neuron.name, type(neuron).__name__, int((theirs["spikes"] != 0).sum()), theirs["spikes"].size,
            _differing(theirs["spikes"], ours["spikes"]), _distance(theirs["membrane"], ours["membrane"]),
            flips, _distance(*_before_flips(expected, found)), exact,
        )  # fmt: skip
        rows_of_neurons.append(row)
    trained = [name for name in gradients if name in whole.gradients]
    alone = _relative(gradients, own_gradients, list(gradients))
    end_to_end = _relative(reference.gradients, whole.gradients, trained)
    rows = [
        GradientRow(
            backend, name, _norm(gradients[name]), end_to_end.get(name), alone[name], flips, all_exact,
        )
        for name in gradients
    ]  # fmt: skip
    return rows_of_neurons, rows


def _differing(a: np.ndarray, b: np.ndarray) -> int:
    return int((a != b).sum())


def _before_flips(expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """-> both membranes, of each sample up to the step before the first at which a spike differs."""
    T, B = expected["spikes"].shape[:2]
    flips = (expected["spikes"] != found["spikes"]).reshape(T, B, -1).any(axis=2)
    before = ~np.logical_or.accumulate(flips, axis=0)
    return expected["membrane"][before], found["membrane"][before]


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """-> the largest difference, as a share of the largest number of a."""
    largest = float(abs(a).max(initial=0))
    return float(abs(np.subtract(a, b, dtype=np.float64)).max(initial=0)) / (largest or 1)


def _relative(expected: dict[str, np.ndarray], found: dict[str, np.ndarray], names: list[str]) -> dict[str, float]:
    """-> {name: norm-relative difference}; of a small gradient as a share of ``SMALL`` of the largest."""
    norms = {name: _norm(expected[name]) for name in names}
    floor = SMALL * max(norms.values(), default=0)
    return {
        name: _norm(np.subtract(expected[name], found[name], dtype=np.float64)) / (max(norms[name], floor) or 1) for name in names
    }


def _norm(array: np.ndarray) -> float:
    return float(np.linalg.norm(array.astype(np.float64)))

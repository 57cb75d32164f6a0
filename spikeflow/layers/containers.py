"""Layers that hold layers: chains that are nested, and branches that meet again.

A container says what it holds and where the branches meet (``spikeflow.ops.merge``); it has no pass of its own. The engine walks
through it and runs what it finds there, one branch after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from .base import Layer, nearest
from .neurons import Neuron
from .spatial import Flatten, MaxPool2d

__all__ = [
    "Chain",
    "Container",
    "Parallel",
    "Residual",
    "description",
    "ends",
    "every",
    "leaves",
    "name_for_messages",
    "through",
]

CONNECTS = ("add", "and", "iand", "concat")
MERGES = ("concat", "add", None)


class Container(Layer):
    """Base of the layers that hold layers, in branches that start from the container's input.

    A subclass defines ``held`` and ``branches``, and, if they meet, ``merge``.

    Attributes
    ----------
    merge : str or None
        How the branches meet: ``"add"``, ``"and"``, ``"iand"``, ``"concat"``; None where they do not.
    """

    merge: str | None = None

    def held(self) -> list[tuple[str, Layer]]:
        """-> (name within the container, layer) of all layers that it was given."""
        raise NotImplementedError("a container must define held")

    def branches(self) -> list[tuple[Layer, ...]]:
        """-> the layers of each branch, in the order in which they meet."""
        raise NotImplementedError("a container must define branches")

    @classmethod
    def from_options(cls, options: dict, make: Callable[..., Layer]) -> Container:
        """The container that ``config`` described, its type aside; ``make`` makes the layers; ValueError for what it is not."""
        raise NotImplementedError("a container must define from_options")

    @property
    def input_rank(self) -> int | None:
        """Axes of one input sample, where a first layer of a branch insists on it."""
        firsts = (branch[0].input_rank for branch in self.branches() if branch)
        return next((rank for rank in firsts if rank is not None), None)

    def initialize(self, name, dtype, seed):
        self.name = name
        for key, layer in self.held():
            layer.initialize(f"{name}.{key}", dtype, seed)

    def output_shape(self, shape):
        return self.merged_shape([through(layers, shape)[-1] for layers in self.branches()])

    def merged_shape(self, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
        """Shapes of what the branches give -> shape of what comes of them; ValueError if they do not fit together."""
        if self.merge is None:
            return shapes[0]
        if self.merge == "concat":
            if len({(len(shape), shape[1:]) for shape in shapes}) > 1:
                raise ValueError(
                    f"{self._named()} concatenates channels, so that branches must agree in all else, got {_list(shapes)}"
                )
            return (sum(shape[0] for shape in shapes), *shapes[0][1:])
        if len(set(shapes)) > 1:
            raise ValueError(
                f"{self._named()} merges by {self.merge!r}, so that branches must have one shape, got {_list(shapes)}"
            )
        return shapes[0]

    def check_spikes(self, given: bool) -> None:
        """ValueError if the branches meet by a function of spikes and are something else; ``given``: is the input spikes?"""
        if self.merge in ("and", "iand") and not all(chain_spikes(layers, given) for layers in self.branches()):
            raise ValueError(
                f"{self._named()} merges by {self.merge!r}, so that both branches must give spikes, 0 or 1; "
                "what meets before a neuron, or was pooled by averages, dropped or graded, is added: 'add'"
            )

    def spikes(self, given: bool) -> bool:
        """Does it give spikes, 0 or 1, if it is ``given`` such?"""
        return self.merge != "add" and all(chain_spikes(layers, given) for layers in self.branches())

    def _named(self) -> str:
        return f"layer {self.name} ({self!r})" if self.name else repr(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(in_line(layer) for _, layer in self.held())})"


class Chain(Container):
    """Layers one behind the other, as ``Sequential`` holds them.

    ``shares``: are they those of another network, of which this one is a slice?
    """

    shares = False

    def __init__(self, *layers: Layer):
        super().__init__()
        self.layers = layers

    def held(self):
        return [(str(k), layer) for k, layer in enumerate(self.layers)]

    def branches(self):
        return [self.layers]

    @classmethod
    def from_options(cls, options, make):
        return cls(*_made(_options("layers", options)["layers"], make))

    def config(self):
        return {"type": "Sequential", "layers": [description(layer) for layer in self.layers]}

    def unused_copy(self):
        return type(self)(*(layer.unused_copy() for layer in self.layers))


class Residual(Container):
    """A body and a shortcut past it, which meet again.

    Parameters
    ----------
    *body : Layer
    shortcut : Layer, optional
        Or a Sequential; by default the input itself.
    connect : {"add", "and", "iand", "concat"}
        SpikingJelly's SEW functions of the two: their sum; their product; shortcut x (1 - body); or channels of the body, then
        those of the shortcut. "and" and "iand" take spikes alone; residuals of currents, before a neuron, are "add".

    Raises
    ------
    ValueError
        An unknown ``connect``, or an empty body.

    References
    ----------
    Fang et al., "Deep Residual Learning in Spiking Neural Networks" (2021), table 1.

    Examples
    --------
    >>> import numpy as np, spikeflow as sf
    >>> block = sf.Residual(sf.Conv2d(2, 2, 3, padding=1), sf.Leaky(beta=0.5), connect="iand")
    >>> net = sf.Sequential(sf.Conv2d(1, 2, 3), sf.Leaky(beta=0.5), block, sf.Flatten(), sf.Linear(32, 3), sf.Leaky(beta=0.5))
    >>> list(net.state_dict())
    ['0.weight', '0.bias', '2.body.0.weight', '2.body.0.bias', '4.weight', '4.bias']
    """

    def __init__(self, *body: Layer, shortcut: Layer | None = None, connect: str = "add"):
        super().__init__()
        self.body = _branch("body", body)
        self.shortcut = shortcut if shortcut is None else _branch("shortcut", [shortcut])[0]
        if connect not in CONNECTS:
            raise ValueError(f"connect must be one of {', '.join(CONNECTS)}, got {connect!r}")
        self.connect = connect

    @property
    def merge(self) -> str:
        return self.connect

    def held(self):
        held = [(f"body.{k}", layer) for k, layer in enumerate(self.body)]
        return held if self.shortcut is None else [*held, (_place("shortcut", self.shortcut), self.shortcut)]

    def branches(self):
        return [self.body, () if self.shortcut is None else _inside(self.shortcut)]

    @classmethod
    def from_options(cls, options, make):
        found = _options("body", options, shortcut=None, connect="add")
        shortcut = None if found["shortcut"] is None else make(found["shortcut"])
        return cls(*_made(found["body"], make), shortcut=shortcut, connect=found["connect"])

    def config(self):
        return {
            "type": "Residual",
            "body": [description(layer) for layer in self.body],
            "shortcut": None if self.shortcut is None else description(self.shortcut),
            "connect": self.connect,
        }

    def unused_copy(self):
        shortcut = None if self.shortcut is None else self.shortcut.unused_copy()
        return Residual(*(layer.unused_copy() for layer in self.body), shortcut=shortcut, connect=self.connect)

    def __repr__(self) -> str:
        shown = [in_line(layer) for layer in self.body]
        shown += [] if self.shortcut is None else [f"shortcut={in_line(self.shortcut)}"]
        return f"Residual({', '.join(shown)}, connect={self.connect!r})"


class Parallel(Container):
    """Branches that read one input, and whose outputs are put together.

    Parameters
    ----------
    *branches : Layer
        Each a Sequential, or one layer; at least two.
    merge : {"concat", "add", None}
        Channels of the branches one behind the other, or their sum. None, as the last layer of a network: each branch is a head
        with an output of its own.

    Raises
    ------
    ValueError
        An unknown ``merge``, or fewer than two branches.

    Examples
    --------
    >>> import spikeflow as sf
    >>> two = sf.Parallel(sf.Sequential(sf.Linear(8, 4), sf.Leaky(beta=0.9)), sf.Linear(8, 2))
    >>> net = sf.Sequential(two, sf.Linear(6, 3), sf.Leaky(beta=0.5))
    >>> list(net.state_dict())
    ['0.0.0.weight', '0.0.0.bias', '0.1.0.weight', '0.1.0.bias', '1.weight', '1.bias']
    """

    def __init__(self, *branches: Layer, merge: str = "concat"):
        super().__init__()
        self.given = _branch("branches", branches)
        if len(self.given) < 2:
            raise ValueError(f"branches must be at least two, got {len(self.given)}")
        if merge not in MERGES:
            raise ValueError(f"merge must be 'concat', 'add' or None, got {merge!r}")
        self.merge = merge

    def held(self):
        return [(_place(str(k), branch), branch) for k, branch in enumerate(self.given)]

    def branches(self):
        return [_inside(branch) for branch in self.given]

    @classmethod
    def from_options(cls, options, make):
        found = _options("branches", options, merge="concat")
        return cls(*_made(found["branches"], make), merge=found["merge"])

    def config(self):
        return {"type": "Parallel", "branches": [description(branch) for branch in self.given], "merge": self.merge}

    def unused_copy(self):
        return Parallel(*(branch.unused_copy() for branch in self.given), merge=self.merge)

    def __repr__(self) -> str:
        return f"Parallel({', '.join(map(in_line, self.given))}, merge={self.merge!r})"


def _branch(name: str, layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """-> the layers; TypeError or ValueError, naming the argument, unless they are some layers."""
    for layer in layers:
        if not isinstance(layer, Layer):
            raise TypeError(f"{name} must be spikeflow layers, got {layer!r}")
    if not layers:
        raise ValueError(f"{name} must hold at least one layer")
    return tuple(layers)


def _options(held: str, options: dict, **defaults) -> dict:
    """-> the options and the defaults of others; ValueError for one that is unknown, or without ``held``, the layers."""
    known = (held, *defaults)
    for name in options:
        if name not in known:
            raise ValueError(f"there is no option {name!r}{nearest(name, known)}; its options are {', '.join(known)}")
    if held not in options:
        raise ValueError(f"{held} must be given")
    return {**defaults, **options}


def _made(described, make: Callable[[dict], Layer]) -> list[Layer]:
    """Descriptions -> layers; ValueError, naming the position, for one that describes none."""
    if not isinstance(described, (list, tuple)) or not all(isinstance(each, dict) for each in described):
        raise ValueError(f"layers must be a list of descriptions, got {described!r}")
    return [make(each, position) for position, each in enumerate(described)]


def _inside(layer: Layer) -> tuple[Layer, ...]:
    """-> the layers of a branch: a lone layer counts as a Sequential of one."""
    return layer.layers if isinstance(layer, Chain) else (layer,)


def description(layer: Layer) -> dict:
    """-> the description of a layer inside another; of a Sequential, without what a network has besides layers."""
    return Chain.config(layer) if isinstance(layer, Chain) else layer.config()


def leaves(layers: Sequence[Layer]) -> Iterator[Layer]:
    """The layers that hold no others, nested ones too, in the order in which they run."""
    for layer in layers:
        if isinstance(layer, Container):
            yield from leaves([child for _, child in layer.held()])
        else:
            yield layer


def _place(name: str, branch: Layer) -> str:
    """-> the name of a branch, within its container."""
    return name if isinstance(branch, Chain) else f"{name}.0"


def in_line(layer: Layer) -> str:
    """-> how a layer is shown inside another: a network by itself takes a line for each of its layers."""
    return Container.__repr__(layer) if isinstance(layer, Chain) else repr(layer)


def check_free(layers: Sequence[Layer]) -> None:
    """ValueError, naming the layer, unless these belong to no network and each is another one."""
    seen: set[int] = set()
    for position, layer in enumerate(layers):
        parts = list(every([layer]))
        taken = not _is_free(layer) or any(id(part) in seen for part in parts) or len(set(map(id, parts))) < len(parts)
        if taken:
            raise ValueError(
                f"layer {position} ({in_line(layer)}) already belongs to a network; make a layer for each place, or a copy"
            )
        seen |= set(map(id, parts))


def _is_free(layer: Layer) -> bool:
    """Does it belong to no network? What a Sequential holds belongs to it, and goes where it goes."""
    if isinstance(layer, Chain):
        return not layer.name and not layer.shares
    if not isinstance(layer, Container):
        return not layer.name
    return not layer.name and all(_is_free(child) for _, child in layer.held())


def every(layers: Sequence[Layer]) -> Iterator[Layer]:
    """All layers, nested ones too, and those that hold them."""
    for layer in layers:
        yield layer
        if isinstance(layer, Container):
            yield from every([child for _, child in layer.held()])


def through(layers: Sequence[Layer], shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Layers one behind the other, shape of an input sample -> shapes of each layer's input, and of the output."""
    shapes = [tuple(shape)]
    for layer in layers:
        shapes.append(layer.output_shape(shapes[-1]))
    return shapes


def name_for_messages(layer: Layer, name: str) -> None:
    """Give a layer, and those that it holds, the names that a network would give them, and no parameters."""
    layer.name = name
    for key, child in layer.held() if isinstance(layer, Container) else ():
        name_for_messages(child, f"{name}.{key}")


def ends(layers: Sequence[Layer]) -> list[Layer]:
    """-> the layers that end a network: the last one, or the last ones of branches that do not meet."""
    last = layers[-1]
    if isinstance(last, Container) and last.merge is None:
        return [end for branch in last.branches() for end in ends(branch)]
    return [last]


def chain_spikes(layers: Sequence[Layer], given: bool) -> bool:
    """Do these layers give spikes, 0 or 1, if they are ``given`` such? Dropout scales what it does not drop."""
    for layer in layers:
        if isinstance(layer, Container):
            given = layer.spikes(given)
        elif isinstance(layer, Neuron):
            given = layer.binary and layer.model.fires
        else:
            given = given and isinstance(layer, (Flatten, MaxPool2d))
    return given


def _list(shapes) -> str:
    return " and ".join(" x ".join(map(str, shape)) for shape in shapes)

"""Surrogate gradients, each a pair of scalar functions: a smooth primitive, and its derivative.

A neuron spikes by the step H(x), x = membrane - threshold, whose derivative is zero almost everywhere. Training runs the step
forward and pretends, backward, that it had been a smooth function P with derivative P' (Neftci, Mostafa, Zenke 2019). Running P
forward as well gives a smooth twin of the network for which the very same backward pass is exact: finite differences check it.

Both functions take ``x`` and the surrogate's constants ``p``, a tuple of numbers of x's type. They are compiled for each backend,
and the NumPy reference calls them with whole arrays. Numbers in them are float32 constants: a Python literal would turn
float32 arithmetic into float64, while a float32 constant in float64 arithmetic is widened, exactly since it is a small integer.
The derivatives are those of snnTorch 1.0's code (of SpikingJelly 2.0's for ATan, which is the same function).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["Surrogate", "atan", "fast_sigmoid", "sigmoid"]


ONE = np.float32(1)


@dataclass(frozen=True)
class Surrogate:
    """A named pair of scalar functions with its parameters; made by ``atan(...)`` and its siblings.

    Attributes
    ----------
    name : str
    params : dict of str to float
        What the user chose.
    constants : tuple of float
        What the two functions take as ``p``, worked out from ``params``.
    primitive, derivative : callables of a scalar (or an array) and ``p``
    """

    name: str
    params: dict[str, float]
    constants: tuple[float, ...]
    primitive: Callable
    derivative: Callable

    def __post_init__(self):
        for key, value in self.params.items():
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{self.name}: {key} must be a positive finite number, got {value}")

    @property
    def cache_key(self) -> str | None:
        """The name under which kernels with these functions may be stored on disk; None for functions that are not ours."""
        ours = self.primitive.__module__ == self.derivative.__module__ == __name__
        return f"{self.primitive.__name__}/{self.derivative.__name__}" if ours else None

    def config(self) -> dict:
        """The description from which ``from_config`` makes it again; ValueError for functions that are not ours."""
        if self.name not in SURROGATES or self.cache_key is None:
            raise ValueError(f"surrogate {self.name!r} has functions of its own, which cannot be written down and read back")
        return {"name": self.name, **self.params}


def fast_sigmoid(slope: float = 25) -> Surrogate:
    """P(x) = x / (1 + slope |x|),  P'(x) = 1 / (1 + slope |x|)^2.  Zenke and Ganguli (2018)."""
    return Surrogate("fast_sigmoid", {"slope": float(slope)}, (float(slope),), _fast_sigmoid, _dfast_sigmoid)


def _fast_sigmoid(x, p):
    return x / (ONE + p[0] * abs(x))


def _dfast_sigmoid(x, p):
    d = ONE + p[0] * abs(x)
    return ONE / (d * d)


def atan(alpha: float = 2) -> Surrogate:
    """P(x) = arctan(pi/2 alpha x) / pi + 1/2,  P'(x) = (alpha / 2) / (1 + (pi/2 alpha x)^2).  Fang et al. (2021)."""
    constants = (math.pi / 2 * alpha, 1 / math.pi, alpha / 2, 0.5)
    return Surrogate("atan", {"alpha": float(alpha)}, constants, _atan, _datan)


def _atan(x, p):
    return np.arctan(p[0] * x) * p[1] + p[3]


def _datan(x, p):
    z = p[0] * x
    return p[2] / (ONE + z * z)


def sigmoid(slope: float = 25) -> Surrogate:
    """P(x) = 1 / (1 + exp(-slope x)),  P'(x) = slope P(x) (1 - P(x)).

    Written so that nothing overflows: snnTorch's code gives NaN below x = -3.55 at the default slope.
    """
    return Surrogate("sigmoid", {"slope": float(slope)}, (float(slope), 0.5), _sigmoid, _dsigmoid)


def _sigmoid(x, p):
    return p[1] * (ONE + np.tanh(p[1] * p[0] * x))  # 1 / (1 + exp(-z)) = (1 + tanh(z / 2)) / 2


def _dsigmoid(x, p):
    e = np.exp(-p[0] * abs(x))  # at most 1
    d = ONE + e
    return p[0] * e / (d * d)


SURROGATES = {make.__name__: make for make in (atan, fast_sigmoid, sigmoid)}


def from_config(config: dict) -> Surrogate:
    """The surrogate that ``Surrogate.config`` described; ValueError, with the known names, if there is none such."""
    params = dict(config)
    name = params.pop("name", None)
    if name not in SURROGATES:
        raise ValueError(f"unknown surrogate {name!r}; known are {', '.join(SURROGATES)}")
    return SURROGATES[name](**params)

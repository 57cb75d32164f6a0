"""Surrogate gradients, each a pair of scalar functions: a smooth primitive, and its derivative.

A neuron spikes by the step H(x), x = membrane - threshold, whose derivative is zero almost everywhere. Training runs the step
forward and pretends, backward, that it had been a smooth function P with derivative P' (Neftci, Mostafa, Zenke 2019). Running P
forward as well gives a smooth twin of the network for which the very same backward pass is exact: finite differences check it.

Both functions take ``x`` and the surrogate's constants ``p``, a tuple of numbers of x's type. They are compiled for each backend,
and the NumPy reference calls them with whole arrays. Numbers in them are float32 constants: a Python literal would turn
float32 arithmetic into float64, while a float32 constant in float64 arithmetic is widened, exactly since it is a small integer.
They have no ``if`` blocks, since a loop over neurons with a branch in it is not vectorised: a condition is a factor, 0 or 1.

The lower-case ones, LSO and SFS have snnTorch's names and the derivatives of its 1.0 code, but for ``triangular`` and ``LSO``,
whose docstrings say why. Its stochastic SSO is not offered: random numbers in backward would need a seed and a stream in every
kernel. The others have SpikingJelly's names, and the defaults and derivatives of its 2.0 code. Those in ``RATIONAL`` are the
fastest to train with: the loops of the others call ``exp`` one neuron at a time, Numba having no vector version of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..kernels.lazy import lazy

__all__ = [
    "ATan",
    "Erf",
    "LSO",
    "LeakyKReLU",
    "PiecewiseExp",
    "PiecewiseQuadratic",
    "Rect",
    "SFS",
    "Sigmoid",
    "SoftSign",
    "SuperSpike",
    "Surrogate",
    "atan",
    "custom",
    "fast_sigmoid",
    "heaviside",
    "sigmoid",
    "spike_rate_escape",
    "straight_through_estimator",
    "triangular",
]


ZERO, ONE, NAN = np.float32(0), np.float32(1), np.float32(math.nan)
RATIONAL = {  # P' without exp
    "atan", "fast_sigmoid", "straight_through_estimator", "triangular", "heaviside", "LSO", "SFS",
    "ATan", "SoftSign", "SuperSpike", "PiecewiseQuadratic", "LeakyKReLU", "Rect",
}  # fmt: skip
POSITIVE = "a positive finite number", math.ulp(0.0)  # what a parameter must be, and the least that it may be
RANGES = {"B": ("a finite number", -math.inf), "leak": ("a finite number of at least 0", 0.0)}  # of those that may be zero


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
            wanted, least = RANGES.get(key, POSITIVE)
            if not (math.isfinite(value) and value >= least):
                raise ValueError(f"{self.name}: {key} must be {wanted}, got {value}")

    @lazy
    def cache_key(self) -> str | None:
        """The name under which kernels with these functions may be stored on disk; None for functions that are not ours."""
        ours = _is_ours(self.primitive) and _is_ours(self.derivative)
        return f"{self.primitive.__name__}/{self.derivative.__name__}" if ours else None

    def numbers(self, dtype: np.dtype) -> tuple:
        """-> the constants as numbers of this type, as kernels take them."""
        known = self.__dict__.setdefault("_numbers", {})
        if dtype not in known:
            known[dtype] = tuple(dtype.type(value) for value in self.constants)
        return known[dtype]

    @property
    def has_primitive(self) -> bool:
        """False for a ``custom`` surrogate made without one: it trains, but has no smooth twin."""
        return self.primitive is not _no_primitive

    def require_primitive(self) -> None:
        """ValueError if there is no primitive; to be called before the primitive is run."""
        if not self.has_primitive:
            raise ValueError(f"surrogate {self.name!r} has no primitive: the smooth twin and gradcheck need one")

    def of_array(self, function: Callable, x: np.ndarray) -> np.ndarray:
        """``function``, this surrogate's primitive or derivative, of every number in x, in x's own precision; a new array.

        Our functions take the whole array, but for the one with ``erfc``, which NumPy lacks. That one and a user's, which may
        branch, are called with one number at a time.
        """
        if function is self.primitive:
            self.require_primitive()
        p = tuple(x.dtype.type(value) for value in self.constants)
        if not _is_ours(function) or function is _erf:
            return np.fromiter((function(number, p) for number in x.flat), x.dtype, x.size).reshape(x.shape)
        return np.array(np.broadcast_to(function(x, p), x.shape))

    def config(self) -> dict:
        """The description from which ``from_config`` makes it again; ValueError for functions that are not ours."""
        if self.name not in SURROGATES or self.cache_key is None or SURROGATES[self.name](**self.params) != self:
            raise ValueError(f"surrogate {self.name!r} has functions of its own, which cannot be written down and read back")
        return {"name": self.name, **self.params}


def _is_ours(function: Callable) -> bool:
    """Is it defined in this file, so that its name tells its code?"""
    return globals().get(getattr(function, "__name__", None)) is function


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
    return Surrogate("atan", {"alpha": float(alpha)}, _atan_constants(alpha), _atan, _datan)


def ATan(alpha: float = 2) -> Surrogate:
    """``atan`` under SpikingJelly's name."""
    return Surrogate("ATan", {"alpha": float(alpha)}, _atan_constants(alpha), _atan, _datan)


def _atan_constants(alpha) -> tuple[float, ...]:
    return math.pi / 2 * alpha, 1 / math.pi, alpha / 2, 0.5


def _atan(x, p):
    return np.arctan(p[0] * x) * p[1] + p[3]


def _datan(x, p):
    z = p[0] * x
    return p[2] / (ONE + z * z)


def sigmoid(slope: float = 25) -> Surrogate:
    """P(x) = 1 / (1 + exp(-slope x)),  P'(x) = slope P(x) (1 - P(x)).

    Written so that nothing overflows: snnTorch's code gives NaN below about x = -3.4 at the default slope.
    """
    return Surrogate("sigmoid", {"slope": float(slope)}, (float(slope), 0.5), _sigmoid, _dsigmoid)


def _sigmoid(x, p):
    return p[1] * (ONE + np.tanh(p[1] * p[0] * x))  # 1 / (1 + exp(-z)) = (1 + tanh(z / 2)) / 2


def _dsigmoid(x, p):
    e = np.exp(-p[0] * abs(x))  # at most 1
    d = ONE + e
    return p[0] * e / (d * d)


def Sigmoid(alpha: float = 4) -> Surrogate:
    """``sigmoid`` under SpikingJelly's name and with its slope."""
    return Surrogate("Sigmoid", {"alpha": float(alpha)}, (float(alpha), 0.5), _sigmoid, _dsigmoid)


def straight_through_estimator() -> Surrogate:
    """P(x) = x,  P'(x) = 1.  Bengio, Leonard, Courville (2013)."""
    return Surrogate("straight_through_estimator", {}, (1.0,), _identity, _one)


def _identity(x, p):
    return x


def _one(x, p):
    return p[0]


def triangular(threshold: float = 1) -> Surrogate:
    """P'(x) = max(0, 1 - |x| / threshold), and with c = x clipped to +-threshold  P(x) = c - c |c| / (2 threshold).

    A triangle of height 1 and half-width ``threshold``. snnTorch 1.0's code is not one: its factor is +threshold for x < 0 and
    -threshold for x >= 0, which turns the gradient of a neuron above its threshold around.
    """
    return Surrogate("triangular", {"threshold": float(threshold)}, (float(threshold), 0.5), _triangular, _dtriangular)


def _triangular(x, p):
    c = np.minimum(np.maximum(x, -p[0]), p[0])
    return c - p[1] / p[0] * c * abs(c)


def _dtriangular(x, p):
    return np.maximum(ONE - ONE / p[0] * abs(x), ZERO)  # 1 / p[0] is worked out once, outside of the loop


def heaviside() -> Surrogate:
    """P(x) = max(x, 0),  P'(x) = H(x): 1 above the threshold, else 0."""
    return Surrogate("heaviside", {}, (1.0,), _relu, _step)


def _relu(x, p):
    return np.maximum(x, ZERO)


def _step(x, p):
    return (x > ZERO) * p[0]


def spike_rate_escape(beta: float = 1, slope: float = 25) -> Surrogate:
    """P'(x) = slope exp(-beta |x - 1|),  P(x) = slope / beta (exp(beta min(x - 1, 0)) + 1 - exp(-beta max(x - 1, 0))).

    The peak lies one unit above the threshold, as in snnTorch. Gerstner and Kistler (2002).
    """
    params = {"beta": float(beta), "slope": float(slope)}
    return Surrogate("spike_rate_escape", params, (*params.values(), 1.0), _two_exponentials, _dtwo_exponentials)


def PiecewiseExp(alpha: float = 1) -> Surrogate:
    """P(x) = exp(alpha x) / 2 if x < 0 else 1 - exp(-alpha x) / 2,  P'(x) = (alpha / 2) exp(-alpha |x|)."""
    alpha = float(alpha)
    return Surrogate("PiecewiseExp", {"alpha": alpha}, (alpha, alpha / 2, 0.0), _two_exponentials, _dtwo_exponentials)


def _two_exponentials(x, p):
    z = p[0] * (x - p[2])
    # Both exponents are at most 0. In this order nothing cancels below the peak, where the first bracket is 0.
    return p[1] / p[0] * ((ONE - np.exp(-np.maximum(z, ZERO))) + np.exp(np.minimum(z, ZERO)))


def _dtwo_exponentials(x, p):
    return p[1] * np.exp(-p[0] * abs(x - p[2]))


def LSO(slope: float = 0.1) -> Surrogate:
    """P(x) = x if x > 0 else slope x,  P'(x) = 1 if x > 0 else slope.  The leaky spike operator.

    This is what snnTorch's documentation says; its 1.0 code calls SSO with an argument missing, and raises TypeError.
    """
    return Surrogate("LSO", {"slope": float(slope)}, (float(slope), 1.0), _two_slopes, _dlso)


def _two_slopes(x, p):
    return p[1] * np.maximum(x, ZERO) + p[0] * np.minimum(x, ZERO)


def _dlso(x, p):
    return (x > ZERO) * p[1] + (x <= ZERO) * p[0]


def LeakyKReLU(leak: float = 0, k: float = 1) -> Surrogate:
    """P(x) = k x if x >= 0 else leak x,  P'(x) = k if x >= 0 else leak.  leak may be 0."""
    params = {"leak": float(leak), "k": float(k)}
    return Surrogate("LeakyKReLU", params, tuple(params.values()), _two_slopes, _dleaky_k_relu)


def _dleaky_k_relu(x, p):
    return (x >= ZERO) * p[1] + (x < ZERO) * p[0]


def SFS(slope: float = 25, B: float = 1) -> Surrogate:
    """P(x) = F(max(x, B)) - F(B),  P'(x) = F'(x) if x > B else 0,  F the fast sigmoid.  The sparse fast sigmoid.

    B may be any finite number. After Perez-Nieves and Goodman (2021), who leave out the gradient far from the threshold on
    either side; snnTorch, and so we, below B only.
    """
    params = {"slope": float(slope), "B": float(B)}
    return Surrogate("SFS", params, tuple(params.values()), _sfs, _dsfs)


def _sfs(x, p):
    y = np.maximum(x, p[1])
    return y / (ONE + p[0] * abs(y)) - p[1] / (ONE + p[0] * abs(p[1]))


def _dsfs(x, p):
    d = ONE + p[0] * abs(x)
    return (x > p[1]) / (d * d)


def SoftSign(alpha: float = 2) -> Surrogate:
    """P(x) = (1 + alpha x / (1 + alpha |x|)) / 2,  P'(x) = 1 / (2 alpha (1 / alpha + |x|)^2).

    The formula of SpikingJelly's code; its docstring has 1 + |x / alpha| in the bracket.
    """
    alpha = float(alpha)
    return Surrogate("SoftSign", {"alpha": alpha}, (alpha, alpha / 2, 0.5), _soft_sign, _dsoft_sign)


def SuperSpike(alpha: float = 1) -> Surrogate:
    """P(x) = alpha x / (1 + |x|),  P'(x) = alpha / (1 + |x|)^2.  SpikingJelly's has no primitive."""
    alpha = float(alpha)
    return Surrogate("SuperSpike", {"alpha": alpha}, (1.0, alpha, 0.0), _soft_sign, _dsoft_sign)


def _soft_sign(x, p):
    return p[1] * x / (ONE + p[0] * abs(x)) + p[2]


def _dsoft_sign(x, p):
    d = ONE + p[0] * abs(x)
    return p[1] / (d * d)


def PiecewiseQuadratic(alpha: float = 1) -> Surrogate:
    """P'(x) = max(0, alpha - alpha^2 |x|), and with z = alpha x clipped to +-1  P(x) = 1/2 + z - z |z| / 2.

    A triangle of area 1: of height alpha and half-width 1 / alpha.
    """
    alpha = float(alpha)
    constants = (alpha, alpha * alpha, 0.5)
    return Surrogate("PiecewiseQuadratic", {"alpha": alpha}, constants, _piecewise_quadratic, _dpiecewise_quadratic)


def _piecewise_quadratic(x, p):
    z = np.minimum(np.maximum(p[0] * x, -ONE), ONE)
    return p[2] + z - p[2] * z * abs(z)


def _dpiecewise_quadratic(x, p):
    return np.maximum(p[0] - p[1] * abs(x), ZERO)


def Rect(alpha: float = 1) -> Surrogate:
    """P(x) = alpha x + 1/2 clipped to 0 and 1,  P'(x) = alpha if |x| < 1 / (2 alpha) else 0.  A rectangle of area 1."""
    alpha = float(alpha)
    return Surrogate("Rect", {"alpha": alpha}, (alpha, 0.5), _rect, _drect)


def _rect(x, p):
    return np.minimum(np.maximum(p[0] * x + p[1], ZERO), ONE)


def _drect(x, p):
    return (abs(x) < p[1] / p[0]) * p[0]


def Erf(alpha: float = 2) -> Surrogate:
    """P(x) = erfc(-alpha x) / 2,  P'(x) = alpha / sqrt(pi) exp(-(alpha x)^2)."""
    alpha = float(alpha)
    constants = (alpha, alpha / math.sqrt(math.pi), 0.5)
    return Surrogate("Erf", {"alpha": alpha}, constants, _erf, _derf)


def _erf(x, p):
    return p[2] * math.erfc(-p[0] * x)


def _derf(x, p):
    z = p[0] * x
    return p[1] * np.exp(-z * z)


def custom(derivative: Callable, primitive: Callable | None = None, constants=(), name: str = "custom") -> Surrogate:
    """A surrogate from functions of your own, compiled into the kernels like the others; but anew in every process, never stored.

    ``custom(lambda x, p: p[0] / (p[1] + abs(x)), constants=(1, 2))`` has the derivative P'(x) = 1 / (2 + |x|).

    Parameters
    ----------
    derivative : callable
        ``derivative(x, p)`` of one number x = membrane - threshold, and ``p``, the tuple of ``constants`` as numbers of x's type.
        Numba must be able to compile it, and given float32 it must return float32: a Python literal such as 0.5 would turn the
        arithmetic into float64, so take numbers from ``p`` or from globals such as ``HALF = np.float32(0.5)``. An ``if`` is
        allowed, but may keep the kernel's loop from being vectorised.
    primitive : callable, optional
        ``primitive(x, p)``, whose derivative the other one is. The smooth twin and gradcheck need it; training does not.
    constants : sequence of float
    name : str
        For error messages. The layer's config cannot be written down, whatever the name.
    """
    numbers = tuple(float(value) for value in constants)
    for value in numbers:
        if not math.isfinite(value):
            raise ValueError(f"{name}: constants must be finite numbers, got {value}")
    derivative = _checked(derivative, f"{name}: derivative", numbers)
    primitive = _no_primitive if primitive is None else _checked(primitive, f"{name}: primitive", numbers)
    return Surrogate(name, {}, numbers, primitive, derivative)


def _no_primitive(x, p):
    return x * NAN  # compiled in place of a missing primitive; were it run by oversight, it would show


def _checked(function: Callable, label: str, constants: tuple[float, ...]) -> Callable:
    """-> the plain function, once its compiled form is known to keep float32; ValueError that says what to change."""
    if not callable(function):
        raise TypeError(f"{label} must be a function of x and p, got {function!r}")
    import numba  # not above, since importing spikeflow must not load it

    from ..kernels.jit import inline

    function = getattr(function, "py_func", function)  # of a function that is jitted already
    arguments = numba.float32, numba.typeof(tuple(np.float32(value) for value in constants))
    try:
        compiled = inline(function)
        compiled.compile(arguments)
    except Exception as error:  # Numba's own errors, and whatever its passes run into
        lines = [line for line in str(error).splitlines() if line and not line.startswith("Failed in ")]
        reason = lines[0] if lines else type(error).__name__
        raise ValueError(f"{label} must be a function of x and p that Numba compiles: {reason}") from error
    result = compiled.overloads[arguments].signature.return_type
    if result != numba.float32:
        raise ValueError(
            f"{label} must return float32 when x and p are float32, but returns {result}. A Python literal turns float32"
            " arithmetic into float64: take numbers from p (`constants`) or from globals such as np.float32(0.5)"
        )
    return function


MAKERS = (
    atan, fast_sigmoid, sigmoid, straight_through_estimator, triangular, heaviside, spike_rate_escape, LSO, SFS,
    ATan, Sigmoid, SoftSign, SuperSpike, PiecewiseQuadratic, PiecewiseExp, Erf, LeakyKReLU, Rect,
)  # fmt: skip
SURROGATES = {make.__name__: make for make in MAKERS}


def from_config(config: dict) -> Surrogate:
    """The surrogate that ``Surrogate.config`` described; ValueError, with the known names, if there is none such."""
    params = dict(config)
    name = params.pop("name", None)
    if name not in SURROGATES:
        raise ValueError(f"unknown surrogate {name!r}; known are {', '.join(SURROGATES)}")
    return SURROGATES[name](**params)

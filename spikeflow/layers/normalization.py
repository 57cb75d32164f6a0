"""Batch normalisation as layers, and the records in which its passes meet those of its neighbours.

In training the statistics couple all samples of a batch: a joint of the pipeline. What a joint works out are a few numbers for
each channel; the pass over the data that they stand for is left to the layer behind (``Normalised``) or before it (``Centred``),
which takes a block while it is in cache.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .. import parallel
from ..ops.half import Halved, halved
from .base import Layer, positive_int

__all__ = ["BatchNorm1d", "BatchNorm2d", "Centred", "Normalised", "Summed"]


class Normalised(NamedTuple):
    """The output scale x + shift of a batch normalisation; equation (4) of ``spikeflow.ops.batch_norm``."""

    x: np.ndarray  # (T, B, ..., C)
    scale: np.ndarray  # (C,)
    shift: np.ndarray
    mean: np.ndarray
    plain: bool = False  # no normalisation at all
    shared: tuple[list, int] | None = None  # where the normalisation keeps x, too

    @property
    def shape(self) -> tuple[int, ...]:
        return self.x.shape

    def array(self, ops) -> np.ndarray:
        """-> the numbers themselves (T, B, ..., C)."""
        rows = self.x.reshape(-1, self.scale.shape[0])
        return ops.batch_norm_forward(rows, self.scale, self.shift).reshape(self.x.shape)

    def halved(self) -> Normalised:
        """-> the same with x in half precision, which is then what the normalisation keeps as well."""
        half = halved(self.x)
        if self.shared is not None:
            kept, i = self.shared
            kept[i] = half
        return self._replace(x=half)


def as_it_is(x: np.ndarray) -> Normalised:
    """x (T, B, ..., C) as the output of a batch normalisation that changes nothing."""
    C = x.shape[-1]
    return Normalised(x, np.ones(C, x.dtype), np.zeros(C, x.dtype), np.zeros(C, x.dtype), True)


class Summed(NamedTuple):
    """The gradient of a Normalised, with the two sums of it that its backward pass needs."""

    dy: np.ndarray  # (T, B, ..., C)
    sums: np.ndarray  # (2, C): of dy, and of dy (x - mean)


class Centred(NamedTuple):
    """The gradient a dy + b x + c of a batch normalisation's input; equation (7)."""

    dy: np.ndarray  # (T, B, ..., C)
    x: np.ndarray
    coefficients: tuple[np.ndarray, np.ndarray, np.ndarray]

    def array(self, ops) -> np.ndarray:
        """-> the numbers themselves (T, B, ..., C)."""
        C, x = self.coefficients[0].shape[0], widened(self.x)
        return ops.batch_norm_backward(self.dy.reshape(-1, C), x.reshape(-1, C), *self.coefficients).reshape(x.shape)


def widened(x: np.ndarray | Halved) -> np.ndarray:
    """-> the numbers, whatever precision they were kept in."""
    return x.array() if isinstance(x, Halved) else x


def _device():
    """-> the layers' passes on the device, whose imports are not for every machine."""
    from . import normalization_device

    return normalization_device


class BatchNorm(Layer):
    """Base of the batch normalisations.

    Parameters
    ----------
    num_features : int
        C, channels of images or features of rows.
    eps : float
        Added to the variance.
    momentum : float or None
        The weight of the newest batch in the running estimates; None averages all batches alike.
    affine : bool
        Learn gamma (``weight``) and beta (``bias``); otherwise they are 1 and 0.

    Notes
    -----
    In training (``net.train()``, where a network starts) mean and variance are those of the batch, over samples, pixels and time
    steps, and the running estimates follow them, the variance with the factor n / (n - 1) where n counts the T steps of a
    constant input, too: what SpikingJelly's multi-step mode computes. A script that calls its network step by step normalises
    each step by itself, as the older version of SpikingJelly's Fashion-MNIST example did: another network. In evaluation
    (``net.eval()``) the running estimates take their place. Before the first neuron, a constant input is normalised once, which
    is exact: ``spikeflow.ops.batch_norm`` says why.

    Raises
    ------
    ValueError
        In training, a batch of a single sample.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True):
        super().__init__()
        self.num_features = positive_int("num_features", num_features)
        for name, value, least in (("eps", eps, "at least 0"), ("momentum", momentum, "in [0, 1], or None")):
            number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            if not (number and 0 <= value <= (1 if name == "momentum" else np.inf)) and (value is not None or name == "eps"):
                raise ValueError(f"{name} must be a number {least}, got {value!r}")
        self.eps, self.momentum = float(eps), momentum if momentum is None else float(momentum)
        self.affine = bool(affine)

    def initial_values(self, dtype, seed):
        C = self.num_features
        learned = {"weight": np.ones(C, dtype), "bias": np.zeros(C, dtype)} if self.affine else {}
        estimates = {"running_mean": np.zeros(C, dtype), "running_var": np.ones(C, dtype)}
        return learned | estimates | {"num_batches_tracked": np.array(0, np.int64)}

    def trains(self, key):
        return key in ("weight", "bias")

    def couples(self, run):
        return run.training

    def output_shape(self, shape):
        if len(shape) != self.input_rank or shape[0] != self.num_features:
            expected = f"images of shape ({self.num_features}, H, W)" if self.input_rank == 3 else f"{self.num_features} features"
            raise self.refuse(expected, shape)
        return shape

    def prepare(self, ops, plan):
        return plan.lazy

    def _affine(self) -> tuple[np.ndarray, np.ndarray]:
        """-> gamma, beta in float64."""
        if not self.affine:
            return np.ones(self.num_features), np.zeros(self.num_features)
        return self.params["weight"].value.astype(np.float64), self.params["bias"].value.astype(np.float64)

    def _normalised(self, x, mean, var) -> tuple[Normalised, np.ndarray]:
        """-> the output for these statistics, and 1 / sqrt(var + eps)."""
        (gamma, beta), inverse = self._affine(), 1 / np.sqrt(var + self.eps)
        scale = gamma * inverse
        numbers = (number.astype(x.dtype) for number in (scale, beta - scale * mean, mean))
        return Normalised(x, *numbers), inverse  # (4)

    # ---------------------------------------------------------------------------------------------- evaluation

    def forward(self, ops, prepared, x, run):
        """As in ``Layer``, with the running estimates; -> Normalised where the layer behind takes it."""
        if ops.device:
            *numbers, inverse = _device().evaluation(self, ops)
            y = Normalised(x, *numbers)
        else:
            mean, var = (self.params[key].value.astype(np.float64) for key in ("running_mean", "running_var"))
            y, inverse = self._normalised(x, mean, var)
        return y if prepared else y.array(ops), (y, inverse)

    def backward(self, ops, prepared, dy, kept, grads, input_grad):
        y, inverse = kept
        x, scale = y.x, y.scale
        if ops.device:
            return self._backward_on_device(ops, dy, y, inverse, grads, input_grad)
        gradient, sums = self._summed(ops, dy, x, y.mean)
        self._add(sums, inverse, grads)
        if not input_grad:
            return None
        return ops.batch_norm_forward(gradient.reshape(-1, len(scale)), scale, np.zeros_like(scale)).reshape(x.shape)

    def _backward_on_device(self, ops, dy, y, inverse, grads, input_grad):
        if self.affine:
            _device().add_gradients(ops, self._sums_on_device(ops, dy, y.x, y.mean), inverse, y, grads)
        return _device().rescaled(dy.dy if isinstance(dy, Summed) else dy, y.scale) if input_grad else None

    # ---------------------------------------------------------------------------------------------- training

    def forward_batch(self, ops, prepared, xs, run):
        """Blocks (T, b, ..., C) of a batch -> Normalised blocks, and what ``backward_batch`` needs."""
        C = self.num_features
        if sum(x.shape[1] for x in xs) < 2:
            raise ValueError(
                f"layer {self.name} ({self!r}) in training needs a batch of at least 2 samples to take statistics over, got 1; "
                "call net.eval() to use the running estimates"
            )
        if ops.device:
            return self._train_on_device(ops, *xs, run)
        center = xs[0].reshape(-1, C)[0].astype(np.float64)
        parts = parallel.run(lambda i: ops.batch_norm_sums(xs[i].reshape(-1, C), center), len(xs))
        n = sum(x.size for x in xs) // C
        first, second = sum(parts) / n
        mean, var = center + first, np.maximum(second - first**2, 0)  # (1), (2)
        if run.updates:
            self._follow(mean, var, n * (run.num_steps // len(xs[0])))
        kept = list(xs)
        ys = [self._normalised(x, mean, var) for x in xs]
        blocks = [y._replace(shared=(kept, i)) for i, (y, _) in enumerate(ys)]
        return blocks, (*ys[0][0][1:4], ys[0][1], n, kept)

    def _train_on_device(self, ops, x, run):
        scale, shift, mean, inverse = _device().training(self, ops, x, run)
        kept = scale, shift, mean, inverse, x.size // self.num_features, [x]
        return [Normalised(x, scale, shift, mean)], kept

    def _follow(self, mean, var, n) -> None:
        """Move the running estimates towards the statistics of a batch of n rows."""
        tracked = self.params["num_batches_tracked"].value
        tracked += 1
        share = 1 / int(tracked) if self.momentum is None else self.momentum
        for key, new in (("running_mean", mean), ("running_var", var * (n / (n - 1)))):
            value = self.params[key].value
            value[...] = (1 - share) * value + share * new.astype(value.dtype)

    def backward_batch(self, ops, prepared, dys, kept, input_grad):
        """Gradients of the output's blocks, arrays or Summed -> those of the input's, as Centred; adds to the parameters'."""
        scale, _, mean, inverse, n, xs = kept
        if ops.device:
            (dy,), (x,) = dys, xs
            sums = self._sums_on_device(ops, dy, x, mean)
            numbers = _device().coefficients(self, ops, sums, inverse, scale, mean, n)
            return [Centred(dy.dy if isinstance(dy, Summed) else dy, x, numbers) if input_grad else None]
        summed = parallel.run(lambda i: self._summed(ops, dys[i], xs[i], mean), len(xs))
        sums = sum(part for _, part in summed)
        self._add(sums, inverse, {key: parameter.grad for key, parameter in self.params.items()})
        if not input_grad:
            return [None] * len(xs)
        dbeta, dgamma = sums[0], sums[1] * inverse
        b = -scale * inverse * dgamma / n  # (7)
        c = -scale * dbeta / n - b * mean
        coefficients = scale, b.astype(scale.dtype), c.astype(scale.dtype)
        return [Centred(dy, x, coefficients) for (dy, _), x in zip(summed, xs, strict=True)]

    @staticmethod
    def _summed(ops, dy, x, mean) -> Summed:
        if isinstance(dy, Summed):
            return dy
        C, x = len(mean), widened(x)
        return Summed(dy, ops.batch_norm_backward_sums(dy.reshape(-1, C), x.reshape(-1, C), mean))

    @staticmethod
    def _sums_on_device(ops, dy, x, mean):
        """-> sums (2, C), or partial ones (S, 2, C)."""
        if isinstance(dy, Summed):
            return dy.sums
        C = mean.shape[0]
        return ops.batch_norm_backward_partials(dy.reshape(-1, C), x.reshape(-1, C), mean)

    def _add(self, sums, inverse, grads) -> None:
        """(5), (6)."""
        if self.affine:
            grads["bias"] += sums[0].astype(grads["bias"].dtype)
            grads["weight"] += (sums[1] * inverse).astype(grads["weight"].dtype)


class BatchNorm2d(BatchNorm):
    __doc__ = BatchNorm.__doc__.replace(
        "Base of the batch normalisations.", "Batch normalisation of images, ``torch.nn.BatchNorm2d``."
    )
    input_rank = 3


class BatchNorm1d(BatchNorm):
    __doc__ = BatchNorm.__doc__.replace(
        "Base of the batch normalisations.", "Batch normalisation of rows, ``torch.nn.BatchNorm1d``."
    )
    input_rank = 1

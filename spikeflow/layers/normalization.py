"""Batch normalisation as layers; derived in ``spikeflow.ops.batch_norm``."""

from __future__ import annotations

import numpy as np

from .base import Layer, positive_int

__all__ = ["BatchNorm", "BatchNorm1d", "BatchNorm2d"]


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

    keeps = "input"

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

    def forward(self, ops, prepared, x, run):
        """As in ``Layer``; in training x is the whole batch."""
        rows, n = x.reshape(-1, self.num_features), None
        if run.training:
            self.check_batch(x.shape[1])
            center, n = rows[0].astype(np.float64), len(rows)
            mean, var = self.statistics(center, ops.batch_norm_sums(rows, center), n)
            if run.updates:
                self.follow(mean, var, n * (run.num_steps // len(x)))
        else:
            mean, var = self.estimates()
        scale, shift, mean, inverse = self.numbers(mean, var, x.dtype)
        return ops.batch_norm_forward(rows, scale, shift).reshape(x.shape), (x, scale, mean, inverse, n)

    def backward(self, ops, prepared, dy, kept, grads, input_grad):
        x, scale, mean, inverse, n = kept
        rows = dy.reshape(-1, self.num_features), x.reshape(-1, self.num_features)
        sums = ops.batch_norm_backward_sums(*rows, mean)
        self.add_gradients(sums, inverse, grads)
        if not input_grad:
            return None
        if n is None:
            return ops.batch_norm_forward(rows[0], scale, np.zeros_like(scale)).reshape(x.shape)
        return ops.batch_norm_backward(*rows, *self.coefficients(sums, inverse, scale, mean, n)).reshape(x.shape)

    # ---------------------------------------------------------------------------------------------- numbers of the channels

    def check_batch(self, samples: int) -> None:
        """ValueError if there are too few samples to take statistics over."""
        if samples < 2:
            raise ValueError(
                f"layer {self.name} ({self!r}) in training needs a batch of at least 2 samples to take statistics over, got "
                f"{samples}; call net.eval() to use the running estimates"
            )

    @staticmethod
    def statistics(center: np.ndarray, sums: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Sums (2, C) of x - center and of its square over n rows -> mean and variance; (1), (2)."""
        first, second = sums / n
        return center + first, np.maximum(second - first**2, 0)

    def estimates(self) -> tuple[np.ndarray, np.ndarray]:
        """-> the running estimates of mean and variance, in float64."""
        mean, var = (self.params[key].value.astype(np.float64) for key in ("running_mean", "running_var"))
        return mean, var

    def follow(self, mean: np.ndarray, var: np.ndarray, n: int) -> None:
        """Move the running estimates towards the statistics of a batch of n rows."""
        tracked = self.params["num_batches_tracked"].value
        tracked += 1
        share = 1 / int(tracked) if self.momentum is None else self.momentum
        for key, new in (("running_mean", mean), ("running_var", var * (n / (n - 1)))):
            value = self.params[key].value
            value[...] = (1 - share) * value + share * new.astype(value.dtype)

    def numbers(self, mean: np.ndarray, var: np.ndarray, dtype) -> tuple[np.ndarray, ...]:
        """-> scale and shift of (4), mean, each (C,) of ``dtype``, and 1 / sqrt(var + eps)."""
        gamma, beta = np.ones(self.num_features), np.zeros(self.num_features)
        if self.affine:
            gamma, beta = (self.params[key].value.astype(np.float64) for key in ("weight", "bias"))
        inverse = 1 / np.sqrt(var + self.eps)
        scale = gamma * inverse
        return (*(number.astype(dtype) for number in (scale, beta - scale * mean, mean)), inverse)

    def coefficients(self, sums, inverse, scale, mean, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sums (2, C) of dy and of dy (x - mean) over n rows -> a, b, c of (7)."""
        dbeta, dgamma = sums[0], sums[1] * inverse
        b = -scale * inverse * dgamma / n
        c = -scale * dbeta / n - b * mean
        return scale, b.astype(scale.dtype), c.astype(scale.dtype)

    def add_gradients(self, sums, inverse, grads: dict[str, np.ndarray]) -> None:
        """(5), (6), from the same sums."""
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

"""Layers without time: they see every time step of every sample alike."""

from __future__ import annotations

import numpy as np

from ..initializers import fan_in_uniform
from .base import Layer, merged, positive_int, split_like

__all__ = ["AvgPool2d", "Conv2d", "Flatten", "Linear", "MaxPool2d"]


class Conv2d(Layer):
    """Two-dimensional convolution; options, weight layout and initial values of ``torch.nn.Conv2d``.

    Parameters
    ----------
    in_channels, out_channels, kernel_size : int
        The weight is ``(O, C, K, K)``; kernels are square.
    stride : int
    padding : int
        Zeros added on all four sides.
    bias : bool
    dilation, groups : int
        Only 1 is supported; anything else raises ValueError.
    """

    input_rank = 3
    keeps = "input"

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0,
        bias: bool = True, dilation: int = 1, groups: int = 1,
    ):  # fmt: skip
        super().__init__()
        self.in_channels = positive_int("in_channels", in_channels)
        self.out_channels = positive_int("out_channels", out_channels)
        self.kernel_size = positive_int("kernel_size", kernel_size)
        self.stride = positive_int("stride", stride)
        self.padding = positive_int("padding", padding, least=0)
        self.bias = bool(bias)
        for name, value in (("dilation", dilation), ("groups", groups)):
            if value != 1:
                raise ValueError(f"{name} must be 1 (nothing else is supported), got {value!r}")
        self.dilation = self.groups = 1

    def initial_values(self, dtype, seed):
        O, C, K = self.out_channels, self.in_channels, self.kernel_size
        return _weight_and_bias(self, (O, C, K, K), C * K * K, dtype, seed)

    def output_shape(self, shape):
        if len(shape) != 3 or shape[0] != self.in_channels:
            raise self.refuse(f"images of shape ({self.in_channels}, H, W)", shape)
        K, side = self.kernel_size, min(shape[1:]) + 2 * self.padding
        if side < K:
            raise self.refuse(f"padded images of at least {K} x {K}", shape)
        return (self.out_channels, *((n + 2 * self.padding - K) // self.stride + 1 for n in shape[1:]))

    def macs(self, shape):
        return int(np.prod(shape)) * self.in_channels * self.kernel_size**2

    def prepare(self, ops, shape, dtype):
        return ops.conv2d_pack(self.params["weight"].array), bias_of(self)

    def forward(self, ops, prepared, x, run):
        return split_like(ops.conv2d_forward(merged(x), *prepared, self.stride, self.padding), x), x

    def backward(self, ops, prepared, dy, kept, grads, input_grad):
        weight, geometry = prepared[0], (self.stride, self.padding)
        sums = grads["weight"], grads.get("bias")
        dx = ops.conv2d_backward(merged(dy), merged(kept), weight, *geometry, *sums, input_grad)
        return split_like(dx, kept) if input_grad else None


class Linear(Layer):
    """Linear layer; options, weight layout ``(O, F)`` and initial values of ``torch.nn.Linear``."""

    input_rank = 1
    keeps = "input"

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__()
        self.in_features = positive_int("in_features", in_features)
        self.out_features = positive_int("out_features", out_features)
        self.bias = bool(bias)

    def initial_values(self, dtype, seed):
        return _weight_and_bias(self, (self.out_features, self.in_features), self.in_features, dtype, seed)

    def output_shape(self, shape):
        if shape != (self.in_features,):
            hint = " (a Flatten before it makes rows of images)" if len(shape) == 3 else ""
            raise self.refuse(f"rows of {self.in_features} features{hint}", shape)
        return (self.out_features,)

    def macs(self, shape):
        return self.in_features * self.out_features

    def prepare(self, ops, shape, dtype):
        return ops.linear_pack(self.params["weight"].array), bias_of(self)

    def forward(self, ops, prepared, x, run):
        return split_like(ops.linear_forward(merged(x), *prepared), x), x

    def backward(self, ops, prepared, dy, kept, grads, input_grad):
        dx = ops.linear_backward(merged(dy), merged(kept), prepared[0], grads["weight"], grads.get("bias"), input_grad)
        return split_like(dx, kept) if input_grad else None


class MaxPool2d(Layer):
    """Max-pooling; options of ``torch.nn.MaxPool2d``. The first maximum in row-major order takes the gradient.

    Parameters
    ----------
    kernel_size : int
        At most 15.
    stride : int, optional
        ``kernel_size`` by default.
    """

    input_rank = 3
    keeps = "winners"

    def __init__(self, kernel_size: int, stride: int | None = None):
        super().__init__()
        self.kernel_size = positive_int("kernel_size", kernel_size)
        if self.kernel_size > 15:  # a winner's number must fit into one byte
            raise ValueError(f"kernel_size must be at most 15, got {kernel_size}")
        self.stride = self.kernel_size if stride is None else positive_int("stride", stride)

    def output_shape(self, shape):
        if len(shape) != 3 or min(shape[1:]) < self.kernel_size:
            raise self.refuse(f"images of at least {self.kernel_size} x {self.kernel_size}", shape)
        return (shape[0], *((n - self.kernel_size) // self.stride + 1 for n in shape[1:]))

    def forward(self, ops, prepared, x, run):
        y, winner = ops.max_pool2d_forward(merged(x), self.kernel_size, self.stride, **run.frozen(self))
        return split_like(y, x), (winner, x.shape)

    def backward(self, ops, prepared, dy, kept, grads, input_grad):
        winner, shape = kept
        images = (shape[0] * shape[1], *shape[2:])
        return ops.max_pool2d_backward(merged(dy), winner, images, self.kernel_size, self.stride).reshape(shape)

    def choices(self, kept):
        return {"winner": kept[0]}


class AvgPool2d(Layer):
    """Average pooling; options of ``torch.nn.AvgPool2d``. Its outputs are numbers, so that spikes do not leave it as bits.

    Parameters
    ----------
    kernel_size : int
    stride : int, optional
        ``kernel_size`` by default.
    """

    input_rank = 3

    def __init__(self, kernel_size: int, stride: int | None = None):
        super().__init__()
        self.kernel_size = positive_int("kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else positive_int("stride", stride)

    output_shape = MaxPool2d.output_shape

    def forward(self, ops, prepared, x, run):
        return split_like(ops.avg_pool2d_forward(merged(x), self.kernel_size, self.stride), x), x.shape

    def backward(self, ops, prepared, dy, kept, grads, input_grad):
        dx = ops.avg_pool2d_backward(merged(dy), (kept[0] * kept[1], *kept[2:]), self.kernel_size, self.stride)
        return dx.reshape(kept)


class Flatten(Layer):
    """Images to rows of features, channel first as ``torch.nn.Flatten``."""

    def output_shape(self, shape):
        return (int(np.prod(shape)),)

    def forward(self, ops, prepared, x, run):
        return split_like(ops.flatten_forward(merged(x)), x), x.shape

    def backward(self, ops, prepared, dy, kept, grads, input_grad):
        return ops.flatten_backward(merged(dy), (kept[0] * kept[1], *kept[2:])).reshape(kept)


def _weight_and_bias(layer, shape, fan_in, dtype, seed):
    """PyTorch's initial weight, and bias unless the layer has none."""
    shapes = {"weight": shape, "bias": shape[:1]} if layer.bias else {"weight": shape}
    return {key: fan_in_uniform(s, fan_in, dtype, seed, f"{layer.name}.{key}") for key, s in shapes.items()}


def bias_of(layer):
    return layer.params["bias"].array if layer.bias else None

"""Layers without time: they see every time step of every sample alike."""

from __future__ import annotations

import numpy as np

from .. import parallel
from ..initializers import fan_in_uniform
from ..ops.events import Awaited, Fired, Pooled, Routed, SpikeWords
from ..ops.simd import empty, scratch
from .base import Layer, positive_int

__all__ = ["AvgPool2d", "Conv2d", "Flatten", "Linear", "MaxPool2d"]

WIDE = 2**20  # bytes of a weight; from here on its gradient is computed once a batch, not block by block
WHOLE = 2**23  # bytes of a weight; from here on it goes through the cache once a batch, and all blocks wait for it
OUTPUTS = 64  # of a wide weight, in one task: as many as the widest register tile has
CHANNELS = 16  # of an image's gradient, in one task of a whole weight: a cache line
FEW, CROWDED = 8, 0.1  # steps at most, and spikes per neuron and step at least, for which tables of partial sums pay


class Weighted(Layer):
    """Base of the layers with a weight of shape (O, ...), all of them convolutions in the end.

    Each lane of blocks adds up gradients of its own. For a wide weight that would be more memory traffic than arithmetic: as many
    sums as lanes, and a pass over one of them for each block. Instead, ``backward`` leaves dy and x behind, and when all blocks
    have passed, tasks of OUTPUTS outputs each go through the whole batch.
    """

    def is_wide(self, ops) -> bool:
        return hasattr(ops, "linear_dweight") and self.params["weight"].value.nbytes > WIDE

    def gradients(self, ops):
        if not self.is_wide(ops):
            return super().gradients(ops)
        return {key: [] if key == "weight" else np.zeros_like(parameter.value) for key, parameter in self.params.items()}

    def convolution(self, prepared) -> tuple[tuple[int, ...], int, int]:
        """-> the weight's shape as that of a convolution, stride, padding."""
        raise NotImplementedError("a layer with a weight must define convolution")

    def convolve_backward(self, ops, prepared, dy, x, grads, input_grad):
        """dy (T, B, H', W', O) or Routed, x (T, B, H, W, C) or SpikeWords -> dx or None; adds into ``grads``."""
        shape, stride, padding = self.convolution(prepared)
        dweight, dbias = grads["weight"], grads.get("bias")
        if isinstance(dweight, list):
            whole = _unroute(ops, dy) if isinstance(dy, Routed) else dy
            dweight.append((whole.copy(), _copy(x)))
            dweight = None
        else:
            dweight = dweight.reshape(shape)
        return _convolve_backward(ops, dy, x, prepared[0], stride, padding, dweight, dbias, input_grad)

    def deferred_gradient(self, ops, prepared, key, parts):
        shape, stride, padding = self.convolution(prepared)
        weight = self.params["weight"].value.reshape(shape)
        dy, x = np.concatenate([dy for dy, _ in parts], axis=1), _concatenate([x for _, x in parts])
        gradient = np.zeros_like(weight)
        if isinstance(x, SpikeWords):
            x.index(padding)  # once, before the tasks share it

        def task(i):
            some = slice(i * OUTPUTS, (i + 1) * OUTPUTS)
            with scratch():
                packed = ops.conv2d_pack(weight[some])
                part = np.ascontiguousarray(dy[..., some])
                _convolve_backward(ops, part, x, packed, stride, padding, gradient[some], None, False)

        parallel.run(task, -(-len(weight) // OUTPUTS))
        return gradient.reshape(self.params["weight"].value.shape)


class Conv2d(Weighted):
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

    def prepare(self, ops, plan):
        return ops.conv2d_pack(self.params["weight"].array), _bias(self), plan

    def forward(self, ops, prepared, x, run):
        weight, bias, plan = prepared
        return _convolve(ops, x, weight, bias, self.stride, self.padding, plan.pool, plan.fires), x

    def convolution(self, prepared):
        return (self.out_channels, self.in_channels, self.kernel_size, self.kernel_size), self.stride, self.padding

    def backward(self, ops, prepared, dy, kept, grads, input_grad):
        if input_grad and prepared[2].awaits and isinstance(grads["weight"], np.ndarray):
            _convolve_backward(ops, dy, kept, prepared[0], self.stride, self.padding, None, grads.get("bias"), False)
            return Awaited(dy, kept, prepared[0], self.stride, grads["weight"])
        return self.convolve_backward(ops, prepared, dy, kept, grads, input_grad)


class Linear(Weighted):
    """Linear layer; options, weight layout ``(O, F)`` and initial values of ``torch.nn.Linear``."""

    input_rank = 1

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

    def deferred_gradient(self, ops, prepared, key, parts):
        _, C, H, W = prepared[2]
        if isinstance(parts[0][1], SpikeWords) or (C > 1 and H * W > 1):  # features of images in another order than the weight's
            return super().deferred_gradient(ops, prepared, key, parts)
        dy, x = (np.concatenate([array.reshape(-1, array.shape[-1]) for array in arrays]) for arrays in (
            [dy for dy, _ in parts], [x.reshape(*x.shape[:2], -1) for _, x in parts],
        ))  # fmt: skip
        x = np.pad(x, ((0, 0), (0, -x.shape[1] % OUTPUTS)))
        gradient = np.zeros_like(self.params["weight"].value)

        def task(i):
            some = slice(i * OUTPUTS, (i + 1) * OUTPUTS)
            with scratch():
                ops.linear_dweight(dy[:, some], x, gradient[some])

        parallel.run(task, -(-len(gradient) // OUTPUTS))
        return gradient

    def prepare(self, ops, plan):
        weight = self.params["weight"].array
        if plan.whole:
            return plan.image
        if plan.image is not None:
            # Of whole images: a convolution whose kernel covers the image, so that Flatten need not move a number.
            weight = weight.reshape(self.out_features, *plan.image)
            return ops.conv2d_pack(weight), _bias(self), weight.shape
        return ops.linear_pack(weight), _bias(self), (*weight.shape, 1, 1)

    def convolution(self, prepared):
        return prepared[2], 1, 0

    def forward(self, ops, prepared, x, run, y=None):
        """As in ``Layer``; ``y`` (T, B, O) is given where ``forward_whole`` has worked it out for the whole batch."""
        weight, bias, (_, C, H, W) = prepared
        if isinstance(x, SpikeWords) or x.ndim == 5:
            images = _as_images(x, (H, W, C))
            if y is None:
                y = _convolve(ops, images, weight, bias, 1, 0)
            return y.reshape(*x.shape[:2], self.out_features), (images, x.shape)
        return _split(ops.linear_forward(_merge(x), weight, bias), x) if y is None else y, (x, x.shape)

    def forward_whole(self, ops, prepared, x) -> np.ndarray:
        """x (1, B, ...) of a whole batch -> y (1, B, O), to the same bits: a wide weight goes through the cache once."""
        _, bias, (O, C, H, W) = prepared
        images, weight = _as_images(x, (H, W, C)), self.params["weight"].value.reshape(O, C, H, W)
        y = np.empty((*x.shape[:2], O), x.dtype)

        def task(i):
            some = slice(i * OUTPUTS, (i + 1) * OUTPUTS)
            with scratch():
                packed = ops.conv2d_pack(weight[some])
                y[..., some] = _convolve(ops, images, packed, None if bias is None else bias[some], 1, 0)[:, :, 0, 0]

        parallel.run(task, -(-O // OUTPUTS))
        return y

    def backward(self, ops, prepared, dy, kept, grads, input_grad):
        x, shape = kept
        if isinstance(x, SpikeWords) or x.ndim == 5 or isinstance(grads["weight"], list):
            images = x if len(x.shape) == 5 else x.reshape(*x.shape[:2], 1, 1, x.shape[2])
            dy = dy.reshape(*dy.shape[:2], 1, 1, self.out_features)
            dx = self.convolve_backward(ops, prepared, dy, images, grads, input_grad)
            return dx.reshape(shape) if input_grad else None
        dx = ops.linear_backward(_merge(dy), _merge(x), prepared[0], grads["weight"], grads.get("bias"), input_grad)
        return _split(dx, x) if input_grad else None

    def is_whole(self, ops) -> bool:
        """Is the weight so large that spikes of all blocks had better meet it at once?"""
        return hasattr(ops, "linear_forward_tables") and self.params["weight"].value.nbytes > WHOLE

    def forward_batch(self, ops, prepared, xs, run):
        """Blocks of SpikeWords (T, b, ...) -> blocks (T, b, O), the weight read in place, OUTPUTS outputs a task."""
        weight, bias = self.params["weight"].value, _bias(self)
        rows = ops.spike_rows(_concatenate(xs))
        shape = (run.num_steps, sum(x.shape[1] for x in xs), self.out_features)
        y = empty(shape, weight.dtype)

        def task(i):
            some = slice(i * OUTPUTS, (i + 1) * OUTPUTS)
            with scratch():
                y[..., some] = ops.linear_forward_tables(rows, weight[some], None if bias is None else bias[some])

        parallel.run(task, -(-self.out_features // OUTPUTS))
        return _cut(y, xs), (rows, [x.shape for x in xs])

    def backward_batch(self, ops, prepared, dys, kept, input_grad):
        """Blocks (T, b, O) -> blocks of dx, shaped as the spikes were, or None each; adds into the parameters' gradients."""
        rows, shapes = kept
        weight, dy = self.params["weight"], np.concatenate(dys, axis=1)
        if self.bias:
            self.params["bias"].grad += dy.sum((0, 1), dtype=np.float64).astype(dy.dtype)
        outputs = -(-self.out_features // OUTPUTS)
        C = shapes[0][-1]  # channels of images, or features of rows
        columns = CHANNELS if prepared else OUTPUTS
        panels = ops.dx_panels(dy) if input_grad else None
        dx = empty((*dy.shape[:2], *shapes[0][2:]), dy.dtype) if input_grad else None

        def task(i):
            with scratch():
                if i < outputs:
                    some = slice(i * OUTPUTS, (i + 1) * OUTPUTS)
                    ops.linear_dweight_tables(dy[..., some], rows, weight.grad[some])
                else:
                    some = slice((i - outputs) * columns, min((i - outputs + 1) * columns, C))
                    ops.linear_dx_wide(panels, weight.value, some, dx)

        parallel.run(task, outputs + (-(-C // columns) if input_grad else 0))
        return _cut(dx, dys) if input_grad else [None] * len(dys)


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

    def prepare(self, ops, plan):
        return plan

    def forward(self, ops, prepared, x, run):
        if prepared.passes:
            return x, None
        if isinstance(x, (Pooled, Fired)):
            return x if isinstance(x, Fired) else x.y, (x.winner, x.unpooled)
        if isinstance(x, SpikeWords):
            return ops.max_pool2d_forward_words(x, self.kernel_size, self.stride), x
        y, winner = ops.max_pool2d_forward(_merge(x), self.kernel_size, self.stride, **run.frozen(self))
        return _split(y, x), (_split(winner, x), x.shape)

    def backward(self, ops, prepared, dy, kept, grads, input_grad):
        if prepared.passes:
            return dy
        if isinstance(kept, SpikeWords):
            return ops.max_pool2d_backward_words(dy, kept, self.kernel_size, self.stride)
        winner, shape = kept
        routed = Routed(dy, winner, shape, self.kernel_size, self.stride)
        return routed if prepared.routes else _unroute(ops, routed)

    def choices(self, kept):
        return {"winner": _merge(kept[0])}


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
        return _split(ops.avg_pool2d_forward(_merge(x), self.kernel_size, self.stride), x), x.shape

    def backward(self, ops, prepared, dy, kept, grads, input_grad):
        dx = ops.avg_pool2d_backward(_merge(dy), (kept[0] * kept[1], *kept[2:]), self.kernel_size, self.stride)
        return dx.reshape(kept)


class Flatten(Layer):
    """Images to rows of features, channel first as ``torch.nn.Flatten``."""

    def output_shape(self, shape):
        return (int(np.prod(shape)),)

    def prepare(self, ops, plan):
        return plan.relabels

    def forward(self, ops, prepared, x, run):
        if prepared:
            return x, x.shape
        return _split(ops.flatten_forward(_merge(x)), x), x.shape

    def backward(self, ops, prepared, dy, kept, grads, input_grad):
        if prepared:
            return dy
        return ops.flatten_backward(_merge(dy), (kept[0] * kept[1], *kept[2:])).reshape(kept)


def _weight_and_bias(layer, shape, fan_in, dtype, seed):
    """PyTorch's initial weight, and bias unless the layer has none."""
    shapes = {"weight": shape, "bias": shape[:1]} if layer.bias else {"weight": shape}
    return {key: fan_in_uniform(s, fan_in, dtype, seed, f"{layer.name}.{key}") for key, s in shapes.items()}


def _bias(layer):
    return layer.params["bias"].array if layer.bias else None


def _merge(x):
    """x (T, B, ...) -> (T B, ...)."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _split(y, like):
    """y (T B, ...) -> (T, B, ...), with T and B of ``like``."""
    return y.reshape(*like.shape[:2], *y.shape[1:])


def _convolve(ops, x, weight, bias, stride, padding, pool=None, fires=None):
    """x (T, B, H, W, C) or SpikeWords -> y (T, B, H', W', O), or Pooled, or Fired."""
    if isinstance(x, SpikeWords) or pool is not None:
        if pool is None and _crowded(ops, x, len(weight.weight)):
            return ops.conv2d_forward_tables(x, weight, bias, stride, padding)
        return ops.conv2d_forward_events(x, weight, bias, stride, padding, pool, fires)
    return _split(ops.conv2d_forward(_merge(x), weight, bias, stride, padding), x)


def _convolve_backward(ops, dy, x, weight, stride, padding, dweight, dbias, input_grad):
    """dy (T, B, H', W', O) or Routed, x (T, B, H, W, C) or SpikeWords -> dx (T, B, H, W, C) or None; adds into dweight, dbias."""
    if isinstance(x, SpikeWords) or (isinstance(dy, Routed) and ops.device):
        if dweight is not None and not isinstance(dy, Routed) and _crowded(ops, x, len(weight.weight)):
            ops.conv2d_dweight_tables(dy, x, weight, stride, padding, dweight)
            dweight = None
        return ops.conv2d_backward_events(dy, x, weight, stride, padding, dweight, dbias, input_grad)
    routed = isinstance(dy, Routed)
    whole = _unroute(ops, dy) if routed else dy
    dx = ops.conv2d_backward(_merge(whole), _merge(x), weight, stride, padding, dweight, dbias, input_grad and not routed)
    if not input_grad:
        return None
    return ops.conv2d_dx_routed(dy, x.shape, weight, stride, padding) if routed else _split(dx, x)


def _unroute(ops, dy):
    """Routed -> the gradient (T, B, H', W', O) that it stands for."""
    T, B, *image = dy.unpooled
    dx = ops.max_pool2d_backward(_merge(dy.dy), _merge(dy.winner), (T * B, *image), dy.kernel_size, dy.stride)
    return dx.reshape(dy.unpooled)


def _copy(x):
    """x (T, B, H, W, C) or SpikeWords -> a copy that outlives the block's memory."""
    return SpikeWords(x.words.copy(), x.num_steps) if isinstance(x, SpikeWords) else x.copy()


def _concatenate(parts):
    """Blocks (T, b, H, W, C), or SpikeWords, in order -> the batch."""
    if isinstance(parts[0], SpikeWords):
        return SpikeWords(np.concatenate([part.words for part in parts], axis=1), parts[0].num_steps)
    return np.concatenate(parts, axis=1)


def _cut(x, like):
    """x (T, B, ...) -> blocks (T, b, ...) of as many samples as those of ``like`` have."""
    ends = np.cumsum([block.shape[1] for block in like])
    return [np.ascontiguousarray(x[:, end - block.shape[1] : end]) for end, block in zip(ends, like, strict=True)]


def _crowded(ops, x, outputs) -> bool:
    """Are there so many spikes in so few steps that walking from one to the next is slower than looking up four at a time?"""
    return not ops.device and x.num_steps <= FEW and outputs >= OUTPUTS and x.density >= CROWDED


def _as_images(x, image):
    """x (T, B, ...) or SpikeWords -> the same numbers as images of shape (H, W, C)."""
    if isinstance(x, SpikeWords):
        return SpikeWords(x.words.reshape(*x.words.shape[:2], *image), x.num_steps)
    return x.reshape(*x.shape[:2], *image)

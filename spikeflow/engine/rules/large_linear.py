"""A linear layer whose weight is so large that spikes of the whole batch had better meet it at once: a joint.

The weight is read as it lies in memory, OUTPUTS outputs a task, once forward and once backward for a batch.
"""

from __future__ import annotations

import numpy as np

from ...kernels.cpu import parallel
from ...kernels.cpu.simd import empty, scratch
from ...layers import Flatten, Linear
from ...layers.spatial import bias_of
from ..forms import BITS, concatenated, cut
from ..rule import Rule
from ..steps import Step
from ..weighted import OUTPUTS

__all__ = ["RULES"]

LARGE = 2**23  # bytes of a weight; from here on it goes through the cache once a batch, and all blocks wait for it
CHANNELS = 16  # of an image's gradient, in one task: a cache line


class LargeLinear(Step):
    """(Flatten and) Linear; bits in, numbers out."""

    joint, takes, keeps = True, BITS, "spikes"

    def __init__(self, layers, shapes, kind):
        super().__init__(layers, shapes, kind)
        self.layer = layers[-1]
        self.behind_images = len(shapes[0]) == 3

    def forward_batch(self, ops, packed, xs, run):
        """Blocks of SpikeWords (T, b, ...) -> blocks (T, b, O)."""
        weight, bias = self.layer.params["weight"].value, bias_of(self.layer)
        rows = ops.spike_rows(concatenated(xs))
        shape = (run.num_steps, sum(x.shape[1] for x in xs), len(weight))
        y = empty(shape, weight.dtype)

        def task(i):
            some = slice(i * OUTPUTS, (i + 1) * OUTPUTS)
            with scratch():
                y[..., some] = ops.linear_forward_tables(rows, weight[some], None if bias is None else bias[some])

        parallel.run(task, -(-len(weight) // OUTPUTS))
        return cut(y, xs), (rows, [x.shape for x in xs])

    def backward_batch(self, ops, packed, dys, kept, grads, input_grad):
        """Blocks (T, b, O) -> blocks of dx, shaped as the spikes were, or None each."""
        rows, shapes = kept
        weight, dy, grads = self.layer.params["weight"].value, np.concatenate(dys, axis=1), grads[self.layer.name]
        if self.layer.bias:
            grads["bias"] += dy.sum((0, 1), dtype=np.float64).astype(dy.dtype)
        outputs, C = -(-len(weight) // OUTPUTS), shapes[0][-1]  # channels of images, or features of rows
        columns = CHANNELS if self.behind_images else OUTPUTS
        panels = ops.dx_panels(dy) if input_grad else None
        dx = empty((*dy.shape[:2], *shapes[0][2:]), dy.dtype) if input_grad else None

        def task(i):
            with scratch():
                if i < outputs:
                    some = slice(i * OUTPUTS, (i + 1) * OUTPUTS)
                    ops.linear_dweight_tables(dy[..., some], rows, grads["weight"][some])
                else:
                    some = slice((i - outputs) * columns, min((i - outputs + 1) * columns, C))
                    ops.linear_dx_wide(panels, weight, some, dx)

        parallel.run(task, outputs + (-(-C // columns) if input_grad else 0))
        return cut(dx, dys) if input_grad else [None] * len(dys)


def _fits(place, layer: Linear) -> bool:
    return not (place.kind.streams or place.kind.records) and layer.params["weight"].value.nbytes > LARGE


RULES = [
    Rule(
        "large_linear",
        (Flatten, Linear),
        takes=(BITS,),
        needs=("linear_forward_tables",),
        guard=lambda place: len(place.shapes[0]) == 3 and _fits(place, place.layers[1]),
        make=lambda place: LargeLinear(*place.covered(2)),
    ),
    Rule(
        "large_linear",
        (Linear,),
        takes=(BITS,),
        needs=("linear_forward_tables",),
        guard=lambda place: _fits(place, place.layers[0]),
        make=lambda place: LargeLinear(*place.covered(1)),
    ),
]

"""A max-pool of spikes as bits: the greatest of some bits is their disjunction."""

from __future__ import annotations

from ...layers import MaxPool2d
from ..forms import BITS
from ..rule import Rule
from ..steps import Step

__all__ = ["RULES"]


class PoolOfBits(Step):
    """MaxPool2d; bits in, bits out."""

    takes = gives = BITS
    keeps = "spikes"

    def forward(self, ops, packed, x, run):
        (pool,) = self.layers
        return ops.max_pool2d_forward_words(x, pool.kernel_size, pool.stride), x

    def backward(self, ops, packed, dy, kept, grads, input_grad):
        (pool,) = self.layers
        return ops.max_pool2d_backward_words(dy, kept, pool.kernel_size, pool.stride)


RULES = [
    Rule(
        "pool_of_bits",
        (MaxPool2d,),
        takes=(BITS,),
        needs=("max_pool2d_forward_words",),
        guard=lambda place: place.takes_bits(1),
        make=lambda place: PoolOfBits(*place.covered(1)),
    )
]

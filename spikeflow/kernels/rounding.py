"""A product that is rounded by itself, on every backend.

NVIDIA's compiler turns ``a * b + c`` into one fused multiply-add, which rounds once; the processor's, as we call it, does not. A
membrane that differs in its last bit may lie on the other side of the threshold. So what runs forward in a neuron multiplies by
``times``; backward, where a last bit is only a last bit, plain products will do.
"""

from __future__ import annotations

from numba.extending import overload

__all__ = ["times"]


def times(a, b):
    """a b, rounded before anything is added to it."""
    return a * b


@overload(times, jit_options={"forceinline": True})
def _times(a, b):
    return lambda a, b: a * b

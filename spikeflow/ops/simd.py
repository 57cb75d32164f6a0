"""Register tiles and aligned memory: what kernels need to run at the speed of the machine.

Tiles.  LLVM keeps an accumulator in registers only if it lives in a stack array of literal size whose every index becomes a
constant after unrolling; a NumPy array made inside a kernel lives on the heap and never does (2 to 5 times slower, measured).

Memory.  A 64-byte vector that straddles two cache lines costs two loads, so every buffer begins at a multiple of 64 bytes.
Inside ``scratch()`` buffers come from one arena a thread, reused by the next block of samples: no page is touched for the
first time, and none is handed back to the system, in a training step.
"""

from __future__ import annotations

import contextlib
import functools
import threading

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

__all__ = ["empty", "scratch", "stack_array", "tile_shape", "vector_lanes", "zeros"]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector


@functools.cache
def stack_array(dtype: np.dtype, size: int):
    """-> an intrinsic that returns a pointer to ``size`` elements on the stack; view it with ``numba.carray``."""
    element = numba.from_dtype(np.dtype(dtype))
    pointer = types.CPointer(element)

    @intrinsic
    def allocate(typing_context):
        def generate(context, builder, signature, args):
            # At the function's entry: in a loop, an alloca would grow the stack with every pass.
            return cgutils.alloca_once(builder, context.get_data_type(element), size=ir.Constant(ir.IntType(64), size))

        return pointer(), generate

    return allocate


@functools.cache
def vector_lanes(itemsize: int) -> int:
    """Elements of a vector register of the CPU that Numba compiles for: 64 bytes with AVX-512, 32 with AVX2, else 16."""
    if config.CPU_NAME == "generic":
        return 16 // itemsize
    features = llvmlite.binding.get_host_cpu_features()
    width = 64 if features.get("avx512f") else 32 if features.get("avx2") else 16
    return width // itemsize


def tile_shape(dtype: np.dtype, outputs: int) -> tuple[int, int]:
    """-> (rows, columns) of the register tile of a product with ``outputs`` columns.

    AVX-512 has 32 registers: 24 accumulators, 4 for a row of the right factor, the rest for broadcasts; fewer registers
    elsewhere, half as many accumulators. Columns beyond ``outputs`` are padding, so a narrow product takes a narrow, tall tile.
    """
    lanes = vector_lanes(np.dtype(dtype).itemsize)
    registers = 24 if lanes * np.dtype(dtype).itemsize == 64 else 12
    widest = 4 if registers == 24 else 2
    vectors = min(range(1, widest + 1), key=lambda v: (-(-outputs // (v * lanes)) * v * (1 + 0.15 / v), -v))
    return min(registers // vectors, 12), vectors * lanes


class _Arena(threading.local):
    """One thread's reusable memory: a stack of buffers, in use up to ``top`` of the last."""

    active = False
    buffer = np.empty(0, np.uint8)
    top = 0
    wanted = 0

    def take(self, size: int) -> np.ndarray | None:
        self.wanted += size
        if self.top + size > len(self.buffer):
            return None
        part = self.buffer[self.top : self.top + size]
        self.top += size
        return part


_arena = _Arena()


@contextlib.contextmanager
def scratch():
    """Within, ``empty`` and ``zeros`` hand out memory that is reused after the block: copy what must outlive it."""
    if _arena.active:
        raise RuntimeError("scratch() does not nest")
    if _arena.wanted > len(_arena.buffer):  # the last block did not fit: grow to what it asked for
        _arena.buffer = _aligned(_arena.wanted)
    _arena.active, _arena.top, _arena.wanted = True, 0, 0
    try:
        yield
    finally:
        _arena.active = False


def empty(shape: tuple[int, ...], dtype) -> np.ndarray:
    """An uninitialised C-contiguous array that begins at a multiple of 64 bytes."""
    dtype = np.dtype(dtype)
    count = 1
    for length in shape:
        count *= length
    size = count * dtype.itemsize
    padded = -(-size // ALIGNMENT) * ALIGNMENT
    memory = _arena.take(padded) if _arena.active else None
    if memory is None:
        memory = _aligned(padded)
    return memory[:size].view(dtype).reshape(shape)


def zeros(shape: tuple[int, ...], dtype) -> np.ndarray:
    """As ``empty``, filled with zeros."""
    array = empty(shape, dtype)
    array.fill(0)
    return array


def _aligned(size: int) -> np.ndarray:
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]

"""Register tiles and aligned memory: what kernels need to run at the speed of the machine.

Tiles.  LLVM keeps an accumulator in registers only if it lives in a stack array of literal size whose every index becomes a
constant after unrolling; a NumPy array made inside a kernel lives on the heap and never does (2 to 5 times slower, measured).
Kernels therefore sum in ``stack_array``s, whole vectors at a time (``vector_operations``), in loops of literal length.

Memory.  A 64-byte vector that straddles two cache lines costs two loads, so every buffer begins at a multiple of 64 bytes.
Inside ``scratch()`` buffers come from one arena a thread, reused by the next block of samples: their pages are touched for the
first time once, and not handed back to the system in every step.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
from types import SimpleNamespace

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

__all__ = [
    "count_trailing_zeros",
    "empty",
    "equal_bits",
    "lasting_zeros",
    "scratch",
    "stack_array",
    "tile_shape",
    "vector_lanes",
    "vector_operations",
    "zeros",
]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector


@functools.cache
def stack_array(dtype: np.dtype, size: int):
    """-> an intrinsic that returns a pointer to ``size`` elements on the stack, uninitialised."""
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
def vector_operations(dtype: np.dtype) -> SimpleNamespace:
    """-> intrinsics on whole vectors of ``lanes`` numbers, at flat places of flat arrays or of stack arrays.

    ``clear(a, i)``                  a[i : i + lanes] = 0
    ``copy(a, i, b, j)``             a[i : i + lanes] = b[j : j + lanes]
    ``copy_where(a, i, b, j, c, k, x)``  a[i : i + lanes] = b[j : j + lanes] where the bytes c[k : k + lanes] are x, else 0
    ``add(a, i, b, j)``              a[i : i + lanes] += b[j : j + lanes]
    ``add_if(a, i, bit, b, j)``      a[i : i + lanes] += b[j : j + lanes] if bit else 0, without a branch; bit is 0 or 1, uint64
    ``add_scaled(a, i, x, b, j)``    a[i : i + lanes] += x b[j : j + lanes], in one rounding where the processor can; no integers

    Left to itself, LLVM unrolls a short inner loop before it looks for vectors, and then finds none.
    """
    dtype = np.dtype(dtype)
    lanes = vector_lanes(dtype.itemsize)
    element = {"float32": ir.FloatType(), "float64": ir.DoubleType(), "int32": ir.IntType(32)}[dtype.name]
    vector = ir.VectorType(element, lanes)
    bits = ir.IntType(8 * dtype.itemsize)
    mask = ir.VectorType(bits, lanes)
    align = dtype.itemsize  # promise no more than an element's: on aligned data it costs nothing

    def place(context, builder, kind, value, index):
        """The address of element ``index`` of an array or a stack array, as a vector's."""
        if not isinstance(kind, types.CPointer):
            value = cgutils.create_struct_proxy(kind)(context, builder, value).data
        return builder.bitcast(builder.gep(value, [index]), vector.as_pointer())

    def plus(builder, a, b):
        return builder.add(a, b) if dtype.kind == "i" else builder.fadd(a, b)

    @intrinsic
    def clear(typing_context, a, i):
        def generate(context, builder, signature, args):
            builder.store(ir.Constant(vector, [dtype.type(0).item()] * lanes), place(context, builder, a, *args), align=align)
            return context.get_dummy_value()

        return types.void(a, types.uintp), generate

    @intrinsic
    def copy(typing_context, a, i, b, j):
        def generate(context, builder, signature, args):
            source = builder.load(place(context, builder, b, *args[2:]), align=align)
            builder.store(source, place(context, builder, a, *args[:2]), align=align)
            return context.get_dummy_value()

        return types.void(a, types.uintp, b, types.uintp), generate

    @intrinsic
    def add(typing_context, a, i, b, j):
        def generate(context, builder, signature, args):
            target = place(context, builder, a, *args[:2])
            source = builder.load(place(context, builder, b, *args[2:]), align=align)
            builder.store(plus(builder, builder.load(target, align=align), source), target, align=align)
            return context.get_dummy_value()

        return types.void(a, types.uintp, b, types.uintp), generate

    @intrinsic
    def add_if(typing_context, a, i, bit, b, j):
        def generate(context, builder, signature, args):
            target = place(context, builder, a, *args[:2])
            source = builder.load(place(context, builder, b, *args[3:]), align=align)
            ones = builder.neg(builder.trunc(args[2], bits) if bits.width < 64 else args[2])
            kept = builder.and_(builder.bitcast(source, mask), _spread(builder, ones, mask))
            total = plus(builder, builder.load(target, align=align), builder.bitcast(kept, vector))
            builder.store(total, target, align=align)
            return context.get_dummy_value()

        return types.void(a, types.uintp, types.uint64, b, types.uintp), generate

    @intrinsic
    def add_scaled(typing_context, a, i, x, b, j):
        def generate(context, builder, signature, args):
            target = place(context, builder, a, *args[:2])
            source = builder.load(place(context, builder, b, *args[3:]), align=align)
            product = builder.fmul(_spread(builder, args[2], vector), source, flags=["contract"])
            builder.store(builder.fadd(builder.load(target, align=align), product, flags=["contract"]), target, align=align)
            return context.get_dummy_value()

        return types.void(a, types.uintp, numba.from_dtype(dtype), b, types.uintp), generate

    @intrinsic
    def copy_where(typing_context, a, i, b, j, c, k, x):
        def generate(context, builder, signature, args):
            source = builder.load(place(context, builder, b, *args[2:4]), align=align)
            data = cgutils.create_struct_proxy(c)(context, builder, args[4]).data
            chosen = ir.VectorType(ir.IntType(8), lanes)
            marks = builder.load(builder.bitcast(builder.gep(data, [args[5]]), chosen.as_pointer()), align=1)
            equal = builder.icmp_unsigned("==", marks, _spread(builder, args[6], chosen))
            kept = builder.select(equal, source, ir.Constant(vector, [dtype.type(0).item()] * lanes))
            builder.store(kept, place(context, builder, a, *args[:2]), align=align)
            return context.get_dummy_value()

        return types.void(a, types.uintp, b, types.uintp, c, types.uintp, types.uint8), generate

    return SimpleNamespace(
        copy_where=copy_where, lanes=lanes, clear=clear, copy=copy, add=add, add_if=add_if, add_scaled=add_scaled
    )


def _spread(builder, x, vector):
    """A vector whose lanes all hold x."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, x, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count))


@intrinsic
def count_trailing_zeros(typing_context, word):
    """The number of the lowest set bit of a uint64 that is not 0: one instruction."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@intrinsic
def equal_bits(typing_context, array, start, value):
    """A uint64 whose bit j is ``array[start + j] == value``, for 64 bytes of a flat uint8 array: one wide comparison."""

    def generate(context, builder, signature, args):
        lanes = ir.VectorType(ir.IntType(8), 64)
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, args[0]).data
        loaded = builder.load(builder.bitcast(builder.gep(data, [args[1]]), lanes.as_pointer()), align=1)
        equal = builder.icmp_unsigned("==", loaded, _spread(builder, args[2], lanes))
        return builder.bitcast(equal, ir.IntType(64))

    return types.uint64(array, types.uintp, types.uint8), generate


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
    """One thread's reusable memory: one buffer, in use up to ``top``.

    Blocks ask for the same arrays in the same order, so that the arrays themselves are kept too, by place, shape and type: making
    one anew costs more than a microsecond, and a block makes dozens.
    """

    active = False
    buffer = np.empty(0, np.uint8)
    top = 0
    wanted = 0

    def __init__(self):
        self.arrays = {}

    def grow(self) -> None:
        """Make room for what the last block asked for."""
        self.buffer = _aligned(self.wanted)
        self.arrays = {}

    def take(self, shape: tuple[int, ...], dtype) -> np.ndarray | None:
        """-> an array, or None if it does not fit."""
        key = self.top, shape, dtype
        array, size = self.arrays.get(key, (None, 0))
        if array is None:
            size = _padded_size(shape, dtype)
            if self.top + size <= len(self.buffer):
                array = _as_array(self.buffer[self.top : self.top + size], shape, dtype)
                if len(self.arrays) > 10_000:  # calls of ever new shapes
                    self.arrays = {}
                self.arrays[key] = array, size
        self.wanted += size
        if array is not None:
            self.top += size
        return array


_arena = _Arena()


@contextlib.contextmanager
def scratch():
    """Within, ``empty`` and ``zeros`` hand out memory that is reused after the block: copy what must outlive it.

    Within another ``scratch()`` of the same thread they allocate: the outer one's memory is still in use.
    """
    outer = _arena.active
    if not outer and _arena.wanted > len(_arena.buffer):  # the last block did not fit: grow to what it asked for
        _arena.grow()
    if not outer:
        _arena.top = _arena.wanted = 0
    _arena.active = not outer
    try:
        yield
    finally:
        _arena.active = outer


def empty(shape: tuple[int, ...], dtype) -> np.ndarray:
    """An uninitialised C-contiguous array that begins at a multiple of 64 bytes."""
    array = _arena.take(shape, dtype) if _arena.active else None
    return _as_array(_aligned(_padded_size(shape, dtype)), shape, dtype) if array is None else array


def zeros(shape: tuple[int, ...], dtype) -> np.ndarray:
    """As ``empty``, filled with zeros."""
    array = empty(shape, dtype)
    array.fill(0)
    return array


def lasting_zeros(shape: tuple[int, ...], dtype) -> np.ndarray:
    """As ``zeros``, but never from the arena: for what outlives the block in which it is made."""
    memory = _aligned(_padded_size(shape, dtype))
    memory.fill(0)
    return _as_array(memory, shape, dtype)


def _padded_size(shape: tuple[int, ...], dtype) -> int:
    """-> bytes of such an array, up to the next multiple of ALIGNMENT."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return -(-size // ALIGNMENT) * ALIGNMENT


def _as_array(memory: np.ndarray, shape: tuple[int, ...], dtype) -> np.ndarray:
    """Bytes -> the array that they begin with."""
    return memory[: math.prod(shape) * np.dtype(dtype).itemsize].view(dtype).reshape(shape)


def _aligned(size: int) -> np.ndarray:
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]

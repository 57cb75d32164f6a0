"""Register tiles and aligned memory: what kernels need to run at the speed of the machine.

Tiles.  LLVM keeps an accumulator in registers only if it lives in a stack array of literal size whose every index becomes a
constant after unrolling; a NumPy array made inside a kernel lives on the heap and never does (2 to 5 times slower, measured).
Kernels therefore sum in ``stack_array``s, whole vectors at a time (``vector_operations``), in loops of literal length.

Memory.  A 64-byte vector that straddles two cache lines costs two loads, so every buffer begins at a multiple of 64 bytes.
Inside ``scratch()`` buffers come from one arena a thread, reused by the next block of samples: their pages are touched for the
first time once, and not handed back to the system in every step.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable
from types import SimpleNamespace

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

__all__ = [
    "Arena",
    "Layout",
    "count_ones",
    "count_trailing_zeros",
    "empty",
    "equal_bits",
    "lasting_zeros",
    "prefetch_for_writing",
    "scratch",
    "scratch_size",
    "set_bits",
    "stack_array",
    "table_operations",
    "taken",
    "tile_shape",
    "vector_lanes",
    "vector_operations",
    "zeros",
]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector
CHUNK = 2**20  # bytes of an arena's chunk, at least
WORD = ir.IntType(32)
ELEMENTS = {"float32": ir.FloatType(), "float64": ir.DoubleType(), "int32": WORD, "uint32": WORD}


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
    vector = ir.VectorType(ELEMENTS[dtype.name], lanes)
    bits = ir.IntType(8 * dtype.itemsize)
    mask = ir.VectorType(bits, lanes)
    align = dtype.itemsize  # promise no more than an element's: on aligned data it costs nothing
    place, plus = functools.partial(_place, vector=vector), functools.partial(_plus, dtype)

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


def _place(context, builder, kind, value, index, vector):
    """The address of element ``index`` of an array or a stack array, as a vector's."""
    if not isinstance(kind, types.CPointer):
        value = cgutils.create_struct_proxy(kind)(context, builder, value).data
    return builder.bitcast(builder.gep(value, [index]), vector.as_pointer())


def _plus(dtype, builder, a, b):
    return builder.fadd(a, b) if dtype.kind == "f" else builder.add(a, b)


def _spread(builder, x, vector):
    """A vector whose lanes all hold x."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, x, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count))


@functools.cache
def table_operations(dtype: np.dtype) -> SimpleNamespace:
    """-> intrinsics on tables of ``lanes`` numbers of 4 bytes, each table one vector; ``lanes`` is 2 to the power ``bits``.

    ``add_masked(a, i, x, mask, j)``         a[i + e] += x for e < lanes where mask[j + e], uint32, is all ones, not 0
    ``add_chosen(a, i, b, j, index, k)``     a[i + e] += b[j + index[k + e] mod lanes] for e < lanes, index uint32
    ``add_chosen_scaled(a, i, x, b, j, index, k)``  the same, times x; no integers
    ``drop_bits(index, k)``                  index[k : k + lanes] >>= bits
    ``scale_bias(a, i, b, j, s, t, k)``      a[i + e] = b[j + e] s[k + e] + t[k + e] for e < lanes, b int32, a, s and t float32
    ``transpose(a, i, b, j, stride)``        a[i + e lanes + f] = b[j + f stride + e] for e, f < lanes

    A table in a register needs no memory: x86-64 chooses among its numbers for all lanes at once, by AVX-512 or by AVX2.
    """
    dtype, lanes = np.dtype(dtype), vector_lanes(4)
    bits = lanes.bit_length() - 1
    vector, chosen = ir.VectorType(ELEMENTS[dtype.name], lanes), ir.VectorType(WORD, lanes)
    place, plus = functools.partial(_place, vector=vector), functools.partial(_plus, dtype)
    index_place = functools.partial(_place, vector=chosen)

    @intrinsic
    def add_masked(typing_context, a, i, x, mask, j):
        def generate(context, builder, signature, args):
            target = place(context, builder, a, *args[:2])
            having = builder.load(index_place(context, builder, mask, *args[3:]), align=4)
            everywhere = builder.bitcast(_spread(builder, args[2], vector), chosen)
            addend = builder.bitcast(builder.and_(everywhere, having), vector)
            builder.store(plus(builder, builder.load(target, align=4), addend), target, align=4)
            return context.get_dummy_value()

        return types.void(a, types.uintp, numba.from_dtype(dtype), mask, types.uintp), generate

    @intrinsic
    def add_chosen(typing_context, a, i, b, j, index, k):
        def generate(context, builder, signature, args):
            target = place(context, builder, a, *args[:2])
            table = builder.load(place(context, builder, b, *args[2:4]), align=4)
            which = builder.load(index_place(context, builder, index, *args[4:]), align=4)
            total = plus(builder, builder.load(target, align=4), _choose(builder, table, which))
            builder.store(total, target, align=4)
            return context.get_dummy_value()

        return types.void(a, types.uintp, b, types.uintp, index, types.uintp), generate

    @intrinsic
    def add_chosen_scaled(typing_context, a, i, x, b, j, index, k):
        def generate(context, builder, signature, args):
            target = place(context, builder, a, *args[:2])
            table = builder.load(place(context, builder, b, *args[3:5]), align=4)
            which = builder.load(index_place(context, builder, index, *args[5:]), align=4)
            product = builder.fmul(_spread(builder, args[2], vector), _choose(builder, table, which), flags=["contract"])
            builder.store(builder.fadd(builder.load(target, align=4), product, flags=["contract"]), target, align=4)
            return context.get_dummy_value()

        return types.void(a, types.uintp, numba.from_dtype(dtype), b, types.uintp, index, types.uintp), generate

    @intrinsic
    def drop_bits(typing_context, index, k):
        def generate(context, builder, signature, args):
            target = index_place(context, builder, index, *args)
            builder.store(builder.lshr(builder.load(target, align=4), ir.Constant(chosen, [bits] * lanes)), target, align=4)
            return context.get_dummy_value()

        return types.void(index, types.uintp), generate

    @intrinsic
    def scale_bias(typing_context, a, i, b, j, scale, bias, k):
        def generate(context, builder, signature, args):
            singles = ir.VectorType(ELEMENTS["float32"], lanes)
            floats = functools.partial(_place, vector=singles)
            numbers = builder.sitofp(builder.load(place(context, builder, b, *args[2:4]), align=4), singles)
            factor = builder.load(floats(context, builder, scale, args[4], args[6]), align=4)
            addend = builder.load(floats(context, builder, bias, args[5], args[6]), align=4)
            total = builder.fadd(builder.fmul(numbers, factor), addend)
            builder.store(total, floats(context, builder, a, *args[:2]), align=4)
            return context.get_dummy_value()

        return types.void(a, types.uintp, b, types.uintp, scale, bias, types.uintp), generate

    @intrinsic
    def transpose(typing_context, a, i, b, j, stride):
        def generate(context, builder, signature, args):
            rows, at = [], args[3]
            for _ in range(lanes):
                rows.append(builder.load(place(context, builder, b, args[2], at), align=4))
                at = builder.add(at, args[4])
            for e, row in enumerate(_transposed(builder, rows)):
                to = builder.add(args[1], ir.Constant(args[1].type, e * lanes))
                builder.store(row, place(context, builder, a, args[0], to), align=4)
            return context.get_dummy_value()

        return types.void(a, types.uintp, b, types.uintp, types.uintp), generate

    return SimpleNamespace(
        lanes=lanes,
        bits=bits,
        add_masked=add_masked,
        add_chosen=add_chosen,
        add_chosen_scaled=add_chosen_scaled,
        drop_bits=drop_bits,
        scale_bias=scale_bias,
        transpose=transpose,
    )


def _choose(builder, table, index):
    """A vector whose lane e is lane ``index[e]`` mod lanes of ``table``, both of 4-byte lanes."""
    lanes, kind = table.type.count, "si" if isinstance(table.type.element, ir.IntType) else "sf"
    names = {16: f"llvm.x86.avx512.permvar.{kind}.512", 8: f"llvm.x86.avx2.perm{'d' if kind == 'si' else 'ps'}"}
    if lanes in names:
        function = ir.FunctionType(table.type, [table.type, index.type])
        return builder.call(cgutils.get_or_insert_function(builder.module, function, names[lanes]), [table, index])
    result = ir.Constant(table.type, ir.Undefined)
    for e in range(lanes):
        lane = ir.Constant(WORD, e)
        which = builder.and_(builder.extract_element(index, lane), ir.Constant(WORD, lanes - 1))
        result = builder.insert_element(result, builder.extract_element(table, which), lane)
    return result


def _transposed(builder, rows):
    """The columns of a square matrix, as many vectors: in turn, the bits of row and lane number change places."""
    lanes, step = len(rows), 1
    while step < lanes:
        first, second = (
            [e if not e & step else lanes + e - step for e in range(lanes)],
            [e + step if not e & step else lanes + e for e in range(lanes)],
        )
        for r in range(lanes):
            if not r & step:
                a, b = rows[r], rows[r + step]
                for which, lane in ((r, first), (r + step, second)):
                    rows[which] = builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(WORD, lanes), lane))
        step *= 2
    return rows


@intrinsic
def prefetch_for_writing(typing_context, array, i):
    """Fetch the cache line of element ``i`` of a flat array, soon to be written; it need not exist."""

    def generate(context, builder, signature, args):
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, args[0]).data
        line = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [line.type, WORD, WORD, WORD])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [line.type], kind)
        builder.call(prefetch, [line, ir.Constant(WORD, 1), ir.Constant(WORD, 3), ir.Constant(WORD, 1)])  # write, keep, data
        return context.get_dummy_value()

    return types.void(array, types.uintp), generate


@intrinsic
def set_bits(typing_context, array, start, bit):
    """A uint32 whose bit j is that bit of ``array[start + j]``, for 32 elements of a flat array of unsigned integers."""

    def generate(context, builder, signature, args):
        element = ir.IntType(signature.args[0].dtype.bitwidth)
        lanes = ir.VectorType(element, 32)
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, args[0]).data
        loaded = builder.load(builder.bitcast(builder.gep(data, [args[1]]), lanes.as_pointer()), align=element.width // 8)
        number = builder.trunc(args[2], element) if element.width < 64 else args[2]
        one = _spread(builder, builder.shl(ir.Constant(element, 1), number), lanes)
        found = builder.icmp_unsigned("!=", builder.and_(loaded, one), ir.Constant(lanes, [0] * 32))
        return builder.bitcast(found, WORD)

    return types.uint32(array, types.uintp, types.uint64), generate


@intrinsic
def count_trailing_zeros(typing_context, word):
    """The number of the lowest set bit of a uint64 that is not 0: one instruction."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@intrinsic
def count_ones(typing_context, word):
    """The number of set bits of a uint64."""

    def generate(context, builder, signature, args):
        return builder.ctpop(args[0])

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


@functools.cache
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


class Arena:
    """Reusable memory: chunks, in use up to place ``top`` of chunk ``current``.

    Blocks ask for the same arrays in the same order, so that the arrays themselves are kept too, by place, shape and type: making
    one anew costs more than a microsecond, and a block makes dozens.
    """

    def __init__(self):
        self.chunks: list[np.ndarray] = []
        self.current = self.top = 0
        self.arrays = {}

    @property
    def size(self) -> int:
        """Bytes, in use or not."""
        return sum(len(chunk) for chunk in self.chunks)

    @property
    def place(self) -> tuple[int, int]:
        """Where the next array may begin."""
        return self.current, self.top

    def clear(self, place: tuple[int, int] = (0, 0)) -> None:
        """Take back all that was handed out, or all behind a place."""
        self.current, self.top = place

    def take(self, shape: tuple[int, ...], dtype) -> np.ndarray:
        """-> an array made anew, from the first chunk on in which there is room for it, and kept for ``empty``."""
        key = self.current, self.top, shape, dtype
        size = _padded_size(shape, dtype)
        while self.current < len(self.chunks) and self.top + size > len(self.chunks[self.current]):
            self.current, self.top = self.current + 1, 0
        if self.current == len(self.chunks):
            self.chunks.append(_aligned(max(size, self.size // 4, CHUNK)))
        array = _as_array(self.chunks[self.current][self.top : self.top + size], shape, dtype)
        if len(self.arrays) > 10_000:  # calls of ever new shapes
            self.arrays = {}
        self.top += size
        self.arrays[key] = array, self.current, self.top
        return array

    def take_all(self, layout: Layout) -> tuple:
        """-> the arrays of a layout, kept for ``taken``."""
        key = self.current, self.top, layout
        taken = layout.finish(*[self.take(*each) for each in layout.wanted])
        self.arrays[key] = taken, self.current, self.top
        return taken


class Layout:
    """Several arrays that are taken together, so that Python looks up one entry and not one for each.

    Parameters
    ----------
    *wanted : (shape, dtype)
        The arrays.
    finish : callable, optional
        Makes a tuple of the arrays: views of them, or nested tuples as a kernel takes them. It is called once, not each time.
    """

    def __init__(self, *wanted: tuple[tuple[int, ...], np.dtype], finish: Callable[..., tuple] = lambda *arrays: arrays):
        self.wanted, self.finish = wanted, finish


class _Thread(threading.local):
    """One thread's own arena, and the one in use."""

    def __init__(self):
        self.own = Arena()
        self.busy = False  # is it handing out?
        self.arena: Arena | None = None


_thread = _Thread()


class scratch:
    """Within, ``empty`` and ``zeros`` hand out memory that is reused after the block: copy what must outlive it.

    With an ``arena`` the memory is the arena's, behind what it handed out before, and stays until the arena is cleared. Else it
    is this thread's own; within another such block they allocate, since the outer one's memory is still in use.
    """

    def __init__(self, arena: Arena | None = None):
        self.arena = arena

    def __enter__(self) -> None:
        self.outer, self.owns = _thread.arena, self.arena is None and not _thread.busy
        arena = self.arena
        if self.owns:
            arena = _thread.own
            arena.clear()
            _thread.busy = True
        _thread.arena = arena

    def __exit__(self, *error) -> None:
        _thread.arena = self.outer
        if self.owns:
            _thread.busy = False


def scratch_size() -> tuple[int, int]:
    """-> bytes of this thread's own memory for ``scratch``: in all, and those that its latest block used."""
    own = _thread.own
    return own.size, sum(len(chunk) for chunk in own.chunks[: own.current]) + own.top


def empty(shape: tuple[int, ...], dtype) -> np.ndarray:
    """An uninitialised C-contiguous array that begins at a multiple of 64 bytes."""
    arena = _thread.arena
    if arena is not None:
        found = arena.arrays.get((arena.current, arena.top, shape, dtype))
        if found is None:
            return arena.take(shape, dtype)
        array, arena.current, arena.top = found
        return array
    return _as_array(_aligned(_padded_size(shape, dtype)), shape, dtype)


def taken(layout: Layout) -> tuple:
    """As ``empty``, the arrays of a layout."""
    arena = _thread.arena
    if arena is not None:
        found = arena.arrays.get((arena.current, arena.top, layout))
        if found is None:
            return arena.take_all(layout)
        arrays, arena.current, arena.top = found
        return arrays
    return layout.finish(*[empty(*each) for each in layout.wanted])


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
    start = -memory.__array_interface__["data"][0] % ALIGNMENT
    return memory[start : start + size]

"""The only place that knows CUDA: its imports, kernels and launches, and memory on the device.

Everything else asks here, so that a successor of numba-cuda need be put in here alone. Kernels see C-contiguous arrays and
scalars of four bytes. They are launched on one stream, in order; nothing here waits for the device but ``to_host``.

Three ways to run. On a card. In Numba's simulator, by the environment variable NUMBA_ENABLE_CUDASIM=1: kernels run in Python, a
thread for each thread, arrays live on the host; it finds wrong results, not wrong types. Its blocks and tiles are small, unless
SPIKEFLOW_FULL_BLOCKS=1 asks for those of a card, which take their time. And ``dry``: launches are written down and not run,
arrays hold nothing; which kernels a step launches with what, and what they compile to, can be told without a card.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import cuda
from numba.core import config

from .. import jit
from ..rounding import times

__all__ = [
    "Arena", "Kernel", "Launch", "SIMULATED", "SMALL", "THREADS", "constant", "cuda", "dry", "empty", "fill", "kernel", "launch",
    "launches", "memory", "on_stream", "require", "scalars", "size", "to_device", "to_host",
]  # fmt: skip

SIMULATED = bool(config.ENABLE_CUDASIM)
SMALL = SIMULATED and not os.environ.get("SPIKEFLOW_FULL_BLOCKS")  # are blocks and tiles small, or those of a card?
THREADS = 8 if SMALL else 256  # of a block, where a kernel does not care; fewer than a warp show what relies on one
OPTIONAL = "pip install 'spikeflow[cuda13]' (or spikeflow[cuda12], for drivers older than 580)"

if not SIMULATED and getattr(cuda, "implementation", None) == "NVIDIA":
    from numba.core import types
    from numba.cuda import libdevice
    from numba.cuda.extending import overload
    from numba.cuda.mathimpl import get_unary_impl_for_fn_and_ty
    from numba.cuda.ufuncs import ufunc_db

    @overload(times, target="cuda")
    def _times(a, b):
        if a == types.float32 and b == types.float32:
            return lambda a, b: libdevice.fmul_rn(a, b)
        return None

    def _teach(name: str) -> None:
        """Make kernels know NumPy's function of that name by the one of ``math``: the table of those they know has gaps."""

        def call(context, builder, signature, args):
            return get_unary_impl_for_fn_and_ty(getattr(math, name), signature.args[0])(context, builder, signature, args)

        ufunc_db().setdefault(getattr(np, name), {"f->f": call, "d->d": call})

    for name in ("exp", "expm1", "log1p", "sqrt", "fabs"):  # our surrogates need the first, users' perhaps the others
        _teach(name)


def _shared_array(self, shape, dtype, alignment=None):
    """The simulator's ``cuda.shared.array``: one array for each line of source. Numba's gives two threads that come to a line at
    the same time one each."""
    frame = sys._getframe(1)
    return self._allocations.setdefault((frame.f_code.co_filename, frame.f_lineno), np.empty(shape, dtype))


if SIMULATED:
    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    FakeCUDAShared.array = _shared_array


def require() -> None:
    """RuntimeError, with what is missing and what to install, unless kernels can run here."""
    if SIMULATED or _state.dry:
        return
    if getattr(cuda, "implementation", None) != "NVIDIA":
        raise RuntimeError(
            f"backend='cuda' needs the package numba-cuda, which is missing (Numba's own target is too old): {OPTIONAL}"
        )
    if (problem := driver_problem()) is not None:
        raise RuntimeError(f"backend='cuda' needs an NVIDIA driver and a GPU: {problem}")
    if (problem := toolkit_problem()) is not None:
        raise RuntimeError(f"backend='cuda' needs the CUDA toolkit's wheels: {problem}: {OPTIONAL}")


def driver_problem() -> str | None:
    """-> what is wrong with the driver or the GPU, or None."""
    from numba.cuda.cudadrv.driver import driver

    try:
        count = driver.get_device_count()
    except Exception as error:  # CudaSupportError, and on some machines whatever the loader raises
        return f"{_first_line(error)} Install NVIDIA's driver (nvidia-smi should list a GPU)."
    if not count:
        return "the driver lists no GPU; nvidia-smi should, and CUDA_VISIBLE_DEVICES must not hide it."
    return None


def toolkit_problem() -> str | None:
    """-> what is wrong with the compiler libraries, or None."""
    try:
        from numba.cuda.cudadrv.nvvm import NVVM

        NVVM()
    except Exception as error:  # NvvmSupportError, and whatever the loader raises
        return _first_line(error)
    return None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("Error at driver init")]
    return lines[0] if lines else type(error).__name__


# ---------------------------------------------------------------------------------------------- kernels


def scalars():
    """A context in which the factories of scalar functions make what kernels can call: plain Python in the simulator."""
    return jit.uncompiled() if SIMULATED else contextlib.nullcontext()


class Kernel:
    """A kernel made by a factory.

    Attributes
    ----------
    name : str
        With the factory's key.
    function : callable
        As written.
    threads : int or (int, int)
        The most that a block may have, and how many blocks a multiprocessor should hold at least; registers are shared out
        accordingly.
    """

    def __init__(self, function: Callable, key: tuple, threads: int | tuple[int, int]):
        self.function, self.threads = function, threads
        self.name = "-".join([function.__name__.removesuffix("_kernel"), *(str(part) for part in key)])

    @functools.cached_property
    def dispatcher(self):
        return cuda.jit(self.function) if SIMULATED else cuda.jit(launch_bounds=self.threads)(self.function)

    def __repr__(self) -> str:
        return f"Kernel({self.name!r})"


def kernel(*key, threads: int | tuple[int, int] = 256) -> Callable:
    """Decorate a kernel made by a factory; ``key`` is what the factory closed over, for its name in tables."""
    return lambda function: Kernel(function, key, threads)


@dataclass(frozen=True)
class Launch:
    """A kernel's launch, as written down."""

    kernel: Kernel
    grid: tuple[int, ...]
    threads: tuple[int, ...]
    args: tuple[Any, ...]
    flops: float

    @property
    def bytes(self) -> int:
        """Of all arrays it was given, each counted once: what it moves at least if it reads or writes all of them."""
        arrays = {id(arg): arg.nbytes for arg in self.args if len(getattr(arg, "shape", ()))}
        return sum(arrays.values())


def launch(kernel: Kernel, grid, threads, *args, flops: float = 0) -> None:
    """Run ``kernel`` on a grid of blocks of so many threads, each a number or a tuple; ``flops`` is for tables.

    Nothing is launched on an empty grid. Numbers must be NumPy's, of four bytes: a Python float would be a float64.
    """
    grid, threads = (tuple(shape) if isinstance(shape, tuple) else (int(shape),) for shape in (grid, threads))
    if 0 in grid:
        return
    if _state.record is not None:
        _state.record.append(Launch(kernel, grid, threads, args, flops))
    if not _state.dry:
        kernel.dispatcher[grid, threads, _state.stream](*args)


class _State:
    """What contexts below set."""

    record: list[Launch] | None = None
    dry = False
    stream: Any = 0
    arena: Arena | None = None


_state = _State()


@contextlib.contextmanager
def _set(**values) -> Iterator[None]:
    old = {name: getattr(_state, name) for name in values}
    try:
        for name, value in values.items():
            setattr(_state, name, value)
        yield
    finally:
        for name, value in old.items():
            setattr(_state, name, value)


@contextlib.contextmanager
def launches() -> Iterator[list[Launch]]:
    """A context that gives the list to which launches are written down while they run."""
    record: list[Launch] = []
    with _set(record=record):
        yield record


@contextlib.contextmanager
def dry() -> Iterator[list[Launch]]:
    """A context that gives the list to which launches are written down instead of being run; arrays are the host's."""
    record: list[Launch] = []
    with _set(record=record, dry=True):
        yield record


def on_stream(stream):
    """A context in which launches and copies go to ``stream``, which may be one that captures a graph."""
    return _set(stream=stream)


# ---------------------------------------------------------------------------------------------- memory


class Arena:
    """Arrays that a step takes in order, and the next step takes again: after the first, nothing is allocated.

    The addresses stay the same as long as the shapes do, as a captured graph needs it. ``clear`` before each step.
    """

    def __init__(self):
        self.arrays: list[Any] = []
        self.place = 0
        self.allocations = 0  # so far; constant from the second step on

    def clear(self) -> None:
        self.place = 0

    def take(self, shape: tuple[int, ...], dtype) -> Any:
        """-> the next array, uninitialised."""
        if self.place == len(self.arrays):
            self.arrays.append(None)
        array = self.arrays[self.place]
        if array is None or array.shape != shape or array.dtype != dtype:
            array = self.arrays[self.place] = _allocate(shape, dtype)
            self.allocations += 1
        self.place += 1
        return array


def memory(arena: Arena | None):
    """A context in which ``empty`` takes arrays from an arena, or with None allocates them."""
    return _set(arena=arena)


def empty(shape, dtype=np.float32):
    """-> an uninitialised array on the device, from the arena where there is one."""
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(int(n) for n in shape)
    return _allocate(shape, np.dtype(dtype)) if _state.arena is None else _state.arena.take(shape, np.dtype(dtype))


def _allocate(shape, dtype):
    return np.empty(shape, dtype) if _state.dry else cuda.device_array(shape, dtype, stream=_state.stream)


def to_device(array: np.ndarray, to=None):
    """-> a copy of a C-contiguous array on the device, in the array ``to`` if one is given, else in one from ``empty``."""
    array = np.ascontiguousarray(array).reshape(np.shape(array))
    target = empty(array.shape, array.dtype) if to is None else to
    if array.size and not _state.dry:
        target.copy_to_device(array, stream=_state.stream)
    return target


def to_host(array, to: np.ndarray | None = None) -> np.ndarray:
    """-> a copy on the host, once all that was launched before is done."""
    if _state.dry:
        return np.zeros(array.shape, array.dtype) if to is None else to
    if to is None:
        to = np.empty(array.shape, array.dtype)
    if to.size:
        array.copy_to_host(to, stream=_state.stream)
        if _state.stream:
            _state.stream.synchronize()
    return to


def constant(array: np.ndarray):
    """-> a small array on the device that nobody changes; equal ones are one."""
    array = np.ascontiguousarray(array)
    return _constant(array.tobytes(), array.shape, array.dtype.str, _state.dry)


@functools.lru_cache(maxsize=1024)
def _constant(data: bytes, shape: tuple[int, ...], dtype: str, dry: bool):
    with memory(None):
        return to_device(np.frombuffer(data, dtype).reshape(shape))


def fill(array, value) -> None:
    """Set all numbers of a float32 array."""
    flat = array.reshape(array.size)
    launch(make_fill(), size(flat.size), THREADS, np.float32(value), flat)


@functools.cache
def make_fill():
    @kernel()
    def fill_kernel(value, flat):
        """-> flat (N,)."""
        i = cuda.grid(1)
        if i < flat.size:
            flat[i] = value

    return fill_kernel


def size(count: int, threads: int = THREADS) -> int:
    """-> blocks of so many threads that cover ``count``."""
    return -(-int(count) // threads)

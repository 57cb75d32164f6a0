"""The only place with Numba options, and the owner of the compiled kernels on disk.

Why not ``njit(cache=True)``: Numba's cache does not notice an edit of a helper in another file, misses in every new process
for a kernel that closes over another jitted function (every kernel made by a factory here), and fails on a truncated file.
Here an entry's name is a digest of everything its machine code depends on (see ``_digest``), its bytes carry their own SHA-256,
and anything wrong with the folder or the file means one thing: compile again.

The folder is ``$SPIKEFLOW_CACHE_DIR``, else ``$XDG_CACHE_HOME/spikeflow/jit``, else ``~/.cache/spikeflow/jit``. It must belong
to the user and be writable by nobody else, since entries hold code; otherwise nothing is cached. Delete it to clear the cache.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
import pickle
import secrets
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import llvmlite.binding
import numba
from numba.core import config
from numba.core.bytecode import FunctionIdentity
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

__all__ = ["UNKNOWN", "cache_folder", "inline", "kernel", "uncompiled"]

llvmlite.binding.set_option("", "--runtime-memory-check-threshold=128")
OPTIONS = {"nogil": True, "error_model": "numpy"}
UNKNOWN = object()  # in a kernel's key: something whose code we cannot name


def kernel(*key) -> Callable:
    """Decorate a serial kernel made by a factory; ``key`` is what the factory closed over (names and numbers).

    A key with ``UNKNOWN`` in it, a user's own function, is compiled in every process and never stored.

    Kernels release the GIL (parallel.py runs them side by side) and divide as NumPy does: the default error model adds a branch
    to each division, which keeps loops scalar. No fast-math: every operation is rounded as written, NaN and infinity keep their
    meaning. Only ``simd.vector_operations`` fuse a product into a sum.
    """

    def decorate(function: Callable) -> Callable:
        dispatcher = numba.njit(**OPTIONS)(function)
        if UNKNOWN not in key and _symbols_are_unique:
            names = tuple(str(part) for part in key)
            dispatcher._cache = _KernelCache((function.__module__, function.__qualname__, *names))
        return dispatcher

    return decorate


def inline(function: Callable) -> Callable:
    """Compile a function that kernels call: never stored by itself, its code becomes part of theirs.

    CUDA kernels may call it too: Numba compiles it once more for them, from its source.
    """
    return function if _uncompiled else numba.njit(**OPTIONS, forceinline=True)(function)


_uncompiled = False


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """A context in which ``inline`` leaves functions as they are, for kernels that run as Python does."""
    global _uncompiled
    before, _uncompiled = _uncompiled, True
    try:
        yield
    finally:
        _uncompiled = before


def _make_symbols_unique() -> bool:
    """Start Numba's count of compiled functions at a random number; False if this Numba keeps no such count.

    The count is part of a function's symbol, and a process that loads two kernels with a symbol in common silently runs one in
    place of the other. Counts that start at 1 in every process make that likely: factories give all their kernels one name.
    """
    if not hasattr(FunctionIdentity, "_unique_ids"):
        return False
    FunctionIdentity._unique_ids = itertools.count(secrets.randbits(60))
    return True


_symbols_are_unique = _make_symbols_unique()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_make_symbols_unique)


def cache_folder() -> Path:
    """The folder of the compiled kernels, which need not exist; FileNotFoundError where no such place is known."""
    if os.environ.get("SPIKEFLOW_CACHE_DIR"):
        return Path(os.environ["SPIKEFLOW_CACHE_DIR"])
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "spikeflow" / "jit"
    try:
        return Path.home() / ".cache" / "spikeflow" / "jit"
    except RuntimeError as error:  # a user without a home
        raise FileNotFoundError(f"no folder for compiled kernels: {error}") from error


@functools.cache
def _source_hash() -> str:
    """SHA-256 over the sources of ``kernels`` and ``ops``: an edit anywhere in them invalidates every entry."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(path for room in ("kernels", "ops") for path in (root / room).rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


class _KernelCache:
    """What a Numba dispatcher asks of its cache, for one kernel."""

    def __init__(self, key: tuple[str, ...]):
        self.key = key

    @property
    def cache_path(self) -> str:
        return str(cache_folder())

    def load_overload(self, signature, target_context):
        """-> the compiled kernel for this signature, or None where there is no sound entry."""
        target_context.refresh()
        try:
            path = self._path(signature, target_context.codegen())
            blob = path.read_bytes()
        except OSError:
            return None
        digest, payload = blob[:32], blob[32:]
        try:
            if hashlib.sha256(payload).digest() != digest:
                raise ValueError("damaged entry")
            return CompileResult._rebuild(target_context, *pickle.loads(payload))
        except Exception:  # whatever is wrong with an entry, compiling again is right
            with contextlib.suppress(OSError):
                path.unlink()
            return None

    def save_overload(self, signature, result) -> None:
        """Write the compiled kernel; a folder that cannot be written costs the cache, not the run."""
        if result.library.has_dynamic_globals:
            return
        try:
            path = self._path(signature, result.codegen)
            payload = dumps(result._reduce())
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(payload).digest() + payload)
                os.replace(name, path)
            except BaseException:
                os.unlink(name)
                raise
        except OSError:
            return

    def enable(self) -> None:
        """Part of Numba's interface; the cache is always on."""

    disable = flush = enable

    def _path(self, signature, codegen) -> Path:
        return _checked_folder() / f"{self.key[1].replace('<locals>.', '')}-{self._digest(signature, codegen)}"

    def _digest(self, signature, codegen) -> str:
        """Everything that the machine code depends on; Numba's own key leaves out bounds checks and other files."""
        parts = (
            self.key,
            str(signature),
            codegen.magic_tuple(),
            sys.version,
            numba.__version__,
            llvmlite.__version__,
            config.BOUNDSCHECK,
            config.OPT,
            _source_hash(),
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def _checked_folder() -> Path:
    """-> the folder, made if need be; PermissionError if others could have written to it."""
    folder = cache_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid"):
        status = folder.stat()
        if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"{folder} must belong to the user and be writable by nobody else")
    return folder

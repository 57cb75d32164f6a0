"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["atomic_write"]


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a file beside ``path`` for writing; when the block ends well it is flushed to disk and takes the name ``path``.

    Readers see the old file or the new one, never a part; of several writers the last to finish wins. After an exception the
    old file stays, and no other is left; only if all went well but for the folder's own flush, the new one stands. The new
    file has the permissions that the process gives to new files, but none that the old one lacked.

    A writer that is killed leaves its temporary file, ``.NAME-*.tmp``. The next one to end well removes it: a living writer
    holds a lock on its own. (Not on Windows, which has no such locks.)
    """
    path = Path(path)
    with _flushed(path.parent), _temporary(path) as (file, name):
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    _remove_stale(path)


@contextlib.contextmanager
def _flushed(folder: Path) -> Iterator[None]:
    """Make names that the block changes in a folder survive a power cut, where the system can open folders."""
    if os.name != "posix":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield
        _flush_folder(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that does not flush folders
            raise


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file beside ``path``, open and locked for the block, and removed if that fails."""
    mode = _mode(path)
    while True:
        name = path.with_name(f".{path.name}-{secrets.token_hex(8)}.tmp")
        file = open(name, "xb", opener=lambda name, flags: os.open(name, flags, mode))
        try:
            with _locked(file):
                if os.path.lexists(name):
                    yield file, name
                    return
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        finally:
            with contextlib.suppress(OSError):
                file.close()
        # Before it was locked, another writer took the file for that of a dead one and removed it.


@contextlib.contextmanager
def _locked(file: BinaryIO) -> Iterator[None]:
    """Hold a lock on a file to the end of the block, even if the file is closed before."""
    if fcntl is None:
        yield
        return
    descriptor = os.dup(file.fileno())
    try:
        with contextlib.suppress(OSError):  # a file system without locks: nothing will be removed there, either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _mode(path: Path) -> int:
    """Permissions for the file that replaces ``path``, before the process's mask."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode) & 0o666
    except FileNotFoundError:
        return 0o666


def _remove_stale(path: Path) -> None:
    """Remove temporary files for ``path`` that no living writer holds."""
    if fcntl is None:
        return
    pattern = re.compile(re.escape(f".{path.name}-") + r"[0-9a-f]{16}\.tmp")
    with contextlib.suppress(OSError):
        for name in filter(pattern.fullmatch, os.listdir(path.parent)):
            _remove_unlocked(path.with_name(name))


def _remove_unlocked(path: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        finally:
            os.close(descriptor)

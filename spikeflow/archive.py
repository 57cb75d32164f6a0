"""Named arrays and a description of them in one file, which is read whole or refused.

The file is an npz that ``np.load`` reads without pickle: a zip of npy members, uncompressed. The first member, ``spikeflow``, is
the manifest, JSON as bytes. The comment at the end of the zip is the SHA-256, in hexadecimal digits, of all bytes before it.

    local header, npy header, manifest
    local header, npy header, data             of each array, in the manifest's order
    central directory and end records          zip64, whatever the size: one way for all files
    digest

Apart from the manifest and the data, each byte follows from these two. So the reader hardly parses: it takes the manifest's
length from the first header; what the manifest declares must come to the very size of the file, before an array is made; and
headers and directory must be what the writer would have written. No file claims more than it holds.

Format 1, which ``np.savez`` wrote, had neither digest nor list of arrays; it is read with zip's own checksums.

Neither Numba nor any other module of the engine is needed here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import struct
import sys
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .files import atomic_write

__all__ = ["FORMAT", "OVERHEAD", "CheckpointError", "read_arrays", "refusing", "write_arrays"]

FORMAT = 2
MANIFEST = "spikeflow"  # the first member
RESERVED = ("format", "arrays")  # keys of the manifest that are not the caller's
DTYPES = frozenset(["|b1", "|i1", "|u1"]) | {
    order + kind for order in "<>" for kind in ("i2", "i4", "i8", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
}
MAX_DIMENSIONS = 32  # of NumPy before 2.0

# A manifest is small, but Python's objects are up to 40 times as large as their JSON; with these two limits, and one for the
# lists of arrays, reading a file takes at most its size and OVERHEAD.
MAX_MANIFEST = 2**22  # bytes
MAX_NESTED = 10**5  # objects and lists
OVERHEAD = 2**27  # bytes

BLOCK = 2**20
DIGEST = 64  # hexadecimal digits


class CheckpointError(ValueError):
    """A file that is not a sound checkpoint."""


class Entry(NamedTuple):
    """What the manifest says of an array."""

    name: str
    dtype: str  # as the npy header has it: "<f4"
    shape: tuple[int, ...]
    fortran_order: bool
    nbytes: int
    sha256: str


class Member(NamedTuple):
    """What the zip says of a member."""

    name: bytes
    crc: int
    size: int  # npy header and data


def write_arrays(path: str | os.PathLike, manifest: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write arrays and what is to be known about them to ``path``, whole or not at all.

    Parameters
    ----------
    path : str or path-like
    manifest : dict
        Anything JSON can hold, under other keys than "format" and "arrays".
    arrays : dict of str to ndarray
        Booleans, integers, real or complex numbers, of any shape. Must not change meanwhile.

    Raises
    ------
    TypeError
        An array of other things, objects above all; a manifest that JSON cannot hold.
    ValueError
        A name that a zip cannot hold, more than 32 dimensions, a reserved key, or a manifest of more than 4 MiB or 100000
        objects and lists.
    OSError
        The file cannot be written; the old one stays.
    """
    if taken := [key for key in RESERVED if key in manifest]:
        raise ValueError(f"manifest must not have the keys {' and '.join(RESERVED)}, which describe the file; got {taken[0]!r}")
    values = {_checked_name(name): _contiguous(name, array) for name, array in arrays.items()}
    entries = [_describe(name, array) for name, array in values.items()]
    text = json.dumps({"format": FORMAT, **manifest, "arrays": [entry._asdict() for entry in entries]}).encode()
    _check_extent(text)
    contents = [(MANIFEST, _npy_header("|u1", (len(text),), False), text)]
    contents += [(entry.name, _header_of(entry), _bytes(values[entry.name])) for entry in entries]
    parts, members = [], []
    for name, header, data in contents:
        members.append(_member(name, header, data))
        parts += [_local_header(members[-1]), header, data]
    parts.append(_directory(members))
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    with atomic_write(path) as file:
        for part in (*parts, digest.hexdigest().encode()):
            file.write(part)


def read_arrays(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read what ``write_arrays`` wrote, all of it verified, in memory for the file's size and at most ``OVERHEAD`` bytes more.

    Returns
    -------
    manifest : dict
    arrays : dict of str to ndarray
        Writable, with the dtypes (byte order included), shapes and memory orders that were written.

    Raises
    ------
    CheckpointError
        The file is damaged, or is no checkpoint, or was written by a later version. No content raises anything else.
    OSError
        The file cannot be opened or read, FileNotFoundError among them.
    """
    with refusing(path), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(-min(size, 22), os.SEEK_END)
        end = file.read(22)
        if end[:4] == b"PK\5\6" and end[20:] == b"\0\0":  # a zip without comment
            return _read_format_1(file, size, path)
        return _read(file, size, path)


@contextlib.contextmanager
def refusing(path: str | os.PathLike) -> Iterator[None]:
    """A block that works with what ``path`` holds: whatever goes wrong is a CheckpointError, but for the system's own errors."""
    try:
        yield
    except (OSError, MemoryError, CheckpointError):
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise CheckpointError(f"{path} is not a sound spikeflow checkpoint: {reason}") from error


# ---------------------------------------------------------------------------------------------------- arrays


def _checked_name(name: str) -> str:
    """-> name, if it can be that of an array; ValueError otherwise."""
    fits = isinstance(name, str) and name not in ("", MANIFEST) and "\0" not in name
    with contextlib.suppress(UnicodeEncodeError):
        if fits and len(_zip_name(name)) < 2**16:
            return name
    raise ValueError(f"arrays: a name must be text of 1 to 65531 bytes without NUL, other than {MANIFEST!r}; got {name!r:.99}")


def _contiguous(name: str, value) -> np.ndarray:
    """-> value as an array in C or Fortran order; TypeError or ValueError if a file cannot hold it."""
    array = np.asarray(value)
    if array.dtype.str not in DTYPES:
        raise TypeError(f"arrays[{name!r}] must hold booleans or numbers of up to 64 bits (complex: 128), got {array.dtype}")
    if array.ndim > MAX_DIMENSIONS:
        raise ValueError(f"arrays[{name!r}] must have at most {MAX_DIMENSIONS} dimensions, got {array.ndim}")
    return array if array.flags.forc else np.asarray(array, order="C")


def _describe(name: str, array: np.ndarray) -> Entry:
    fortran = not array.flags.c_contiguous
    return Entry(name, array.dtype.str, array.shape, fortran, array.nbytes, hashlib.sha256(_bytes(array)).hexdigest())


def _bytes(array: np.ndarray) -> np.ndarray:
    """The memory of an array in C or Fortran order, as (nbytes,) uint8."""
    return (array if array.flags.c_contiguous else array.T).reshape(-1).view(np.uint8)


def _allocate(dtype: str, shape: tuple[int, ...], fortran_order: bool, nbytes: int) -> np.ndarray:
    """-> an array for nbytes of data; ValueError if it would need another number."""
    if dtype not in DTYPES:
        raise ValueError(f"it has an array of type {dtype!r:.99}")
    itemsize = np.dtype(dtype).itemsize
    if math.prod(shape) * itemsize != nbytes:
        raise ValueError(f"it has an array of {nbytes} bytes, but of shape {shape}")
    # NumPy limits the product of the other dimensions of an empty array, too.
    if len(shape) > MAX_DIMENSIONS or math.prod(max(n, 1) for n in shape) * itemsize > sys.maxsize:
        raise ValueError(f"it has an array of shape {shape}, too large")
    return np.empty(shape, dtype, order="F" if fortran_order else "C")


# ---------------------------------------------------------------------------------------------------- manifest


def _check_extent(text: bytes) -> None:
    """ValueError if the manifest is larger than one may be."""
    nested = text.count(b"{") + text.count(b"[")
    if len(text) > MAX_MANIFEST or nested > MAX_NESTED:
        raise ValueError(
            f"the manifest has {len(text)} bytes with {nested} objects and lists, the limits are {MAX_MANIFEST} and {MAX_NESTED}"
        )


def _parse_manifest(text: bytes, wanted: int, path) -> dict[str, Any]:
    """-> what the JSON says, without its format, which must be the wanted one."""
    _check_extent(text)
    manifest = json.loads(text)
    if not isinstance(manifest, dict):
        raise ValueError("its manifest is no JSON object")
    found = manifest.pop("format", None)
    if found not in range(1, FORMAT + 1):
        raise CheckpointError(f"{path} has checkpoint format {found!r:.99}, this version reads formats 1 to {FORMAT}")
    if found != wanted:
        raise ValueError(f"it says format {found}, but is built as format {wanted}")
    return manifest


def _parse_entry(item: Any) -> Entry:
    """An item of the manifest's list of arrays; ValueError if it is none."""
    if not isinstance(item, dict) or set(item) != set(Entry._fields):
        raise ValueError(f"its manifest lists an array as {item!r:.99}")
    entry = Entry(**item)
    types = isinstance(entry.dtype, str), isinstance(entry.fortran_order, bool), isinstance(entry.sha256, str)
    lengths = isinstance(entry.shape, list) and len(entry.shape) <= MAX_DIMENSIONS and [*entry.shape, entry.nbytes]
    if not all(types) or not lengths or not all(type(n) is int and 0 <= n <= sys.maxsize for n in lengths):
        raise ValueError(f"its manifest lists an array as {item!r:.99}")
    return entry._replace(name=_checked_name(entry.name), shape=tuple(entry.shape))


# ---------------------------------------------------------------------------------------------------- format 2


def _read(file: BinaryIO, size: int, path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    _check_digest(file, size)
    file.seek(0)
    text, first = _read_manifest(file)
    manifest = _parse_manifest(text, FORMAT, path)
    entries = [_parse_entry(item) for item in manifest.pop("arrays")]
    if len({entry.name for entry in entries}) < len(entries):
        raise ValueError("its manifest lists an array twice")
    if _file_size(first, entries) != size:
        raise ValueError(f"it has {size} bytes, its manifest declares {_file_size(first, entries)}")
    arrays, members = {}, [first]
    for entry in entries:
        arrays[entry.name], member = _read_array(file, entry)
        members.append(member)
    _expect(file, _directory(members))
    return manifest, arrays


def _check_digest(file: BinaryIO, size: int) -> None:
    """ValueError unless the file ends with the digest of what comes before."""
    digest, left = hashlib.sha256(), size - DIGEST
    file.seek(0)
    while left > 0:
        block = _take(file, min(left, BLOCK))
        digest.update(block)
        left -= len(block)
    if left < 0 or file.read() != digest.hexdigest().encode():
        raise ValueError("it is damaged or something else: it does not end with the digest of its content")


def _read_manifest(file: BinaryIO) -> tuple[bytes, Member]:
    """-> the JSON text at the beginning of the file, and its member."""
    local = _take(file, len(_local_header(Member(_zip_name(MANIFEST), 0, 0))))
    header_size = len(_npy_header("|u1", (0,), False))
    size = int.from_bytes(local[-8:], "little") - header_size
    if not 0 <= size <= MAX_MANIFEST:
        raise ValueError(f"its manifest has {size} bytes, the limit is {MAX_MANIFEST}")
    header = _npy_header("|u1", (size,), False)
    _expect(file, header)
    text = _take(file, size)
    member = _member(MANIFEST, header, text)
    _check_equal(local, _local_header(member))
    return text, member


def _file_size(first: Member, entries: list[Entry]) -> int:
    members = [first, *(Member(_zip_name(entry.name), 0, len(_header_of(entry)) + entry.nbytes) for entry in entries)]
    return sum(len(_local_header(member)) + member.size for member in members) + len(_directory(members)) + DIGEST


def _read_array(file: BinaryIO, entry: Entry) -> tuple[np.ndarray, Member]:
    header = _header_of(entry)
    array = _allocate(entry.dtype, entry.shape, entry.fortran_order, entry.nbytes)
    local = _take(file, len(_local_header(Member(_zip_name(entry.name), 0, 0))))
    _expect(file, header)
    data = _bytes(array)
    _fill(file, data)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise ValueError(f"the data of {entry.name!r} are not those that were written")
    member = _member(entry.name, header, data)
    _check_equal(local, _local_header(member))
    return array, member


def _take(file: BinaryIO, size: int) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise ValueError("it ended while it was read")
    return content


def _fill(file: BinaryIO, data: np.ndarray) -> None:
    if file.readinto(data) != len(data):
        raise ValueError("it ended while it was read")


def _expect(file: BinaryIO, expected: bytes) -> None:
    _check_equal(_take(file, len(expected)), expected)


def _check_equal(found: bytes, expected: bytes) -> None:
    if found != expected:
        raise ValueError("its headers do not fit its manifest")


# ---------------------------------------------------------------------------------------------------- npy and zip


def _header_of(entry: Entry) -> bytes:
    return _npy_header(entry.dtype, entry.shape, entry.fortran_order)


def _npy_header(dtype: str, shape: tuple[int, ...], fortran_order: bool) -> bytes:
    """NumPy's npy format, version 1.0."""
    text = f"{{'descr': '{dtype}', 'fortran_order': {fortran_order}, 'shape': {shape}, }}"
    length = -(-(10 + len(text) + 1) // 64) * 64 - 10
    return b"\x93NUMPY\1\0" + struct.pack("<H", length) + text.encode().ljust(length - 1) + b"\n"


def _zip_name(name: str) -> bytes:
    return f"{name}.npy".encode()


def _member(name: str, header: bytes, data) -> Member:
    return Member(_zip_name(name), zlib.crc32(data, zlib.crc32(header)), len(header) + len(data))


# Of PKWARE's APPNOTE: version 4.5, names in UTF-8, stored, 1980-01-01 (section 4.4); sizes and offsets of 32 bits are all ones
# and stand with 64 bits in the zip64 field (4.5.3) and end record (4.3.14).
_VERSION, _UTF8, _STORED, _TIME, _DATE, _ELSEWHERE = 45, 0x800, 0, 0, 0x21, 0xFFFFFFFF
_UNIX, _MODE = 3 << 8, 0o100644 << 16


def _local_header(member: Member) -> bytes:
    common = _VERSION, _UTF8, _STORED, _TIME, _DATE, member.crc, _ELSEWHERE, _ELSEWHERE
    start = struct.pack("<4s5H3I2H", b"PK\3\4", *common, len(member.name), 20)
    return start + member.name + struct.pack("<2H2Q", 1, 16, member.size, member.size)


def _directory(members: list[Member]) -> bytes:
    """What stands behind the last member, but for the digest."""
    records, offset = [], 0
    for member in members:
        common = _VERSION, _UTF8, _STORED, _TIME, _DATE, member.crc, _ELSEWHERE, _ELSEWHERE
        lengths = len(member.name), 28, 0, 0, 0
        start = struct.pack("<4s6H3I5H2I", b"PK\1\2", _UNIX | _VERSION, *common, *lengths, _MODE, _ELSEWHERE)
        records.append(start + member.name + struct.pack("<2H3Q", 1, 24, member.size, member.size, offset))
        offset += len(_local_header(member)) + member.size
    size = sum(map(len, records))
    count = len(members)
    return b"".join(records) + (
        struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, _UNIX | _VERSION, _VERSION, 0, 0, count, count, size, offset)
        + struct.pack("<4sIQI", b"PK\6\7", 0, offset + size, 1)
        + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, _ELSEWHERE, _ELSEWHERE, DIGEST)
    )


# ---------------------------------------------------------------------------------------------------- format 1

_NPY_1 = re.compile(
    rb"\{'descr': '([<>|]\w{1,3})', 'fortran_order': (True|False), 'shape': \((\d{1,19}(?:, \d{1,19})*,?)?\), \} *\n"
)


def _read_format_1(file: BinaryIO, size: int, path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The members of a zip, one behind the other as np.savez wrote them, up to its directory."""
    arrays = {}
    file.seek(0)
    while (start := file.read(30))[:4] == b"PK\3\4":
        flags, method, crc, name_size, extra_size = struct.unpack("<6x2H4xI8x2H", start)
        name = _take(file, name_size).decode().removesuffix(".npy")
        extra = _take(file, extra_size)
        tag, _, nbytes, packed = struct.unpack("<2H2Q", extra) if extra_size == 20 else (0, 0, 0, 0)
        if method or flags & ~_UTF8 or tag != 1 or packed != nbytes or not 10 <= nbytes <= size or name in arrays:
            raise ValueError(f"np.savez has not written its member {name!r:.99}")
        arrays[name], found = _read_member_1(file, nbytes)
        if found != crc:
            raise ValueError(f"the checksum of {name!r:.99} does not fit")
    text = arrays.pop(MANIFEST, None)
    if text is None:
        raise ValueError(f"it has no member {MANIFEST!r}")
    return _parse_manifest(text.tobytes(), 1, path), arrays


def _read_member_1(file: BinaryIO, size: int) -> tuple[np.ndarray, int]:
    """An npy member of size bytes -> its array and its checksum."""
    start = _take(file, 10)
    text = _take(file, int.from_bytes(start[8:], "little"))
    header = _NPY_1.fullmatch(text)
    if start[:8] != b"\x93NUMPY\1\0" or header is None:
        raise ValueError("it has a member that is no array of np.savez")
    shape = tuple(map(int, re.findall(rb"\d+", header[3] or b"")))
    array = _allocate(header[1].decode(), shape, header[2] == b"True", size - len(start) - len(text))
    data = _bytes(array)
    _fill(file, data)
    return array, zlib.crc32(data, zlib.crc32(start + text))

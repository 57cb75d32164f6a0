"""Reader of IDX files, the format of MNIST: a four-byte magic, the dimensions, then the elements, all big-endian."""

from __future__ import annotations

import contextlib
import lzma
import math
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

__all__ = ["DatasetError", "parse_idx", "read_bounded", "read_idx"]

MAX_BYTES = 2**30

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DIMENSIONS = 8
_LONGEST_HEADER = 4 + 4 * _MAX_DIMENSIONS
_GZIP_MAGIC = b"\x1f\x8b"
_XZ_MAGIC = b"\xfd7zXZ\x00"
_BLOCK = 2**16
# An xz header may declare a dictionary of 4 GiB, which is allocated before a byte is decoded; ``xz -9`` needs 65 MiB.
_XZ_MEMORY = 2**28


class DatasetError(ValueError):
    """A data file is malformed or is not the file it should be."""


def read_idx(path: str | os.PathLike, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """Read an IDX file: plain, gzip or xz, told apart by the first bytes of the file.

    A compressed file must hold exactly one gzip member or xz stream, with nothing after it. No more is decompressed than the
    IDX header declares, and nothing if that is more than `max_bytes`.

    Parameters
    ----------
    path : str or path-like
    max_bytes : int
        Largest decompressed size accepted, in bytes.

    Returns
    -------
    array of the shape and type that the file declares, in native byte order, writable

    Raises
    ------
    DatasetError
        If the file is not a well-formed IDX file, or its content is larger than `max_bytes`. No content raises
        anything else.
    OSError
        If the file cannot be opened or read, FileNotFoundError among them.
    """
    name = os.fspath(path)
    data = bytearray()
    with open(path, "rb") as stream, _refusing(name):
        blocks = _blocks(stream, name)
        while len(data) < _LONGEST_HEADER and (block := next(blocks, None)) is not None:
            data += block
        header = _parse_header(data, name)
        if header.size > max_bytes:
            raise DatasetError(f"{name}: the header declares {header}, more than the accepted {max_bytes}")
        while len(data) <= header.size and (block := next(blocks, None)) is not None:
            data += block
        if len(data) > header.size:
            raise DatasetError(f"{name}: at least {len(data)} bytes, but the header declares {header}")
    return parse_idx(data, name)


def read_bounded(stream: BinaryIO, name: str, max_bytes: int = MAX_BYTES) -> bytearray:
    """Read a seekable binary stream to its end, decompressed if it is gzip or xz.

    Parameters
    ----------
    stream : binary file, at its start
    name : str
        What messages call the file.
    max_bytes : int
        Largest decompressed size accepted, in bytes.

    Returns
    -------
    bytearray, the decompressed content

    Raises
    ------
    DatasetError
        If the compressed stream is corrupt, truncated or followed by more bytes, or the content exceeds `max_bytes`.
    """
    content = bytearray()
    with _refusing(name):
        for block in _blocks(stream, name):
            content += block
            if len(content) > max_bytes:
                raise DatasetError(f"{name}: more than the accepted {max_bytes} bytes")
    return content


def parse_idx(data: bytes | bytearray, name: str) -> np.ndarray:
    """Decode the decompressed bytes of an IDX file.

    Parameters
    ----------
    data : bytes-like
    name : str
        What messages call the file.

    Returns
    -------
    array of the shape and type that the header declares, in native byte order, writable and apart from `data`

    Raises
    ------
    DatasetError
        If the header is malformed or the byte count is not exactly what the header declares.
    """
    header = _parse_header(data, name)
    if len(data) != header.size:
        raise DatasetError(f"{name}: {len(data)} bytes, but the header declares {header}")
    with _refusing(name):
        array = np.ndarray(header.shape, header.dtype, buffer=data, offset=header.offset)
        return array.astype(header.dtype.newbyteorder("="))


class _Header(NamedTuple):
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def offset(self) -> int:
        """Of the elements."""
        return 4 + 4 * len(self.shape)

    @property
    def size(self) -> int:
        """Bytes of the whole content."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"shape {self.shape}, thus {self.size} bytes"


def _parse_header(data: bytes | bytearray, name: str) -> _Header:
    if len(data) < 4:
        raise DatasetError(f"{name}: {len(data)} bytes, too few for an IDX header")
    if data[0] or data[1]:
        raise DatasetError(f"{name}: not an IDX file: it starts with {bytes(data[:2]).hex(' ')}, not 00 00")
    code, ndim = data[2], data[3]
    if code not in _DTYPES:
        known = ", ".join(f"0x{each:02x}" for each in _DTYPES)
        raise DatasetError(f"{name}: unknown IDX type code 0x{code:02x}, known are {known}")
    if not 1 <= ndim <= _MAX_DIMENSIONS:
        raise DatasetError(f"{name}: {ndim} dimensions, accepted are 1 to {_MAX_DIMENSIONS}")
    if len(data) < 4 + 4 * ndim:
        raise DatasetError(f"{name}: {len(data)} bytes, too few for an IDX header of {ndim} dimensions")
    header = _Header(np.dtype(_DTYPES[code]), struct.unpack_from(f">{ndim}I", data, 4))
    # A dimension of zero makes any other sizes fit an empty file, but NumPy limits their product all the same.
    if 0 in header.shape and math.prod(max(n, 1) for n in header.shape) * header.dtype.itemsize > sys.maxsize:
        raise DatasetError(f"{name}: shape {header.shape} is too large for an array")
    return header


@contextlib.contextmanager
def _refusing(name: str) -> Iterator[None]:
    """A block in which the content of a file may fail to be decompressed, or to fit into memory."""
    try:
        yield
    except (zlib.error, lzma.LZMAError) as error:
        raise DatasetError(f"{name}: corrupt compressed data: {error}") from error
    except MemoryError as error:
        raise DatasetError(f"{name}: not enough memory for its content") from error


def _blocks(stream: BinaryIO, name: str) -> Iterator[bytes]:
    """-> the content of a file, decompressed if it is gzip or xz, at most ``_BLOCK`` bytes at a time."""
    head = stream.read(len(_XZ_MAGIC))
    stream.seek(0)
    if head.startswith(_GZIP_MAGIC):
        return _gzip_blocks(stream, name)
    if head == _XZ_MAGIC:
        return _xz_blocks(stream, name)
    return iter(lambda: stream.read(_BLOCK), b"")


def _gzip_blocks(stream: BinaryIO, name: str) -> Iterator[bytes]:
    """-> the content of one gzip member, at most ``_BLOCK`` bytes at a time."""
    # Not the gzip module: it accepts further members and zero padding.
    decoder = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    while not decoder.eof:
        compressed = decoder.unconsumed_tail or stream.read(_BLOCK)
        if not compressed:
            raise DatasetError(f"{name}: the gzip stream is truncated")
        yield decoder.decompress(compressed, _BLOCK)
    if decoder.unused_data or stream.read(1):
        raise DatasetError(f"{name}: bytes follow the end of the gzip stream")


def _xz_blocks(stream: BinaryIO, name: str) -> Iterator[bytes]:
    """-> the content of one xz stream, at most ``_BLOCK`` bytes at a time."""
    # Not lzma.LZMAFile: it accepts further streams and ignores what follows them.
    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
    while not decoder.eof:
        compressed = stream.read(_BLOCK) if decoder.needs_input else b""
        if decoder.needs_input and not compressed:
            raise DatasetError(f"{name}: the xz stream is truncated")
        yield decoder.decompress(compressed, _BLOCK)
    if decoder.unused_data or stream.read(1):
        raise DatasetError(f"{name}: bytes follow the end of the xz stream")

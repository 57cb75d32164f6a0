"""Reader of IDX files, the format of MNIST: a four-byte magic, the dimensions, then the elements, all big-endian."""

from __future__ import annotations

import lzma
import math
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

__all__ = ["DatasetError", "parse_idx", "read_bounded", "read_idx"]

MAX_BYTES = 2**30

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DIMENSIONS = 8
_GZIP_MAGIC = b"\x1f\x8b"
_XZ_MAGIC = b"\xfd7zXZ\x00"
_BLOCK = 2**16
# An xz header may declare a dictionary of 4 GiB, which is allocated before a byte is decoded; ``xz -9`` needs 65 MiB.
_XZ_MEMORY = 2**28


class DatasetError(ValueError):
    """A data file is malformed or is not the file it should be."""


def read_idx(path: str | os.PathLike, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """Read an IDX file: plain, gzip or xz, told apart by the first bytes of the file.

    A compressed file must hold exactly one gzip member or xz stream, with nothing after it.

    Parameters
    ----------
    path : str or path-like
    max_bytes : int
        Largest decompressed size accepted, in bytes; decompression stops there.

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
    with open(path, "rb") as stream:
        data = read_bounded(stream, os.fspath(path), max_bytes)
    return parse_idx(data, os.fspath(path))


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
    head = stream.read(len(_XZ_MAGIC))
    stream.seek(0)
    if head.startswith(_GZIP_MAGIC):
        blocks = _gzip_blocks(stream, name)
    elif head == _XZ_MAGIC:
        blocks = _xz_blocks(stream, name)
    else:
        blocks = iter(lambda: stream.read(_BLOCK), b"")
    content = bytearray()
    try:
        for block in blocks:
            content += block
            if len(content) > max_bytes:
                raise DatasetError(f"{name}: more than the accepted {max_bytes} bytes")
    except (zlib.error, lzma.LZMAError) as error:
        raise DatasetError(f"{name}: corrupt compressed data: {error}") from error
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
    header = 4 + 4 * ndim
    if len(data) < header:
        raise DatasetError(f"{name}: {len(data)} bytes, too few for an IDX header of {ndim} dimensions")
    shape = struct.unpack_from(f">{ndim}I", data, 4)
    dtype = np.dtype(_DTYPES[code])
    expected = header + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise DatasetError(f"{name}: {len(data)} bytes, but the header declares shape {shape}, thus {expected} bytes")
    # A dimension of zero makes any other sizes fit an empty file, but NumPy limits their product all the same.
    if math.prod(max(size, 1) for size in shape) * dtype.itemsize > sys.maxsize:
        raise DatasetError(f"{name}: shape {shape} is too large for an array")
    return np.ndarray(shape, dtype, buffer=data, offset=header).astype(dtype.newbyteorder("="))


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
